//! Carts over several lanes at bad moments: ends that race, buyers who want too much or cannot wait, a lane that stands
//! still, a Redis that is emptied, and one cart that comes from two sides at once.

use std::{collections::BTreeMap, time::Duration};

use domain::{EventBody, PartStep, Reason};
use futures::future::join_all;
use schemas::records::{CommandBody, InventoryCommand, Reserve, ReserveLine, Undo};
use serde_json::{Value, json};

use crate::{
    carts::{cart, one_sku_a_lane, settles},
    crash::{flush, lose},
    wire::{self, Wire, lane},
    world::{Answer, Setup, World, play, times},
};

/// A cart of one unit of each SKU.
fn one_of_each(skus: &[String], user: &str) -> Value {
    let lines: Vec<(&str, i64)> = skus.iter().map(|sku| (sku.as_str(), 1)).collect();
    cart(&lines, user)
}

/// The cart as an upstream service asks for it: the same hold as over HTTP under the same key.
fn from_kafka(key: &str, body: &Value) -> InventoryCommand {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let lines = body["lines"].as_array().expect("lines").iter().map(|line| ReserveLine {
        sku: text(&line["sku"]),
        quantity: line["quantity"].as_i64().expect("units"),
    });
    wire::command(
        key,
        CommandBody::Reserve(Reserve {
            idempotency_key: key.to_owned(),
            user_id: text(&body["user_id"]),
            lines: lines.collect(),
            ttl_ms: None,
            policy: "all_or_nothing".to_owned(),
            external_ref: None,
        }),
    )
}

/// Confirm, cancel and extend come at once, around the deadline: each cart has one end, in all of its lanes.
#[test]
fn confirm_cancel_extend_and_expiry_of_carts_at_the_same_moment_are_one_end_each() {
    play(async {
        let world = World::shared().await;
        let rounds = times(10, 200);
        let skus = one_sku_a_lane(world, "cart-ends", 1_000).await;
        let one_round = |round: usize| {
            let skus = &skus;
            async move {
                let mut body = one_of_each(skus, "ann");
                body["ttl_seconds"] = 1.into();
                let held = world
                    .post_keyed("/v1/holds", &format!("cart-ends-{round}"), &body)
                    .await;
                assert_eq!(held.status, 201, "{held:?}");
                let id = held.hold_id();
                tokio::time::sleep(Duration::from_millis(940 + (round as u64 * 7) % 120)).await;
                let path = format!("/v1/holds/{id}/extend");
                let longer = json!({"ttl_seconds": 60});
                let (confirmed, cancelled, extended) =
                    tokio::join!(world.confirm(&id), world.cancel(&id), world.post(&path, &longer));
                let end = world.get(&format!("/v1/holds/{id}")).await;
                let state = end.state().to_owned();
                let told = (confirmed.status, cancelled.status);
                match state.as_str() {
                    "confirmed" => assert_eq!(told, (200, 409), "{confirmed:?} {cancelled:?}"),
                    "cancelled" => assert_eq!(told, (409, 200), "{confirmed:?} {cancelled:?}"),
                    "expired" => assert_eq!(told, (410, 410), "{confirmed:?} {cancelled:?}"),
                    _ => panic!("{end:?}"),
                }
                assert!(matches!(extended.status, 200 | 409 | 410), "{extended:?}");
                state
            }
        };
        let mut ends = BTreeMap::new();
        for first in (0..rounds).step_by(10) {
            for state in join_all((first..rounds.min(first + 10)).map(one_round)).await {
                *ends.entry(state).or_insert(0) += 1;
            }
        }
        println!("{ends:?}");
        let confirmed = ends.get("confirmed").copied().unwrap_or(0);
        for sku in &skus {
            settles(world, sku, (1_000, 0, confirmed, 1_000 - confirmed)).await;
        }
    });
}

/// A limit of a SKU in another lane than the home lane holds for the buyer, whatever carts he sends at once.
#[test]
fn purchase_limits_hold_inside_carts_over_lanes() {
    play(async {
        let world = World::shared().await;
        let skus = one_sku_a_lane(world, "cart-limit", 1_000).await;
        let limited = &skus[2];
        let limit = json!({"max_per_user": 3});
        let put = world
            .client
            .put(format!("{}/v1/skus/{limited}", world.url))
            .json(&limit);
        assert_eq!(world.request(put).await.status, 200);

        let body = |user: &str| cart(&[(&skus[0], 1), (limited, 2), (&skus[3], 1)], user);
        let asked: Vec<Answer> = join_all((0..6).map(|_| async { world.post("/v1/holds", &body("ann")).await })).await;
        let (held, refused): (Vec<_>, Vec<_>) = asked.iter().partition(|answer| answer.status == 201);
        assert_eq!(held.len(), 1, "{asked:?}");
        for answer in &refused {
            assert_eq!((answer.status, answer.code()), (422, "limit_exceeded"), "{answer:?}");
            let short = json!([{"sku": limited, "requested": 2, "available": 1}]);
            assert_eq!(answer.body["shortages"], short);
        }
        assert_eq!(
            world.post("/v1/holds", &body("bob")).await.status,
            201,
            "a limit is each buyer's own"
        );
        for (sku, units) in [(&skus[0], 2), (limited, 4), (&skus[3], 2)] {
            settles(world, sku, (1_000, units, 0, 1_000 - units)).await;
        }
        // What is given back counts no more; what is bought does.
        assert_eq!(world.cancel(&held[0].hold_id()).await.status, 200);
        settles(world, limited, (1_000, 2, 0, 998)).await;
        let bought = world.post("/v1/holds", &body("ann")).await;
        assert_eq!(world.confirm(&bought.hold_id()).await.status, 200, "{bought:?}");
        settles(world, limited, (1_000, 2, 2, 996)).await;
        let more = world.post("/v1/holds", &body("ann")).await;
        assert_eq!((more.status, more.code()), (422, "limit_exceeded"), "{more:?}");
    });
}

/// A lane that stands still keeps a cart pending: others are told to try again, the deadline ends it, and what comes late
/// holds nothing.
#[test]
fn a_cart_whose_lane_stands_still_is_pending_and_ended_by_its_deadline() {
    play(async {
        let world = Setup::new()
            .with("HOLDFAST_UNKNOWN_SCHEMA_SECONDS", 12)
            .with("HOLDFAST_RELAY_MS", 4_000)
            .start()
            .await;
        let wire = &Wire::of(&world).await;
        let skus = one_sku_a_lane(&world, "still", 1).await;
        // A schema that nobody knows is asked for so long; its lane waits meanwhile.
        wire.write_command_bytes(lane(2), "still", Some(&[0, 119, 53, 148, 0, 1]))
            .await;
        let asking = world
            .posting("/v1/holds", &one_of_each(&skus, "ann"))
            .header("Idempotency-Key", "still")
            .header("Prefer", "respond-async");
        let asked = world.request(asking).await;
        assert_eq!(asked.status, 202, "{asked:?}");
        let path = format!("/v1/holds/{}", wire::hold_id(lane(0), "still"));
        let state = async |wanted: &str| match world.get(&path).await {
            answer if answer.state() == wanted => Ok(()),
            answer => Err(format!("{answer:?}")),
        };
        world
            .eventually("the cart is pending", async || state("pending").await)
            .await;
        settles(&world, &skus[1], (1, 1, 0, 0)).await;

        for sku in &skus[..2] {
            let sold_out = world.post("/v1/holds", &World::wanting(sku, 1, "bob")).await;
            assert_eq!(
                (sold_out.status, sold_out.code()),
                (409, "insufficient_stock"),
                "{sold_out:?}"
            );
            let short = json!([{"sku": sku, "requested": 1, "available": 0, "retry": true}]);
            assert_eq!(
                (&sold_out.body["shortages"], &sold_out.body["retry"]),
                (&short, &json!(true))
            );
        }
        let too_many = world.post("/v1/holds", &World::wanting(&skus[0], 2, "bob")).await;
        assert_eq!(
            too_many.body["retry"],
            Value::Null,
            "more than there ever are: {too_many:?}"
        );
        let hold = wire::hold_id(lane(0), "still").to_string();
        let early = world.confirm(&hold).await;
        assert_eq!((early.status, early.code()), (409, "hold_pending"), "{early:?}");

        world
            .eventually("its deadline ends it", async || state("rejected").await)
            .await;
        for sku in &skus[..2] {
            settles(&world, sku, (1, 0, 0, 1)).await;
            let again = world.post("/v1/holds", &World::wanting(sku, 1, "bob")).await;
            assert_eq!(again.status, 201, "the units are back: {again:?}");
            assert_eq!(world.cancel(&again.hold_id()).await.status, 200);
        }
        // The lane goes on. Its relay came in time, by the log, and is undone; the next lane's comes too late.
        let parts = async |of: i32| -> Vec<EventBody> {
            let decisions = wire.decisions(lane(of)).await.into_iter();
            decisions
                .filter(|event| event.part.is_some())
                .map(|event| event.body)
                .collect()
        };
        let too_late = EventBody::PartRefused {
            reason: Reason::CartTimedOut,
            shortages: Vec::new(),
        };
        let undone = EventBody::PartFollowed { step: PartStep::Undo };
        let late = world.eventually("the late relays are decided", async || match parts(3).await {
            none if none.is_empty() => Err("not yet".to_owned()),
            some => Ok(some),
        });
        assert_eq!(late.await, [too_late]);
        assert_eq!(parts(2).await, [EventBody::PartHeld, undone]);
        for sku in &skus {
            settles(&world, sku, (1, 0, 0, 1)).await;
        }
        let again = world.post_keyed("/v1/holds", "still", &one_of_each(&skus, "ann")).await;
        assert_eq!(again.status, 201, "its key may be used again: {again:?}");
        world.assert_verified().await;
    });
}

/// Redis loses everything while a cart waits between two of its lanes, is held, and is sold or was refused.
#[test]
fn redis_emptied_at_every_stage_of_a_cart_is_rebuilt_with_it() {
    play(async {
        let world = Setup::new().apart().with("HOLDFAST_RELAY_MS", 600_000).start().await;
        let skus = one_sku_a_lane(&world, "emptied", 10).await;
        let (mut held, mut sold) = (0, 0);
        for last_is_short in [false, true] {
            let mut body = one_of_each(&skus, "ann");
            if last_is_short {
                body["lines"][3]["quantity"] = 11.into();
            }
            // It dies when the second lane's part is in the log and the third is not asked yet.
            world.signal("reserver", "TERM").await;
            world.wait("reserver").await;
            world
                .spawn_with("reserver", &[("HOLDFAST_FAIL_POINT", "forwards.relay_read_back:2")])
                .await;
            let asking = async { world.post("/v1/holds", &body).await };
            let recovering = async {
                world.wait("reserver").await;
                flush(&world);
                world.spawn("reserver").await;
            };
            let (answer, ()) = tokio::join!(asking, recovering);
            if last_is_short {
                assert_eq!(
                    (answer.status, answer.code()),
                    (409, "insufficient_stock"),
                    "{answer:?}"
                );
            } else {
                assert_eq!(answer.status, 201, "{answer:?}");
                held = 1;
            }
            for sku in &skus {
                settles(&world, sku, (10, held, sold, 10 - held - sold)).await;
            }
            flush(&world);
            if held == 1 {
                assert_eq!(world.confirm(&answer.hold_id()).await.status, 200);
                (held, sold) = (0, 1);
            }
            flush(&world);
            for sku in &skus {
                settles(&world, sku, (10, held, sold, 10 - held - sold)).await;
            }
        }
        world.assert_verified().await;
    });
}

/// Redis loses single parts and no more: the set of parts says that they were there, so what is told of one finds its lane
/// damaged, and the lane is rebuilt before it decides.
#[test]
fn a_part_that_redis_lost_is_missed_when_its_cart_ends_and_its_units_come_back() {
    play(async {
        let world = Setup::new().apart().start().await;
        let skus = one_sku_a_lane(&world, "lost-part", 10).await;
        for sold in [0, 1] {
            let answer = world.post("/v1/holds", &one_of_each(&skus, "ann")).await;
            assert_eq!(answer.status, 201, "{answer:?}");
            let parts = lose(&world, "*:part:*");
            // The home lane keeps no part; parts of an ended cart are remembered.
            assert!(parts >= skus.len() - 1, "{parts} parts were lost");
            let ended = if sold == 1 {
                world.confirm(&answer.hold_id()).await
            } else {
                world.cancel(&answer.hold_id()).await
            };
            assert_eq!(ended.status, 200, "{ended:?}");
            for sku in &skus {
                settles(&world, sku, (10, 0, sold, 10 - sold)).await;
            }
            world.assert_verified().await;
        }
    });
}

/// The same cart, with more lines than there are lanes, under one key from Kafka and over HTTP at once: one hold.
#[test]
fn one_cart_from_kafka_and_http_at_once_is_one_hold() {
    play(async {
        let world = World::shared().await;
        let wire = &Wire::of(world).await;
        let skus: Vec<String> = (0..30).map(|number| format!("both-{number}")).collect();
        for sku in &skus {
            world.stock(sku, 1_000).await;
        }
        let home = skus.iter().map(|sku| wire.lane_of(sku)).min().expect("30 SKUs");
        let rounds = times(5, 50);
        for round in 0..rounds {
            let (key, body) = (format!("both-{round}"), one_of_each(&skus, "ann"));
            // Every other time it comes to a lane that is not its own, which sends it on.
            let to = if round % 2 == 0 { home } else { lane(3) };
            let command = from_kafka(&key, &body);
            let (offset, answer) = tokio::join!(
                wire.write_command(to, &command),
                world.post_keyed("/v1/holds", &key, &body)
            );
            assert!(matches!(answer.status, 200 | 201), "{answer:?}");
            assert_eq!(
                (answer.state(), answer.hold_id()),
                ("held", wire::hold_id(home, &key).to_string())
            );
            assert_eq!(answer.body["lines"].as_array().map(Vec::len), Some(30));
            wire.decision(to, offset).await;
        }
        let units = rounds as i64;
        for sku in &skus {
            settles(world, sku, (1_000, units, 0, 1_000 - units)).await;
        }
    });
}

/// A part that is not what its home lane decided is found, in the log and in Redis.
#[test]
fn verify_finds_a_part_that_is_not_what_its_home_lane_decided() {
    play(async {
        let world = Setup::new().start().await;
        let wire = &Wire::of(&world).await;
        let skus = one_sku_a_lane(&world, "broken", 5).await;
        let held = world
            .post_keyed("/v1/holds", "broken", &one_of_each(&skus, "ann"))
            .await;
        assert_eq!(held.status, 201, "{held:?}");
        world.assert_verified().await;
        let decisions = wire.decisions(lane(2)).await.into_iter();
        let part = decisions.filter_map(|event| event.part).next_back().expect("a part");

        // An undo that no home lane has decided.
        let forged = wire::command(
            "forged",
            CommandBody::Undo(Undo {
                hold_id: held.hold_id(),
                attempt: part.attempt,
                lane: 2,
                relay_until: part.relay_until,
            }),
        );
        let offset = wire.write_command(lane(2), &forged).await;
        let undone = wire.decision(lane(2), offset).await.body;
        assert_eq!(undone, EventBody::PartFollowed { step: PartStep::Undo });
        let (code, out, _) = world.run(&["verify", "--at-rest"]).await;
        assert_eq!(code, 1, "{out}");
        let id = format!("{}/{}", held.hold_id(), part.attempt);
        let words = format!("cart {id} is held in its home lane, but its part here is undone");
        assert!(out.contains(&words), "{out}");
    });
}
