//! `bench`: how fast this machine is with Holdfast on it, beside what it could be and what others are.
//!
//! ```text
//! plan -> for each round: world (topics, tables, keys, roles of its own) -> scenarios -> verify -> report (table, JSON)
//! ```
//!
//! Absolute numbers depend on the machine and on its neighbours, so everything that is compared runs in the same
//! round, one after the other, and rounds are repeated: a result is a median with its spread, and a share of its ceiling.

mod log;
mod meter;
mod others;
mod plan;
mod report;
mod sales;
mod world;

use std::path::PathBuf;

use anyhow::Context as _;
use bench::baselines::{self, Baseline, Stores};
use clap::Args;
use indicatif::ProgressBar;
use plumbing::config::Connections;

use super::Outcome;
use meter::Sample;
use plan::{Kind, Plan};
use report::Report;

/// Measure throughput, latency and processor time, with ceilings and baselines in the same run.
#[derive(Args, Debug)]
pub struct Bench {
    /// Only scenarios whose name contains one of these; --list names them all
    #[arg(value_name = "SCENARIO")]
    only: Vec<String>,

    /// Name the scenarios and end
    #[arg(long)]
    list: bool,

    /// One short round: a minute or two
    #[arg(long)]
    quick: bool,

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
    pub async fn run(self) -> anyhow::Result<Outcome> {
        if let Some(name) = &self.be {
            return self.be(name).await;
        }
        let plan = self.plan()?;
        if self.list {
            for scenario in &plan.scenarios {
                super::print(&format!("{:<22} {}\n", scenario.name, scenario.what));
            }
            return Ok(Outcome::Fine);
        }
        anyhow::ensure!(
            !plan.scenarios.is_empty(),
            "no scenario has such a name: --list names them"
        );
        let bar = ProgressBar::new(u64::from(plan.rounds) * plan.scenarios.len() as u64).with_style(
            indicatif::ProgressStyle::with_template("{elapsed:>4} {wide_bar} {pos}/{len} {msg}")?,
        );
        let mut report = Report::new(&plan);
        for round in 0..plan.rounds {
            for sample in self.round(&plan, round, &bar).await? {
                report.take(sample);
            }
        }
        bar.finish_and_clear();
        super::print(&report.text());
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_string_pretty(&report.json())? + "\n")
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
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
        let or = |given: Option<u32>, quick, full| given.unwrap_or(if self.quick { quick } else { full });
        Ok(Plan {
            rounds: or(self.rounds, 1, 3),
            seconds: or(self.seconds, 3, 10),
            records: or(self.records, 50_000, 300_000),
            buyers: or(self.buyers, 20_000, 200_000),
            storm_connections: if self.quick { 1_000 } else { 10_000 },
            lanes: self.lanes,
            settings,
            scenarios: plan::scenarios(&self.only),
        })
    }

    /// Every scenario once; those that share a world follow each other.
    async fn round(&self, plan: &Plan, round: u32, bar: &ProgressBar) -> anyhow::Result<Vec<Sample>> {
        let mut samples = Vec::new();
        let of = |kind: Kind| plan.scenarios.iter().filter(move |scenario| scenario.kind() == kind);
        let mut step = |name: &str| {
            bar.set_message(format!("round {}: {name}", round + 1));
            bar.inc(1);
        };
        if of(Kind::Other).next().is_some() {
            others::run(&self.connections, plan, of(Kind::Other), &mut step, &mut samples).await?;
        }
        if of(Kind::Sale).next().is_some() {
            sales::run(&self.connections, plan, of(Kind::Sale), &mut step, &mut samples).await?;
        }
        for scenario in of(Kind::Log) {
            step(scenario.name);
            log::run(&self.connections, plan, scenario, &mut samples).await?;
        }
        Ok(samples)
    }

    async fn be(&self, name: &str) -> anyhow::Result<Outcome> {
        let baseline = Baseline::ALL.into_iter().find(|baseline| baseline.name() == name);
        let baseline = baseline.with_context(|| format!("{name} is no baseline"))?;
        let stores = Stores {
            redis_url: self.connections.redis_url.clone(),
            redis_prefix: self.connections.redis_prefix.clone(),
            postgres_url: self.connections.postgres_url.clone(),
        };
        baselines::serve(baseline, stores, &plan::skus(plan::SKUS), plan::PLENTY).await?;
        Ok(Outcome::Fine)
    }
}
