//! Carts over several lanes: wholly held or not at all, whoever races or dies.

use std::sync::Arc;

use domain::Lane;
use schemas::records::{CommandBody, Reserve, ReserveLine};
use serde_json::{Value, json};

use crate::{
    wire::{self, Wire},
    world::{Answer, Setup, World, play, times},
};

/// One SKU of each lane, with so many units.
pub async fn one_sku_a_lane(world: &World, name: &str, units: i64) -> Vec<String> {
    let skus: Vec<String> = Lane::all(world.lanes)
        .map(|lane| world.sku_in(lane, &format!("{name}-{lane}")))
        .collect();
    for sku in &skus {
        world.stock(sku, units).await;
    }
    skus
}

/// A cart's request: SKUs with units.
pub fn cart(lines: &[(&str, i64)], user: &str) -> Value {
    let lines: Vec<Value> = lines
        .iter()
        .map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity}))
        .collect();
    json!({"lines": lines, "user_id": user})
}

fn lines_of(answer: &Answer) -> Vec<(String, i64)> {
    let lines = answer.body["lines"].as_array().cloned().unwrap_or_default();
    lines
        .iter()
        .map(|line| {
            let sku = line["sku"].as_str().unwrap_or_default().to_owned();
            (sku, line["quantity"].as_i64().unwrap_or_default())
        })
        .collect()
}

/// Waits until a SKU's counters (on hand, held, allocated, available) are these.
pub async fn settles(world: &World, sku: &str, counters: (i64, i64, i64, i64)) {
    world
        .eventually(&format!("{sku} is {counters:?}"), async || {
            let found = world.counters(sku).await;
            if found == counters {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await;
}

#[test]
fn a_cart_over_all_lanes_is_held_confirmed_cancelled_and_refused_as_one() {
    play(async {
        let world = Setup::new().start().await;
        let skus = one_sku_a_lane(&world, "whole", 10).await;
        let lines: Vec<(&str, i64)> = skus.iter().map(|sku| (sku.as_str(), 2)).collect();

        let held = world.post_keyed("/v1/holds", "cart-1", &cart(&lines, "ann")).await;
        assert_eq!((held.status, held.state()), (201, "held"), "{held:?}");
        let mut asked: Vec<(String, i64)> = lines.iter().map(|(sku, units)| ((*sku).to_owned(), *units)).collect();
        asked.sort();
        assert_eq!(lines_of(&held), asked);
        let again = world.post_keyed("/v1/holds", "cart-1", &cart(&lines, "ann")).await;
        assert_eq!(
            (again.status, again.header("idempotent-replayed")),
            (200, Some("true")),
            "{again:?}"
        );
        for sku in &skus {
            settles(&world, sku, (10, 2, 0, 8)).await;
        }
        let confirmed = world.confirm(&held.hold_id()).await;
        assert_eq!(
            (confirmed.status, confirmed.state()),
            (200, "confirmed"),
            "{confirmed:?}"
        );
        for sku in &skus {
            settles(&world, sku, (10, 0, 2, 8)).await;
        }

        let other = world.post_keyed("/v1/holds", "cart-2", &cart(&lines, "bob")).await;
        assert_eq!(other.status, 201, "{other:?}");
        assert_eq!(world.cancel(&other.hold_id()).await.status, 200);
        for sku in &skus {
            settles(&world, sku, (10, 0, 2, 8)).await;
        }

        // The last lane is short: the others give back what they held, and the key may be used again.
        let last = skus.last().expect("four").as_str();
        let mut greedy = lines.clone();
        greedy.last_mut().expect("four").1 = 9;
        let refused = world.post_keyed("/v1/holds", "cart-3", &cart(&greedy, "eve")).await;
        assert_eq!(
            (refused.status, refused.code()),
            (409, "insufficient_stock"),
            "{refused:?}"
        );
        let shortages = json!([{"sku": last, "requested": 9, "available": 8}]);
        assert_eq!(refused.body["shortages"], shortages);
        for sku in &skus {
            settles(&world, sku, (10, 0, 2, 8)).await;
        }
        let retried = world.post_keyed("/v1/holds", "cart-3", &cart(&lines, "eve")).await;
        assert_eq!(retried.status, 201, "{retried:?}");
        let report = world.assert_verified().await;
        assert_eq!(report.holds().get("confirmed"), Some(&1));
        shows_all_lanes(&world, &held.hold_id(), &refused.hold_id()).await;
    });
}

/// `show` tells a cart's story in all its lanes, one after the other, and what each keeps.
async fn shows_all_lanes(world: &World, paid: &str, tried_again: &str) {
    let (code, out, error) = world.run(&["show", paid, "--json"]).await;
    assert_eq!(code, 0, "{out}{error}");
    let life: Value = serde_json::from_str(&out).expect("JSON");
    let timeline = life["timeline"].as_array().expect("a timeline");
    let told: Vec<_> = timeline
        .iter()
        .map(|entry| (entry["partition"].as_i64(), entry["type"].as_str()))
        .collect();
    let place = |lane: i64, kind: &str| {
        let place = told.iter().position(|entry| *entry == (Some(lane), Some(kind)));
        place.unwrap_or_else(|| panic!("no {kind} in lane {lane}: {told:?}"))
    };
    let steps = [
        (0, "HoldPending"),
        (1, "Relay"),
        (1, "PartHeld"),
        (2, "PartHeld"),
        (3, "PartHeld"),
        (0, "RelayDone"),
        (0, "HoldCreated"),
        (0, "HoldConfirmed"),
        (3, "Settle"),
        (3, "PartSettled"),
    ];
    let places = steps.map(|(lane, kind)| place(lane, kind));
    assert!(places.is_sorted(), "{places:?} of {told:?}");
    let parts = life["parts"].as_array().expect("parts");
    let states = |part: &Value| ["lane", "log", "redis", "postgres"].map(|name| part[name].clone());
    let settled = |lane: i64| [json!(lane), json!("settled"), json!("settled"), json!("settled")];
    let found: Vec<_> = parts.iter().map(states).collect();
    assert_eq!(found, [1, 2, 3].map(settled));
    assert_eq!(
        life["movements"].as_array().map(Vec::len),
        Some(8),
        "held and confirmed, in four lanes"
    );

    // The first attempt's parts are undone, the second's are held.
    let (code, out, error) = world.run(&["show", tried_again]).await;
    assert_eq!(code, 0, "{out}{error}");
    for word in [
        "PartRefused",
        "RelayFailed",
        "PartUndone",
        "its parts in other lanes",
        "agree",
    ] {
        assert!(out.contains(word), "{word} is missing in\n{out}");
    }
}

/// The published cart shop's size: every short line of the lanes visited is named.
#[test]
fn a_cart_of_twenty_lines_that_is_short_names_every_short_line_in_one_call() {
    play(async {
        let world = World::shared().await;
        let mut skus = Vec::new();
        for lane in Lane::all(world.lanes) {
            skus.extend(world.skus_in(lane, &format!("twenty-{lane}"), 5));
        }
        for (number, sku) in skus.iter().enumerate() {
            // Lane 2 has two lines too few units of; lane 3, which is asked after it, has none.
            world.stock(sku, if number == 11 || number == 13 { 1 } else { 5 }).await;
        }
        let lines: Vec<(&str, i64)> = skus.iter().rev().map(|sku| (sku.as_str(), 2)).collect();
        let refused = world.post("/v1/holds", &cart(&lines, "ann")).await;
        assert_eq!(
            (refused.status, refused.code()),
            (409, "insufficient_stock"),
            "{refused:?}"
        );
        let mut short = [&skus[11], &skus[13]];
        short.sort();
        let expected = short.map(|sku| json!({"sku": sku, "requested": 2, "available": 1}));
        assert_eq!(refused.body["shortages"], json!(expected));
        for (number, sku) in skus.iter().enumerate() {
            let units = if number == 11 || number == 13 { 1 } else { 5 };
            settles(world, sku, (units, 0, 0, units)).await;
        }
        for sku in [&skus[11], &skus[13]] {
            world.stock(sku, 5).await;
        }
        let held = world.post("/v1/holds", &cart(&lines, "ann")).await;
        assert_eq!((held.status, lines_of(&held).len()), (201, 20), "{held:?}");
    });
}

#[test]
fn of_two_carts_for_the_last_units_in_either_order_exactly_one_wins() {
    play(async {
        let world = World::shared().await;
        let (a, b) = (
            world.sku_in(Lane::new(1).expect("a lane"), "last-a"),
            world.sku_in(Lane::new(3).expect("a lane"), "last-b"),
        );
        world.stock(&a, 1).await;
        world.stock(&b, 1).await;
        for round in 0..times(10, 500) {
            let (one, other) = (cart(&[(&a, 1), (&b, 1)], "ann"), cart(&[(&b, 1), (&a, 1)], "bob"));
            let answers = tokio::join!(world.post("/v1/holds", &one), world.post("/v1/holds", &other));
            let answers = [answers.0, answers.1];
            let won: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 201).collect();
            assert_eq!(won.len(), 1, "round {round}: {answers:?}");
            let lost = answers.iter().find(|answer| answer.status != 201).expect("one lost");
            assert_eq!(lost.code(), "insufficient_stock", "round {round}: {lost:?}");
            assert_eq!(world.cancel(&won[0].hold_id()).await.status, 200);
            settles(world, &a, (1, 0, 0, 1)).await;
            settles(world, &b, (1, 0, 0, 1)).await;
        }
    });
}

/// Carts of all sizes from HTTP and Kafka at once, and what was not paid comes back by itself.
#[test]
fn overlapping_carts_oversell_nothing_are_whole_and_leave_no_unit_behind() {
    play(async {
        let world = Arc::new(Setup::new().start().await);
        let skus: Vec<String> = (0..12).map(|number| format!("overlap-{number}")).collect();
        for sku in &skus {
            world.stock(sku, 30).await;
        }
        let carts = times(40, 200);
        let mut asked = Vec::new();
        for number in 0..carts {
            let size = 2 + number % 9;
            let lines: Vec<(String, i64)> = (0..size)
                .map(|line| (skus[(number * 5 + line * 7) % 12].clone(), 1 + (line % 3) as i64))
                .collect();
            let world = Arc::clone(&world);
            asked.push(plumbing::task::spawn("cart", async move {
                if number % 4 == 3 {
                    let wire = Wire::of(&world).await;
                    let body = CommandBody::Reserve(Reserve {
                        idempotency_key: format!("overlap-kafka-{number}"),
                        user_id: "upstream".to_owned(),
                        lines: lines
                            .iter()
                            .map(|(sku, quantity)| ReserveLine {
                                sku: sku.clone(),
                                quantity: *quantity,
                            })
                            .collect(),
                        ttl_ms: Some(3_000),
                        policy: "all_or_nothing".to_owned(),
                        external_ref: None,
                    });
                    // To any lane: one that is not the cart's home lane sends it on.
                    let lane = Lane::new((number / 4 % 4) as i32).expect("a lane");
                    wire.write_command(lane, &wire::command(&format!("overlap-{number}"), body))
                        .await;
                    return;
                }
                let lines: Vec<(&str, i64)> = lines.iter().map(|(sku, units)| (sku.as_str(), *units)).collect();
                let mut body = cart(&lines, &format!("user-{number}"));
                body["ttl_seconds"] = 3.into();
                let answer = world.post("/v1/holds", &body).await;
                assert!(matches!(answer.status, 201 | 409), "{answer:?}");
                if answer.status == 201 && number % 3 == 0 {
                    let confirmed = world.confirm(&answer.hold_id()).await;
                    assert!(matches!(confirmed.status, 200 | 410), "{confirmed:?}");
                }
            }));
        }
        for task in asked {
            task.await.expect("no panic");
        }
        for sku in &skus {
            world
                .eventually("nothing is held", async || {
                    let (on_hand, held, allocated, _) = world.counters(sku).await;
                    assert!(held + allocated <= on_hand, "{sku} is oversold");
                    if held == 0 {
                        Ok(())
                    } else {
                        Err(format!("{held} of {sku}"))
                    }
                })
                .await;
        }
        let report = world.assert_verified().await;
        assert_eq!(report.holds().get("held"), Some(&0));
    });
}

#[test]
fn policies_hold_what_is_there_and_say_what_was_asked() {
    play(async {
        let world = World::shared().await;
        let lane = Lane::new(2).expect("a lane");
        let skus = world.skus_in(lane, "policy", 2);
        world.stock(&skus[0], 5).await;
        world.stock(&skus[1], 1).await;
        let lines = [(skus[0].as_str(), 3), (skus[1].as_str(), 2)];
        let asked = |lines: &[(&str, i64)]| {
            let mut lines: Vec<_> = lines.to_vec();
            lines.sort_unstable();
            json!(
                lines
                    .iter()
                    .map(|(sku, units)| json!({"sku": sku, "quantity": units}))
                    .collect::<Vec<_>>()
            )
        };
        let mut body = cart(&lines, "ann");
        body["policy"] = "per_line".into();
        let held = world.post_keyed("/v1/holds", "policy-1", &body).await;
        assert_eq!(held.status, 201, "{held:?}");
        assert_eq!(lines_of(&held), [(skus[0].clone(), 3)]);
        assert_eq!(
            (&held.body["asked"], &held.body["policy"]),
            (&asked(&lines), &json!("per_line"))
        );

        body["policy"] = "up_to".into();
        let held = world.post_keyed("/v1/holds", "policy-2", &body).await;
        assert_eq!(held.status, 201, "{held:?}");
        let mut some = vec![(skus[0].clone(), 2), (skus[1].clone(), 1)];
        some.sort();
        assert_eq!(lines_of(&held), some);
        assert_eq!(held.body["asked"], asked(&lines));
        let stored = world.get(&format!("/v1/holds/{}", held.hold_id())).await;
        assert_eq!(stored.body["asked"], asked(&lines));
        let nothing = world.post_keyed("/v1/holds", "policy-3", &body).await;
        assert_eq!(
            (nothing.status, nothing.code()),
            (409, "insufficient_stock"),
            "{nothing:?}"
        );

        let elsewhere = world.sku_in(Lane::new(0).expect("a lane"), "policy-elsewhere");
        let mut apart = cart(&[(skus[0].as_str(), 1), (elsewhere.as_str(), 1)], "ann");
        apart["policy"] = "per_line".into();
        let refused = world.post("/v1/holds", &apart).await;
        assert_eq!((refused.status, refused.code()), (422, "several_lanes"), "{refused:?}");
    });
}
