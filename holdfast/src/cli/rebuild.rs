//! `rebuild`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use domain::Lane;
use indicatif::{ProgressBar, ProgressStyle};
use plumbing::{config::Connections, service::Context, task};
use reserver::{Progress, Restored};

use super::Outcome;
use crate::{
    redis_lane::RedisLanes,
    verify::{self, Options},
};

/// How long a reserver that took a lane over may need to have it whole.
const OVERTAKEN_WITHIN: Duration = Duration::from_secs(120);

/// Rebuild lanes in Redis from Postgres and the log.
#[derive(Args, Debug)]
pub struct Rebuild {
    /// Which lanes; all of them where none is named
    #[arg(value_name = "LANE", value_parser = clap::value_parser!(u16))]
    lanes: Vec<u16>,

    /// Do not compare them with what they were built from
    #[arg(long)]
    unproved: bool,

    #[command(flatten)]
    connections: Connections,

    #[command(flatten)]
    options: reserver::Options,
}

impl Rebuild {
    pub async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let lanes = self
            .lanes
            .iter()
            .map(|number| {
                Lane::new(i32::from(*number)).ok_or_else(|| anyhow::anyhow!("lane {number}: must be below 4096"))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let bar = Arc::new(Bar::new()?);
        let (begun, shown) = (Instant::now(), bar.clone());
        let restored = reserver::restore(
            self.connections.clone(),
            self.options.clone(),
            context,
            lanes,
            move |lane, progress| shown.show(lane, progress),
        )
        .await?;
        bar.bar.finish_and_clear();
        let Some(restored) = restored else {
            return Ok(Outcome::CouldNotLook);
        };
        let mut outcome = Outcome::Fine;
        let mut whole = Vec::new();
        for (lane, restored) in restored {
            match self.settle(lane, restored).await? {
                Ok(line) => {
                    whole.push(lane);
                    super::print(&format!("✓ lane {lane}: {line}\n"));
                }
                Err((worse, line)) => {
                    outcome = worse;
                    super::print(&format!("✗ lane {lane}: {line}\n"));
                }
            }
        }
        super::print(&format!(
            "{} lanes in {:.1} s\n",
            whole.len(),
            begun.elapsed().as_secs_f64()
        ));
        if self.unproved || whole.is_empty() {
            return Ok(outcome);
        }
        let proved = self.prove(&whole).await?;
        Ok(if outcome == Outcome::Fine { proved } else { outcome })
    }

    /// What became of a lane in a sentence, and how bad that is.
    async fn settle(&self, lane: Lane, restored: Restored) -> anyhow::Result<Result<String, (Outcome, String)>> {
        Ok(match restored {
            Restored::Rebuilt { epoch, holds } => Ok(format!("rebuilt with {holds} holds, generation {epoch}")),
            Restored::Halted(why) => Err((Outcome::NotInOrder, format!("halted: {why}"))),
            Restored::Down(why) => Err((Outcome::CouldNotLook, why)),
            Restored::Overtaken(why) => {
                let connections = self.connections.clone();
                let whole = task::thread("rebuild-watch", move || watch(&connections, lane)).await??;
                match whole {
                    Some(generation) => Ok(format!("a reserver that runs has it whole, generation {generation}")),
                    None => Err((
                        Outcome::NotInOrder,
                        format!(
                            "{why}, but the lane is not whole after {} s",
                            OVERTAKEN_WITHIN.as_secs()
                        ),
                    )),
                }
            }
        })
    }

    async fn prove(&self, lanes: &[Lane]) -> anyhow::Result<Outcome> {
        let begun = Instant::now();
        let options = Options {
            remember_ms: self.options.remember_seconds.saturating_mul(1_000),
            ..Options::default()
        };
        let differences = match verify::redis(&self.connections, lanes, options).await {
            Ok(differences) => differences,
            Err(error) => {
                eprintln!("error: could not prove it: {error:#}");
                return Ok(Outcome::CouldNotLook);
            }
        };
        for difference in &differences {
            super::print(&format!("✗ lane {}: {}\n", difference.lane, difference.what));
        }
        if differences.is_empty() {
            super::print(&format!(
                "✓ proved in {:.1} s: every key is what Postgres and the log say\n",
                begun.elapsed().as_secs_f64()
            ));
            Ok(Outcome::Fine)
        } else {
            Ok(Outcome::NotInOrder)
        }
    }
}

/// Waits until the lane's owner has it whole; returns its generation.
fn watch(connections: &Connections, lane: Lane) -> anyhow::Result<Option<i64>> {
    let begun = Instant::now();
    let mut redis = RedisLanes::open(connections)?;
    while begun.elapsed() < OVERTAKEN_WITHIN {
        if let Some(cell) = redis.lane(lane)?.filter(|cell| !cell.building) {
            return Ok(Some(cell.generation));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(None)
}

/// A progress bar, on standard error where that is a terminal.
struct Bar {
    bar: ProgressBar,
    reading: ProgressStyle,
    writing: ProgressStyle,
}

impl Bar {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            bar: ProgressBar::no_length(),
            reading: ProgressStyle::with_template("{elapsed:>4} {spinner} {msg}")?,
            writing: ProgressStyle::with_template("{elapsed:>4} {wide_bar} {pos}/{len} {msg}")?,
        })
    }

    fn show(&self, lane: Lane, progress: Progress) {
        match progress {
            Progress::Rows(rows) => self.read(format!("lane {lane}: {rows} rows of Postgres")),
            Progress::Events(events) if events % 1_000 == 1 => self.read(format!("lane {lane}: {events} events")),
            Progress::Written(1, total) => {
                self.bar.set_style(self.writing.clone());
                self.bar.set_length(total);
                self.bar.set_message(format!("lane {lane}"));
            }
            Progress::Written(written, total) if written % 1_000 == 0 || written == total => {
                self.bar.set_position(written);
            }
            Progress::Events(_) | Progress::Written(..) => {}
        }
    }

    fn read(&self, message: String) {
        self.bar.set_style(self.reading.clone());
        self.bar.set_message(message);
        self.bar.tick();
    }
}
