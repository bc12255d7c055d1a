//! Sweeps over Postgres: overdue holds that Redis has forgotten, and keys that are alive in several lanes (I3).
//!
//! Postgres may be behind the log, so what is found may have ended: the lane refuses it then, and nothing moves.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use domain::{HoldId, Tenant};
use plumbing::{backoff::Backoff, health::Component, postgres, stop::Stop, time};
use sqlx::{PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use crate::outbox::Outbox;

/// A hold is overdue for Postgres this long after its deadline, in milliseconds: before, Redis is the one to tell.
const OVERDUE_MS: i64 = 5_000;
const PAGE_ROWS: i64 = 500;
/// Most releases of one sweep; the next goes on with what is left.
const RELEASES_MAX: usize = 5_000;
/// What was sent is not sent again before this: Postgres may be far behind.
const RELEASE_AGAIN: Duration = Duration::from_secs(60);
const CANCEL_AGAIN: Duration = Duration::from_secs(3);
/// New holds are looked at in steps of so many commands.
const STEP_COMMANDS: i64 = 20_000;

/// What to sweep, and how often.
pub(crate) struct Sweep {
    pub(crate) pool: PgPool,
    pub(crate) outbox: Outbox,
    pub(crate) overdue_every: Duration,
    pub(crate) keys_every: Duration,
    pub(crate) health: Component,
    pub(crate) stop: Stop,
}

/// What is known between sweeps.
#[derive(Default)]
struct Memory {
    /// Releases sent, and when.
    released: HashMap<HoldId, Instant>,
    /// Cancels sent, and when.
    cancelled: HashMap<HoldId, Instant>,
    /// Up to which command each lane's new holds were looked at; `None` before the first look at all of them.
    looked_at: Option<BTreeMap<i16, i64>>,
    /// Keys that were found alive in several lanes, until they are not any more.
    suspects: HashSet<Uuid>,
}

/// Sweeps until the stop.
pub(crate) async fn run(sweep: Sweep) -> anyhow::Result<()> {
    let mut memory = Memory::default();
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let (mut overdue_at, mut complained): (Option<Instant>, Option<Instant>) = (None, None);
    while !sweep.stop.is_requested() {
        let is_overdue_time = overdue_at.is_none_or(|at| at.elapsed() >= sweep.overdue_every);
        match sweep.once(&mut memory, is_overdue_time).await {
            Ok(()) => {
                sweep.health.up();
                backoff.reset();
                if is_overdue_time {
                    overdue_at = Some(Instant::now());
                }
                sweep.stop.unless_requested(tokio::time::sleep(sweep.keys_every)).await;
            }
            Err(error) => {
                let hint = if postgres::is_transient(&error) {
                    ""
                } else {
                    " (is it migrated? `holdfast migrate`)"
                };
                sweep.health.down(format_args!("{error}{hint}"));
                if complained.is_none_or(|at| at.elapsed() >= Duration::from_secs(30)) {
                    tracing::warn!(%error, "Postgres does not answer; the sweeps wait");
                    complained = Some(Instant::now());
                }
                backoff.sleep(&sweep.stop).await;
            }
        }
    }
    Ok(())
}

impl Sweep {
    async fn once(&self, memory: &mut Memory, is_overdue_time: bool) -> Result<(), sqlx::Error> {
        self.keys(memory).await?;
        if is_overdue_time {
            self.overdue(memory).await?;
        }
        Ok(())
    }

    /// Releases what has been due for long, oldest first.
    async fn overdue(&self, memory: &mut Memory) -> Result<(), sqlx::Error> {
        let query = "SELECT hold_id, tenant, attempt, expires_at FROM holds \
                     WHERE state IN ('pending', 'held', 'paying') AND expires_at < $1 AND (expires_at, hold_id) > ($2, $3) \
                     ORDER BY expires_at, hold_id LIMIT $4";
        let now = Instant::now();
        memory
            .released
            .retain(|_, at| now.saturating_duration_since(*at) < RELEASE_AGAIN);
        let before = time::now_ms() - OVERDUE_MS;
        let mut place = (i64::MIN, Uuid::nil());
        let mut released = 0;
        while released < RELEASES_MAX && !self.stop.is_requested() {
            let page = sqlx::query(query)
                .bind(before)
                .bind(place.0)
                .bind(place.1)
                .bind(PAGE_ROWS);
            let rows = page.fetch_all(&self.pool).await?;
            for row in &rows {
                place = (row.try_get("expires_at")?, row.try_get("hold_id")?);
                let Some((hold_id, tenant)) = read_names(row)? else {
                    continue;
                };
                if memory.released.contains_key(&hold_id) {
                    continue;
                }
                let _watched_by_the_next_sweep = self.outbox.release(tenant, hold_id, Some(row.try_get("attempt")?));
                memory.released.insert(hold_id, now);
                released += 1;
            }
            if (rows.len() as i64) < PAGE_ROWS {
                break;
            }
        }
        if released > 0 {
            metrics::counter!("holdfast_expirer_swept_total").increment(released as u64);
            tracing::info!(released, "overdue holds were found in Postgres and are asked for again");
        }
        Ok(())
    }

    /// Finds keys that are alive in several lanes, and ends the later holds.
    async fn keys(&self, memory: &mut Memory) -> Result<(), sqlx::Error> {
        self.find_suspects(memory).await?;
        if memory.suspects.is_empty() {
            return Ok(());
        }
        let query = "SELECT hold_id, tenant, state, key_bits FROM holds \
                     WHERE key_bits = ANY($1) AND state IN ('pending', 'held', 'paying', 'confirmed') \
                     ORDER BY key_bits, tenant, state = 'confirmed' DESC, state = 'paying' DESC, \
                     state = 'pending', created_at, lane, attempt";
        let keys: Vec<Uuid> = memory.suspects.iter().copied().collect();
        let rows = sqlx::query(query).bind(&keys).fetch_all(&self.pool).await?;
        let now = Instant::now();
        memory
            .cancelled
            .retain(|_, at| now.saturating_duration_since(*at) < CANCEL_AGAIN);
        memory.suspects.clear();
        let mut kept: Option<(Uuid, String)> = None;
        for row in &rows {
            let key: (Uuid, String) = (row.try_get("key_bits")?, row.try_get("tenant")?);
            if kept.as_ref() != Some(&key) {
                kept = Some(key); // The first of its key stays: a confirmed one, else one that is paying, else the earliest.
                continue;
            }
            let state: &str = row.try_get("state")?;
            if state == "confirmed" {
                continue; // Paid twice: never ended by a machine.
            }
            memory.suspects.insert(key.0);
            if matches!(state, "paying" | "pending") {
                continue; // Its payment, or its lanes, decide first.
            }
            let Some((hold_id, tenant)) = read_names(row)? else {
                continue;
            };
            if memory.cancelled.contains_key(&hold_id) {
                continue;
            }
            tracing::info!(%hold_id, "the later of two live holds of one key is cancelled");
            let _watched_by_the_next_sweep = self.outbox.cancel(tenant, hold_id);
            memory.cancelled.insert(hold_id, now);
        }
        Ok(())
    }

    /// Every live hold once, at first; then only those that are new. The later of two is new when the other is there.
    async fn find_suspects(&self, memory: &mut Memory) -> Result<(), sqlx::Error> {
        let heads: Vec<(i16, i64)> = sqlx::query_as("SELECT lane, last_command_offset FROM lanes")
            .fetch_all(&self.pool)
            .await?;
        let Some(looked_at) = &mut memory.looked_at else {
            let all = "SELECT DISTINCT held.key_bits FROM holds AS held \
                       JOIN holds AS other ON other.key_bits = held.key_bits AND other.hold_id <> held.hold_id \
                       AND other.state IN ('pending', 'held', 'paying', 'confirmed') WHERE held.state IN ('pending', 'held', 'paying')";
            memory
                .suspects
                .extend(sqlx::query_scalar::<_, Uuid>(all).fetch_all(&self.pool).await?);
            memory.looked_at = Some(heads.into_iter().collect());
            return Ok(());
        };
        // One that is confirmed already when it is first seen counts too: the other one of its key may have been looked at before.
        // Looked up hold by hold: a planner that knows no statistics yet (a sale on the first day) scans all that is held for
        // each new hold instead. `OFFSET 0` keeps it from rearranging that.
        let new = "SELECT DISTINCT held.key_bits FROM stock_movements AS made, \
                   LATERAL (SELECT key_bits, state FROM holds WHERE hold_id = made.hold_id OFFSET 0) AS held \
                   WHERE made.lane = $1 AND made.command_offset > $2 AND made.command_offset <= $3 \
                   AND made.kind IN ('HoldCreated', 'HoldPending') AND held.state IN ('pending', 'held', 'paying', 'confirmed') \
                   AND (SELECT count(DISTINCT other.hold_id) FROM holds AS other WHERE other.key_bits = held.key_bits \
                   AND other.state IN ('pending', 'held', 'paying', 'confirmed')) > 1";
        for (lane, head) in heads {
            // A lane without an entry has its first holds now.
            let from = looked_at.entry(lane).or_insert(-1);
            *from = (*from).min(head);
            while *from < head {
                let to = head.min(*from + STEP_COMMANDS);
                let query = sqlx::query_scalar::<_, Uuid>(new).bind(lane).bind(*from).bind(to);
                memory.suspects.extend(query.fetch_all(&self.pool).await?);
                *from = to;
            }
        }
        Ok(())
    }
}

/// A row's hold and tenant; a row that names none was not written by us.
fn read_names(row: &PgRow) -> Result<Option<(HoldId, Tenant)>, sqlx::Error> {
    let (hold_id, tenant): (Uuid, &str) = (row.try_get("hold_id")?, row.try_get("tenant")?);
    let names = HoldId::parse(&hold_id.to_string()).and_then(|hold_id| Ok((hold_id, Tenant::parse(tenant)?)));
    Ok(names
        .inspect_err(|error| tracing::warn!(%hold_id, %error, "a hold's row cannot be read"))
        .ok())
}
