//! The log alone: commands that wait in Kafka are decided by a reserver, then written by a persister.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use domain::{
    Adjustment, Command, CommandBody, Key, Lane, Line, Lines, Policy, Quantity, Reserve, Sku, Stamp, Tenant, Text,
    UserId,
};
use plumbing::{
    config::Connections,
    kafka::{
        KafkaError,
        consumer::{self, Reader},
        producer::{ProduceError, Producer, Record},
    },
    task,
};
use schemas::{Codec, EventHeaders, Registry, headers};

use super::{
    meter::{Meter, Sample, engines},
    plan::{Load, PLENTY, Plan, Scenario, skus},
    world::World,
};

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Plays a scenario in a world of its own, then verifies it.
pub async fn run(
    connections: &Connections,
    plan: &Plan,
    scenario: &Scenario,
    samples: &mut Vec<Sample>,
) -> anyhow::Result<()> {
    let Load::Log { skus, lines, persist } = scenario.load else {
        bail!("{} is no scenario on the log", scenario.name)
    };
    let mut world = World::new(connections, plan).await?;
    let asked = ask(
        &world,
        plan.lanes,
        (skus, lines),
        u64::from(plan.records) / lines as u64,
    )
    .await?;
    let before = redis_memory(&world.connections)?;
    world.start("reserver")?;
    let mut decided = decisions(&world, plan.lanes, asked, scenario.name).await?;
    let holds = asked as f64 - skus as f64;
    decided.more.insert(
        "Redis bytes a hold",
        (redis_memory(&world.connections)? - before) / holds,
    );
    let first = samples.len();
    samples.push(decided);
    world.start("persister")?;
    let written = rows(&world, asked).await?;
    if persist {
        samples.push(written);
    }
    let differences = world.verify().await?;
    for sample in &mut samples[first..] {
        sample.differences = Some(differences);
    }
    world.end().await
}

fn redis_memory(connections: &Connections) -> anyhow::Result<f64> {
    let mut connection = redis::Client::open(connections.redis_url.expose())?.get_connection()?;
    let text: String = redis::cmd("INFO").arg("memory").query(&mut connection)?;
    let used = text.lines().find_map(|line| line.strip_prefix("used_memory:"));
    Ok(used.context("INFO without used_memory")?.trim().parse()?)
}

/// Produces stock, then so many reservations; returns how many commands that is.
async fn ask(world: &World, lanes: u16, (count, lines): (usize, usize), holds: u64) -> anyhow::Result<u64> {
    let registry = Registry::new(world.connections.registry_url.expose())?;
    let codec = Codec::connect(registry, &world.connections.topic_prefix).await?;
    let producer = Producer::new(&world.connections.kafka_brokers, "holdfast-bench", "5")?;
    let topic = world.topics.commands.clone();
    // Carts lie in one lane.
    let names = skus(if lines > 1 {
        count * usize::from(lanes) * 2
    } else {
        count
    });
    let mut all: Vec<Sku> = names.iter().map(|name| Sku::parse(name)).collect::<Result<_, _>>()?;
    if lines > 1 {
        all.retain(|sku| Lane::of_sku(sku, lanes).number() == 0);
        all.truncate(count);
        ensure!(all.len() == count, "too few SKUs fall into lane 0");
    }
    task::thread("ask", move || {
        let stocked = all.len() as u64;
        for number in 0..stocked + holds {
            let (sku, body) = match all.get(number as usize) {
                Some(sku) => (sku, stock(sku)?),
                None => {
                    let first = number as usize % all.len();
                    let cart = (0..lines).map(|line| &all[(first + line * 7) % all.len()]);
                    (&all[first], reserve(number, cart)?)
                }
            };
            send(&producer, &codec, &topic, lanes, number, sku, body)?;
        }
        producer.flush(PATIENCE)?;
        anyhow::Ok(stocked + holds)
    })
    .await?
}

fn text(words: &str) -> anyhow::Result<Text> {
    Ok(Text::parse("text", words)?)
}

fn stock(sku: &Sku) -> anyhow::Result<CommandBody> {
    Ok(CommandBody::AdjustStock {
        sku: sku.clone(),
        adjustment: Adjustment::Set(PLENTY),
        expected_on_hand: None,
        reason: text("bench")?,
        reference: None,
        actor: text("bench")?,
    })
}

fn reserve<'a>(number: u64, skus: impl Iterator<Item = &'a Sku>) -> anyhow::Result<CommandBody> {
    let line = |sku: &Sku| {
        let (sku, quantity) = (sku.clone(), Quantity::parse(1)?);
        anyhow::Ok(Line { sku, quantity })
    };
    Ok(CommandBody::Reserve(Reserve {
        idempotency_key: Key::parse("key", &format!("bench-{number}"))?,
        user_id: UserId::parse(&format!("buyer-{number}"))?,
        lines: Lines::parse(skus.map(line).collect::<Result<_, _>>()?)?,
        ttl_ms: Some(domain::limits::HOLD_TTL_MS_MAX),
        policy: Policy::AllOrNothing,
        external_ref: None,
    }))
}

fn send(
    producer: &Producer,
    codec: &Codec,
    topic: &str,
    lanes: u16,
    number: u64,
    sku: &Sku,
    body: CommandBody,
) -> anyhow::Result<()> {
    let id = Key::parse("id", &plumbing::id::random().to_string())?;
    let command = Command {
        command_id: id.clone(),
        request_id: id,
        tenant: Tenant::parse("default")?,
        issued_at: i64::try_from(number)?,
        source: None,
        body,
    };
    let headers = headers::of_command(command.command_id.as_str(), "/bench", command.body.name(), sku.as_str());
    let value = codec.encode_command(&command);
    loop {
        let record = Record {
            topic,
            partition: Some(Lane::of_sku(sku, lanes).partition()),
            key: Some(sku.as_str().as_bytes()),
            value: Some(&value),
            headers: &headers,
        };
        match producer.send_then(record, drop) {
            Err(ProduceError::QueueFull) => std::thread::sleep(Duration::from_millis(1)),
            other => return Ok(other?),
        }
    }
}

/// Counts decisions as they come, from the first to the last.
async fn decisions(world: &World, lanes: u16, expected: u64, name: &'static str) -> anyhow::Result<Sample> {
    let (brokers, topic) = (world.connections.kafka_brokers.clone(), world.topics.events.clone());
    let (engines, roles) = (engines(&world.connections), world.roles());
    task::thread("decisions", move || {
        let reader = consumer::reader(&brokers, "holdfast-bench", "holdfast-bench")?;
        let from: Vec<_> = Lane::all(lanes).map(|lane| (&*topic, lane.partition(), 0)).collect();
        consumer::assign(&reader, &from)?;
        next_decision(&reader)?;
        let meter = Meter::start(&engines, &roles);
        for _ in 1..expected {
            next_decision(&reader)?;
        }
        let elapsed = meter.begun.elapsed();
        let rate = expected as f64 / elapsed.as_secs_f64();
        anyhow::Ok(Sample::of_rate(name, rate).with_usage(meter.stop(expected)))
    })
    .await?
}

fn next_decision(reader: &Reader) -> anyhow::Result<()> {
    loop {
        match reader.poll(PATIENCE) {
            Some(Ok(message)) => {
                let headers = EventHeaders::read(consumer::headers(&message));
                if headers.is_some_and(|headers| matches!(headers.stamp, Stamp::Decision { .. })) {
                    return Ok(());
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

/// Waits until Postgres stands at the end of the events.
pub async fn stored(connections: &Connections, events: &str) -> anyhow::Result<()> {
    let (brokers, topic) = (connections.kafka_brokers.clone(), events.to_owned());
    let ends: i64 = task::thread("ends", move || {
        let reader = consumer::reader(&brokers, "holdfast-bench", "holdfast-bench")?;
        let lanes = consumer::partition_count(&reader, &topic)?.unwrap_or(0);
        (0..i32::try_from(lanes)?)
            .map(|partition| anyhow::Ok(consumer::bounds(&reader, &topic, partition)?.1))
            .sum::<anyhow::Result<i64>>()
    })
    .await??;
    let pool = plumbing::postgres::connect_lazy(&connections.postgres_url, "holdfast-bench", 1)?;
    let begun = Instant::now();
    loop {
        let stored: i64 = sqlx::query_scalar("SELECT COALESCE(sum(next_event_offset), 0)::bigint FROM lanes")
            .fetch_one(&pool)
            .await?;
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
async fn rows(world: &World, events: u64) -> anyhow::Result<Sample> {
    let pool = plumbing::postgres::connect_lazy(&world.connections.postgres_url, "holdfast-bench", 1)?;
    let begun = Instant::now();
    while sqlx::query_scalar::<_, i64>("SELECT COALESCE(sum(next_event_offset), 0)::bigint FROM lanes")
        .fetch_one(&pool)
        .await?
        == 0
    {
        ensure!(begun.elapsed() < PATIENCE, "the persister writes nothing");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    pool.close().await;
    let meter = Meter::start(&engines(&world.connections), &world.roles());
    stored(&world.connections, &world.topics.events).await?;
    let rate = events as f64 / meter.begun.elapsed().as_secs_f64();
    Ok(Sample::of_rate("persister", rate).with_usage(meter.stop(events)))
}
