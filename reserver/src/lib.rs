//! The reserver: turns commands into events, one lane at a time.
//!
//! In     `inventory.commands.v1`, at least once, in lane order.
//! Out    `inventory.events.v1`, same lane, acknowledged by every in-sync replica.
//! Owns   every write to Redis; no other crate calls a script.
//!
//! I2: an outcome is published under this owner's epoch, or not at all (docs/ARCHITECTURE.md, "Lanes"). Each lane has a
//! thread of its own and waits for no other:
//!
//! `lane` takes turns -> `open` owns, claims or `rebuild`s -> `turn` runs: `intake` reads commands, `scripts` decide them
//! in Redis, `outbox` publishes outcomes, and only what is read back from the log counts (`tail`).

mod end;
mod intake;
mod lane;
mod log;
mod open;
mod options;
mod outbox;
pub mod pack;
mod rebuild;
pub mod scripts;
mod tail;
mod turn;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use domain::{Lane, Text};
use plumbing::{backoff::Backoff, config::Connections, kafka, service::Context, stop::Stop, task::Tasks};
use schemas::{Codec, Registry, Topics};
use sqlx::PgPool;
use tokio::runtime::Handle;

pub use options::{Config, Options};

/// What all lanes of one reserver share.
pub(crate) struct Shared {
    pub(crate) connections: Connections,
    pub(crate) options: Options,
    pub(crate) topics: Topics,
    pub(crate) lanes: u16,
    pub(crate) codec: Codec,
    pub(crate) postgres: PgPool,
    pub(crate) owner: Text,
    pub(crate) runtime: Handle,
    pub(crate) context: Context,
}

impl Shared {
    /// The group whose committed offsets are the forward cursors.
    pub(crate) fn forwards_group(&self) -> String {
        format!("{}holdfast.forwards", self.connections.topic_prefix)
    }
}

/// Runs the reserver until it is asked to stop.
///
/// # Errors
/// When Kafka's client refuses its options, or a lane's thread panics. Dependencies that are down are waited for.
pub async fn run(connections: Connections, options: Options, context: Context) -> anyhow::Result<()> {
    let topics = Topics::with_prefix(&connections.topic_prefix);
    let Some((codec, lanes)) = wait_for_dependencies(&connections, &topics, &context).await? else {
        return Ok(());
    };
    let postgres = plumbing::postgres::connect_lazy(&connections.postgres_url, "holdfast-reserver", 2)?;
    let group = format!("{}holdfast.reserver", connections.topic_prefix);
    let mut tasks: Tasks<anyhow::Error> = Tasks::new(&context.stop);
    let stop = tasks.stop().clone();
    let (assigned, member) = kafka::group::join(
        &connections.kafka_brokers,
        "holdfast-reserver",
        &group,
        &topics.commands,
        stop.clone(),
    )?;
    let owner = Text::parse("owner", &format!("{}/{}", hostname(), std::process::id()))
        .unwrap_or_else(|_| pack::sentence("reserver"));
    let shared = Arc::new(Shared {
        connections,
        options,
        topics,
        lanes,
        codec,
        postgres,
        owner,
        runtime: Handle::current(),
        context,
    });
    for lane in Lane::all(lanes) {
        let (shared, assigned, stop) = (shared.clone(), assigned.clone(), stop.clone());
        tasks.thread(format!("lane-{lane}"), move || {
            lane::run(&shared, lane, &assigned, &stop);
            Ok(())
        });
    }
    tasks.spawn("group-member", async move {
        member.await.context("the group member's thread")
    });
    tasks.join_all(plumbing::service::DRAIN_DEADLINE).await
}

fn hostname() -> String {
    std::fs::read_to_string("/etc/hostname").map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}

/// Waits for the registry's ids and the topics; `None` when asked to stop meanwhile.
async fn wait_for_dependencies(
    connections: &Connections,
    topics: &Topics,
    context: &Context,
) -> anyhow::Result<Option<(Codec, u16)>> {
    let registry_health = context.health.component("registry");
    let kafka_health = context.health.component("kafka");
    let registry = Registry::new(connections.registry_url.expose())?;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
    let codec = loop {
        match Codec::connect(registry.clone(), &connections.topic_prefix).await {
            Ok(codec) => break codec,
            Err(error) if error.is_transient() => registry_health.down(&error),
            Err(error) => return Err(error).context("our schemas are not accepted"),
        }
        if !backoff.sleep(&context.stop).await {
            return Ok(None);
        }
    };
    registry_health.up();
    backoff.reset();
    loop {
        match lanes_of(connections, topics).await? {
            Ok(lanes) => {
                kafka_health.up();
                return Ok(Some((codec, lanes)));
            }
            Err(why) => kafka_health.down(why),
        }
        if !backoff.sleep(&context.stop).await {
            return Ok(None);
        }
    }
}

/// The number of lanes: partitions of the commands topic, which the events topic must have too.
async fn lanes_of(connections: &Connections, topics: &Topics) -> anyhow::Result<Result<u16, String>> {
    let (brokers, topics) = (connections.kafka_brokers.clone(), topics.clone());
    plumbing::task::thread("lane-count", move || {
        let reader = match kafka::consumer::reader(&brokers, "holdfast-reserver", "holdfast.reserver-setup") {
            Ok(reader) => reader,
            Err(error) => return Err(error.to_string()),
        };
        let count = |topic: &str| match kafka::consumer::partition_count(&reader, topic) {
            Ok(Some(count)) => Ok(count),
            Ok(None) => Err(format!("topic {topic} does not exist yet: run `holdfast topics`")),
            Err(error) => Err(format!("Kafka at {brokers} does not answer: {error}")),
        };
        let (commands, events) = (count(&topics.commands)?, count(&topics.events)?);
        if commands != events {
            return Err(format!(
                "{} has {commands} partitions but {} has {events}: lanes must match",
                topics.commands, topics.events
            ));
        }
        u16::try_from(commands)
            .ok()
            .filter(|lanes| *lanes <= domain::limits::LANES_MAX)
            .ok_or_else(|| format!("{commands} partitions are more than the 4096 lanes that a hold id can name"))
    })
    .await
    .context("counting lanes")
}

/// Sleeps on a lane's thread, but not past a request to stop.
pub(crate) fn pause(stop: &Stop, delay: Duration) {
    let until = std::time::Instant::now() + delay;
    while !stop.is_requested() {
        let left = until.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
}
