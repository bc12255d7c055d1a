//! Torture: a system of its own, load, a seeded plan of faults, and then the question whether anything was lost.
//!
//! ```text
//! system  a process per role, on topics, tables and keys of this run
//! load    buyers over HTTP and a service on Kafka, who write down what they are told
//! faults  one after the other, drawn by the seed
//! then    all is healed, every command must be decided, and check and verify judge
//! ```

mod dice;
mod faults;
mod lag;
mod load;
mod points;
pub mod proxy;
mod system;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use domain::{Lane, Sku};
use plumbing::config::Connections;
use serde::Serialize;
use serde_json::json;

pub use faults::{Fault, Plan};
pub use points::{POINTS, Point};

use crate::{
    check::{
        self, Bounds, DECIDED_WITHIN_MS,
        history::{Call, Op, Reply},
    },
    log::Decoder,
    verify,
};
use dice::Dice;
use load::Desk;
use system::{LANES, System};

/// A system is well again when for so long
const CALM: Duration = Duration::from_secs(3);
/// each lane has decided what was asked within the last second;
const CALM_WITHIN: Duration = Duration::from_secs(1);
/// and one that is not well after this is tortured on.
const CALM_BY: Duration = Duration::from_secs(180);
/// The longest time to live that a buyer asks for, and then some.
const EXPIRED_BY_THEN: Duration = Duration::from_secs(20);

/// How to torture.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which faults.
    pub plan: Plan,
    /// How long faults are inflicted, in seconds.
    pub seconds: u64,
    /// Of the plan of points: those whose names begin so; all, where there is none.
    pub points: Vec<String>,
    /// Of the plan of points: how often each.
    pub rounds: u32,
    /// Of the plan of a full disk: a folder on it.
    pub disk: Option<PathBuf>,
    /// Whether a fault waits until the one before it is over.
    pub calm: bool,
    /// The seed of the plan.
    pub seed: u64,
    /// How many buyers.
    pub buyers: usize,
    /// Where processes log and the history goes.
    pub logs: PathBuf,
    /// `infra/services.sh`.
    pub services: PathBuf,
}

/// One fault that was inflicted.
#[derive(Debug, Clone, Serialize)]
pub struct Inflicted {
    /// Which.
    pub fault: Fault,
    /// On which role, or at which point; empty where it is an engine's.
    pub on: String,
    /// When, in seconds from the beginning.
    pub at_s: f64,
    /// How long until it was undone, in seconds.
    pub lasted_s: f64,
    /// Requests without an answer at that moment.
    pub in_flight: usize,
    /// The longest that the slowest lane answered nobody, until the next fault began, in milliseconds.
    pub pause_ms: i64,
}

/// What a run came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Requests, with every repetition.
    pub requests: usize,
    /// Those with a decided answer.
    pub decided: usize,
    /// Faults, in order.
    pub faults: Vec<Inflicted>,
    /// Everything that was promised and did not hold.
    pub violations: Vec<String>,
    /// Where the processes' logs and the history are.
    pub logs: PathBuf,
}

/// Tortures a system.
///
/// # Errors
/// An engine does not answer before or after, or a fault could not be inflicted: then nothing is known.
pub async fn run(connections: Connections, options: &Options) -> anyhow::Result<Report> {
    let name = format!("t{}x{}", std::process::id(), options.seed);
    let logs = options.logs.join(&name);
    let mut system = System::create(connections, &name, logs.clone(), options.services.clone()).await?;
    system.disk.clone_from(&options.disk);
    let one_of_each = ["ingress-1", "reserver-1", "persister-1", "expirer-1"];
    let second = ["ingress-2", "reserver-2", "persister-2"];
    // A point is reached by the one process that there is.
    let second = if options.plan == Plan::Points { &[][..] } else { &second };
    for process in one_of_each.iter().chain(second) {
        system.spawn(process)?;
    }
    let mut dice = Dice::new(options.seed);
    let desk = Desk::open(system.urls(), skus())?;
    stock(&desk, &mut dice).await?;
    let codec = Decoder::connect(&system.connections).await?.codec().clone();
    let topics = schemas::Topics::with_prefix(&system.connections.topic_prefix);
    let mut clients: Vec<_> = (0..options.buyers)
        .map(|number| {
            load::buyer(
                desk.clone(),
                format!("buyer-{number}"),
                Dice::new(options.seed + number as u64 + 1),
            )
        })
        .collect();
    let (brokers, own) = (system.connections.kafka_brokers.clone(), Dice::new(!options.seed));
    clients.push(load::upstream(desk.clone(), &brokers, topics, codec, own)?);

    let inflicted = match options.plan {
        Plan::Points => points::run(&mut system, &desk, &options.points, options.rounds, &mut dice).await?,
        Plan::Roles | Plan::Engines | Plan::All | Plan::Disk => {
            inflict_all(&mut system, &desk, options, &mut dice).await?
        }
    };
    desk.close();
    system.mind()?;
    let healed_ms = plumbing::time::now_ms();
    let mut violations = Vec::new();
    let all = futures::future::join_all(clients);
    let patience = Duration::from_millis(DECIDED_WITHIN_MS.unsigned_abs());
    if tokio::time::timeout(patience, all).await.is_err() {
        violations.push(format!(
            "{} requests are not decided 60 s after healing",
            desk.in_flight()
        ));
        desk.give_up();
    }
    tokio::time::sleep(EXPIRED_BY_THEN).await;
    let history = desk.history();
    write_history(&logs, &history)?;
    let verified = verify::run(
        &system.connections,
        verify::Options {
            at_rest: Some(patience),
            ..verify::Options::default()
        },
    )
    .await?;
    violations.extend(
        verified
            .differences
            .iter()
            .map(|found| format!("verify: lane {}: {}", found.lane, found.what)),
    );
    let log = check::dump(&system.connections).await?;
    let bounds = Bounds {
        healed_ms,
        read_ms: plumbing::time::now_ms(),
    };
    violations.extend(
        check::check(&history, &log, bounds)
            .into_iter()
            .map(|found| format!("{:?}: {}", found.promise, found.what)),
    );
    system.mind()?;
    violations.append(&mut system.ended);
    violations.extend(system.panics());
    let report = Report {
        seed: options.seed,
        requests: history.len(),
        decided: history.iter().filter(|op| op.reply != Reply::Unknown).count(),
        faults: measured(inflicted, &history),
        violations,
        logs,
    };
    system.remove().await?;
    Ok(report)
}

/// Two SKUs in every lane: one that is always there, one that is nearly sold out.
fn skus() -> Vec<String> {
    let in_lane = |lane: Lane, name: &str| {
        (0..u32::MAX)
            .map(|number| format!("{name}-{number}"))
            .find(|sku| Sku::parse(sku).is_ok_and(|sku| Lane::of_sku(&sku, LANES) == lane))
    };
    Lane::all(LANES)
        .flat_map(|lane| [in_lane(lane, "plenty"), in_lane(lane, "scarce")])
        .flatten()
        .collect()
}

async fn stock(desk: &Desk, dice: &mut Dice) -> anyhow::Result<()> {
    for sku in &desk.skus {
        let units = if sku.starts_with("plenty") { 100_000 } else { 10 };
        let op = Op {
            call: Call::Adjust,
            key: format!("stock-{sku}"),
            sku: sku.clone(),
            quantity: units,
            user: String::new(),
            invoked_us: 0,
            returned_us: 0,
            reply: Reply::Unknown,
        };
        let body = json!({"sku": sku, "change": units, "reason": "opening"});
        let asked = desk.ask(&op, dice, "/v1/stock/adjustments", &body);
        let reply = tokio::time::timeout(Duration::from_secs(90), asked).await;
        let reply = reply.context("the system did not come up within 90 s")?;
        anyhow::ensure!(
            matches!(reply, Some(Reply::Done { .. })),
            "{sku} could not be stocked: {reply:?}"
        );
    }
    Ok(())
}

async fn inflict_all(
    system: &mut System,
    desk: &Desk,
    options: &Options,
    dice: &mut Dice,
) -> anyhow::Result<Vec<Inflicted>> {
    let faults = options.plan.faults();
    let until_us = desk.now_us() + i64::try_from(options.seconds).unwrap_or(i64::MAX / 1_000_000) * 1_000_000;
    let mut inflicted = Vec::new();
    while desk.now_us() < until_us {
        tokio::time::sleep(Duration::from_millis(dice.between(500, 3_000))).await;
        let fault = *dice.of(&faults);
        let (begun_us, in_flight) = (desk.now_us(), desk.in_flight());
        tracing::info!(?fault, in_flight, "torture.fault");
        let on = faults::inflict(fault, system, dice)
            .await
            .with_context(|| format!("{fault:?} could not be inflicted"))?;
        inflicted.push(Inflicted {
            fault,
            on,
            at_s: begun_us as f64 / 1e6,
            lasted_s: (desk.now_us() - begun_us) as f64 / 1e6,
            in_flight,
            pause_ms: 0,
        });
        system.mind()?;
        if options.calm {
            calm(desk).await;
        }
    }
    Ok(inflicted)
}

/// Waits until every lane decides.
async fn calm(desk: &Desk) {
    let begun = tokio::time::Instant::now();
    let mut well_since = begun;
    while well_since.elapsed() < CALM && begun.elapsed() < CALM_BY {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if !desk.all_decide(CALM_WITHIN) {
            well_since = tokio::time::Instant::now();
        }
    }
}

fn write_history(logs: &std::path::Path, history: &[Op]) -> anyhow::Result<()> {
    let mut text = String::new();
    for op in history {
        text.push_str(&serde_json::to_string(op)?);
        text.push('\n');
    }
    std::fs::write(logs.join("history.jsonl"), text).context("the history cannot be written")
}

/// The longest pause of the slowest lane between a fault's beginning and the next one's.
fn measured(inflicted: Vec<Inflicted>, history: &[Op]) -> Vec<Inflicted> {
    let mut answers: Vec<Vec<i64>> = vec![Vec::new(); usize::from(LANES)];
    for op in history
        .iter()
        .filter(|op| op.reply != Reply::Unknown && op.call != Call::Send)
    {
        if let Ok(sku) = Sku::parse(&op.sku) {
            answers[usize::from(Lane::of_sku(&sku, LANES).number())].push(op.returned_us);
        }
    }
    answers.iter_mut().for_each(|lane| lane.sort_unstable());
    let begun: Vec<i64> = inflicted.iter().map(|fault| (fault.at_s * 1e6) as i64).collect();
    let until = begun.iter().skip(1).copied().chain([i64::MAX]);
    let pauses = begun.iter().zip(until).map(|(from, until)| {
        let of_lane = |lane: &Vec<i64>| {
            let after = &lane[lane.partition_point(|at| at < from)..];
            let mut before = *from;
            let mut longest = 0;
            for at in after {
                longest = longest.max(at.min(&until) - before);
                before = *at;
                if *at >= until {
                    break;
                }
            }
            longest
        };
        answers.iter().map(of_lane).max().unwrap_or(0) / 1_000
    });
    inflicted
        .iter()
        .zip(pauses)
        .map(|(fault, pause_ms)| Inflicted {
            pause_ms,
            ..fault.clone()
        })
        .collect()
}
