//! Upstream: services that produce commands to Kafka are served like HTTP clients, and what they write wrong harms nobody.

use std::collections::BTreeSet;

use futures::future::join_all;
use schemas::records::CommandBody;
use serde_json::{Value, json};

use crate::{
    wire::{Wire, adjusting, confirming, hold_id, json_lines, lane, refusal, reserving},
    world::{World, times},
};

/// Runs `docs/examples/reserve.py`, whose service prints the outcome of what it asks.
async fn service(wire: &Wire<'_>, arguments: &[&str]) -> Value {
    let mut all = vec!["reserve.py"];
    all.extend(arguments);
    let (code, out, error) = wire.python(&all).await;
    assert_eq!(code, 0, "{arguments:?}: {out}{error}");
    json_lines(&out).pop().expect("an outcome")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_service_adjusts_reserves_and_confirms_over_kafka_and_http_sees_the_same() {
    let world = World::shared().await;
    let wire = &Wire::of(world).await;
    // SKUs of every lane: a partitioner of another kind would have to be lucky four times.
    for number in 0..4 {
        let sku = &world.sku_in(lane(number), "python");
        let adjusted = service(
            wire,
            &["adjust", sku, "10", &format!("delivery-{sku}"), "delivery", "warehouse"],
        )
        .await;
        assert_eq!(
            (&adjusted["type"], &adjusted["lane"]),
            (&json!("StockAdjusted"), &json!(number)),
            "{adjusted}"
        );
        assert_eq!(adjusted["lines"][0]["on_hand"], 10);
        // Wherever it was written: had it been another lane, that one would have an event of it too.
        let mut events = 0;
        for number in 0..4 {
            let decisions = wire.decisions(lane(number)).await.into_iter();
            events += decisions
                .filter(|event| event.request_id == adjusted["request_id"])
                .count();
        }
        assert_eq!(events, 1, "the partitioner knows the lane: nothing was sent on");
    }

    let sku = &world.sku_in(lane(2), "python");
    let reserved = service(wire, &["reserve", sku, "3", "ann", "python-order"]).await;
    assert_eq!(reserved["type"], "HoldCreated", "{reserved}");
    let hold = reserved["hold_id"].as_str().expect("a hold").to_owned();
    assert_eq!(hold, hold_id(lane(2), "python-order").to_string());
    let seen = world.get(&format!("/v1/holds/{hold}")).await;
    assert_eq!(
        (seen.status, seen.state(), &seen.body["user_id"]),
        (200, "held", &json!("ann")),
        "{seen:?}"
    );

    let replayed = world.reserve("python-order", sku, 3, "ann").await;
    assert_eq!(
        (replayed.status, replayed.hold_id()),
        (200, hold.clone()),
        "one key, one hold: {replayed:?}"
    );
    assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
    let again = service(wire, &["reserve", sku, "3", "ann", "python-order"]).await;
    assert_eq!(
        (&again["type"], &again["hold_id"]),
        (&json!("HoldReplayed"), &json!(hold))
    );
    let other = service(wire, &["reserve", sku, "4", "ann", "python-order"]).await;
    assert_eq!(
        (&other["type"], &other["body"]["reason"]),
        (&json!("CommandRefused"), &json!("idempotency_key_reused"))
    );
    let too_many = service(wire, &["reserve", sku, "8", "bob", "python-bob"]).await;
    assert_eq!(
        (&too_many["type"], &too_many["body"]["reason"]),
        (&json!("HoldRejected"), &json!("insufficient_stock"))
    );
    assert_eq!(
        too_many["body"]["shortages"],
        json!([{"sku": sku, "requested": 8, "available": 7, "retry": false}])
    );
    assert_eq!(world.counters(sku).await, (10, 3, 0, 7));

    let confirmed = service(wire, &["confirm", &hold, "payment-1"]).await;
    assert_eq!(
        (&confirmed["type"], &confirmed["lane"]),
        (&json!("HoldConfirmed"), &json!(2))
    );
    let seen = world.confirm(&hold).await;
    assert_eq!((seen.status, seen.state()), (200, "confirmed"), "{seen:?}");
    let refused = service(wire, &["cancel", &hold]).await;
    assert_eq!(
        (&refused["type"], &refused["body"]["reason"]),
        (&json!("CommandRefused"), &json!("already_confirmed"))
    );
    assert_eq!(world.counters(sku).await, (10, 0, 3, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_adjustment_sent_fifty_times_over_http_and_kafka_also_to_wrong_lanes_counts_once() {
    let world = World::shared().await;
    let wire = &Wire::of(world).await;
    for round in 0..times(2, 10) {
        let (sku, id) = (format!("often-{round}"), format!("often-id-{round}"));
        let (sku, id) = (sku.as_str(), id.as_str());
        let over_http = async || {
            let body = json!({"sku": sku, "change": 7, "reason": "delivery"});
            let request = world
                .posting("/v1/stock/adjustments", &body)
                .header("Idempotency-Key", id);
            let answer = world.request(request.header("X-Actor", "warehouse")).await;
            assert_eq!((answer.status, &answer.body["on_hand"]), (200, &json!(7)), "{answer:?}");
            answer.header("idempotent-replayed").is_none()
        };
        // Every lane in turn: three of four are wrong.
        let over_kafka = async |number: i32| {
            let command = adjusting(id, sku, 7);
            wire.write_command(lane(number % 4), &command).await;
            command.request_id
        };
        let (first, requests) = tokio::join!(
            join_all((0..25).map(|_| over_http())),
            join_all((0..25).map(over_kafka)),
        );
        let requests: BTreeSet<String> = requests.into_iter().collect();
        let ends = wire.outcomes(&requests).await;
        let applied_over_kafka = ends.values().filter(|name| *name == "StockAdjusted").count();
        let applied_over_http = first.iter().filter(|first| **first).count();
        assert_eq!(applied_over_kafka + applied_over_http, 1, "{ends:?}");
        assert!(
            ends.values()
                .all(|name| name == "StockAdjusted" || name == "StockReplayed"),
            "{ends:?}"
        );
        assert_eq!(world.counters(sku).await, (7, 0, 0, 7));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hold_commands_in_a_wrong_lane_find_their_hold_and_copies_are_not_sent_on_again() {
    let world = World::shared().await;
    let wire = &Wire::of(world).await;
    let sku = &world.sku_in(lane(1), "astray");
    world.stock(sku, 5).await;
    let reserve = reserving("astray-key", sku, 2, "ann");
    wire.write_command(lane(3), &reserve).await;
    let hold = hold_id(lane(1), "astray-key").to_string();
    let confirm = confirming(&hold);
    wire.outcomes(&BTreeSet::from([reserve.request_id])).await;
    wire.write_command(lane(0), &confirm).await;
    let ends = wire.outcomes(&BTreeSet::from([confirm.request_id])).await;
    assert_eq!(ends.into_values().collect::<Vec<_>>(), ["HoldConfirmed"]);
    assert_eq!(world.get(&format!("/v1/holds/{hold}")).await.state(), "confirmed");

    // Whoever looks with kcat sees what the copies are about.
    let stray = adjusting("astray-stock", sku, 1);
    wire.write_command(lane(0), &stray).await;
    wire.outcomes(&BTreeSet::from([stray.request_id])).await;
    let copies = wire.commands(lane(1)).await.into_iter();
    let copies = copies.filter(|record| record.header("ce_source") == Some("/holdfast/reserver"));
    let about: BTreeSet<_> = copies
        .filter_map(|copy| copy.header("ce_subject").map(str::to_owned))
        .collect();
    assert!(
        about.contains(sku) && about.contains(&hold) && !about.contains(""),
        "{about:?}"
    );

    // A lane that does not exist, and a cart of two lanes that may be held in part.
    let nowhere = confirming("fffa2774-9426-80a8-b1c5-ca7e69a1d0a8");
    let offset = wire.write_command(lane(2), &nowhere).await;
    assert_eq!(refusal(&wire.decision(lane(2), offset).await), "hold_not_found");
    let mut cart = reserving("astray-cart", sku, 1, "ann");
    if let CommandBody::Reserve(reserve) = &mut cart.body {
        reserve.policy = "per_line".to_owned();
        reserve.lines.push(schemas::records::ReserveLine {
            sku: world.sku_in(lane(2), "astray"),
            quantity: 1,
        });
    }
    let offset = wire.write_command(lane(1), &cart).await;
    assert_eq!(refusal(&wire.decision(lane(1), offset).await), "several_lanes");
}
