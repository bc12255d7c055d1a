//! Postgres alone: transactions of (hold, processed event) pairs by `UNNEST`, with a checkpoint, as a persister writes.

use std::time::Instant;

use plumbing::config::SecretUrl;

/// Pairs in one transaction.
const BATCH: usize = 500;

/// Pairs a second through one connection.
///
/// # Errors
/// Postgres does not answer.
pub async fn batches(url: &SecretUrl, pairs: usize) -> anyhow::Result<f64> {
    let pool = plumbing::postgres::connect_lazy(url, "holdfast-bench", 1)?;
    for statement in [
        "DROP TABLE IF EXISTS bench_pairs, bench_processed, bench_lanes",
        "CREATE TABLE bench_pairs (id uuid PRIMARY KEY, user_id text NOT NULL, state text NOT NULL, until bigint NOT NULL)",
        "CREATE TABLE bench_processed (id uuid PRIMARY KEY, at bigint NOT NULL)",
        "CREATE TABLE bench_lanes (lane integer PRIMARY KEY, next bigint NOT NULL)",
        "INSERT INTO bench_lanes VALUES (0, 0)",
    ] {
        sqlx::query(statement).execute(&pool).await?;
    }
    let begun = Instant::now();
    for first in (0..pairs).step_by(BATCH) {
        let mut transaction = pool.begin().await?;
        let numbers: Vec<i64> = (first..(first + BATCH).min(pairs))
            .map(|number| number as i64)
            .collect();
        sqlx::query("UPDATE bench_lanes SET next = $1 WHERE lane = 0")
            .bind(numbers.last().copied())
            .execute(&mut *transaction)
            .await?;
        // Holds' ids are hashes, events' ids grow: so they fall into their indexes here too.
        sqlx::query(
            "INSERT INTO bench_pairs SELECT md5(number::text)::uuid, 'buyer-' || number, 'held', number \
             FROM UNNEST($1::bigint[]) AS new (number)",
        )
        .bind(&numbers)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO bench_processed SELECT lpad(to_hex(number), 32, '0')::uuid, number \
             FROM UNNEST($1::bigint[]) AS new (number)",
        )
        .bind(&numbers)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
    }
    let rate = pairs as f64 / begun.elapsed().as_secs_f64();
    sqlx::query("DROP TABLE bench_pairs, bench_processed, bench_lanes")
        .execute(&pool)
        .await?;
    pool.close().await;
    Ok(rate)
}
