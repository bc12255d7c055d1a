//! What cannot be read is buried with where and why, its lane goes on.

use std::collections::BTreeMap;

use domain::{EventBody, Reason};
use schemas::records::{AdjustStock, Cancel, CommandBody, Extend, InventoryCommand, Reserve, ReserveLine};
use serde_json::{Value, json};

use crate::{
    wire::{Wire, adjusting, command, confirming, hold_id, json_lines, lane, reserving},
    world::{Setup, World},
};

/// An id that no registry has given yet.
const UNKNOWN_SCHEMA: u32 = 2_000_000_000;

/// Records that can never be read: what, bytes, and a word of the reason.
fn poison(wire: &Wire<'_>, event: Vec<u8>) -> Vec<(&'static str, Option<Vec<u8>>, &'static str)> {
    let good = wire.codec.encode_command_record(&adjusting("poison", "mug", 1));
    let with = |range: std::ops::Range<usize>, bytes: &[u8]| {
        let mut value = good.clone();
        value.splice(range, bytes.iter().copied());
        Some(value)
    };
    let long_text = [
        &good[..5],
        &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        b"x",
    ]
    .concat();
    vec![
        ("a null value", None, "null"),
        ("an empty value", Some(Vec::new()), "empty"),
        ("garbage", Some(b"{\"sku\":\"mug\"}".to_vec()), "0x7b"),
        ("garbage bytes", Some((0..=255).rev().collect()), "0xff"),
        ("a wrong magic byte", with(0..1, &[1]), "0x01"),
        ("a cut schema id", Some(good[..3].to_vec()), "cut off"),
        ("only a schema id", Some(good[..5].to_vec()), ""),
        ("a truncated record", Some(good[..good.len() - 4].to_vec()), ""),
        (
            "bytes behind the record",
            with(good.len()..good.len(), b"more"),
            "4 bytes are left",
        ),
        ("a text longer than any record", Some(long_text), ""),
        (
            "an unknown schema id",
            with(1..5, &UNKNOWN_SCHEMA.to_be_bytes()),
            "2000000000",
        ),
        (
            "the same unknown id again",
            with(1..5, &UNKNOWN_SCHEMA.to_be_bytes()),
            "2000000000",
        ),
        ("an event", Some(event), "InventoryEvent"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_buried_with_where_and_why_and_the_lane_goes_on() {
    let world = Setup::new().with("HOLDFAST_UNKNOWN_SCHEMA_SECONDS", 1).start().await;
    let wire = &Wire::of(&world).await;
    let sku = &world.sku_in(lane(1), "buried");
    let event = wire.events(lane(1)).await.remove(0).record.value.expect("an event");
    let mut buried = Vec::new();
    for (number, (what, value, why)) in poison(wire, event).into_iter().enumerate() {
        let offset = wire.write_command_bytes(lane(1), what, value.as_deref()).await;
        buried.push((offset, what, value, why));
        wire.write_command(lane(1), &adjusting(&format!("good-{number}"), sku, 1))
            .await;
    }
    // Behind all of it, over HTTP.
    world.stock(sku, 100).await;
    assert_eq!(world.reserve("buried-key", sku, 1, "ann").await.status, 201);
    let decisions: BTreeMap<i64, _> = wire
        .decisions(lane(1))
        .await
        .into_iter()
        .map(|event| (event.command_offset, event))
        .collect();
    let applied = |event: &&domain::Event| {
        matches!(event.body, EventBody::StockAdjusted { .. }) && event.lines[0].sku.as_str() == sku
    };
    assert_eq!(
        decisions.values().filter(applied).count(),
        buried.len() + 1,
        "every good one counted"
    );

    let letters = wire.dead_letters().await;
    let listed = list(&world).await;
    assert_eq!(
        (letters.len(), listed.len()),
        (buried.len(), buried.len()),
        "each once: {listed:?}"
    );
    for ((letter, listed), (offset, what, value, why)) in letters.iter().zip(&listed).zip(&buried) {
        assert_eq!(
            (&letter.value, letter.key.as_deref()),
            (value, Some(what.as_bytes())),
            "the bytes as they were"
        );
        let place = (
            letter.header("holdfast.error.topic"),
            letter.header("holdfast.error.partition"),
        );
        assert_eq!(place, (Some(wire.topics.commands.as_str()), Some("1")), "{what}");
        assert_eq!(
            letter.header("holdfast.error.offset"),
            Some(offset.to_string().as_str()),
            "{what}"
        );
        assert_eq!(letter.header("holdfast.error.stage"), Some("reserver"));
        assert_eq!(
            listed["record_offset"].as_str().map(str::to_owned),
            Some(offset.to_string()),
            "{listed}"
        );
        assert_eq!(
            (&listed["topic"], &listed["partition"]),
            (&json!(wire.topics.commands), &json!("1")),
            "{listed}"
        );
        let message = listed["message"].as_str().unwrap_or_default();
        assert!(
            !message.is_empty() && message.contains(why),
            "{what}: {message:?} does not say {why:?}"
        );
        let EventBody::CommandRefused { reason, message: said } = &decisions[offset].body else {
            panic!("{what} has no refusal: {:?}", decisions[offset]);
        };
        assert_eq!(*reason, Reason::Malformed, "{what}");
        assert!(message.starts_with(said.as_str()), "{what}: {said}");
    }

    let end = wire.ends(&wire.topics.commands).await;
    let (code, out, error) = world.run(&["dead-letters", "show", "4"]).await;
    assert!(
        code == 0 && out.contains("a wrong magic byte") && out.contains("holdfast.error.message"),
        "{out}{error}"
    );
    for letter in 0..buried.len() {
        let (code, out, error) = world.run(&["dead-letters", "send", &letter.to_string()]).await;
        assert!(code == 1 && error.contains("cannot be read"), "{code} {out} {error}");
    }
    let (code, _, error) = world.run(&["dead-letters", "send", "999"]).await;
    assert!(code == 1 && error.contains("no dead letter"), "{error}");
    assert_eq!(wire.ends(&wire.topics.commands).await, end, "nothing was sent");
    world.assert_verified().await;
}

async fn list(world: &World) -> Vec<Value> {
    let (code, out, error) = world.run(&["dead-letters", "list", "--json"]).await;
    assert_eq!(code, 0, "{error}");
    json_lines(&out)
}

/// Commands that can be read and ask for what nobody may.
fn illegal() -> Vec<(&'static str, InventoryCommand)> {
    let reserve = |change: &dyn Fn(&mut Reserve)| {
        let mut command = reserving("illegal", "illegal-sku", 1, "ann");
        if let CommandBody::Reserve(reserve) = &mut command.body {
            change(reserve);
        }
        command
    };
    let adjust = |change: &dyn Fn(&mut AdjustStock)| {
        let mut command = adjusting("illegal", "illegal-sku", 1);
        if let CommandBody::AdjustStock(adjust) = &mut command.body {
            change(adjust);
        }
        command
    };
    let hold = hold_id(lane(1), "illegal").to_string();
    let line = ReserveLine {
        sku: "illegal-sku".to_owned(),
        quantity: 1,
    };
    let mut all = vec![
        ("quantity 0", reserve(&|reserve| reserve.lines[0].quantity = 0)),
        ("quantity -1", reserve(&|reserve| reserve.lines[0].quantity = -1)),
        ("quantity 2^31", reserve(&|reserve| reserve.lines[0].quantity = 1 << 31)),
        (
            "the largest quantity",
            reserve(&|reserve| reserve.lines[0].quantity = i64::MAX),
        ),
        ("no line", reserve(&|reserve| reserve.lines.clear())),
        ("51 lines", reserve(&|reserve| reserve.lines = vec![line.clone(); 51])),
        (
            "a SKU with braces",
            reserve(&|reserve| reserve.lines[0].sku = "{0}".to_owned()),
        ),
        (
            "a SKU with a line break",
            reserve(&|reserve| reserve.lines[0].sku = "a\r\nb".to_owned()),
        ),
        (
            "a SKU with NUL",
            reserve(&|reserve| reserve.lines[0].sku = "a\0".to_owned()),
        ),
        (
            "a long SKU",
            reserve(&|reserve| reserve.lines[0].sku = "x".repeat(4_096)),
        ),
        ("no key", reserve(&|reserve| reserve.idempotency_key.clear())),
        (
            "a long key",
            reserve(&|reserve| reserve.idempotency_key = "k".repeat(256)),
        ),
        ("no user", reserve(&|reserve| reserve.user_id.clear())),
        ("a ttl of 0", reserve(&|reserve| reserve.ttl_ms = Some(0))),
        ("a long ttl", reserve(&|reserve| reserve.ttl_ms = Some(3_600_001))),
        (
            "an unknown policy",
            reserve(&|reserve| reserve.policy = "some".to_owned()),
        ),
        ("change and set", adjust(&|adjust| adjust.set = Some(1))),
        ("neither change nor set", adjust(&|adjust| adjust.change = None)),
        ("no reason", adjust(&|adjust| adjust.reason.clear())),
        ("no actor", adjust(&|adjust| adjust.actor.clear())),
        ("no hold id", confirming("illegal")),
        (
            "no ttl",
            command(
                "illegal",
                CommandBody::Extend(Extend {
                    hold_id: hold.clone(),
                    ttl_ms: -1,
                }),
            ),
        ),
        (
            "a long cancel reason",
            command(
                "illegal",
                CommandBody::Cancel(Cancel {
                    hold_id: hold,
                    reason: "r".repeat(256),
                }),
            ),
        ),
    ];
    let mut tenant = adjusting("illegal", "illegal-sku", 1);
    tenant.tenant = "a/b".to_owned();
    let mut no_id = adjusting("illegal", "illegal-sku", 1);
    no_id.command_id.clear();
    all.extend([("a tenant with a slash", tenant), ("no command id", no_id)]);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_can_be_read_but_are_not_allowed_are_refused_and_not_buried() {
    let world = World::shared().await;
    let wire = &Wire::of(world).await;
    let letters = wire.dead_letters().await.len();
    let mut written = Vec::new();
    for (what, command) in illegal() {
        written.push((wire.write_command(lane(1), &command).await, what, command.request_id));
    }
    let (last, ..) = written.last().expect("many");
    wire.decision(lane(1), *last).await;
    let decisions: BTreeMap<i64, _> = wire
        .decisions(lane(1))
        .await
        .into_iter()
        .map(|event| (event.command_offset, event))
        .collect();
    for (offset, what, request_id) in written {
        let event = &decisions[&offset];
        let EventBody::CommandRefused { reason, message } = &event.body else {
            panic!("{what}: {event:?}")
        };
        assert_eq!(
            (*reason, &event.request_id),
            (Reason::InvalidRequest, &request_id),
            "{what}"
        );
        assert!(!message.as_str().is_empty(), "{what} is told nothing");
    }
    assert_eq!(wire.dead_letters().await.len(), letters);
    // Whoever may be told under no name at all is still told by the offset.
    let mut nameless = adjusting("nameless", "illegal-sku", 1);
    nameless.request_id = "two words".to_owned();
    let offset = wire.write_command(lane(1), &nameless).await;
    assert_eq!(wire.decision(lane(1), offset).await.request_id, "");
    assert_eq!(
        world.get("/v1/stock/illegal-sku").await.code(),
        "unknown_sku",
        "nothing was done"
    );
}
