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
//! A process that is told to end leaves the group first, and its lanes when others have opened them (`handover`).

mod end;
mod guard;
mod handover;
mod intake;
mod lane;
mod load;
mod log;
mod open;
mod options;
mod outbox;
pub mod pack;
mod rebuild;
mod restore;
pub mod scripts;
mod tail;
mod turn;
pub mod world;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use domain::{Lane, Text};
use plumbing::{
    config::Connections,
    health::Health,
    kafka,
    service::{Context, Running},
    stop::{self, Stop},
    task::{self, Tasks},
    wait::{self, Attempt},
};
use schemas::{Codec, Registry, Topics};
use tokio::runtime::Handle;
use world::{World, live::Live};

pub use handover::Turns;
pub use lane::run as run_lane;
pub use options::{Config, Options};
pub use rebuild::Progress;
pub use restore::{Restored, restore};

/// CloudEvents source of what the reserver produces.
pub(crate) const SOURCE: &str = "/holdfast/reserver";

/// What all lanes of one reserver share.
pub struct Shared<W> {
    /// What they work with.
    pub world: W,
    /// What was configured.
    pub options: Options,
    /// Begin of all Redis keys.
    pub redis_prefix: String,
    /// Full names of the topics.
    pub topics: Topics,
    /// The group whose committed offsets are the forward cursors.
    pub forwards_group: String,
    /// How many lanes there are.
    pub lanes: u16,
    /// Bytes of records, and back.
    pub codec: Codec,
    /// Who this is, for people who read a `LaneOpened`.
    pub owner: Text,
    /// Where lanes say what they wait for.
    pub health: Health,
    /// Which of them are at work.
    pub turns: Turns,
}

impl<W: World> Shared<W> {
    /// What decisions need of the configuration.
    pub(crate) fn rules(&self) -> pack::Rules {
        self.options.rules(self.lanes)
    }

    /// Most commands in one script call.
    pub(crate) fn batch(&self) -> usize {
        usize::from(self.options.reserver_batch)
    }

    /// Sleeps on a lane's thread, but not past a request to stop.
    pub(crate) fn pause(&self, stop: &Stop, delay: Duration) {
        let until = self.world.now() + delay;
        while !stop.is_requested() {
            let left = until.saturating_duration_since(self.world.now());
            if left.is_zero() {
                return;
            }
            self.world.sleep(left.min(Duration::from_millis(20)));
        }
    }
}

/// The group of forward cursors.
#[must_use]
pub fn forwards_group(topic_prefix: &str) -> String {
    format!("{topic_prefix}holdfast.forwards")
}

/// Runs the reserver until it is asked to stop.
///
/// # Errors
/// When Kafka's client refuses its options, or a lane's thread panics. Dependencies that are down are waited for.
#[must_use = "nothing runs before it is awaited"]
pub fn run(connections: Connections, options: Options, context: Context) -> Running {
    Box::pin(serve(connections, options, context))
}

async fn serve(connections: Connections, options: Options, context: Context) -> anyhow::Result<()> {
    let connections = connections.logged_in(
        options.reserver_postgres_login.as_ref(),
        options.reserver_redis_login.as_ref(),
    );
    let mut tasks: Tasks<anyhow::Error> = Tasks::new(&context.stop);
    let Some(shared) = shared_by_lanes(connections, options, context).await? else {
        return Ok(());
    };
    let group = format!("{}holdfast.reserver", shared.world.connections.topic_prefix);
    let brokers = shared.world.connections.kafka_brokers.clone();
    let topic = &shared.topics.commands;
    let (assigned, member) = kafka::group::join(&brokers, "holdfast-reserver", &group, topic, tasks.stop().clone())?;
    let (stopper, stop) = stop::pair();
    let lanes = shared.lanes;
    let shared = Arc::new(shared);
    for lane in Lane::all(lanes) {
        let (shared, assigned, stop) = (shared.clone(), assigned.clone(), stop.clone());
        tasks.thread(format!("lane-{lane}"), move || {
            lane::run(&shared, lane, &assigned, &stop);
            Ok(())
        });
    }
    tasks.spawn("handover", async move {
        let left = member.await;
        let waited = task::thread("handover", move || handover::wait(&brokers, &group, &shared.turns)).await;
        stopper.stop();
        left.and(waited).context("the group member's thread")
    });
    tasks.join_all(plumbing::service::DRAIN_DEADLINE).await
}

/// What all lanes share, once the registry and the topics are there; `None` when asked to stop meanwhile.
async fn shared_by_lanes(
    connections: Connections,
    options: Options,
    context: Context,
) -> anyhow::Result<Option<Shared<Live>>> {
    let topics = Topics::with_prefix(&connections.topic_prefix);
    let Some((codec, lanes)) = wait_for_dependencies(&connections, &topics, &context).await? else {
        return Ok(None);
    };
    let postgres = plumbing::postgres::connect_lazy(&connections.postgres_url, "holdfast-reserver", 2)?;
    let owner = Text::parse("owner", &format!("{}/{}", hostname(), std::process::id()))
        .unwrap_or_else(|_| pack::sentence("reserver"));
    let forwards_group = forwards_group(&connections.topic_prefix);
    Ok(Some(Shared {
        redis_prefix: connections.redis_prefix.clone(),
        forwards_group: forwards_group.clone(),
        lanes,
        codec,
        owner,
        health: context.health,
        turns: Turns::default(),
        world: Live {
            connections,
            group: forwards_group,
            linger_ms: options.reserver_linger_ms.clone(),
            events: topics.events.clone(),
            lanes,
            postgres,
            runtime: Handle::current(),
        },
        topics,
        options,
    }))
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
    let registry = Registry::new(connections.registry_url.expose())?;
    let (registry_health, kafka_health) = (context.health.component("registry"), context.health.component("kafka"));
    let (codec, lanes) = tokio::try_join!(
        wait::until(&registry_health, &context.stop, || async {
            let connected = Codec::connect(registry.clone(), &connections.topic_prefix).await;
            connected.map_err(|error| {
                if error.is_transient() {
                    Attempt::again(error)
                } else {
                    Attempt::Never(error.into())
                }
            })
        }),
        wait::until(&kafka_health, &context.stop, || lanes_of(connections, topics)),
    )?;
    Ok(codec.zip(lanes))
}

/// The number of lanes: partitions of the commands topic, which the events topic must have too.
async fn lanes_of(connections: &Connections, topics: &Topics) -> Result<u16, Attempt> {
    let brokers = &connections.kafka_brokers;
    let commands = kafka::consumer::wait_partition_count(brokers, &topics.commands).await?;
    let events = kafka::consumer::wait_partition_count(brokers, &topics.events).await?;
    if commands != events {
        return Err(Attempt::Again(format!(
            "{} has {commands} partitions but {} has {events}: lanes must match",
            topics.commands, topics.events
        )));
    }
    u16::try_from(commands)
        .ok()
        .filter(|lanes| *lanes <= domain::limits::LANES_MAX)
        .ok_or_else(|| {
            Attempt::Again(format!(
                "{commands} partitions are more than the 4096 lanes that a hold id can name"
            ))
        })
}
