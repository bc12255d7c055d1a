//! Commands straight into the log, as fast as they can be made: work for a reserver.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use domain::{
    Adjustment, Command, CommandBody, Key, Lane, Line, Lines, Policy, Quantity, Reserve, Sku, Tenant, Text, UserId,
};
use plumbing::{
    kafka::producer::{ProduceError, Producer, Record},
    task,
};
use schemas::{Codec, Registry, headers};

use super::{
    plan::{PLENTY, skus},
    world::World,
};

/// How long the broker may take to acknowledge all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes commands into a world's log.
#[derive(Clone)]
pub struct Feed {
    codec: Codec,
    producer: Producer,
    topic: String,
    lanes: u16,
}

/// Reservations to ask for.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Number of the first: each is another buyer with another key.
    pub first: u64,
    pub holds: u64,
    /// SKUs in each.
    pub lines: usize,
    pub ttl_ms: i64,
}

impl Ask {
    /// So many holds of one SKU each, for as long as may be.
    pub fn of(holds: u64) -> Self {
        Self {
            first: 0,
            holds,
            lines: 1,
            ttl_ms: domain::limits::HOLD_TTL_MS_MAX,
        }
    }
}

/// The first SKUs, over all lanes.
pub fn everywhere(count: usize) -> anyhow::Result<Arc<[Sku]>> {
    Ok(skus(count)
        .iter()
        .map(|name| Sku::parse(name))
        .collect::<Result<_, _>>()?)
}

/// Of some SKUs, so many of each of the first lanes, one of each in turn.
pub fn of_lanes(skus: &[Sku], each: usize, few: u16, lanes: u16) -> anyhow::Result<Arc<[Sku]>> {
    let in_lane = |lane| -> Vec<&Sku> {
        let there = skus.iter().filter(|sku| Lane::of_sku(sku, lanes) == lane);
        there.take(each).collect()
    };
    let shelves: Vec<Vec<&Sku>> = Lane::all(few).map(in_lane).collect();
    ensure!(
        shelves.iter().all(|shelf| shelf.len() == each),
        "of {} SKUs, fewer than {each} fall into one of the lanes",
        skus.len()
    );
    let in_turn = (0..each).flat_map(|row| shelves.iter().map(move |shelf| shelf[row].clone()));
    Ok(in_turn.collect())
}

/// The SKUs of the cart with that number: seven apart, so that carts overlap and a cart of SKUs that lie in lanes by turns
/// is in all of these lanes.
pub fn cart<T>(skus: &[T], number: u64, lines: usize) -> impl Iterator<Item = &T> {
    let first = number as usize % skus.len();
    (0..lines).map(move |line| &skus[(first + line * 7) % skus.len()])
}

impl Feed {
    pub async fn new(world: &World) -> anyhow::Result<Self> {
        let registry = Registry::new(world.connections.registry_url.expose())?;
        Ok(Self {
            codec: Codec::connect(registry, &world.connections.topic_prefix).await?,
            producer: Producer::new(&world.connections.kafka_brokers, "holdfast-bench", "5")?,
            topic: world.topics.commands.clone(),
            lanes: world.lanes,
        })
    }

    /// Gives each SKU plenty of units; returns how many commands that is.
    pub async fn stock(&self, skus: &[Sku]) -> anyhow::Result<u64> {
        let (feed, skus) = (self.clone(), skus.to_vec());
        task::thread("feed", move || {
            for sku in &skus {
                feed.send(sku, stock(sku)?)?;
            }
            feed.producer.flush(PATIENCE)?;
            Ok(skus.len() as u64)
        })
        .await?
    }

    /// Asks for holds, evenly over the SKUs; returns how many commands that is.
    pub async fn reserve(&self, skus: &Arc<[Sku]>, ask: Ask) -> anyhow::Result<u64> {
        let (feed, skus) = (self.clone(), Arc::clone(skus));
        task::thread("feed", move || {
            for number in ask.first..ask.first + ask.holds {
                let cart = || cart(&skus, number, ask.lines);
                let home = cart().min_by_key(|sku| Lane::of_sku(sku, feed.lanes));
                let home = home.context("a cart without lines")?;
                feed.send(home, reserve(number, cart(), ask.ttl_ms)?)?;
            }
            feed.producer.flush(PATIENCE)?;
            Ok(ask.holds)
        })
        .await?
    }

    fn send(&self, sku: &Sku, body: CommandBody) -> anyhow::Result<()> {
        let id = Key::parse("id", &plumbing::id::random().to_string())?;
        let command = Command {
            command_id: id.clone(),
            request_id: id,
            tenant: Tenant::parse("default")?,
            issued_at: plumbing::time::now_ms(),
            source: None,
            body,
        };
        let headers = headers::of_command(command.command_id.as_str(), "/bench", command.body.name(), sku.as_str());
        let value = self.codec.encode_command(&command);
        loop {
            let record = Record {
                topic: &self.topic,
                partition: Some(Lane::of_sku(sku, self.lanes).partition()),
                key: Some(sku.as_str().as_bytes()),
                value: Some(&value),
                headers: &headers,
            };
            match self.producer.send_then(record, drop) {
                Err(ProduceError::QueueFull) => std::thread::sleep(Duration::from_millis(1)),
                other => return Ok(other?),
            }
        }
    }
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

fn reserve<'a>(number: u64, skus: impl Iterator<Item = &'a Sku>, ttl_ms: i64) -> anyhow::Result<CommandBody> {
    let line = |sku: &Sku| {
        let (sku, quantity) = (sku.clone(), Quantity::parse(1)?);
        anyhow::Ok(Line { sku, quantity })
    };
    Ok(CommandBody::Reserve(Reserve {
        idempotency_key: Key::parse("key", &format!("bench-{number}"))?,
        user_id: UserId::parse(&format!("buyer-{number}"))?,
        lines: Lines::parse(skus.map(line).collect::<Result<_, _>>()?)?,
        ttl_ms: Some(ttl_ms),
        policy: Policy::AllOrNothing,
        external_ref: None,
    }))
}
