//! Answers: every refusal with its code, repetitions that change nothing, and what an order leaves behind.

use serde_json::json;
use sqlx::Row as _;

use crate::world::{Answer, World, play};

fn problem(answer: &Answer) -> (u16, &str) {
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{answer:?}"
    );
    (answer.status, answer.code())
}

async fn held(world: &World, key: &str, sku: &str) -> String {
    let answer = world.reserve(key, sku, 1, "ann").await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.hold_id()
}

#[test]
fn confirm_cancel_and_extend_answer_by_the_state_of_the_hold() {
    play(async {
        let world = World::shared().await;
        world.stock("states", 10).await;
        let hold_id = held(world, "states-paid", "states").await;
        let confirmed = world.confirm(&hold_id).await;
        assert_eq!(
            (confirmed.status, confirmed.state()),
            (200, "confirmed"),
            "{confirmed:?}"
        );
        let again = world.confirm(&hold_id).await;
        assert_eq!(
            (again.status, again.state()),
            (200, "confirmed"),
            "the same payment again: {again:?}"
        );
        let path = format!("/v1/holds/{hold_id}");
        let other = world
            .post(&format!("{path}/confirm"), &json!({"payment_ref": "another"}))
            .await;
        assert_eq!(problem(&other), (409, "already_confirmed"));
        assert_eq!(problem(&world.cancel(&hold_id).await), (409, "already_confirmed"));
        let extended = world.post(&format!("{path}/extend"), &json!({"ttl_seconds": 60})).await;
        assert_eq!(problem(&extended), (409, "already_confirmed"));

        let hold_id = held(world, "states-back", "states").await;
        assert_eq!(world.cancel(&hold_id).await.state(), "cancelled");
        assert_eq!(world.cancel(&hold_id).await.status, 200, "the same again");
        assert_eq!(problem(&world.confirm(&hold_id).await), (409, "already_cancelled"));
        let path = format!("/v1/holds/{hold_id}");
        let extended = world.post(&format!("{path}/extend"), &json!({"ttl_seconds": 60})).await;
        assert_eq!(problem(&extended), (409, "already_cancelled"));

        let nobody = domain::HoldId::of(
            domain::Lane::new(1).expect("a lane"),
            &domain::Tenant::parse("default").expect("a tenant"),
            &domain::Key::parse("key", "never-sent").expect("a key"),
        );
        assert_eq!(
            problem(&world.confirm(&nobody.to_string()).await),
            (404, "hold_not_found")
        );
        assert_eq!(
            problem(&world.get(&format!("/v1/holds/{nobody}")).await),
            (404, "hold_not_found")
        );
        let unknown = world.reserve("states-unknown", "never-stocked", 1, "ann").await;
        assert_eq!(problem(&unknown), (404, "unknown_sku"));
        assert_eq!(
            problem(&world.get("/v1/stock/never-stocked").await),
            (404, "unknown_sku")
        );
    });
}

#[test]
fn extend_moves_the_deadline_and_never_past_the_longest_life() {
    play(async {
        let world = World::shared().await;
        world.stock("longer", 1).await;
        let first = world.reserve("longer", "longer", 1, "ann").await;
        let path = format!("/v1/holds/{}/extend", first.hold_id());
        let longer = world
            .post_keyed(&path, "longer-1", &json!({"ttl_seconds": 1_800}))
            .await;
        assert_eq!(longer.status, 200, "{longer:?}");
        assert!(
            longer.body["expires_at"].as_str() > first.body["expires_at"].as_str(),
            "{longer:?}"
        );
        let again = world
            .post_keyed(&path, "longer-1", &json!({"ttl_seconds": 1_800}))
            .await;
        assert_eq!(
            again.body["expires_at"], longer.body["expires_at"],
            "the same key moves it once"
        );
        let beyond = world.post(&path, &json!({"ttl_seconds": 3_600})).await;
        assert_eq!(problem(&beyond), (422, "lifetime_exceeded"));
        let now = world.get(&format!("/v1/holds/{}", first.hold_id())).await;
        assert_eq!(
            now.body["expires_at"], longer.body["expires_at"],
            "a refused change never extends"
        );
    });
}

#[test]
fn limits_and_safety_stock_are_kept_and_adjustments_respect_what_is_committed() {
    play(async {
        let world = World::shared().await;
        world.stock("policy", 10).await;
        let url = format!("{}/v1/skus/policy", world.url);
        let put = world
            .client
            .put(url)
            .json(&json!({"safety_stock": 6, "max_per_user": 3}));
        let configured = world.request(put).await;
        assert_eq!(
            (configured.status, configured.body["available"].as_i64()),
            (200, Some(4)),
            "{configured:?}"
        );
        let over = world.reserve("policy-ann", "policy", 4, "ann").await;
        assert_eq!(problem(&over), (422, "limit_exceeded"));
        assert_eq!(world.reserve("policy-ann", "policy", 3, "ann").await.status, 201);
        let safe = world.reserve("policy-bob", "policy", 2, "bob").await;
        assert_eq!(problem(&safe), (409, "insufficient_stock"));
        assert_eq!(world.counters("policy").await, (10, 3, 0, 1));
        assert_eq!(problem(&world.set("policy", 2).await), (409, "stock_committed"));
        let body = json!({"sku": "policy", "set": 20, "expected": 11, "reason": "count"});
        assert_eq!(
            problem(&world.post("/v1/stock/adjustments", &body).await),
            (409, "version_conflict")
        );
        let body = json!({"sku": "policy", "change": 5, "expected": 10, "reason": "delivery", "reference": "D-7"});
        let adjusted = world.post_keyed("/v1/stock/adjustments", "delivery-7", &body).await;
        assert_eq!(
            (adjusted.status, adjusted.body["on_hand"].as_i64()),
            (200, Some(15)),
            "{adjusted:?}"
        );
        let again = world.post_keyed("/v1/stock/adjustments", "delivery-7", &body).await;
        assert_eq!(
            (again.status, again.body["on_hand"].as_i64()),
            (200, Some(15)),
            "counted once"
        );
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
    });
}

#[test]
fn the_short_form_reserves_confirms_and_cancels() {
    play(async {
        let world = World::shared().await;
        world.stock("short", 1).await;
        let body = json!({"sku": "short", "qty": 1, "user_id": "ann", "idempotency_key": "short-1"});
        let first = world.post("/holds/reserve", &body).await;
        assert_eq!(first.status, 200, "{first:?}");
        let again = world.post("/holds/reserve", &body).await;
        assert_eq!((again.status, again.hold_id()), (200, first.hold_id()));
        let other = json!({"sku": "short", "qty": 1, "user_id": "bob", "idempotency_key": "short-2"});
        assert_eq!(
            problem(&world.post("/holds/reserve", &other).await),
            (409, "insufficient_stock")
        );
        let cancelled = world.post("/holds/cancel", &json!({"hold_id": first.hold_id()})).await;
        assert_eq!(cancelled.status, 200, "{cancelled:?}");
        let second = world.post("/holds/reserve", &other).await;
        assert_eq!(second.status, 200, "{second:?}");
        let body = json!({"hold_id": second.hold_id(), "payment_ref": "p-1"});
        assert_eq!(world.post("/holds/confirm", &body).await.status, 200);
        assert_eq!(world.counters("short").await, (1, 0, 1, 0));
    });
}

#[test]
fn a_confirmed_hold_writes_its_order_exactly_once() {
    play(async {
        let world = World::shared().await;
        world.stock("ordered", 5).await;
        let hold = world.reserve("ordered", "ordered", 2, "ann").await;
        for _ in 0..3 {
            assert_eq!(world.confirm(&hold.hold_id()).await.status, 200);
        }
        let pool = plumbing::postgres::connect_lazy(&world.connections.postgres_url, "test", 1).expect("a URL");
        let hold_id: uuid::Uuid = hold.hold_id().parse().expect("a UUID");
        let order = world
            .eventually("the order is there", async || {
                let query = "SELECT user_id, payment_ref, lines::text AS lines FROM orders WHERE hold_id = $1";
                let rows = sqlx::query(query)
                    .bind(hold_id)
                    .fetch_all(&pool)
                    .await
                    .map_err(|error| error.to_string())?;
                match &rows[..] {
                    [row] => Ok((
                        row.get::<String, _>(0),
                        row.get::<String, _>(1),
                        row.get::<String, _>(2),
                    )),
                    rows => Err(format!("{} rows", rows.len())),
                }
            })
            .await;
        assert_eq!((order.0.as_str(), order.1.as_str()), ("ann", "payment-1"));
        assert!(order.2.contains("ordered") && order.2.contains('2'), "{order:?}");
    });
}

#[test]
fn a_client_that_hangs_up_leaves_nothing_half_way() {
    play(async {
        let world = World::shared().await;
        world.stock("hang-up", 50).await;
        for number in 0..50 {
            let request = world
                .posting("/v1/holds", &World::wanting("hang-up", 1, "ann"))
                .header("Idempotency-Key", format!("hang-up-{number}"));
            // Gone before, while and after the command is sent.
            let wait = std::time::Duration::from_micros(200 * number);
            drop(tokio::time::timeout(wait, request.send()).await);
        }
        for number in 0..50 {
            let answer = world.reserve(&format!("hang-up-{number}"), "hang-up", 1, "ann").await;
            assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        }
        assert_eq!(world.counters("hang-up").await, (50, 50, 0, 0));
    });
}
