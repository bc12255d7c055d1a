//! Reads: the tail's memory over Postgres' rows, and never an answer that is older than one already given.

use domain::{EventBody, HoldState, Lane, Sku};
use ingress::Options;
use plumbing::config::Connections;
use serde_json::json;
use sqlx::PgPool;
use tokio::join;

use crate::{
    reserver::{Asked, Reserver},
    world::{Api, LANES, Said, World, options, sku_in, wait_for},
};

async fn store_stock(pool: &PgPool, sku: &Sku, on_hand: i64, version: i64, safety_stock: i64) {
    sqlx::query(
        "INSERT INTO stock (tenant, sku, lane, on_hand, held, allocated, version, safety_stock, changed_at)
         VALUES ('default', $1, $2, $3, 0, 0, $4, $5, 0)",
    )
    .bind(sku.as_str())
    .bind(i16::try_from(Lane::of_sku(sku, LANES).number()).unwrap())
    .bind(on_hand)
    .bind(version)
    .bind(safety_stock)
    .execute(pool)
    .await
    .unwrap();
}

async fn store_hold(pool: &PgPool, asked: &Asked, state: &str) {
    let terms = asked.terms(HoldState::Held);
    let mut tx = pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO holds (hold_id, attempt, lane, tenant, state, user_id, idempotency_key, key_bits, fingerprint,
             created_at, expires_at, changed_at, policy, command_offset)
         VALUES ($1, $2, 0, 'default', $3, $4, $5, $1, $6, $7, $8, $7, 'all_or_nothing', $2)",
    )
    .bind(asked.hold_id().uuid())
    .bind(asked.offset)
    .bind(state)
    .bind(terms.user_id.as_str())
    .bind(terms.idempotency_key.as_str())
    .bind(terms.fingerprint.as_bytes().as_slice())
    .bind(terms.created_at)
    .bind(terms.expires_at)
    .execute(&mut *tx)
    .await
    .unwrap();
    for line in &asked.reserve().lines {
        sqlx::query(
            "INSERT INTO hold_lines (hold_id, attempt, sku, quantity, lane, tenant, created_at)
             VALUES ($1, $2, $3, $4, 0, 'default', $5)",
        )
        .bind(asked.hold_id().uuid())
        .bind(asked.offset)
        .bind(line.sku.as_str())
        .bind(line.quantity.units())
        .bind(terms.created_at)
        .execute(&mut *tx)
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
}

async fn reserve(api: &Api, reserver: &mut Reserver) -> Asked {
    let body = json!({"lines": [{"sku": sku_in(0).as_str(), "quantity": 1}], "user_id": "u"});
    let decide = async {
        let asked = reserver.next().await;
        let created = reserver.created(&asked);
        reserver.decide(&asked, created).await;
        asked
    };
    let (response, asked) = join!(api.post("/v1/holds", &body).send(), decide);
    assert_eq!(response.unwrap().status(), 201);
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_of_the_tail_get_their_policy_from_postgres() {
    let (world, api, mut reserver) = World::with_all().await;
    let sku = sku_in(0);
    store_stock(&world.pool, &sku, 40, 1, 30).await;
    let said = api.get(&format!("/v1/stock/{sku}")).await;
    assert_eq!((said.status.as_u16(), &said.body["available"]), (200, &json!(10)));

    // The event's lines: 100 on hand, 1 held, version 2; the safety stock is known from Postgres only.
    reserve(&api, &mut reserver).await;
    let said = api.get(&format!("/v1/stock/{sku}")).await;
    assert_eq!(said.body["available"], 69);
    assert_eq!(said.body["version"], 2);

    let other = sku_in(3);
    store_stock(&world.pool, &other, 7, 9, 0).await;
    let page = api.get("/v1/stock?limit=1").await;
    assert_eq!(page.body["stock"].as_array().unwrap().len(), 1);
    let cursor = page.body["next_cursor"].as_str().unwrap();
    let rest = api.get(&format!("/v1/stock?limit=5&cursor={cursor}")).await;
    assert!(rest.body.get("next_cursor").is_none());
    let all = [&page.body["stock"][0], &rest.body["stock"][0]];
    let available = |sku: &Sku| all.iter().find(|stock| stock["sku"] == sku.as_str()).unwrap()["available"].as_i64();
    assert_eq!((available(&sku), available(&other)), (Some(69), Some(7)));
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_forgotten_is_read_from_postgres_once_it_is_there() {
    let few = Options {
        tail_holds: 1,
        ..options()
    };
    let (world, api, mut reserver) = World::with_options(few).await;
    let first = reserve(&api, &mut reserver).await;
    let second = reserve(&api, &mut reserver).await;
    let path = |asked: &Asked| format!("/v1/holds/{}", asked.hold_id());
    assert_eq!(api.get(&path(&second)).await.body["state"], "held");
    // The first is forgotten, and Postgres has not come so far: "not found" would be wrong.
    api.get(&path(&first)).await.is_problem(503, "unavailable");

    store_hold(&world.pool, &first, "held").await;
    sqlx::query("INSERT INTO lanes (lane, next_event_offset) VALUES (0, 100)")
        .execute(&world.pool)
        .await
        .unwrap();
    let said = api.get(&path(&first)).await;
    assert_eq!((said.status.as_u16(), &said.body["state"]), (200, &json!("held")));
    assert_eq!(said.body["lines"], json!([{"sku": sku_in(0).as_str(), "quantity": 1}]));

    for (query, found) in [
        ("", 1),
        ("?user_id=u", 1),
        ("?user_id=v", 0),
        ("?state=held", 1),
        ("?state=confirmed", 0),
        (&format!("?sku={}&limit=1", sku_in(0)), 1),
    ] {
        let said = api.get(&format!("/v1/holds{query}")).await;
        assert_eq!(said.body["holds"].as_array().unwrap().len(), found, "{query}: {said:?}");
    }
    world.end(api, reserver).await;
}

/// Postgres down: writes are as ever, and so are reads of what the tail knows.
#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_only_what_the_tail_does_not_know_is_unavailable() {
    let world = World::new().await;
    let mut reserver = Reserver::own_all(&world).await;
    let connections = Connections {
        postgres_url: "postgres://holdfast:holdfast@127.0.0.1:1/none".into(),
        ..world.connections.clone()
    };
    let api = Api::start(&connections, options()).await;
    api.ready().await;
    let asked = reserve(&api, &mut reserver).await;
    assert_eq!(
        api.get(&format!("/v1/holds/{}", asked.hold_id())).await.body["state"],
        "held"
    );
    api.get("/v1/holds/000e2be4-9d35-8aa6-a571-1a9ffd9d8aab")
        .await
        .is_problem(503, "unavailable");
    api.get("/v1/holds").await.is_problem(503, "unavailable");
    // Its safety stock is nowhere to be read.
    api.get(&format!("/v1/stock/{}", sku_in(0)))
        .await
        .is_problem(503, "unavailable");

    // An adjustment of an old SKU is decided; what can be sold is not known, so nothing is claimed.
    let adjust = json!({"sku": sku_in(0).as_str(), "set": 9, "reason": "r"});
    let decide = async {
        let asked = reserver.next().await;
        let stocked = reserver.stocked(&asked, 9, 3);
        assert!(matches!(stocked.body, EventBody::StockAdjusted { .. }));
        reserver.decide(&asked, stocked).await;
    };
    let (response, ()) = join!(api.post("/v1/stock/adjustments", &adjust).send(), decide);
    let said = Said::read(response.unwrap()).await;
    assert_eq!((said.status.as_u16(), &said.body["on_hand"]), (200, &json!(9)));
    assert!(said.body.get("available").is_none(), "{said:?}");
    wait_for("readiness in spite of it", async || {
        api.get("/readyz").await.status == 200
    })
    .await;
    world.end(api, reserver).await;
}
