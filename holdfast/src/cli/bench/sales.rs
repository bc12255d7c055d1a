//! Reservations over HTTP, with every role at work: each answer is an event that was read back from the log.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bench::{
    cpu,
    load::{self, Length, Pace},
    tally::Tally,
};
use plumbing::{config::Connections, task};

use super::{
    meter::{Meter, Sample, engines},
    plan::{HOT, Load, PLENTY, Plan, SKUS, Scenario, sku},
    world::World,
};

/// The SKU of the storm, and its units.
const STORM: &str = "bench-storm";
const STORM_UNITS: i64 = 1_000;
const MIB: f64 = 1_048_576.0;

/// Plays the sales of a round in one world, then verifies it.
pub async fn run(
    connections: &Connections,
    plan: &Plan,
    scenarios: impl Iterator<Item = &Scenario>,
    step: &mut impl FnMut(&str),
    samples: &mut Vec<Sample>,
) -> anyhow::Result<()> {
    let mut world = World::new(connections, plan).await?;
    world.start("all")?;
    world.ready().await?;
    tokio::time::sleep(Duration::from_secs(1)).await; // What a start costs is no sale's.
    let at_rest = memory(&world).0;
    seed(world.http).await?;
    let first = samples.len();
    for scenario in scenarios {
        step(scenario.name);
        samples.push(match scenario.load {
            Load::Http {
                skus,
                connections,
                pace,
            } => sale(&world, plan, scenario.name, (skus, connections, pace)).await?,
            _ => storm(&world, plan).await?,
        });
    }
    let differences = world.verify().await?;
    let most = memory(&world).1;
    for sample in &mut samples[first..] {
        sample.differences = Some(differences);
        sample.more.insert("roles at rest, MiB", at_rest);
        sample.more.insert("roles at most, MiB", most);
    }
    world.end().await
}

/// Memory of all roles now, and the most that they had.
fn memory(world: &World) -> (f64, f64) {
    let all = world.roles().into_iter().map(|(_, pid)| cpu::memory(pid));
    let (now, most) = all.fold((0, 0), |(now, most), (rss, peak)| (now + rss, most + peak));
    (now as f64 / MIB, most as f64 / MIB)
}

async fn play(plan: load::Plan, mut write: impl FnMut(u64, &mut Vec<u8>) + Send + 'static) -> anyhow::Result<Tally> {
    Ok(task::thread("load", move || load::run(plan, &mut write)).await??)
}

/// Every SKU has units.
async fn seed(http: SocketAddr) -> anyhow::Result<()> {
    let plan = load::Plan {
        addr: http,
        connections: 32,
        pace: Pace::Closed,
        warm_up: Duration::ZERO,
        length: Length::Requests(SKUS as u64 + 1),
    };
    let tally = play(plan, move |number, out| {
        let (sku, units) = match number as usize {
            SKUS => (STORM.to_owned(), STORM_UNITS),
            number => (sku(number), PLENTY),
        };
        let body = format!(r#"{{"sku":"{sku}","set":{units},"reason":"bench"}}"#);
        call(out, http, "/v1/stock/adjustments", &format!("seed-{number}"), &body);
    })
    .await?;
    anyhow::ensure!(
        tally.answers(2) > SKUS as u64,
        "the stock was not taken: {:?}",
        tally.statuses
    );
    Ok(())
}

async fn sale(
    world: &World,
    plan: &Plan,
    name: &'static str,
    (skus, connections, pace): (usize, usize, Pace),
) -> anyhow::Result<Sample> {
    let http = world.http;
    let run = load::Plan {
        addr: http,
        connections,
        pace,
        warm_up: Duration::from_secs(1),
        length: Length::For(Duration::from_secs(plan.seconds.into())),
    };
    let meter = Meter::start(&engines(&world.connections), &world.roles());
    let tally = play(run, move |number, out| {
        let sku = sku(if skus == 1 {
            HOT
        } else {
            (number % skus as u64) as usize
        });
        reserve(out, http, &sku, &format!("{name}-{number}"));
    })
    .await?;
    let usage = meter.stop(tally.all_answers);
    let drained = drain(world).await?;
    let mut sample = Sample::of_load(name, &tally).with_usage(usage);
    sample.failures += tally.answers(4);
    sample.more.insert("rows behind at the end, s", drained.as_secs_f64());
    Ok(sample)
}

/// Waits until Postgres has every event; how long that took is how far the persister was behind.
async fn drain(world: &World) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    super::log::stored(&world.connections, &world.topics.events).await?;
    Ok(begun.elapsed())
}

async fn storm(world: &World, plan: &Plan) -> anyhow::Result<Sample> {
    let http = world.http;
    let run = load::Plan {
        addr: http,
        connections: plan.storm_connections,
        pace: Pace::Closed,
        warm_up: Duration::ZERO,
        length: Length::Requests(plan.buyers.into()),
    };
    let meter = Meter::start(&engines(&world.connections), &world.roles());
    let tally = play(run, move |number, out| {
        reserve(out, http, STORM, &format!("storm-{number}"))
    })
    .await?;
    let usage = meter.stop(tally.all_answers);
    drain(world).await?;
    let mut sample = Sample::of_load("storm", &tally).with_usage(usage);
    let sold = tally.answers(2);
    sample.failures += sold.abs_diff(STORM_UNITS.unsigned_abs());
    sample.more.insert("sold", sold as f64);
    sample
        .more
        .insert("sold out after, s", tally.last_success.as_secs_f64());
    Ok(sample)
}

fn reserve(out: &mut Vec<u8>, http: SocketAddr, sku: &str, key: &str) {
    let body = format!(r#"{{"lines":[{{"sku":"{sku}","quantity":1}}],"user_id":"{key}"}}"#);
    call(out, http, "/v1/holds", key, &body);
}

fn call(out: &mut Vec<u8>, http: SocketAddr, path: &str, key: &str, body: &str) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {http}\r\ncontent-type: application/json\r\nidempotency-key: {key}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body.as_bytes());
}
