//! What clients are told when the log says no, or when it would.

use std::time::Duration;

use domain::{Event, EventBody, HoldState, Reason};
use reqwest::Method;
use serde_json::json;
use tokio::join;

use crate::world::{Said, World, sku_in};

fn lines(quantity: i64, lane: i32) -> serde_json::Value {
    json!({"lines": [{"sku": sku_in(lane).as_str(), "quantity": quantity}], "user_id": "u"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_says_why_and_stays_readable() {
    let (world, api, mut reserver) = World::with_all().await;
    for (reason, status) in [
        (Reason::InsufficientStock, 409),
        (Reason::UnknownSku, 404),
        (Reason::LimitExceeded, 422),
        (Reason::Busy, 503),
        (Reason::SeveralLanes, 422),
        (Reason::InvalidRequest, 400),
    ] {
        let decide = async {
            let asked = reserver.next().await;
            let rejected = reserver.rejected(&asked, reason, 1);
            reserver.decide(&asked, rejected).await;
            asked
        };
        let (response, asked) = join!(api.post("/v1/holds", &lines(2, 0)).send(), decide);
        let said = Said::read(response.unwrap()).await;
        said.is_problem(status, reason.code());
        let shortages = json!([{"sku": sku_in(0).as_str(), "requested": 2, "available": 1}]);
        assert_eq!(said.body["shortages"], shortages);
        assert_eq!(said.body["hold_id"], asked.hold_id().to_string());
        assert_eq!(said.body["request_id"], asked.command.request_id.as_str());

        let hold = api.get(&format!("/v1/holds/{}", asked.hold_id())).await;
        assert_eq!(hold.status, 200);
        assert_eq!(
            (hold.body["state"].as_str(), hold.body["reason"].as_str()),
            (Some("rejected"), Some(reason.code()))
        );
        assert_eq!(hold.body["shortages"], shortages);
    }
    let body = json!({"sku": sku_in(0).as_str(), "qty": 2, "user_id": "u", "idempotency_key": "sold-out"});
    let decide = async {
        let asked = reserver.next().await;
        let rejected = reserver.rejected(&asked, Reason::InsufficientStock, 0);
        reserver.decide(&asked, rejected).await;
    };
    let (response, ()) = join!(api.post("/holds/reserve", &body).send(), decide);
    Said::read(response.unwrap())
        .await
        .is_problem(409, "insufficient_stock");
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_status() {
    let (world, api, mut reserver) = World::with_all().await;
    let decide = async {
        let asked = reserver.next().await;
        let created = reserver.created(&asked);
        reserver.decide(&asked, created.clone()).await;
        (asked, created)
    };
    let (_, (asked, created)) = join!(api.post("/v1/holds", &lines(1, 0)).send(), decide);
    let path = format!("/v1/holds/{}", asked.hold_id());
    let expected = |reason| match reason {
        Reason::InvalidRequest | Reason::Malformed => 400,
        Reason::UnknownSku | Reason::HoldNotFound => 404,
        Reason::HoldExpired => 410,
        Reason::IdempotencyKeyReused | Reason::LimitExceeded | Reason::LifetimeExceeded | Reason::SeveralLanes => 422,
        Reason::Busy | Reason::CartTimedOut => 503,
        _ => 409,
    };
    // Whose record came twice is answered by what was decided of the first: by this, nobody is.
    for reason in Reason::ALL.iter().filter(|reason| **reason != Reason::AlreadyApplied) {
        let confirm = api.post(&format!("{path}/confirm"), &json!({"payment_ref": "p"}));
        let decide = async {
            let asked = reserver.next().await;
            let refused = reserver.refused(&asked, *reason);
            reserver.decide(&asked, refused).await;
        };
        let (response, ()) = join!(confirm.send(), decide);
        Said::read(response.unwrap())
            .await
            .is_problem(expected(*reason), reason.code());
    }

    let confirm = api.post(&format!("{path}/confirm"), &json!({"payment_ref": "p"}));
    let decide = async {
        let asked = reserver.next().await;
        let refused = reserver.refused(&asked, Reason::AlreadyApplied);
        reserver.decide(&asked, refused).await;
    };
    let (response, ()) = join!(confirm.header("prefer", "wait=1").send(), decide);
    assert_eq!(Said::read(response.unwrap()).await.status, 202);

    // A refusal that tells what the hold is: the memory learns it, and the client too.
    let cancel = api.call(Method::POST, &format!("{path}/cancel"));
    let decide = async {
        let asked = reserver.next().await;
        let mut hold = created.hold.clone().unwrap();
        hold.state = HoldState::Expired;
        let refused = Event {
            hold: Some(hold),
            lines: created.lines.clone(),
            ..reserver.refused(&asked, Reason::HoldExpired)
        };
        reserver.decide(&asked, refused).await;
    };
    let (response, ()) = join!(cancel.send(), decide);
    let said = Said::read(response.unwrap()).await;
    said.is_problem(410, "hold_expired");
    assert!(
        said.body["detail"].as_str().unwrap().contains("expired at 20"),
        "{said:?}"
    );
    assert_eq!(api.get(&path).await.body["state"], "expired");
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_two_lanes_that_may_be_held_in_part_are_refused_before_the_log() {
    let (world, api, reserver) = World::with_all().await;
    let body = json!({
        "lines": [{"sku": sku_in(0).as_str(), "quantity": 1}, {"sku": sku_in(1).as_str(), "quantity": 1}],
        "user_id": "u", "policy": "up_to",
    });
    let said = Said::read(api.post("/v1/holds", &body).send().await.unwrap()).await;
    said.is_problem(422, "several_lanes");
    assert_eq!(world.commands_in_log().await, 0);
    world.end(api, reserver).await;
}

/// I3: across lanes, what the ingress remembers.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_lives_in_another_lane_is_refused() {
    let (world, api, mut reserver) = World::with_all().await;
    let send = |lane| {
        api.post("/v1/holds", &lines(1, lane))
            .header("Idempotency-Key", "one-key")
            .send()
    };

    // Sent from here and not decided yet.
    let decide = async {
        let asked = reserver.next().await;
        let said = Said::read(send(1).await.unwrap()).await;
        said.is_problem(422, "idempotency_key_reused");
        assert_eq!(said.body["hold_id"], asked.hold_id().to_string());
        let rejected = reserver.rejected(&asked, Reason::InsufficientStock, 0);
        reserver.decide(&asked, rejected).await;
    };
    let (response, ()) = join!(send(0), decide);
    assert_eq!(response.unwrap().status(), 409);

    // A rejected one is no reason: a refused request may be tried again under its key, also with another SKU.
    let decide = async {
        let asked = reserver.next().await;
        assert_eq!(asked.lane.partition(), 1);
        let created = reserver.created(&asked);
        let offset = reserver.decide(&asked, created.clone()).await;
        (asked, created, offset)
    };
    let (response, (asked, created, offset)) = join!(send(1), decide);
    assert_eq!(response.unwrap().status(), 201);

    let said = Said::read(send(0).await.unwrap()).await;
    said.is_problem(422, "idempotency_key_reused");
    assert_eq!(said.body["hold_id"], asked.hold_id().to_string());
    assert_eq!(said.body["as_of"], json!({"lane": 1, "event_offset": offset}));

    // Ended less than a day ago: its lane would still replay it.
    let cancel = api
        .call(Method::POST, &format!("/v1/holds/{}/cancel", asked.hold_id()))
        .send();
    let decide = async {
        let asked = reserver.next().await;
        let cancelled = reserver.changed(&asked, &created, EventBody::HoldCancelled, |hold| {
            hold.state = HoldState::Cancelled;
        });
        reserver.decide(&asked, cancelled).await;
    };
    let (response, ()) = join!(cancel, decide);
    assert_eq!(response.unwrap().status(), 200);
    Said::read(send(0).await.unwrap())
        .await
        .is_problem(422, "idempotency_key_reused");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.commands_in_log().await, 3);
    world.end(api, reserver).await;
}
