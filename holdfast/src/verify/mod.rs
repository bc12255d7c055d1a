//! Verification: the log folded from its beginning, compared with Redis and Postgres per SKU and per hold (I1 to I6).
//!
//! Each lane by itself, side by side:
//!
//! ```text
//! Postgres' checkpoint -> events up to it -> compare rows (I6)
//!                      -> events to the end, each a contradiction or none (I1, I4)
//!                      -> Redis in portions, each at its fence (I5)
//!                      -> commands beside their decisions (I2)
//! ```
//!
//! At rest, the parts of carts over several lanes are laid beside what their home lanes decided.
//!
//! Nothing else needs to stand still: each comparison is made at one exact position of the log.

mod books;
mod carts;
mod cells;
mod commands;
mod lane;
mod postgres;
mod redis;
pub mod render;
mod report;
mod rest;

use std::time::Duration;

use anyhow::Context as _;
use domain::{Lane, Millis, limits};
use plumbing::{config::Connections, task};
use schemas::Topics;

pub use report::{Difference, LaneSummary, Place, Report, Units};

use crate::log::{self, Decoder};
use lane::Engines;

/// Lanes that are verified side by side: each has its ledger in memory and a connection to each engine.
const AT_A_TIME: usize = 8;

/// How to verify.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Wait so long until nothing moves; `None` to compare what moves as it is.
    pub at_rest: Option<Duration>,
    /// How long Redis remembers ended holds, command ids and sources, in log milliseconds.
    pub remember_ms: Millis,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            at_rest: None,
            remember_ms: limits::REMEMBER_MS_DEFAULT,
        }
    }
}

impl Options {
    /// At rest within thirty seconds.
    #[must_use]
    pub fn at_rest() -> Self {
        Self {
            at_rest: Some(Duration::from_secs(30)),
            ..Self::default()
        }
    }
}

/// Verifies everything.
///
/// # Errors
/// An engine does not answer, or is not set up: then nothing is known. A difference is no error.
pub async fn run(connections: &Connections, options: Options) -> anyhow::Result<Report> {
    let engines = engines(connections, options).await?;
    let mut report = Report::default();
    if let Some(timeout) = options.at_rest {
        let watching = engines.clone();
        report.differences = task::thread("verify-rest", move || rest::wait(&watching, timeout)).await??;
    }
    let mut carts = carts::Carts::default();
    let all: Vec<Lane> = Lane::all(engines.lanes).collect();
    for some in all.chunks(AT_A_TIME) {
        let verifying: Vec<_> = some
            .iter()
            .map(|lane| {
                let (lane, engines) = (*lane, engines.clone());
                (
                    lane,
                    task::thread(format!("verify-{lane}"), move || lane::verify(&engines, lane)),
                )
            })
            .collect();
        for (lane, verifying) in verifying {
            let verified = verifying.await?.with_context(|| format!("lane {lane}"))?;
            let (differences, more) = verified.differences.into_parts();
            report.lanes.push(verified.summary);
            carts.add(verified.carts);
            report.differences.extend(differences);
            report.more_differences += more;
            report.notes.extend(verified.notes);
        }
    }
    if options.at_rest.is_some() {
        report.differences.extend(carts.differences());
    }
    engines.pool.close().await;
    Ok(report)
}

/// Compares Redis with what lasts, for some lanes: what a rebuild has to prove.
///
/// # Errors
/// An engine does not answer: then nothing is known.
pub async fn redis(connections: &Connections, lanes: &[Lane], options: Options) -> anyhow::Result<Vec<Difference>> {
    let engines = engines(connections, options).await?;
    let mut differences = Vec::new();
    for lane in lanes.iter().copied() {
        let engines = engines.clone();
        let found = task::thread(format!("verify-{lane}"), move || lane::verify_redis(&engines, lane)).await??;
        differences.extend(found.into_parts().0);
    }
    Ok(differences)
}

async fn engines(connections: &Connections, options: Options) -> anyhow::Result<Engines> {
    let decoder = Decoder::connect(connections).await?;
    let asked = connections.clone();
    let lanes = task::thread("verify-lanes", move || log::lanes(&asked)).await??;
    let pool = plumbing::postgres::connect_lazy(&connections.postgres_url, "holdfast verify", AT_A_TIME as u32)?;
    Ok(Engines {
        connections: connections.clone(),
        topics: Topics::with_prefix(&connections.topic_prefix),
        lanes,
        decoder,
        pool,
        runtime: tokio::runtime::Handle::current(),
        remember_ms: options.remember_ms,
    })
}
