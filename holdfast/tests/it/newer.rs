//! Newer producers: schemas that come later, and commands that this version does not know.

use domain::{EventBody, Reason};
use schemas::{Registry, records::InventoryCommand, topics::COMMANDS};
use serde_json::{Value, json};

use crate::{
    wire::{Wire, adjusting, lane},
    world::Setup,
};

/// Our command schema with one more field at its end, and a name that makes it unlike all others.
fn newer_schema(name: &str) -> String {
    let mut schema: Value = serde_json::from_str(COMMANDS.schema.expect("it has one")).expect("JSON");
    let fields = schema["fields"].as_array_mut().expect("fields");
    fields.push(json!({"name": "channel", "type": "string", "default": "", "doc": name}));
    schema.to_string()
}

/// A command as a newer producer writes it: with the new field at its end.
fn newer_bytes(wire: &Wire<'_>, id: u32, command: &InventoryCommand) -> Vec<u8> {
    let mut bytes = wire.codec.encode_command_record(command);
    bytes.splice(1..5, id.to_be_bytes());
    bytes.extend([6]); // Avro: a text of three bytes.
    bytes.extend(b"web");
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_schema_was_registered_too_late_is_sent_once_by_hand() {
    let world = Setup::new().with("HOLDFAST_UNKNOWN_SCHEMA_SECONDS", 1).start().await;
    let wire = &Wire::of(&world).await;
    let registry = Registry::new(world.connections.registry_url.expose()).expect("a URL");
    let prefix = &world.connections.topic_prefix;
    let sku = &world.sku_in(lane(3), "late");
    let mut sent = 0;
    // The registry counts its ids up; somebody else may take the next one, then we try again.
    for attempt in 0..10 {
        let filler = json!({"type": "record", "name": "Filler", "fields": [], "doc": format!("{prefix}{attempt}")});
        let latest = registry
            .register(&format!("{prefix}filler-{attempt}"), &filler.to_string())
            .await
            .expect("taken");
        let bytes = newer_bytes(wire, latest + 1, &adjusting(&format!("late-{attempt}"), sku, 5));
        // In a lane that is not its own, too: it is sent where it belongs.
        let offset = wire.write_command_bytes(lane(attempt % 4), "late", Some(&bytes)).await;
        let refused = wire.decision(lane(attempt % 4), offset).await;
        assert!(
            matches!(
                refused.body,
                EventBody::CommandRefused {
                    reason: Reason::Malformed,
                    ..
                }
            ),
            "{refused:?}"
        );
        let schema = newer_schema(&format!("{prefix}{attempt}"));
        let registered = registry
            .register(&format!("{prefix}newer-{attempt}"), &schema)
            .await
            .expect("taken");
        if registered == latest + 1 {
            sent = attempt + 1;
            break;
        }
    }
    assert!(sent > 0, "the registry does not count its ids up");
    let letter = (sent - 1).to_string();
    assert_eq!(world.get(&format!("/v1/stock/{sku}")).await.code(), "unknown_sku");
    for round in 0..3 {
        let (code, out, error) = world.run(&["dead-letters", "send", &letter]).await;
        assert_eq!(code, 0, "{error}");
        assert!(out.contains("of lane 3"), "{out}");
        let end = wire.ends(&wire.topics.commands).await[3];
        let event = wire.decision(lane(3), end - 1).await;
        match &event.body {
            EventBody::StockAdjusted { change: 5, .. } if round == 0 => {}
            EventBody::CommandRefused {
                reason: Reason::AlreadyApplied,
                ..
            } if round > 0 => {}
            other => panic!("round {round}: {other:?}"),
        }
    }
    assert_eq!(world.counters(sku).await, (5, 0, 0, 5));

    // By now the schema is known: such records are read at once.
    let id = registry
        .register(
            &format!("{prefix}newer-{letter}"),
            &newer_schema(&format!("{prefix}{letter}")),
        )
        .await;
    let bytes = newer_bytes(wire, id.expect("known"), &adjusting("late-no-more", sku, 2));
    let offset = wire.write_command_bytes(lane(3), "late", Some(&bytes)).await;
    assert!(matches!(
        wire.decision(lane(3), offset).await.body,
        EventBody::StockAdjusted { change: 2, .. }
    ));
    world.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_a_newer_version_pauses_its_lane_with_a_message_and_is_never_buried() {
    let world = Setup::new().start().await;
    let wire = &Wire::of(&world).await;
    let (paused, other) = (world.sku_in(lane(0), "newer"), world.sku_in(lane(1), "newer"));
    world.stock(&paused, 5).await;
    let mut schema: Value = serde_json::from_str(COMMANDS.schema.expect("it has one")).expect("JSON");
    let fields = schema["fields"].as_array_mut().expect("fields");
    let body = fields.iter_mut().find(|field| field["name"] == "body").expect("a body");
    let branches = body["type"].as_array_mut().expect("a union");
    let index = branches.len() as u8;
    branches.push(json!({"type": "record", "name": "Donate", "fields": []}));
    let registry = Registry::new(world.connections.registry_url.expose()).expect("a URL");
    let subject = COMMANDS.subject(&world.connections.topic_prefix);
    let id = registry
        .register(&subject, &schema.to_string())
        .await
        .expect("a compatible change");
    // The envelope of any command, then the new branch.
    let envelope = wire.codec.encode_command_record(&adjusting("newer", &paused, 1));
    let start = envelope
        .windows(1 + paused.len())
        .rposition(|at| &at[1..] == paused.as_bytes())
        .expect("its SKU");
    let mut bytes = envelope[..start - 1].to_vec();
    bytes.splice(1..5, id.to_be_bytes());
    bytes.push(index * 2); // Avro: the branch's number, zigzag.
    wire.write_command_bytes(lane(0), &paused, Some(&bytes)).await;

    let body = json!({"lines": [{"sku": paused, "quantity": 1}], "user_id": "ann"});
    let waiting = world
        .request(world.posting("/v1/holds", &body).header("Prefer", "wait=3"))
        .await;
    assert_eq!((waiting.status, waiting.state()), (202, "pending"), "{waiting:?}");
    world.stock(&other, 5).await;
    assert_eq!(
        world.reserve("newer-other", &other, 1, "ann").await.status,
        201,
        "other lanes go on"
    );
    let ready = world.get("/readyz").await;
    assert!(
        ready.status == 503 && ready.body.to_string().contains("Donate"),
        "whoever looks is told: {ready:?}"
    );
    assert_eq!(wire.dead_letters().await, [], "never buried");
}
