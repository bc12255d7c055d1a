//! Answers that come late, or never: 202, hang-ups, and a Kafka that is not there.

use std::time::{Duration, Instant};

use domain::{EventBody, HoldId, Reason};
use plumbing::config::Connections;
use reqwest::Method;
use serde_json::json;
use tokio::join;

use crate::world::{Api, Said, World, options, sku_in, wait_for};

fn lines(lane: i32) -> serde_json::Value {
    json!({"lines": [{"sku": sku_in(lane).as_str(), "quantity": 1}], "user_id": "u"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_runs_out_is_202_and_its_location_tells_the_outcome() {
    let (world, api, mut reserver) = World::with_all().await;
    for (prefer, applied, least_ms) in [
        ("wait=1", "wait=1", 1_000),
        ("respond-async", "respond-async", 0),
        ("wait=0", "wait=0", 0),
    ] {
        let started = Instant::now();
        let request = api.post("/v1/holds", &lines(0)).header("Prefer", prefer);
        let said = Said::read(request.send().await.unwrap()).await;
        let took_ms = started.elapsed().as_millis();
        assert!((least_ms..least_ms + 900).contains(&took_ms), "{prefer}: {took_ms} ms");
        assert_eq!(
            (said.status.as_u16(), said.header("preference-applied")),
            (202, applied)
        );
        let asked = reserver.next().await;
        let location = said.header("location").to_owned();
        assert_eq!(
            location,
            format!("/v1/holds/{}?command={}", asked.hold_id(), asked.offset)
        );
        let pending = json!({"hold_id": asked.hold_id().to_string(), "state": "pending", "command": asked.offset});
        assert_eq!(said.body, pending);
        assert_eq!(api.get(&location).await.body, pending);

        let rejected = reserver.rejected(&asked, Reason::InsufficientStock, 0);
        reserver.decide(&asked, rejected).await;
        wait_for("the outcome", async || {
            api.get(&location).await.body["state"] == "rejected"
        })
        .await;
    }

    // A command that decided nothing about the hold: it is not there, once the lane has passed it.
    let unknown = HoldId::parse("000e2be4-9d35-8aa6-a571-1a9ffd9d8aab").unwrap();
    let request = api.call(Method::POST, &format!("/v1/holds/{unknown}/cancel"));
    let said = Said::read(request.header("Prefer", "respond-async").send().await.unwrap()).await;
    let location = said.header("location").to_owned();
    assert_eq!(api.get(&location).await.body["state"], "pending");
    let asked = reserver.next().await;
    let refused = reserver.refused(&asked, Reason::HoldNotFound);
    reserver.decide(&asked, refused).await;
    wait_for("the refusal", async || api.get(&location).await.status == 404).await;
    api.get(&location).await.is_problem(404, "hold_not_found");

    let request = api.post(
        "/v1/stock/adjustments",
        &json!({"sku": sku_in(3).as_str(), "change": 5, "reason": "r"}),
    );
    let said = Said::read(request.header("Prefer", "respond-async").send().await.unwrap()).await;
    assert_eq!(said.status, 202);
    let location = said.header("location").to_owned();
    assert_eq!(api.get(&location).await.body["state"], "pending");
    let asked = reserver.next().await;
    let stocked = reserver.stocked(&asked, 5, 1);
    reserver.decide(&asked, stocked).await;
    wait_for("the stock", async || api.get(&location).await.body["on_hand"] == 5).await;
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_cancels_nothing_half_way() {
    let (world, api, mut reserver) = World::with_all().await;
    let body = lines(2);
    let request = api.post("/v1/holds", &body).header("Idempotency-Key", "hung-up").send();
    // The command is in the log when the client goes; a second one goes at once.
    let (gone, asked) = join!(
        tokio::time::timeout(Duration::from_millis(500), request),
        reserver.next()
    );
    assert!(gone.is_err());
    let created = reserver.created(&asked);
    reserver.decide(&asked, created).await;
    let path = format!("/v1/holds/{}", asked.hold_id());
    wait_for("the hold", async || api.get(&path).await.body["state"] == "held").await;
    wait_for("the waiter to go", async || {
        let metrics = api
            .call(Method::GET, "/metrics")
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        // Other tests of this process may be waiting, so the number says nothing; the call must have ended, uncounted.
        metrics.contains("holdfast_ingress_waiters")
    })
    .await;

    for delay_us in [0, 200, 500, 1_000, 2_000] {
        let request = api.post("/v1/holds", &body).send();
        let _gone = tokio::time::timeout(Duration::from_micros(delay_us), request).await;
    }
    let mut commands = world.commands_in_log().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    commands = commands.max(world.commands_in_log().await);
    for _ in 1..commands {
        // Whole records all: each decodes, or the reader would have panicked.
        let asked = reserver.next().await;
        let rejected = reserver.rejected(&asked, Reason::InsufficientStock, 0);
        reserver.decide(&asked, rejected).await;
    }
    assert_eq!(api.get("/v1/stock/nothing").await.status, 404, "the ingress goes on");
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_kafka_does_not_take_is_503() {
    let (world, api, reserver) = World::with_all().await;
    world.delete_topics().await;
    let started = Instant::now();
    let request = api
        .post("/v1/holds", &lines(0))
        .header("Prefer", "wait=1")
        .header("Idempotency-Key", "k");
    let said = Said::read(request.send().await.unwrap()).await;
    said.is_problem(503, "unavailable");
    assert!(
        said.body["detail"].as_str().unwrap().contains("Idempotency-Key"),
        "{said:?}"
    );
    assert!(started.elapsed() < Duration::from_millis(2_500));
    assert_eq!(said.header("idempotency-key"), "k");
    assert!(said.body["hold_id"].is_string(), "it may become one: {said:?}");
    // Whoever sent no key is told which one the request has: without it nobody could repeat the request.
    let unkeyed = api.post("/v1/holds", &lines(0)).header("Prefer", "wait=1");
    let said = Said::read(unkeyed.send().await.unwrap()).await;
    said.is_problem(503, "unavailable");
    assert!(!said.header("idempotency-key").is_empty(), "{said:?}");
    wait_for("readiness to name it", async || api.is_down("kafka").is_some()).await;
    world.end(api, reserver).await;
}

/// An ingress that waits for no outcome by default still waits until Kafka has the command: 202 and not 503.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_wait_by_default_is_told_202() {
    let options = ingress::Options {
        wait_default_ms: 0,
        ..options()
    };
    let (world, api, reserver) = World::with_options(options).await;
    for prefer in ["", "respond-async", "wait=0"] {
        let request = api.post("/v1/holds", &lines(0)).header("Prefer", prefer);
        let said = Said::read(request.send().await.unwrap()).await;
        assert_eq!(said.status, 202, "{prefer}: {said:?}");
    }
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_or_the_registry_it_serves_and_says_what_it_waits_for() {
    let nowhere = Connections {
        kafka_brokers: "127.0.0.1:1".into(),
        registry_url: "http://127.0.0.1:1".into(),
        ..Connections::from_env()
    };
    let api = Api::start(&nowhere, options()).await;
    assert_eq!(api.get("/livez").await.status, 200);
    let says = |component, reason| api.is_down(component).is_some_and(|down| down.starts_with(reason));
    wait_for("both reasons", async || {
        says("kafka", "no broker answers") && says("registry", "the schema registry does not answer")
    })
    .await;
    let said = Said::read(api.post("/v1/holds", &lines(0)).send().await.unwrap()).await;
    said.is_problem(503, "unavailable");
    let ready = api.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), &ready.body["ready"]), (503, &json!(false)));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_command_is_answered_by_its_copy() {
    let (world, api, mut reserver) = World::with_all().await;
    let body = lines(1);
    let decide = async {
        let asked = reserver.next().await;
        let forwarded = reserver.event(&asked, EventBody::CommandForwarded { to_lane: 2 });
        reserver.decide(&asked, forwarded).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        // The copy, in the other lane, under the same request id.
        let copy = crate::reserver::Asked {
            lane: domain::Lane::new(2).unwrap(),
            offset: 0,
            ..asked
        };
        let created = reserver.created(&copy);
        reserver.decide(&copy, created).await;
    };
    let (response, ()) = join!(api.post("/v1/holds", &body).send(), decide);
    assert_eq!(response.unwrap().status(), 201);
    world.end(api, reserver).await;
}
