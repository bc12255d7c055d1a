//! From a confirmed hold to a parcel through the whole system: once each, whatever fails in between.

use std::{sync::atomic::Ordering, time::Duration};

use domain::{CommandBody, HoldId, Text};
use plumbing::id;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::{
    books::Carrier,
    wire::{Wire, command},
    world::{Answer, Setup, World, play},
};

fn setup(carrier: &str) -> Setup {
    Setup::new()
        .with("HOLDFAST_FULFILLER_CARRIER", carrier)
        .with("HOLDFAST_FULFILLER_TICK_MS", 50)
        .with("HOLDFAST_FULFILLER_WAIT_MS", 50)
        .with("HOLDFAST_FULFILLER_TIMEOUT_MS", 2_000)
}

/// A confirmed hold of some units.
async fn sold(world: &World, sku: &str, quantity: i64) -> String {
    let answer = world.reserve(&id::random().to_string(), sku, quantity, "ann").await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let confirmed = world.confirm(&answer.hold_id()).await;
    assert_eq!(confirmed.status, 200, "{confirmed:?}");
    answer.hold_id()
}

async fn becomes(world: &World, hold_id: &str, state: &str) -> Answer {
    world
        .eventually("the order's state", async || {
            let answer = world.get(&format!("/v1/orders/{hold_id}")).await;
            match answer.state() == state {
                true => Ok(answer),
                false => Err(format!("{answer:?} is not {state}")),
            }
        })
        .await
}

async fn has_counters(world: &World, sku: &str, wanted: (i64, i64, i64, i64)) {
    world
        .eventually("the counters", async || {
            let counters = world.counters(sku).await;
            match counters == wanted {
                true => Ok(()),
                false => Err(format!("{counters:?} is not {wanted:?}")),
            }
        })
        .await;
}

async fn number(world: &World, query: &'static str) -> i64 {
    let url = world.connections.postgres_url.expose();
    let mut postgres = sqlx::PgConnection::connect(url).await.expect("Postgres answers");
    sqlx::query_scalar(query)
        .fetch_one(&mut postgres)
        .await
        .expect("a number")
}

fn because(reason: &str) -> Value {
    json!({"reason": reason, "actor": "eve"})
}

#[test]
fn what_is_paid_is_shipped_once_and_comes_back_at_most_once() {
    play(async {
        let world = setup("log").start().await;
        world.stock("shipped", 10).await;
        let hold_id = sold(&world, "shipped", 3).await;
        let order = becomes(&world, &hold_id, "fulfilled").await;
        assert!(order.body["carrier_reference"].is_string(), "{order:?}");
        assert_eq!(world.get(&format!("/v1/holds/{hold_id}")).await.state(), "shipped");
        has_counters(&world, "shipped", (7, 0, 0, 7)).await;
        assert_eq!(number(&world, "SELECT count(*) FROM carrier_book").await, 1);
        assert_eq!(number(&world, "SELECT sum(asked) FROM carrier_book").await, 1);
        let listed = world.get("/v1/orders?state=fulfilled&user_id=ann").await;
        assert_eq!(listed.body["orders"][0]["hold_id"], hold_id.as_str(), "{listed:?}");

        let path = format!("/v1/orders/{hold_id}/returns");
        let lines = |quantity: i64| json!({"reason": "too small", "lines": [{"sku": "shipped", "quantity": quantity}]});
        let above = world.post_keyed(&path, "r-0", &lines(4)).await;
        assert_eq!((above.status, above.code()), (409, "more_than_shipped"), "{above:?}");
        for _again in 0..3 {
            let taken = world.post_keyed(&path, "r-1", &lines(2)).await;
            assert_eq!(taken.status, 202, "{taken:?}");
        }
        let other = world.post_keyed(&path, "r-1", &lines(1)).await;
        assert_eq!(
            (other.status, other.code()),
            (422, "idempotency_key_reused"),
            "{other:?}"
        );
        let above = world.post_keyed(&path, "r-2", &lines(2)).await;
        assert_eq!((above.status, above.code()), (409, "more_than_shipped"), "{above:?}");
        let rest = world.post_keyed(&path, "r-3", &because("all of it")).await;
        assert_eq!(rest.status, 202, "{rest:?}");
        has_counters(&world, "shipped", (10, 0, 0, 10)).await;
        world.assert_verified().await;
    });
}

#[test]
fn a_cart_over_several_lanes_is_one_parcel_with_all_its_lines() {
    play(async {
        let world = setup("log").start().await;
        let skus: Vec<String> = domain::Lane::all(world.lanes)
            .map(|lane| world.sku_in(lane, &format!("cart-{lane}")))
            .collect();
        for sku in &skus {
            world.stock(sku, 10).await;
        }
        let lines: Vec<Value> = skus.iter().map(|sku| json!({"sku": sku, "quantity": 2})).collect();
        let cart = json!({"lines": lines, "user_id": "ann"});
        let held = world.post_keyed("/v1/holds", "cart", &cart).await;
        assert_eq!(held.status, 201, "{held:?}");
        assert_eq!(world.confirm(&held.hold_id()).await.status, 200);
        let order = becomes(&world, &held.hold_id(), "fulfilled").await;
        assert_eq!(
            order.body["lines"].as_array().map(Vec::len),
            Some(skus.len()),
            "{order:?}"
        );
        for sku in &skus {
            has_counters(&world, sku, (8, 0, 0, 8)).await;
        }
        assert_eq!(number(&world, "SELECT count(*) FROM orders").await, 1);
        let carried = "SELECT sum(jsonb_array_length(payload->'lines')) FROM carrier_book";
        assert_eq!(number(&world, carried).await, i64::try_from(skus.len()).expect("few"));
        assert_eq!(number(&world, "SELECT count(*) FROM carrier_book").await, 1);

        // What comes back, comes back in the lane of its SKU.
        let path = format!("/v1/orders/{}/returns", held.hold_id());
        let taken = world.post_keyed(&path, "r-1", &because("all of it")).await;
        assert_eq!(taken.status, 202, "{taken:?}");
        for sku in &skus {
            has_counters(&world, sku, (10, 0, 0, 10)).await;
        }
        world.assert_verified().await;
    });
}

/// Postgres is behind the log (made anew, an older backup, a persister that was away): there a sale stands confirmed that was
/// taken back since.
#[test]
fn a_picture_of_the_past_ships_nothing_that_the_log_has_taken_back() {
    play(async {
        let (carrier, url) = Carrier::open().await;
        let world = setup(&url).apart().start().await;
        world.stock("recalled", 10).await;
        let hold_id = sold(&world, "recalled", 3).await;
        let confirmed = "SELECT count(*) FROM holds WHERE state = 'confirmed'";
        world
            .eventually("the sale is in the picture", async || {
                match number(&world, confirmed).await {
                    1 => Ok(()),
                    sales => Err(format!("{sales} sales")),
                }
            })
            .await;
        world.kill("persister").await;
        let id = HoldId::parse(&hold_id).expect("an id");
        let text = |text: &str| Text::parse("text", text).expect("a text");
        let body = CommandBody::Unallocate {
            hold_id: id,
            reason: text("recalled"),
            actor: text("the maker"),
        };
        let wire = Wire::of(&world).await;
        wire.write_command(id.lane(), &command("recall", (&body).into())).await;
        has_counters(&world, "recalled", (10, 0, 0, 10)).await;

        world.spawn("fulfiller").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(
            number(&world, confirmed).await,
            1,
            "it stands there, and the log knows better"
        );
        assert_eq!(carrier.asked.load(Ordering::Relaxed), 0, "nothing is shipped by it");

        world.spawn("persister").await;
        let sale = sold(&world, "recalled", 2).await;
        world
            .eventually("the new sale is shipped", async || {
                match world.get(&format!("/v1/holds/{sale}")).await {
                    hold if hold.state() == "shipped" => Ok(()),
                    hold => Err(format!("{hold:?}")),
                }
            })
            .await;
        assert_eq!(carrier.asked.load(Ordering::Relaxed), 1, "and nothing else");
        world.assert_verified().await;
    });
}

#[test]
fn a_carrier_that_is_down_fills_the_failed_queue_and_a_retry_ships_once() {
    play(async {
        let (carrier, url) = Carrier::open().await;
        let world = setup(&url).start().await;
        carrier.is_down.store(true, Ordering::Relaxed);
        world.stock("struck", 10).await;
        let [served, given_up] = [sold(&world, "struck", 1).await, sold(&world, "struck", 2).await];
        for hold_id in [&served, &given_up] {
            let order = becomes(&world, hold_id, "failed").await;
            assert_eq!(order.body["tries"], 3, "{order:?}");
        }
        assert_eq!(carrier.asked.load(Ordering::Relaxed), 6);
        let queue = world.get("/v1/admin/failed").await;
        assert_eq!(queue.body["orders"].as_array().map(Vec::len), Some(2), "{queue:?}");
        let seen = world.get(&format!("/v1/admin/failed/{served}")).await;
        assert_eq!(seen.body["tries"].as_array().map(Vec::len), Some(3), "{seen:?}");
        assert!(
            seen.body["tries"][0]["error"]
                .as_str()
                .is_some_and(|e| e.contains("on strike")),
            "{seen:?}"
        );
        assert_eq!(seen.body["tries"][0]["payload"]["hold_id"], served.as_str());

        carrier.is_down.store(false, Ordering::Relaxed);
        let asked = |what: &str, hold_id: &str| format!("/v1/admin/failed/{hold_id}/{what}");
        let retried = world.post(&asked("retry", &served), &because("they work again")).await;
        assert_eq!(retried.status, 200, "{retried:?}");
        let cancelled = world
            .post(&asked("cancel", &given_up), &because("the buyer is gone"))
            .await;
        assert_eq!(
            (cancelled.status, cancelled.state()),
            (200, "cancelled"),
            "{cancelled:?}"
        );
        becomes(&world, &served, "fulfilled").await;
        has_counters(&world, "struck", (9, 0, 0, 9)).await;
        assert_eq!(carrier.parcels(), [1]);
        for (what, hold_id) in [
            ("retry", &served),
            ("cancel", &served),
            ("retry", &given_up),
            ("cancel", &given_up),
        ] {
            let refused = world.post(&asked(what, hold_id), &because("once more")).await;
            assert_eq!(
                (refused.status, refused.code()),
                (409, "wrong_order_state"),
                "{refused:?}"
            );
        }
        assert_eq!(
            number(&world, "SELECT count(*) FROM refund_requests WHERE actor = 'eve'").await,
            1
        );
        let audited = "SELECT count(*) FROM audit_log WHERE actor = 'eve' AND action LIKE 'order.%'";
        assert_eq!(number(&world, audited).await, 2);
        world.assert_verified().await;
    });
}

#[test]
fn the_janitor_gives_up_what_nobody_looks_after_and_nothing_else() {
    play(async {
        let (carrier, url) = Carrier::open().await;
        let world = setup(&url).with("HOLDFAST_FULFILLER_GIVE_UP_SECONDS", 1).start().await;
        world.stock("lonely", 10).await;
        let served = sold(&world, "lonely", 1).await;
        becomes(&world, &served, "fulfilled").await;
        carrier.is_down.store(true, Ordering::Relaxed);
        let lonely = sold(&world, "lonely", 2).await;
        becomes(&world, &lonely, "cancelled").await;
        has_counters(&world, "lonely", (9, 0, 0, 9)).await;
        becomes(&world, &served, "fulfilled").await;
        let refunds = "SELECT count(*) FROM refund_requests WHERE actor = 'janitor' AND payment_ref = 'payment-1'";
        assert_eq!(number(&world, refunds).await, 1);
        assert_eq!(number(&world, "SELECT count(*) FROM refund_requests").await, 1);
        world.assert_verified().await;
    });
}
