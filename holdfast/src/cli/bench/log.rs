//! The log alone: commands that wait in Kafka are decided by a reserver, then written by a persister.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use domain::Lane;
use plumbing::{
    config::Connections,
    kafka::{
        KafkaError,
        consumer::{self, Reader},
    },
    task,
};

use super::{
    feed::{self, Ask, Feed},
    meter::{Meter, Sample, engines},
    plan::{Load, Plan, Scenario},
    world::World,
};

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Plays a scenario in a world of its own, then verifies it.
pub async fn run(place: &Connections, plan: &Plan, scenario: &Scenario) -> anyhow::Result<Vec<Sample>> {
    let mut world = World::new(place, plan, plan.lanes).await?;
    let feed = Feed::new(&world).await?;
    let from = ends(&world).await?;
    let (all, lines) = match scenario.load {
        Load::Log { skus } => (feed::everywhere(skus)?, 1),
        Load::Carts { lines, lanes } => {
            ensure!(
                lanes <= plan.lanes,
                "carts over {lanes} lanes, but there are {}",
                plan.lanes
            );
            let some = feed::everywhere(400 * usize::from(plan.lanes))?;
            (feed::of_lanes(&some, 200, lanes, plan.lanes)?, lines)
        }
        _ => bail!("{} is no scenario on the log", scenario.name),
    };
    let ask = Ask {
        lines,
        ..Ask::of(u64::from(plan.records) / lines as u64)
    };
    let asked = feed.stock(&all).await? + feed.reserve(&all, ask).await?;
    let before = redis_memory(place)?;
    world.start("reserver")?;
    let mut decided = decisions(&world, from, asked, scenario.name).await?;
    let bytes = (redis_memory(place)? - before) / ask.holds as f64;
    decided.more.insert("Redis bytes a hold", bytes);
    let mut samples = vec![decided];
    world.start("persister")?;
    let written = rows(&world).await?;
    if lines == 1 {
        samples.push(written);
    }
    let differences = world.verify().await?;
    for sample in &mut samples {
        sample.differences = Some(differences);
    }
    world.end()?;
    Ok(samples)
}

/// Answers of Redis' INFO as it words them.
fn redis_info(place: &Connections, section: &str) -> anyhow::Result<String> {
    let mut connection = plumbing::redis::client(place.redis_url.expose())?.get_connection()?;
    Ok(redis::cmd("INFO").arg(section).query(&mut connection)?)
}

fn redis_memory(place: &Connections) -> anyhow::Result<f64> {
    let text = redis_info(place, "memory")?;
    let used = text.lines().find_map(|line| line.strip_prefix("used_memory:"));
    Ok(used.context("INFO without used_memory")?.trim().parse()?)
}

/// Microseconds that Redis has worked on scripts since its start.
fn script_us(place: &Connections) -> anyhow::Result<f64> {
    let text = redis_info(place, "commandstats")?;
    let scripts = text.lines().filter(|line| {
        ["cmdstat_eval", "cmdstat_fcall"]
            .iter()
            .any(|name| line.starts_with(name))
    });
    Ok(scripts
        .filter_map(|line| line.split("usec=").nth(1)?.split(',').next()?.parse::<f64>().ok())
        .sum())
}

/// Where each lane of the events ends now.
pub async fn ends(world: &World) -> anyhow::Result<Vec<i64>> {
    let (brokers, topic, lanes) = (
        world.connections.kafka_brokers.clone(),
        world.topics.events.clone(),
        world.lanes,
    );
    task::thread("ends", move || {
        let reader = consumer::reader(&brokers, "holdfast-bench", "holdfast-bench")?;
        Lane::all(lanes)
            .map(|lane| Ok(consumer::bounds(&reader, &topic, lane.partition())?.1))
            .collect()
    })
    .await?
}

/// Counts outcomes behind `from` as they come, from the first to the last; refused ones are failures.
pub async fn decisions(world: &World, from: Vec<i64>, expected: u64, name: &str) -> anyhow::Result<Sample> {
    let (place, topic, name) = (world.connections.clone(), world.topics.events.clone(), name.to_owned());
    let (engines, roles, lanes) = (engines(&world.connections), world.roles(), world.lanes);
    task::thread("decisions", move || {
        let reader = consumer::reader(&place.kafka_brokers, "holdfast-bench", "holdfast-bench")?;
        let from: Vec<_> = Lane::all(lanes)
            .zip(from)
            .map(|(lane, offset)| (&*topic, lane.partition(), offset))
            .collect();
        consumer::assign(&reader, &from)?;
        let mut refused = u64::from(next_outcome(&reader)? == Outcome::Refused);
        let scripts = script_us(&place)?;
        let meter = Meter::start(&engines, &roles);
        for _ in 1..expected {
            refused += u64::from(next_outcome(&reader)? == Outcome::Refused);
        }
        let rate = expected as f64 / meter.begun.elapsed().as_secs_f64();
        let mut sample = Sample::of_rate(&name, rate).with_usage(meter.stop(expected));
        let scripts = (script_us(&place)? - scripts) / expected as f64;
        sample.more.insert("script µs each", scripts);
        sample.failures = refused;
        Ok(sample)
    })
    .await?
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Done,
    Refused,
}

/// The next event that ends what a client asked for. What lanes tell each other about a cart, and their own openings, do not.
fn next_outcome(reader: &Reader) -> anyhow::Result<Outcome> {
    loop {
        match reader.poll(PATIENCE) {
            Some(Ok(message)) => {
                let kind = consumer::headers(&message).find(|(name, _)| *name == "ce_type");
                match kind.and_then(|(_, kind)| kind) {
                    Some(b"holdfast.HoldCreated" | b"holdfast.HoldExpired" | b"holdfast.StockAdjusted") => {
                        return Ok(Outcome::Done);
                    }
                    Some(b"holdfast.HoldRejected") => return Ok(Outcome::Refused),
                    _ => {}
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error.into()),
            None => bail!(
                "nothing was decided within {} s: what does the reserver say?",
                PATIENCE.as_secs()
            ),
        }
    }
}

async fn stored_events(pool: &sqlx::PgPool) -> anyhow::Result<i64> {
    let query = "SELECT COALESCE(sum(next_event_offset), 0)::bigint FROM lanes";
    Ok(sqlx::query_scalar(query).fetch_one(pool).await?)
}

/// Waits until Postgres stands at the end of the events.
pub async fn stored(world: &World) -> anyhow::Result<()> {
    let ends: i64 = ends(world).await?.iter().sum();
    let pool = plumbing::postgres::connect_lazy(&world.connections.postgres_url, "holdfast-bench", 1)?;
    let begun = Instant::now();
    loop {
        let stored = stored_events(&pool).await?;
        if stored >= ends {
            pool.close().await;
            return Ok(());
        }
        ensure!(
            begun.elapsed() < 5 * PATIENCE,
            "the persister stands at {stored} of {ends} events"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How fast a persister that starts now writes what is there, from its first transaction to its last.
async fn rows(world: &World) -> anyhow::Result<Sample> {
    let pool = plumbing::postgres::connect_lazy(&world.connections.postgres_url, "holdfast-bench", 1)?;
    let begun = Instant::now();
    let mut first = 0;
    while first == 0 {
        ensure!(begun.elapsed() < PATIENCE, "the persister writes nothing");
        tokio::time::sleep(Duration::from_millis(2)).await;
        first = stored_events(&pool).await?;
    }
    pool.close().await;
    let meter = Meter::start(&engines(&world.connections), &world.roles());
    stored(world).await?;
    let all: i64 = ends(world).await?.iter().sum();
    let counted = all.abs_diff(first);
    let rate = counted as f64 / meter.begun.elapsed().as_secs_f64();
    Ok(Sample::of_rate("persister", rate).with_usage(meter.stop(counted)))
}
