//! What a run of load came to.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Answers and failures of one run, after its warm-up.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Microseconds from the intended start of a request to its whole answer.
    latency: Histogram<u64>,
    /// Answers by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer in time; each is in the latencies with the timeout.
    pub timeouts: u64,
    /// Connections that broke under a request.
    pub broken: u64,
    /// Requests of an open loop that were due and never sent.
    pub unsent: u64,
    /// Answers, those of the warm-up too: what processor time is divided by.
    pub all_answers: u64,
    /// How long was counted.
    pub elapsed: Duration,
    /// From the start of the load to the last 2xx.
    pub last_success: Duration,
}

/// Percentiles, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
    /// 999 of 1,000 are faster.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            latency: Histogram::new_with_bounds(1, 60_000_000, 3).expect("legal bounds"),
            statuses: BTreeMap::new(),
            timeouts: 0,
            broken: 0,
            unsent: 0,
            all_answers: 0,
            elapsed: Duration::ZERO,
            last_success: Duration::ZERO,
        }
    }
}

impl Tally {
    pub(crate) fn answer(&mut self, status: u16, took: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        self.took(took);
    }

    pub(crate) fn took(&mut self, took: Duration) {
        self.latency
            .saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Answers with a status of that hundred.
    #[must_use]
    pub fn answers(&self, hundred: u16) -> u64 {
        let of = |(status, count): (&u16, &u64)| if status / 100 == hundred { *count } else { 0 };
        self.statuses.iter().map(of).sum()
    }

    /// Everything that was answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// What no client should see: 202 (not decided in time), 429, 5xx, timeouts, broken connections, requests never sent.
    #[must_use]
    pub fn failures(&self) -> u64 {
        let late: u64 = [202, 429].iter().filter_map(|status| self.statuses.get(status)).sum();
        late + self.answers(5) + self.timeouts + self.broken + self.unsent
    }

    /// Answers a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        (self.answered() - self.statuses.get(&202).copied().unwrap_or(0)) as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Percentiles.
    #[must_use]
    pub fn latency(&self) -> Latency {
        let at = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1_000.0;
        Latency {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: self.latency.max() as f64 / 1_000.0,
        }
    }
}
