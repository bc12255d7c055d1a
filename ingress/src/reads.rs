//! Reads from Postgres, for what the tail does not remember.
//!
//! Each runs as a task of its own, so that a client that hangs up drops no database work half-way, and no more of them
//! at once than Postgres could serve in a moment: when it is down, the rest is told so at once.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use domain::{HoldId, Lane, Sku, Stock, Tenant};
use plumbing::task;
use schemas::picture::{self, HoldCursor, HoldFilter, Movement, StoredHold};
use sqlx::PgPool;
use tokio::sync::Semaphore;

use crate::{memory::Memory, problem::Problem};

/// Reads that run or wait for a connection.
const READS_MAX: usize = 256;
/// How long a client waits for one; the read itself goes on to its end.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The durable picture.
#[derive(Debug)]
pub struct Reads {
    pool: PgPool,
    running: Arc<Semaphore>,
    /// Per lane: how far Postgres was when it was asked last.
    seen: Box<[AtomicI64]>,
}

impl Reads {
    /// Reads through a pool.
    #[must_use]
    pub fn new(pool: PgPool, lanes: u16) -> Self {
        Self {
            pool,
            running: Arc::new(Semaphore::new(READS_MAX)),
            seen: Lane::all(lanes).map(|_| AtomicI64::new(0)).collect(),
        }
    }

    async fn read<T, F>(&self, name: &'static str, query: impl FnOnce(PgPool) -> F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, picture::Error>> + Send + 'static,
    {
        let permit = Arc::clone(&self.running)
            .try_acquire_owned()
            .map_err(|_| Problem::unavailable("too many reads wait for the database"))?;
        let reading = query(self.pool.clone());
        let read = task::spawn(name, async move {
            let result = reading.await;
            drop(permit);
            result
        });
        let failed = |error: &dyn std::fmt::Display| {
            tracing::debug!(%error, read = name, "a read failed");
            metrics::counter!("holdfast_ingress_reads_failed_total").increment(1);
            Problem::unavailable("the database does not answer; reservations go on meanwhile")
        };
        match tokio::time::timeout(READ_TIMEOUT, read).await {
            Ok(Ok(Ok(found))) => Ok(found),
            Ok(Ok(Err(error))) => Err(failed(&error)),
            Ok(Err(error)) => Err(failed(&error)),
            Err(late) => Err(failed(&late)),
        }
    }

    /// Postgres may be asked about a lane only if it is beyond all that the tail has forgotten of it; else its rows may
    /// be older than answers that were given.
    async fn check_fresh(&self, memory: &Memory, lane: Lane) -> Result<(), Problem> {
        let forgotten = memory.forgotten(lane);
        let seen = &self.seen[usize::from(lane.number())];
        if forgotten < seen.load(Ordering::Acquire) || forgotten < 0 {
            return Ok(());
        }
        let checkpoint = self
            .read("checkpoint", move |pool| async move {
                picture::checkpoint(&pool, lane).await
            })
            .await?;
        let next = checkpoint.map_or(0, |checkpoint| checkpoint.next_event_offset);
        seen.fetch_max(next, Ordering::AcqRel);
        if forgotten < next {
            Ok(())
        } else {
            Err(Problem::unavailable("the database is behind the log"))
        }
    }

    /// A hold.
    ///
    /// # Errors
    /// 503 when Postgres does not answer, or is behind.
    pub async fn hold(&self, memory: &Memory, hold_id: HoldId) -> Result<Option<StoredHold>, Problem> {
        self.check_fresh(memory, hold_id.lane()).await?;
        self.read("find-hold", move |pool| async move {
            picture::find_hold(&pool, hold_id).await
        })
        .await
    }

    /// A page of holds.
    ///
    /// # Errors
    /// 503 when Postgres does not answer.
    pub async fn holds(
        &self,
        filter: HoldFilter,
        after: Option<HoldCursor>,
        limit: u32,
    ) -> Result<Vec<StoredHold>, Problem> {
        self.read("list-holds", move |pool| async move {
            picture::list_holds(&pool, &filter, after.as_ref(), limit).await
        })
        .await
    }

    /// SKUs, without those that are unknown.
    ///
    /// # Errors
    /// 503 when Postgres does not answer, or is behind.
    pub async fn stock(
        &self,
        memory: &Memory,
        tenant: Tenant,
        skus: Vec<(Lane, Sku)>,
    ) -> Result<Vec<(Sku, Stock)>, Problem> {
        let mut lanes: Vec<Lane> = skus.iter().map(|(lane, _)| *lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        for lane in lanes {
            self.check_fresh(memory, lane).await?;
        }
        let skus: Vec<Sku> = skus.into_iter().map(|(_, sku)| sku).collect();
        self.read("find-stock", move |pool| async move {
            picture::find_stock(&pool, &tenant, &skus).await
        })
        .await
    }

    /// A page of a SKU's movements.
    ///
    /// # Errors
    /// 503 when Postgres does not answer.
    pub async fn movements(
        &self,
        tenant: Tenant,
        sku: Sku,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Movement>, Problem> {
        self.read("list-movements", move |pool| async move {
            picture::list_movements(&pool, &tenant, &sku, before, limit).await
        })
        .await
    }

    /// A page of SKUs.
    ///
    /// # Errors
    /// 503 when Postgres does not answer.
    pub async fn all_stock(
        &self,
        tenant: Tenant,
        after: Option<Sku>,
        limit: u32,
    ) -> Result<Vec<(Sku, Stock)>, Problem> {
        self.read("list-stock", move |pool| async move {
            picture::list_stock(&pool, &tenant, after.as_ref(), limit).await
        })
        .await
    }
}
