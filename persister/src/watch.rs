//! What goes on beside the lanes: how far each is behind, whether the engines answer while nothing is to do, and pruning.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use domain::Lane;
use plumbing::{kafka::consumer, stop::Stop, time};
use schemas::picture;
use sqlx::PgPool;

use crate::{Shared, kafka_says};

const LOOK_EVERY: Duration = Duration::from_secs(2);
const PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);
const PRUNE_ROWS: i64 = 5_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// How long refused requests are kept: longer than any lane remembers them, because this clock is not the log's.
const REFUSED_KEPT_MS: i64 = 60 * 60 * 1_000;
const _: () = assert!(REFUSED_KEPT_MS > domain::limits::REMEMBER_REQUEST_MS);

/// The next offset of each lane that this persister works on.
#[derive(Debug, Default)]
pub(crate) struct Positions(Mutex<BTreeMap<Lane, i64>>);

impl Positions {
    pub(crate) fn set(&self, lane: Lane, next_event_offset: i64) {
        self.lock().insert(lane, next_event_offset);
        metrics::gauge!("holdfast_persister_next_offset", "lane" => lane.to_string()).set(next_event_offset as f64);
    }

    pub(crate) fn forget(&self, lane: Lane) {
        self.lock().remove(&lane);
        metrics::gauge!("holdfast_persister_lag_events", "lane" => lane.to_string()).set(0.0);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Lane, i64>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// Asks Kafka every two seconds where each lane ends. A thread: the question blocks.
pub(crate) fn lag(shared: &Arc<Shared>, stop: &Stop) -> anyhow::Result<()> {
    let reader = consumer::reader(&shared.brokers, "holdfast-persister-lag", &shared.group_id)?;
    while !stop.is_requested() {
        let positions = shared.positions.lock().clone();
        let mut problem = None;
        if positions.is_empty() {
            problem = consumer::partition_count(&reader, &shared.events).err();
        }
        for (lane, next) in positions {
            match consumer::bounds(&reader, &shared.events, lane.partition()) {
                Ok((_, end)) => metrics::gauge!("holdfast_persister_lag_events", "lane" => lane.to_string())
                    .set((end - next).max(0) as f64),
                Err(error) => problem = Some(error),
            }
            if problem.is_some() || stop.is_requested() {
                break;
            }
        }
        match problem {
            Some(error) => shared.health.kafka.down(kafka_says(&error)),
            None => shared.health.kafka.up(),
        }
        let asked = Instant::now();
        while !stop.is_requested() && asked.elapsed() < LOOK_EVERY {
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// Asks Postgres every two seconds whether it is there, and now and then forgets what is behind every retention.
pub(crate) async fn tables(shared: Arc<Shared>, prune_days: u32, stop: Stop) -> anyhow::Result<()> {
    let mut pruned: Option<Instant> = None;
    while stop.unless_requested(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        match picture::is_migrated(&shared.pool).await {
            Ok(true) => shared.health.postgres.up(),
            Ok(false) => {
                shared
                    .health
                    .postgres
                    .down("its tables are not there any more: run `holdfast migrate`");
                continue;
            }
            Err(error) => {
                shared.health.postgres.down(error);
                continue;
            }
        }
        if pruned.is_none_or(|at| at.elapsed() >= PRUNE_EVERY) {
            let before = time::now_ms() - i64::from(prune_days) * DAY_MS;
            match prune(&shared.pool, before, &stop).await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(rows, before_ms = before, "pruned what is behind the topic's retention"),
                Err(error) => tracing::warn!(%error, "pruning failed and is tried again later"),
            }
            pruned = Some(Instant::now());
        }
    }
    Ok(())
}

/// Deletes rows older than `before`, a few thousand at a time, so that no lane waits for it.
async fn prune(pool: &PgPool, before: i64, stop: &Stop) -> Result<u64, sqlx::Error> {
    // Within a lane, event ids grow with log time: the oldest are the first of the primary key.
    let events = "DELETE FROM processed_events WHERE decided_at < $1 AND event_id IN (\
                  SELECT event_id FROM processed_events WHERE event_id BETWEEN $2 AND $3 ORDER BY event_id LIMIT $4)";
    let mut pruned = 0;
    for lane in sqlx::query_scalar::<_, i16>("SELECT lane FROM lanes ORDER BY lane")
        .fetch_all(pool)
        .await?
    {
        let first = u128::from(lane.unsigned_abs()) << 116;
        let (first, last) = (
            uuid::Uuid::from_u128(first),
            uuid::Uuid::from_u128(first | ((1 << 116) - 1)),
        );
        loop {
            let query = sqlx::query(events).bind(before).bind(first).bind(last).bind(PRUNE_ROWS);
            let rows = query.execute(pool).await?.rows_affected();
            pruned += rows;
            if rows < PRUNE_ROWS.unsigned_abs() || stop.is_requested() {
                break;
            }
        }
    }
    let refused_before = time::now_ms() - REFUSED_KEPT_MS;
    for (remembered, before) in [
        (
            "DELETE FROM remembered_commands WHERE ctid = ANY(ARRAY(\
             SELECT ctid FROM remembered_commands WHERE applied_at < $1 LIMIT $2))",
            before,
        ),
        (
            "DELETE FROM remembered_sources WHERE ctid = ANY(ARRAY(\
             SELECT ctid FROM remembered_sources WHERE applied_at < $1 LIMIT $2))",
            before,
        ),
        (
            "DELETE FROM refused_requests WHERE ctid = ANY(ARRAY(\
             SELECT ctid FROM refused_requests WHERE decided_at < $1 LIMIT $2))",
            refused_before,
        ),
    ] {
        loop {
            let query = sqlx::query(remembered).bind(before).bind(PRUNE_ROWS);
            let rows = query.execute(pool).await?.rows_affected();
            pruned += rows;
            if rows < PRUNE_ROWS.unsigned_abs() || stop.is_requested() {
                break;
            }
        }
    }
    Ok(pruned)
}
