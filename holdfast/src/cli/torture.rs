//! `torture`.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use plumbing::config::Connections;
use sqlx::Connection as _;

use super::Outcome;
use crate::torture::{self, Inflicted, Options, Plan, Point};

/// Break a system on purpose, under load, and see whether it keeps its promises.
#[derive(Args, Debug)]
pub struct Torture {
    /// Which faults
    #[arg(long, value_enum, default_value = "roles")]
    plan: Plan,

    /// How long faults are inflicted
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    seconds: u64,

    /// Wait after each fault until every lane decides again, so that a pause is of that fault alone
    #[arg(long)]
    calm: bool,

    /// The same seed draws the same plan
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Of the plan `points`: only those whose names begin so
    #[arg(long = "point", value_name = "PREFIX")]
    points: Vec<String>,

    /// Of the plan `points`: how often each is passed
    #[arg(long, default_value_t = 1, value_name = "TIMES")]
    rounds: u32,

    /// List the fail points, and do nothing
    #[arg(long)]
    list_points: bool,

    /// Of the plan `disk`: a folder on the small disk that has the engines' state
    #[arg(long, value_name = "FOLDER")]
    disk: Option<PathBuf>,

    /// How many buyers ask at once
    #[arg(long, default_value_t = 16)]
    buyers: usize,

    /// Where the processes' logs and the clients' history go
    #[arg(long, default_value = ".holdfast/torture", value_name = "FOLDER")]
    logs: PathBuf,

    /// The script that kills and starts engines
    #[arg(long, default_value = "infra/services.sh", value_name = "FILE")]
    services: PathBuf,

    /// Print the whole report as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connections: Connections,
}

impl Torture {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        if self.list_points {
            for Point { name, what, .. } in torture::POINTS {
                super::print(&format!("{name:<28} {what}\n"));
            }
            return Ok(Outcome::Fine);
        }
        let options = Options {
            plan: self.plan,
            seconds: self.seconds,
            points: self.points,
            rounds: self.rounds,
            disk: self.disk,
            calm: self.calm,
            seed: self.seed,
            buyers: self.buyers,
            logs: self.logs,
            services: self.services,
        };
        let report = torture::run(self.connections.clone(), &options).await?;
        let is_fine = report.violations.is_empty();
        if let Err(error) = keep(&self.connections, is_fine, &serde_json::to_string(&report)?).await {
            eprintln!("note: the console will not show this run: {error:#}");
        }
        if self.json {
            super::print(&format!("{}\n", serde_json::to_string_pretty(&report)?));
        } else {
            super::print(&text(&report));
        }
        Ok(if is_fine { Outcome::Fine } else { Outcome::NotInOrder })
    }
}

/// Keeps the report where the console looks, in the tables of the system that was not tortured.
async fn keep(connections: &Connections, agrees: bool, report: &str) -> anyhow::Result<()> {
    let mut postgres = sqlx::PgConnection::connect(connections.postgres_url.expose()).await?;
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass('check_results') IS NOT NULL")
        .fetch_one(&mut postgres)
        .await?;
    anyhow::ensure!(is_there, "this database has no tables yet (holdfast migrate)");
    sqlx::query(
        "INSERT INTO check_results (kind, at, actor, agrees, report) VALUES ('torture', $1, 'holdfast torture', $2, $3::jsonb)",
    )
    .bind(plumbing::time::now_ms())
    .bind(agrees)
    .bind(report)
    .execute(&mut postgres)
    .await?;
    Ok(())
}

fn text(report: &torture::Report) -> String {
    let mut by_fault: BTreeMap<_, Vec<&Inflicted>> = BTreeMap::new();
    for fault in &report.faults {
        by_fault.entry((fault.fault, &fault.on)).or_default().push(fault);
    }
    let mut table = super::table(&["fault", "times", "in flight", "longest pause: median", "worst"]);
    for ((fault, on), times) in by_fault {
        let mut pauses: Vec<i64> = times.iter().map(|time| time.pause_ms).collect();
        pauses.sort_unstable();
        let ms = |value: Option<&i64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        table.add_row([
            format!("{fault:?} {on}"),
            times.len().to_string(),
            times.iter().map(|time| time.in_flight).sum::<usize>().to_string(),
            ms(pauses.get(pauses.len() / 2)),
            ms(pauses.last()),
        ]);
    }
    let mut text = format!(
        "{table}\nseed {}: {} requests, {} decided, {} violations (logs: {})\n",
        report.seed,
        report.requests,
        report.decided,
        report.violations.len(),
        report.logs.display()
    );
    for violation in &report.violations {
        text.push_str(&format!("  {violation}\n"));
    }
    text
}
