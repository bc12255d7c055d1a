//! `bench`: how fast this machine is with Holdfast on it, beside what it could be and what others are.
//!
//! ```text
//! plan -> runner -> for each round: each scenario in a place of its own (topics, tables, keys, roles), verified
//!                -> series: the same work while one thing grows
//!      -> report -> table; JSON; with --report pages and pictures drawn from it
//! ```
//!
//! Absolute numbers depend on the machine and on its neighbours, so everything that is compared runs in the same
//! round, one after the other, and rounds are repeated: a result is a median with its spread, and a share of its ceiling.

mod feed;
mod flat;
mod log;
mod meter;
mod others;
mod pages;
mod plan;
mod report;
mod runner;
mod sales;
mod series;
mod targets;
mod world;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use bench::baselines::{self, Baseline, Stores};
use clap::Args;
use plumbing::{config::Connections, stop::Stop};

use super::Outcome;
use plan::Plan;
use runner::Runner;

/// Measure throughput, latency and processor time, with ceilings and baselines in the same run.
#[derive(Args, Debug)]
pub struct Bench {
    /// Only scenarios and series whose name contains one of these, such as `flat`; --list names them all
    #[arg(value_name = "SCENARIO")]
    only: Vec<String>,

    /// Name the scenarios and series, and end
    #[arg(long)]
    list: bool,

    /// One short round: a minute or two
    #[arg(long)]
    quick: bool,

    /// Everything, series too, within --minutes; writes bench.json, README.md and pictures into this folder
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,

    /// Begin nothing that may not end within so many minutes; 12 with --report
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u32).range(1..))]
    minutes: Option<u32>,

    /// Rounds; each runs every scenario once
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// Seconds that each HTTP scenario counts, after its warm-up
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,

    /// Records that the scenarios on the log alone work through
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1_000..))]
    records: Option<u32>,

    /// Buyers in the sold-out storm
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1_000..))]
    buyers: Option<u32>,

    /// Largest point of the series over SKUs and over live holds
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1_000..))]
    most: Option<u32>,

    /// Lanes
    #[arg(long, default_value_t = schemas::topics::LANES_DEFAULT, value_parser = clap::value_parser!(u16).range(1..=64))]
    lanes: u16,

    /// Also write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Environment of the roles under test, such as HOLDFAST_INGRESS_LINGER_MS=1; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,

    /// Be one of the services that Holdfast is compared with (how bench starts them).
    #[arg(long, hide = true, value_name = "NAME")]
    be: Option<String>,

    #[command(flatten)]
    connections: Connections,
}

impl Bench {
    pub async fn run(self, stop: Stop) -> anyhow::Result<Outcome> {
        if let Some(name) = &self.be {
            return self.be(name, stop).await;
        }
        let plan = self.plan()?;
        if self.list {
            let scenarios = plan::scenarios(&self.only).into_iter().map(|one| (one.name, one.what));
            let series = series::named(&self.only).into_iter().map(|one| (one.name, one.title));
            for (name, what) in scenarios.chain(series) {
                super::print(&format!("{name:<22} {what}\n"));
            }
            return Ok(Outcome::Fine);
        }
        anyhow::ensure!(
            !plan.scenarios.is_empty() || !plan.series.is_empty(),
            "no scenario has such a name: --list names them"
        );
        let files = runner::Files {
            json: self.json.clone(),
            folder: self.report.clone(),
        };
        let report = Runner::new(&self.connections, &plan, files)?.run().await?;
        super::print(&report.text());
        Ok(if report.is_clean() {
            Outcome::Fine
        } else {
            Outcome::NotInOrder
        })
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        let settings = self
            .set
            .iter()
            .map(|pair| {
                let (name, value) = pair
                    .split_once('=')
                    .with_context(|| format!("--set {pair}: NAME=VALUE"))?;
                Ok((name.to_owned(), value.to_owned()))
            })
            .collect::<anyhow::Result<_>>()?;
        let is_report = self.report.is_some();
        let or = |given: Option<u32>, quick, report, full| {
            given.unwrap_or(match (self.quick, is_report) {
                (true, _) => quick,
                (false, true) => report,
                (false, false) => full,
            })
        };
        let minutes = self.minutes.or(is_report.then_some(12));
        Ok(Plan {
            rounds: or(self.rounds, 1, 2, 3),
            seconds: or(self.seconds, 3, 5, 10),
            warm_up: if self.quick { 5 } else { 40 },
            records: or(self.records, 50_000, 150_000, 300_000),
            buyers: or(self.buyers, 20_000, 200_000, 200_000),
            most: or(self.most, 10_000, 1_000_000, 1_000_000),
            storm_connections: if self.quick { 1_000 } else { 10_000 },
            lanes: self.lanes,
            limit: minutes.map(|minutes| Duration::from_secs(60 * u64::from(minutes))),
            settings,
            scenarios: plan::scenarios(&self.only),
            // Without a word nobody waits for them.
            series: if is_report || !self.only.is_empty() {
                series::named(&self.only)
            } else {
                Vec::new()
            },
        })
    }

    async fn be(&self, name: &str, stop: Stop) -> anyhow::Result<Outcome> {
        let baseline = Baseline::ALL.into_iter().find(|baseline| baseline.name() == name);
        let baseline = baseline.with_context(|| format!("{name} is no baseline"))?;
        let stores = Stores {
            redis_url: self.connections.redis_url.clone(),
            redis_prefix: self.connections.redis_prefix.clone(),
            postgres_url: self.connections.postgres_url.clone(),
        };
        baselines::serve(baseline, stores, (&plan::skus(plan::SKUS), plan::PLENTY), stop).await?;
        Ok(Outcome::Fine)
    }
}
