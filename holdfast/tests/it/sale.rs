//! Sales: many buyers, few units, and every answer true.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use domain::Lane;
use futures::{StreamExt as _, stream};
use serde_json::json;

use crate::world::{Answer, Setup, World, play, times};

/// Sends requests over so many connections at once.
async fn at_once<F: Future<Output = Answer>>(width: usize, requests: impl Iterator<Item = F>) -> Vec<Answer> {
    stream::iter(requests).buffer_unordered(width).collect().await
}

fn by_status(answers: &[Answer]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.status).or_default() += 1;
    }
    counts
}

#[test]
fn five_units_and_twenty_buyers_at_once_make_five_holds() {
    play(async {
        let world = World::shared().await;
        for round in 0..times(2, 20) {
            let sku = format!("five-{round}");
            world.stock(&sku, 5).await;
            let sku = &sku;
            let answers = at_once(
                20,
                (0..20).map(|buyer| async move {
                    world
                        .reserve(&format!("{sku}-{buyer}"), sku, 1, &format!("user-{buyer}"))
                        .await
                }),
            )
            .await;
            assert_eq!(by_status(&answers), BTreeMap::from([(201, 5), (409, 15)]));
            for answer in answers.iter().filter(|answer| answer.status == 409) {
                assert_eq!(answer.code(), "insufficient_stock");
                assert_eq!(answer.body["shortages"][0]["sku"], json!(sku), "{answer:?}");
            }
            assert_eq!(world.counters(sku).await, (5, 5, 0, 0));
        }
    });
}

#[test]
fn a_thousand_units_and_five_thousand_requests_over_64_connections_make_a_thousand_holds() {
    play(async {
        let world = Setup::new().start().await;
        world.stock("thousand", 1_000).await;
        let world = Arc::new(world);
        let answers = at_once(
            64,
            (0..5_000).map(|buyer| {
                let world = world.clone();
                async move {
                    world
                        .reserve(&format!("key-{buyer}"), "thousand", 1, &format!("user-{buyer}"))
                        .await
                }
            }),
        )
        .await;
        assert_eq!(by_status(&answers), BTreeMap::from([(201, 1_000), (409, 4_000)]));
        assert_eq!(world.counters("thousand").await, (1_000, 1_000, 0, 0));
        let report = world.assert_verified().await;
        assert_eq!(report.events()["HoldCreated"], 1_000);
    });
}

#[test]
fn units_of_a_buyer_who_never_pays_come_back_and_another_gets_them() {
    play(async {
        let world = World::shared().await;
        world.stock("three", 3).await;
        let body = json!({"lines": [{"sku": "three", "quantity": 2}], "user_id": "ann", "ttl_seconds": 1});
        let first = world.post("/v1/holds", &body).await;
        assert_eq!(first.status, 201, "{first:?}");
        let refused = world.reserve("three-bob", "three", 2, "bob").await;
        assert_eq!((refused.status, refused.code()), (409, "insufficient_stock"));
        assert_eq!(
            refused.body["shortages"],
            json!([{"sku": "three", "requested": 2, "available": 1}])
        );
        let expired = world
            .eventually("the hold expires", async || {
                let hold = world.get(&format!("/v1/holds/{}", first.hold_id())).await;
                if hold.state() == "expired" {
                    Ok(hold)
                } else {
                    Err(format!("{hold:?}"))
                }
            })
            .await;
        assert_eq!(expired.body["user_id"], "ann");
        let second = world.reserve("three-bob", "three", 2, "bob").await;
        assert_eq!(
            second.status, 201,
            "a refused request may be tried again under its key: {second:?}"
        );
        let late = world.confirm(&first.hold_id()).await;
        assert_eq!((late.status, late.code()), (410, "hold_expired"));
    });
}

#[test]
fn a_cart_of_twenty_lines_in_one_lane_is_held_whole_or_not_at_all() {
    play(async {
        let world = World::shared().await;
        let skus = world.skus_in(Lane::new(1).expect("a lane"), "cart", 20);
        for sku in &skus {
            world.stock(sku, 3).await;
        }
        let cart = |quantity: i64| {
            let lines: Vec<_> = skus
                .iter()
                .map(|sku| json!({"sku": sku, "quantity": quantity}))
                .collect();
            json!({"lines": lines, "user_id": "ann"})
        };
        let held = world.post("/v1/holds", &cart(2)).await;
        assert_eq!(held.status, 201, "{held:?}");
        let refused = world.post("/v1/holds", &cart(2)).await;
        assert_eq!(
            (refused.status, refused.body["shortages"].as_array().map(Vec::len)),
            (409, Some(20)),
            "every short line"
        );
        for sku in &skus {
            assert_eq!(world.counters(sku).await, (3, 2, 0, 1), "{sku}");
        }
        let cancelled = world.cancel(&held.hold_id()).await;
        assert_eq!(
            (cancelled.status, cancelled.state()),
            (200, "cancelled"),
            "{cancelled:?}"
        );
        for sku in &skus {
            assert_eq!(world.counters(sku).await, (3, 0, 0, 3), "{sku}");
        }
    });
}

#[test]
fn one_key_fifty_times_at_once_is_one_hold_and_another_body_is_an_error() {
    play(async {
        let world = World::shared().await;
        world.stock("same", 100).await;
        let answers = at_once(50, (0..50).map(|_| world.reserve("same-key", "same", 2, "ann"))).await;
        assert_eq!(
            by_status(&answers),
            BTreeMap::from([(200, 49), (201, 1)]),
            "{answers:?}"
        );
        assert!(answers.iter().all(|answer| answer.hold_id() == answers[0].hold_id()));
        let replayed = answers.iter().find(|answer| answer.status == 200).expect("49 of them");
        assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
        assert_eq!(world.counters("same").await, (100, 2, 0, 98));
        let other = world.reserve("same-key", "same", 3, "ann").await;
        assert_eq!((other.status, other.code()), (422, "idempotency_key_reused"));
    });
}

#[test]
fn one_key_with_skus_of_two_lanes_leaves_one_live_hold() {
    play(async {
        let world = World::shared().await;
        let skus: Vec<_> = (0..4)
            .map(|lane| world.sku_in(Lane::new(lane).expect("a lane"), "crossed"))
            .collect();
        for sku in &skus {
            world.stock(sku, 1_000).await;
        }
        let first = world.reserve("crossed-in-sequence", &skus[0], 1, "ann").await;
        assert_eq!(first.status, 201, "{first:?}");
        let second = world.reserve("crossed-in-sequence", &skus[1], 1, "ann").await;
        assert_eq!((second.status, second.code()), (422, "idempotency_key_reused"));

        let skus = &skus;
        at_once(
            50,
            (0..50).map(|n| world.reserve("crossed-racing", &skus[n % 4], 1, "ann")),
        )
        .await;
        world
            .eventually("one live hold remains", async || {
                let live = world.get("/v1/holds?user_id=ann&state=held&limit=100").await;
                let racing = live.body["holds"].as_array().map(|holds| {
                    holds
                        .iter()
                        .filter(|hold| hold["idempotency_key"] == "crossed-racing")
                        .count()
                });
                if racing == Some(1) {
                    Ok(())
                } else {
                    Err(format!("{live:?}"))
                }
            })
            .await;
    });
}

#[test]
fn confirm_against_expiry_at_the_same_moment_is_exactly_one_end() {
    play(async {
        let world = World::shared().await;
        let rounds = times(20, 200);
        world.stock("ends", rounds as i64).await;
        let ends = at_once(
            10,
            (0..rounds).map(|round| async move {
                let body = json!({"lines": [{"sku": "ends", "quantity": 1}], "user_id": "ann", "ttl_seconds": 1});
                let hold = world.post_keyed("/v1/holds", &format!("ends-{round}"), &body).await;
                assert_eq!(hold.status, 201, "{hold:?}");
                // Around the deadline: some come first, some the expirer does.
                tokio::time::sleep(Duration::from_millis(960 + (round as u64 * 7) % 120)).await;
                let answer = world.confirm(&hold.hold_id()).await;
                let expected = match answer.status {
                    200 => "confirmed",
                    410 => "expired",
                    _ => panic!("{answer:?}"),
                };
                let end = world.get(&format!("/v1/holds/{}", hold.hold_id())).await;
                assert_eq!(end.state(), expected, "{end:?}");
                answer
            }),
        )
        .await;
        let confirmed = ends.iter().filter(|answer| answer.status == 200).count() as i64;
        let rounds = rounds as i64;
        assert_eq!(world.counters("ends").await, (rounds, 0, confirmed, rounds - confirmed));
    });
}
