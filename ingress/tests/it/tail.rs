//! What the tail believes: valid events, from wherever it starts, also when a schema is new or cannot be read.

use std::time::Duration;

use domain::{Event, EventBody, HoldState, Lane, Reason};
use plumbing::kafka::producer::{Producer, Record};
use reqwest::Method;
use schemas::{Codec, headers, topics};
use serde_json::json;
use tokio::join;

use crate::{
    reserver::Reserver,
    world::{Api, Said, World, options, sku_in, wait_for},
};

fn lines(lane: i32) -> serde_json::Value {
    json!({"lines": [{"sku": sku_in(lane).as_str(), "quantity": 1}], "user_id": "u"})
}

/// I2: a zombie's records, and all others that the fold finds void, answer nobody and are remembered by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn void_events_answer_nobody() {
    let (world, api, mut reserver) = World::with_all().await;
    let body = lines(0);
    let decide = async {
        let asked = reserver.next().await;
        let zombie = reserver.created(&asked);
        // A newer owner: what the old one still writes is void.
        reserver.open(asked.lane).await;
        reserver.write(asked.lane, &zombie).await;
        let valid = reserver.created(&asked);
        for void in [
            Event {
                epoch: valid.epoch + 1,
                ..valid.clone()
            },
            Event {
                previous_command_offset: 5,
                ..valid.clone()
            },
            Event {
                command_offset: -1,
                ..valid.clone()
            },
        ] {
            reserver.write(asked.lane, &void).await;
        }
        // Without headers there is nothing to fold.
        let producer = Producer::new(&world.connections.kafka_brokers, "zombie", "0").unwrap();
        let value = world.codec.encode_event(&valid);
        let record = Record {
            topic: &world.topics.events,
            partition: Some(0),
            key: None,
            value: Some(&value),
            headers: &[],
        };
        producer.send(record).unwrap().await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let path = format!("/v1/holds/{}", asked.hold_id());
        api.get(&path).await.is_problem(404, "hold_not_found");
        let rejected = reserver.rejected(&asked, Reason::InsufficientStock, 0);
        reserver.decide(&asked, rejected.clone()).await;
        // Decided twice counts once.
        reserver.write(asked.lane, &valid).await;
        path
    };
    let (response, path) = join!(api.post("/v1/holds", &body).send(), decide);
    Said::read(response.unwrap())
        .await
        .is_problem(409, "insufficient_stock");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(api.get(&path).await.body["state"], "rejected");
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_schema_is_learned_and_what_cannot_be_read_stops_only_its_lane() {
    let (world, api, mut reserver) = World::with_all().await;
    // The same fields under another id, as an upgraded reserver would write them.
    let schema = topics::EVENTS.schema.unwrap();
    let newer = schema.replacen(
        "A record that says what was decided.",
        "A record of what was decided.",
        1,
    );
    assert_ne!(newer, schema);
    let subject = topics::EVENTS.subject(&world.connections.topic_prefix);
    let id = world.registry.register(&subject, &newer).await.unwrap();
    let known = world.registry.register(&subject, schema).await.unwrap();
    assert_ne!(id, known, "the registry tells them apart");
    let codec = Codec::with_ids(world.registry.clone(), id, id);

    let decide = async {
        let asked = reserver.next().await;
        let created = reserver.created(&asked);
        reserver.write_as(&codec, asked.lane, &created).await;
        reserver.count(&asked);
    };
    let (response, ()) = join!(api.post("/v1/holds", &lines(0)).send(), decide);
    assert_eq!(response.unwrap().status(), 201);
    // The lane goes on behind it.
    let decide = async {
        let asked = reserver.next().await;
        let created = reserver.created(&asked);
        reserver.decide(&asked, created).await;
    };
    let (response, ()) = join!(api.post("/v1/holds", &lines(0)).send(), decide);
    assert_eq!(response.unwrap().status(), 201);
    wait_for("readiness", async || api.is_down("tail").is_none()).await;

    // A valid event that cannot be read: its lane waits, the others go on.
    let request = api.post("/v1/holds", &lines(1)).header("Prefer", "respond-async");
    let location = Said::read(request.send().await.unwrap())
        .await
        .header("location")
        .to_owned();
    let asked = reserver.next().await;
    let created = reserver.created(&asked);
    let producer = Producer::new(&world.connections.kafka_brokers, "test", "0").unwrap();
    let record = Record {
        topic: &world.topics.events,
        partition: Some(1),
        key: None,
        value: Some(b"\0\0\0\0"),
        headers: &headers::of_event(&created, "/test"),
    };
    producer.send(record).unwrap().await.unwrap();
    wait_for("the reason", async || {
        api.is_down("tail")
            .is_some_and(|reason| reason.starts_with("lane 1: the event at offset"))
    })
    .await;
    assert_eq!(api.get(&location).await.body["state"], "pending");
    let decide = async {
        let asked = reserver.next().await;
        let created = reserver.created(&asked);
        reserver.decide(&asked, created).await;
    };
    let (response, ()) = join!(api.post("/v1/holds", &lines(2)).send(), decide);
    assert_eq!(response.unwrap().status(), 201);
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ingress_starts_from_the_beginning_or_from_postgres_checkpoint() {
    let world = World::new().await;
    let mut reserver = Reserver::own_all(&world).await;
    let first = Api::start(&world.connections, options()).await;
    first.ready().await;
    let mut paths = Vec::new();
    for _ in 0..2 {
        let decide = async {
            let asked = reserver.next().await;
            let created = reserver.created(&asked);
            let offset = reserver.decide(&asked, created.clone()).await;
            (format!("/v1/holds/{}", asked.hold_id()), created, offset)
        };
        let (_, decided) = join!(first.post("/v1/holds", &lines(0)).send(), decide);
        paths.push(decided);
    }

    // Without a row in Postgres: from offset 0.
    let second = Api::start(&world.connections, options()).await;
    second.ready().await;
    for (path, ..) in &paths {
        assert_eq!(second.get(path).await.body["state"], "held");
    }
    second.stop().await;

    // With a checkpoint behind the first decision: the fold's state comes with it, so the second is valid.
    let (_, created, offset) = &paths[0];
    checkpoint(&world, 0, offset + 1, created).await;
    let third = Api::start(&world.connections, options()).await;
    third.ready().await;
    third.get(&paths[0].0).await.is_problem(404, "hold_not_found");
    assert_eq!(third.get(&paths[1].0).await.body["state"], "held");
    third.stop().await;

    // A checkpoint that the log does not reach: they do not belong together, and nothing is answered.
    checkpoint(&world, 0, 1_000, created).await;
    let lost = Api::start(&world.connections, options()).await;
    wait_for("the reason", async || {
        lost.is_down("tail")
            .is_some_and(|reason| reason.contains("Postgres stands at event 1000"))
    })
    .await;
    lost.get("/v1/stock").await.is_problem(503, "unavailable");
    lost.stop().await;
    world.end(first, reserver).await;
}

async fn checkpoint(world: &World, lane: i16, next: i64, last: &Event) {
    sqlx::query(
        "INSERT INTO lanes (lane, next_event_offset, epoch, last_command_offset, last_decision_epoch, log_time)
         VALUES ($1, $2, $3, $4, $3, $5) ON CONFLICT (lane) DO UPDATE SET next_event_offset = $2",
    )
    .bind(lane)
    .bind(next)
    .bind(last.epoch)
    .bind(last.command_offset)
    .bind(last.decided_at)
    .execute(&world.pool)
    .await
    .unwrap();
}

/// Events of other tenants fold like all others, and are nobody's business here.
#[tokio::test(flavor = "multi_thread")]
async fn other_tenants_are_not_shown() {
    let (world, api, mut reserver) = World::with_all().await;
    let request = api.post("/v1/holds", &lines(0)).header("Prefer", "respond-async");
    Said::read(request.send().await.unwrap()).await;
    let mut asked = reserver.next().await;
    asked.command.tenant = domain::Tenant::parse("other").unwrap();
    let created = reserver.created(&asked);
    assert_eq!(created.hold.as_ref().unwrap().state, HoldState::Held);
    assert!(matches!(created.body, EventBody::HoldCreated));
    reserver.decide(&asked, created).await;
    let path = format!("/v1/holds/{}?command={}", asked.hold_id(), asked.offset);
    wait_for("the tail to pass it", async || {
        api.get(&path).await.body["state"] != "pending"
    })
    .await;
    api.get(&path).await.is_problem(404, "hold_not_found");
    api.get(&format!("/v1/stock/{}", sku_in(0)))
        .await
        .is_problem(404, "unknown_sku");
    assert_eq!(asked.lane, Lane::new(0).unwrap());
    assert_eq!(api.call(Method::GET, "/readyz").send().await.unwrap().status(), 200);
    world.end(api, reserver).await;
}
