//! Due holds in Redis: look, ask for their release, sleep until the next deadline.
//!
//! One connection, and one round trip for all lanes; another only when something is due. Nothing is written, so a
//! connection that breaks is simply made again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use domain::{HoldId, Lane, Millis, Tenant};
use plumbing::{backoff::Backoff, failpoint, health::Component, stop::Stop, time};
use redis::{AsyncConnectionConfig, Client, FromRedisValue, Pipeline, RedisError, Value, aio::MultiplexedConnection};
use schemas::{cells, keys::LaneKeys};

use crate::{outbox::Outbox, sent::Sent};

const ANSWER: Duration = Duration::from_secs(2);
/// Most due holds of one lane that are looked at, and so most releases of it that are not decided yet.
const DUE_MAX: isize = 4_096;
/// Deadlines so far ahead are seen with those that are due, in milliseconds.
const HORIZON_MS: i64 = 200;
/// How soon to look again when something that was sent is not gone yet.
const UNSETTLED: Duration = Duration::from_millis(20);

/// What to watch, and how.
pub(crate) struct Due {
    pub(crate) redis: Client,
    pub(crate) lanes: Vec<LaneWatch>,
    pub(crate) outbox: Outbox,
    pub(crate) tick: Duration,
    pub(crate) health: Component,
    pub(crate) stop: Stop,
}

/// One lane, and what is known of it from the last look.
pub(crate) struct LaneWatch {
    keys: LaneKeys,
    /// Its due set is in the keys of a generation, so the first look at a new one only learns its number.
    generation: Option<i64>,
    fence: i64,
    due: Vec<(HoldId, Millis)>,
    sent: HashMap<HoldId, Sent>,
}

impl LaneWatch {
    pub(crate) fn new(redis_prefix: &str, lane: Lane) -> Self {
        Self {
            keys: LaneKeys::new(redis_prefix, lane),
            generation: None,
            fence: -1,
            due: Vec::new(),
            sent: HashMap::new(),
        }
    }

    fn ask(&self, pipeline: &mut Pipeline, until: Millis) {
        pipeline
            .cmd("HMGET")
            .arg(self.keys.lane())
            .arg(&["generation", "building", "fence"]);
        if let Some(generation) = self.generation {
            let due = self.keys.generation(generation).due();
            pipeline
                .cmd("ZRANGEBYSCORE")
                .arg(due)
                .arg("-inf")
                .arg(until)
                .arg("WITHSCORES");
            pipeline.arg("LIMIT").arg(0).arg(DUE_MAX);
        }
    }

    /// Takes the answers to `ask`. True: look again at once, the lane has another generation now.
    fn take(&mut self, answers: &mut impl Iterator<Item = Value>) -> Result<bool, RedisError> {
        let (generation, building, fence): (Option<i64>, Option<String>, Option<i64>) = next(answers)?;
        let due: Vec<(Vec<u8>, f64)> = match self.generation {
            Some(_) => next(answers)?,
            None => Vec::new(),
        };
        self.due.clear();
        self.fence = fence.unwrap_or(-1);
        let is_new = generation.is_some() && generation != self.generation;
        let is_whole = building.is_none_or(|mark| mark.is_empty() || mark == "0");
        if generation == self.generation && is_whole {
            // A member that is no hold id was not written by us.
            let read = |(member, score): &(Vec<u8>, f64)| Some((HoldId::from_bytes(member).ok()?, *score as Millis));
            self.due.extend(due.iter().filter_map(read));
        }
        self.generation = generation;
        Ok(is_new)
    }

    /// Which holds to ask for now.
    fn to_release(&self, now: Millis, at: Instant) -> Vec<(HoldId, Millis)> {
        let is_due = |(hold_id, deadline): &&(HoldId, Millis)| {
            *deadline <= now
                && self
                    .sent
                    .get(hold_id)
                    .is_none_or(|sent| sent.is_due_again(self.fence, at))
        };
        self.due.iter().filter(is_due).copied().collect()
    }

    fn note(&mut self, hold_id: HoldId, fate: crate::sent::Fate, at: Instant) {
        match self.sent.get_mut(&hold_id) {
            Some(sent) => sent.again(fate, at),
            None => {
                self.sent.insert(hold_id, Sent::first(fate, at));
            }
        }
    }

    /// Forgets what is not due any more: it has ended, or was extended.
    fn settle(&mut self, now: Millis) {
        if self.sent.is_empty() {
            return;
        }
        let due = &self.due;
        let still: std::collections::HashSet<HoldId> = due
            .iter()
            .filter(|(_, deadline)| *deadline <= now)
            .map(|(hold_id, _)| *hold_id)
            .collect();
        self.sent.retain(|hold_id, _| still.contains(hold_id));
    }
}

fn next<T: FromRedisValue>(answers: &mut impl Iterator<Item = Value>) -> Result<T, RedisError> {
    Ok(T::from_redis_value(answers.next().unwrap_or(Value::Nil))?)
}

/// Watches until the stop.
pub(crate) async fn run(mut due: Due) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let mut complained: Option<Instant> = None;
    while !due.stop.is_requested() {
        let error = match due.watch(&mut backoff).await {
            Ok(()) => break,
            Err(error) => error,
        };
        due.health.down(&error);
        if complained.is_none_or(|at| at.elapsed() >= Duration::from_secs(30)) {
            tracing::warn!(%error, "Redis does not answer; due holds wait");
            complained = Some(Instant::now());
        }
        backoff.sleep(&due.stop).await;
    }
    Ok(())
}

impl Due {
    /// Watches over one connection, for as long as it answers.
    async fn watch(&mut self, backoff: &mut Backoff) -> Result<(), RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER));
        let mut connection = self.redis.get_multiplexed_async_connection_with_config(&config).await?;
        while !self.stop.is_requested() {
            let sleep = self.look(&mut connection).await?;
            self.health.up();
            backoff.reset();
            self.stop.unless_requested(tokio::time::sleep(sleep)).await;
        }
        Ok(())
    }

    /// One look at all lanes; returns how long to sleep until the next.
    async fn look(&mut self, connection: &mut MultiplexedConnection) -> Result<Duration, RedisError> {
        let mut pipeline = redis::pipe();
        let until = time::now_ms() + HORIZON_MS.max(self.tick.as_millis() as i64 * 2);
        self.lanes.iter().for_each(|lane| lane.ask(&mut pipeline, until));
        let answers: Vec<Value> = pipeline.query_async(connection).await?;
        let mut answers = answers.into_iter();
        let mut again = false;
        for lane in &mut self.lanes {
            again |= lane.take(&mut answers)?;
        }
        if again {
            return Ok(Duration::ZERO);
        }
        let (now, at) = (time::now_ms(), Instant::now());
        for index in 0..self.lanes.len() {
            self.lanes[index].settle(now);
            self.release(connection, index, now, at).await?;
        }
        Ok(self.sleep(now))
    }

    async fn release(
        &mut self,
        connection: &mut MultiplexedConnection,
        index: usize,
        now: Millis,
        at: Instant,
    ) -> Result<(), RedisError> {
        let lane = &self.lanes[index];
        let due = lane.to_release(now, at);
        let (Some(generation), false) = (lane.generation, due.is_empty()) else {
            return Ok(());
        };
        failpoint::reach("expirer.due_seen");
        // Whose holds they are stands in the holds themselves.
        let keys = lane.keys.generation(generation);
        let mut pipeline = redis::pipe();
        for (hold_id, _) in &due {
            pipeline.cmd("HGET").arg(keys.holds()).arg(&hold_id.bytes());
        }
        let holds: Vec<Option<Vec<u8>>> = pipeline.query_async(connection).await?;
        for ((hold_id, deadline), bytes) in due.into_iter().zip(holds) {
            let (tenant, attempt) = names_of(hold_id, bytes.as_deref());
            failpoint::reach("expirer.hold_read");
            let fate = self.outbox.release(tenant, hold_id, attempt);
            failpoint::reach("expirer.release_sent");
            let delay = (time::now_ms() - deadline).max(0) as f64 / 1_000.0;
            metrics::histogram!("holdfast_expirer_release_delay_seconds").record(delay);
            self.lanes[index].note(hold_id, fate, at);
        }
        Ok(())
    }

    /// Until the next deadline that is known, at most a tick: a hold with a short life may come any time.
    fn sleep(&self, now: Millis) -> Duration {
        let mut sleep = self.tick;
        for lane in &self.lanes {
            if !lane.sent.is_empty() {
                sleep = sleep.min(UNSETTLED);
            }
            if let Some((_, deadline)) = lane.due.iter().find(|(_, deadline)| *deadline > now) {
                sleep = sleep.min(Duration::from_millis((deadline - now).unsigned_abs()));
            }
        }
        sleep
    }
}

/// A hold that `due` names but that is not there means a damaged lane. The release makes its owner look, and rebuild it;
/// whose hold it was does not matter then.
fn names_of(hold_id: HoldId, bytes: Option<&[u8]>) -> (Tenant, Option<i64>) {
    match bytes.map(cells::read_hold) {
        Some(Ok(hold)) => (hold.tenant, Some(hold.terms.attempt)),
        unreadable => {
            let problem = unreadable.map_or("it is missing".to_owned(), |error| {
                error.err().map(|error| error.to_string()).unwrap_or_default()
            });
            tracing::debug!(%hold_id, problem, "a due hold cannot be read; its release goes out nevertheless");
            (Tenant::parse("default").expect("our own tenant is legal"), None)
        }
    }
}
