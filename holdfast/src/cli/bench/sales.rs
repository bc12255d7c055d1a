//! Reservations over HTTP, with every role at work: each answer is an event that was read back from the log.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bench::{
    cpu, files,
    load::{self, Length, Pace},
    tally::Tally,
};
use domain::Sku;
use plumbing::{config::Connections, task};

use super::{
    feed, log,
    meter::{Meter, Sample, engines},
    plan::{HOT, Load, PLENTY, Plan, SKUS, Scenario, sku},
    world::World,
};

/// The SKU of the storm, and its units.
const STORM: &str = "bench-storm";
const STORM_UNITS: i64 = 1_000;
const MIB: f64 = 1_048_576.0;

/// Plays a sale in a world of its own, then verifies it.
pub async fn run(place: &Connections, plan: &Plan, scenario: &Scenario) -> anyhow::Result<Vec<Sample>> {
    let mut world = World::new(place, plan, plan.lanes).await?;
    if let Load::Storm { from_tail } = scenario.load {
        files::allow(plan.storm_connections)?; // Roles that start now inherit it.
        world.set("HOLDFAST_SOLD_OUT_FROM_TAIL", from_tail);
    }
    let at_rest = open(&mut world).await?;
    let mut sample = match scenario.load {
        Load::Http {
            skus,
            connections,
            pace,
        } => sale(&world, plan, scenario.name, (skus, connections, pace)).await?,
        _ => storm(&world, plan, scenario.name).await?,
    };
    sample.differences = Some(world.verify().await?);
    sample.more.insert("roles at rest, MiB", at_rest);
    sample.more.insert("roles at most, MiB", memory(&world).1);
    world.end()?;
    Ok(vec![sample])
}

/// Lets the broker's machine code be made: its compiler takes as much time as its work in the first half minute, and what is
/// measured first would pay for what comes after it.
pub async fn warm_up(place: &Connections, plan: &Plan) -> anyhow::Result<()> {
    let mut world = World::new(place, plan, plan.lanes).await?;
    open(&mut world).await?;
    let run = run_of(&world, 256, Pace::Closed, Duration::from_secs(plan.warm_up.into()));
    play(run, reservations(&world, "warm-up", SKUS)).await?;
    drain(&world).await?;
    world.end()
}

/// Starts every role and stocks every SKU; returns the memory of the roles at rest, in MiB.
pub async fn open(world: &mut World) -> anyhow::Result<f64> {
    world.start("all")?;
    world.ready().await?;
    tokio::time::sleep(Duration::from_secs(1)).await; // What a start costs is no sale's.
    let at_rest = memory(world).0;
    seed(world.http).await?;
    Ok(at_rest)
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

/// Reservations of plenty over so many SKUs and connections.
pub async fn sale(
    world: &World,
    plan: &Plan,
    name: &str,
    (skus, connections, pace): (usize, usize, Pace),
) -> anyhow::Result<Sample> {
    let run = run_of(world, connections, pace, Duration::from_secs(plan.seconds.into()));
    measure(world, name, run, reservations(world, name, skus)).await
}

/// Carts of so many lines over the first `lanes` lanes, 100 a second: what a cart costs and waits at no great load.
pub async fn carts(world: &World, plan: &Plan, lines: usize, lanes: u16) -> anyhow::Result<Sample> {
    let (name, http) = (format!("cart-{lines}-{lanes}"), world.http);
    let run = run_of(world, 64, Pace::Open(100), Duration::from_secs(plan.seconds.into()));
    let skus = feed::of_lanes(&feed::everywhere(SKUS)?, 50, lanes, plan.lanes)?;
    let before: i64 = log::ends(world).await?.iter().sum();
    let key = name.clone();
    let tell = move |number: u64, out: &mut Vec<u8>| {
        let line = |sku: &Sku| format!(r#"{{"sku":"{sku}","quantity":1}}"#);
        let cart: Vec<String> = feed::cart(&skus, number, lines).map(line).collect();
        let key = format!("{key}-{number}");
        let body = format!(r#"{{"lines":[{}],"user_id":"{key}"}}"#, cart.join(","));
        call(out, http, "/v1/holds", &key, &body);
    };
    let mut sample = measure(world, &name, run, tell).await?;
    let events = log::ends(world).await?.iter().sum::<i64>() - before;
    let all = f64::from(100 * plan.seconds) + 100.0; // With the second of warm-up.
    sample.more.insert("events each", events as f64 / all);
    Ok(sample)
}

/// Plays a load and takes what it used; ends when Postgres has its rows. Refusals are failures.
async fn measure(
    world: &World,
    name: &str,
    run: load::Plan,
    tell: impl FnMut(u64, &mut Vec<u8>) + Send + 'static,
) -> anyhow::Result<Sample> {
    let meter = Meter::start(&engines(&world.connections), &world.roles());
    let tally = play(run, tell).await?;
    let usage = meter.stop(tally.all_answers);
    let drained = drain(world).await?;
    let mut sample = Sample::of_load(name, &tally).with_usage(usage);
    sample.failures += tally.answers(4);
    sample.more.insert("rows behind at the end, s", drained.as_secs_f64());
    Ok(sample)
}

fn run_of(world: &World, connections: usize, pace: Pace, time: Duration) -> load::Plan {
    load::Plan {
        addr: world.http,
        connections,
        pace,
        warm_up: Duration::from_secs(1),
        length: Length::For(time),
    }
}

/// Writes reservations over so many SKUs, each with a key of its own.
fn reservations(world: &World, name: &str, skus: usize) -> impl FnMut(u64, &mut Vec<u8>) + Send + 'static {
    let (http, name) = (world.http, name.to_owned());
    move |number, out| {
        let sku = sku(if skus == 1 {
            HOT
        } else {
            (number % skus as u64) as usize
        });
        reserve(out, http, &sku, &format!("{name}-{number}"));
    }
}

/// Waits until Postgres has every event; how long that took is how far the persister was behind.
async fn drain(world: &World) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    log::stored(world).await?;
    Ok(begun.elapsed())
}

async fn storm(world: &World, plan: &Plan, name: &str) -> anyhow::Result<Sample> {
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
    let mut sample = Sample::of_load(name, &tally).with_usage(usage);
    let sold = tally.answers(2);
    sample.failures += sold.abs_diff(STORM_UNITS.unsigned_abs());
    sample.more.insert("sold", sold as f64);
    let refused = tally.answers(4) as f64 / tally.elapsed.as_secs_f64();
    sample.more.insert("refusals a second", refused);
    let from_tail = metric(http, "holdfast_ingress_sold_out_from_tail_total").await?;
    sample.more.insert("refused from the tail's state", from_tail);
    sample
        .more
        .insert("sold out after, s", tally.last_success.as_secs_f64());
    Ok(sample)
}

/// The sum of a metric over its labels.
async fn metric(http: SocketAddr, name: &str) -> anyhow::Result<f64> {
    let client = plumbing::tls::plain_client().build()?;
    let text = client
        .get(format!("http://{http}/metrics"))
        .send()
        .await?
        .text()
        .await?;
    let lines = text.lines().filter(|line| line.starts_with(name));
    Ok(lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum())
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
