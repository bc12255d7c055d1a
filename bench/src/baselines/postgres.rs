//! axum on Postgres: the row of the SKU is the queue that everybody stands in.

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use sqlx::PgPool;

use super::{Baseline, Request, Stores, answer};

/// More do not help on two cores: they wait for one row.
const CONNECTIONS: u32 = 16;

#[derive(Clone)]
struct Shop {
    pool: PgPool,
    in_one: bool,
}

pub(super) async fn router(baseline: Baseline, stores: &Stores, skus: &[String], units: i64) -> anyhow::Result<Router> {
    let pool = plumbing::postgres::connect_lazy(&stores.postgres_url, "holdfast-bench", CONNECTIONS)?;
    for statement in [
        "DROP TABLE IF EXISTS bench_stock, bench_holds",
        "CREATE TABLE bench_stock (sku text PRIMARY KEY, available bigint NOT NULL) WITH (fillfactor = 70)",
        "CREATE TABLE bench_holds (key text PRIMARY KEY, sku text NOT NULL, quantity bigint NOT NULL, \
         user_id text NOT NULL, created_at timestamptz NOT NULL DEFAULT now())",
    ] {
        sqlx::query(statement).execute(&pool).await?;
    }
    sqlx::query("INSERT INTO bench_stock SELECT sku, $2 FROM UNNEST($1::text[]) AS new (sku)")
        .bind(skus)
        .bind(units)
        .execute(&pool)
        .await?;
    let shop = Shop {
        pool,
        in_one: baseline == Baseline::PostgresCte,
    };
    Ok(Router::new().route("/reserve", post(reserve)).with_state(shop))
}

async fn reserve(State(shop): State<Shop>, Json(request): Json<Request>) -> Response {
    let held = if shop.in_one {
        in_one_statement(&shop.pool, &request).await
    } else {
        row_by_row(&shop.pool, &request).await
    };
    match held {
        Ok(held) => answer(request.key, held),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn row_by_row(pool: &PgPool, request: &Request) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let taken = sqlx::query("UPDATE bench_stock SET available = available - $2 WHERE sku = $1 AND available >= $2")
        .bind(&request.sku)
        .bind(request.quantity)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    if taken == 1 {
        sqlx::query("INSERT INTO bench_holds (key, sku, quantity, user_id) VALUES ($1, $2, $3, $4)")
            .bind(&request.key)
            .bind(&request.sku)
            .bind(request.quantity)
            .bind(&request.user_id)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(taken == 1)
}

async fn in_one_statement(pool: &PgPool, request: &Request) -> Result<bool, sqlx::Error> {
    let query = "WITH taken AS (UPDATE bench_stock SET available = available - $3 \
                 WHERE sku = $2 AND available >= $3 RETURNING sku) \
                 INSERT INTO bench_holds (key, sku, quantity, user_id) SELECT $1, sku, $3, $4 FROM taken";
    let made = sqlx::query(query)
        .bind(&request.key)
        .bind(&request.sku)
        .bind(request.quantity)
        .bind(&request.user_id)
        .execute(pool)
        .await?;
    Ok(made.rows_affected() == 1)
}
