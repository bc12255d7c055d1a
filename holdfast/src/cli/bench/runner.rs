//! A run: rounds of scenarios, then series; what fails is told and the rest goes on; what is known is written at once.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use plumbing::config::Connections;

use super::{
    flat, log,
    meter::Sample,
    others, pages,
    plan::{Kind, Plan, Scenario},
    report::Report,
    sales,
    series::{self, Series},
    world,
};

/// No scenario takes longer, and no point of a series.
const LONGEST: Duration = Duration::from_secs(180);

/// Where the result goes, beside the terminal.
#[derive(Debug)]
pub struct Files {
    pub json: Option<PathBuf>,
    pub folder: Option<PathBuf>,
}

impl Files {
    fn write(&self, report: &Report) -> anyhow::Result<()> {
        if self.json.is_none() && self.folder.is_none() {
            return Ok(());
        }
        let json = serde_json::to_string_pretty(&report.json())? + "\n";
        if let Some(path) = &self.json {
            write(path, &json)?;
        }
        if let Some(folder) = &self.folder {
            write(&folder.join("bench.json"), &json)?;
            for (name, content) in pages::all(report) {
                write(&folder.join(name), &content)?;
            }
        }
        Ok(())
    }
}

fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    std::fs::write(path, content).with_context(|| format!("{} cannot be written", path.display()))
}

/// Says what is going on: a bar on a terminal, else a line a step.
struct Progress {
    bar: ProgressBar,
    is_seen: bool,
    begun: Instant,
}

impl Progress {
    fn new(steps: usize) -> anyhow::Result<Self> {
        let bar = ProgressBar::new(steps as u64).with_style(ProgressStyle::with_template(
            "{elapsed:>4} {wide_bar} {pos}/{len} {msg}",
        )?);
        bar.enable_steady_tick(Duration::from_millis(500));
        Ok(Self {
            bar,
            is_seen: std::io::stderr().is_terminal(),
            begun: Instant::now(),
        })
    }

    fn begin(&self, name: String) {
        self.bar.set_message(name);
    }

    fn end(&self, line: &str) {
        self.bar.inc(1);
        if !self.is_seen {
            eprintln!("{:>4} s  {line}", self.begun.elapsed().as_secs());
        }
    }
}

/// One run of the tool.
pub struct Runner<'a> {
    connections: &'a Connections,
    plan: &'a Plan,
    files: Files,
    report: Report,
    progress: Progress,
    begun: Instant,
}

impl<'a> Runner<'a> {
    pub fn new(connections: &'a Connections, plan: &'a Plan, files: Files) -> anyhow::Result<Self> {
        let steps = plan.rounds as usize * plan.scenarios.len() + plan.series.len();
        Ok(Self {
            connections,
            plan,
            files,
            report: Report::new(plan),
            progress: Progress::new(steps)?,
            begun: Instant::now(),
        })
    }

    /// How long may still be worked; for ever without a limit.
    fn time_left(&self) -> Duration {
        let limit = self.plan.limit.unwrap_or(Duration::MAX);
        limit.saturating_sub(self.begun.elapsed())
    }

    /// Everything of the plan that there is time for.
    pub async fn run(mut self) -> anyhow::Result<Report> {
        if !self.plan.series.is_empty() || self.plan.scenarios.iter().any(|one| one.kind() == Kind::Sale) {
            self.warm_up().await;
        }
        let mut longest = Duration::ZERO;
        for round in 1..=self.plan.rounds {
            if round > 1 && self.time_left() < longest + series::TIME * u32::from(!self.plan.series.is_empty()) {
                self.report
                    .note(format!("no time for rounds {round} to {}", self.plan.rounds));
                break;
            }
            let begun = Instant::now();
            for scenario in &self.plan.scenarios {
                self.scenario(scenario, round).await?;
            }
            longest = longest.max(begun.elapsed());
        }
        for series in &self.plan.series {
            self.series(series).await?;
        }
        self.progress.bar.finish_and_clear();
        Ok(self.report)
    }

    async fn warm_up(&mut self) {
        self.progress.begin("warming up".to_owned());
        let plan = self.plan;
        let warmed = world::in_place(self.connections, LONGEST, async |place| {
            sales::warm_up(place, plan).await
        })
        .await;
        if let Err(error) = warmed {
            self.report.fail(format!("warm-up: {error:#}"));
        }
    }

    async fn scenario(&mut self, scenario: &Scenario, round: u32) -> anyhow::Result<()> {
        let (plan, name) = (self.plan, scenario.name);
        if self.time_left().is_zero() {
            self.report.note(format!("no time for {name} in round {round}"));
            return Ok(());
        }
        self.progress.begin(format!("round {round}: {name}"));
        let measured = world::in_place(self.connections, LONGEST, async |place| match scenario.kind() {
            Kind::Other => others::run(place, plan, scenario).await,
            Kind::Sale => sales::run(place, plan, scenario).await,
            Kind::Log => log::run(place, plan, scenario).await,
        })
        .await;
        match measured {
            Ok(samples) => {
                let rates: Vec<String> = samples.iter().map(Sample::line).collect();
                self.progress.end(&rates.join("; "));
                samples.into_iter().for_each(|sample| self.report.take(sample));
            }
            Err(error) => {
                self.progress.end(&format!("{name} failed: {error:#}"));
                self.report.fail(format!("{name}, round {round}: {error:#}"));
            }
        }
        self.files.write(&self.report)
    }

    async fn series(&mut self, series: &Series) -> anyhow::Result<()> {
        self.progress.begin(series.name.to_owned());
        let deadline = self.plan.limit.map(|limit| self.begun + limit);
        let mut points = Vec::new();
        let measured = flat::run(self.connections, self.plan, series, deadline, &mut points).await;
        self.progress.end(&match &measured {
            Ok(()) => format!("{}: {} points", series.name, points.len()),
            Err(error) => format!("{} failed: {error:#}", series.name),
        });
        if let Err(error) = measured {
            self.report.fail(format!("{}: {error:#}", series.name));
        }
        let skipped: Vec<_> = series.left_out(&points, self.plan).collect();
        if !skipped.is_empty() {
            self.report
                .note(format!("{}: not measured at {}", series.name, skipped.join(", ")));
        }
        self.report.take_series(series.name, points);
        self.files.write(&self.report)
    }
}
