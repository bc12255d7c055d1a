//! The services that people write instead of a pipeline: the decision straight in a store, and the answer from there.
//!
//! Each speaks the same call, `POST /reserve` with `{"sku","quantity","user_id","key"}`: 201 with the key, or 409.

mod postgres;
mod redis;

use std::net::SocketAddr;

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use plumbing::{config::SecretUrl, stop::Stop};
use serde::{Deserialize, Serialize};

/// Which service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// One Lua script call a request; what Redis loses is lost.
    Redis,
    /// `UPDATE ... WHERE available >= n`, then the hold's row, in one transaction.
    PostgresRow,
    /// The same as one statement: the hold's row from the `UPDATE`'s `RETURNING`.
    PostgresCte,
}

impl Baseline {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Redis, Self::PostgresRow, Self::PostgresCte];

    /// Its name on the command line and in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "axum-redis",
            Self::PostgresRow => "axum-postgres-row",
            Self::PostgresCte => "axum-postgres-cte",
        }
    }
}

/// Where a baseline keeps its stock: keys with a prefix, or a database of its own.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Redis.
    pub redis_url: SecretUrl,
    /// Prefix of its keys.
    pub redis_prefix: String,
    /// Postgres, with the database.
    pub postgres_url: SecretUrl,
}

#[derive(Debug, Deserialize)]
struct Request {
    sku: String,
    quantity: i64,
    user_id: String,
    key: String,
}

#[derive(Debug, Serialize)]
struct Held {
    hold_id: String,
}

/// The answer: `true` for held.
fn answer(key: String, held: bool) -> Response {
    if held {
        (StatusCode::CREATED, Json(Held { hold_id: key })).into_response()
    } else {
        StatusCode::CONFLICT.into_response()
    }
}

/// Stocks `skus` (named as the load asks for them) with so many units each and serves until it is asked to stop; prints where.
///
/// # Errors
/// The store does not answer, or the address is taken.
pub async fn serve(
    baseline: Baseline,
    stores: Stores,
    (skus, units): (&[String], i64),
    stop: Stop,
) -> anyhow::Result<()> {
    let router: Router = match baseline {
        Baseline::Redis => redis::router(&stores, skus, units).await?,
        Baseline::PostgresRow | Baseline::PostgresCte => postgres::router(baseline, &stores, skus, units).await?,
    };
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let (addr, serving) = plumbing::http::serve(any, router, stop).await?;
    println!("{addr}");
    serving.await?;
    Ok(())
}
