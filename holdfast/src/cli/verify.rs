//! `verify`.

use std::time::Duration;

use clap::Args;
use domain::limits;
use plumbing::config::Connections;

use super::Outcome;
use crate::verify::{self, Options};

/// Fold the log and compare it with Redis and Postgres, per SKU and per hold.
#[derive(Args, Debug)]
pub struct Verify {
    /// Print the whole report as JSON
    #[arg(long)]
    json: bool,

    /// First wait until nothing moves: every command decided, in Redis, and in Postgres
    #[arg(long)]
    at_rest: bool,

    /// How long --at-rest waits, in seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout: u64,

    /// How long lanes remember what has ended, in seconds of log time: as the reserver is told
    #[arg(long, env = "HOLDFAST_REMEMBER_SECONDS", default_value_t = limits::REMEMBER_MS_DEFAULT / 1_000, value_name = "SECONDS")]
    remember_seconds: i64,

    #[command(flatten)]
    connections: Connections,
}

impl Verify {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        let options = Options {
            at_rest: self.at_rest.then(|| Duration::from_secs(self.timeout)),
            remember_ms: self.remember_seconds.saturating_mul(1_000),
        };
        match verify::run(&self.connections, options).await {
            Ok(report) => {
                if self.json {
                    super::print(&format!("{}\n", serde_json::to_string_pretty(&report)?));
                } else {
                    super::print(&verify::render::text(&report));
                }
                Ok(if report.agrees() {
                    Outcome::Fine
                } else {
                    Outcome::NotInOrder
                })
            }
            Err(error) => {
                eprintln!("error: could not look: {error:#}");
                Ok(Outcome::CouldNotLook)
            }
        }
    }
}
