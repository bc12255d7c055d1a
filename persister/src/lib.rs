//! Persister: writes the durable picture of the log, one lane at a time.
//!
//! In     `inventory.events.v1`, from the offset that Postgres itself stores, folded: void events only move the offset.
//! Out    Postgres: rows, `processed_events` and the lane's offset, each batch in one transaction (I6).
//! Owns   every write to the tables of `migrations/`; no other role writes them.
//!
//! ```text
//! run -> one task per lane that the group assigns: lane -> reader (a thread: poll, fold, decode, batch) -> write
//! ```
//!
//! The consumer group only hints which persister works on a lane. Two on one lane do no harm: each transaction moves the
//! lane's offset from where it read, and whoever finds it moved starts again from there.

mod lane;
mod reader;
mod rows;
mod sales;
mod statements;
mod supervise;
mod watch;
mod write;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use plumbing::{
    backoff::Backoff,
    config::{Brokers, Connections, Login},
    health::Component,
    kafka::{self, consumer},
    postgres,
    service::{Context, Running},
    stop::Stop,
    wait::{self, Attempt},
};
use schemas::{Codec, Registry, Topics, picture};
use sqlx::PgPool;

/// The whole command line of a persister.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Where the engines are.
    #[command(flatten)]
    pub connections: Connections,
    /// How it works.
    #[command(flatten)]
    pub options: Options,
}

/// How the persister works.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Persister")]
#[group(skip)] // Of the same name in every role, and `holdfast all` has them all.
pub struct Options {
    /// Login of the persister at Postgres, as user:password; else that of HOLDFAST_POSTGRES_URL
    #[arg(
        long,
        env = "HOLDFAST_PERSISTER_POSTGRES_LOGIN",
        hide_env_values = true,
        value_name = "LOGIN"
    )]
    pub persister_postgres_login: Option<Login>,

    /// Most records of one transaction
    #[arg(
        long = "persister-batch",
        env = "HOLDFAST_PERSISTER_BATCH",
        default_value_t = 2_000,
        value_name = "RECORDS",
        value_parser = clap::value_parser!(u32).range(1..=20_000)
    )]
    pub batch: u32,

    /// How long an event waits for others of its transaction, in milliseconds
    #[arg(
        long = "persister-linger-ms",
        env = "HOLDFAST_PERSISTER_LINGER_MS",
        default_value_t = 5,
        value_name = "MS"
    )]
    pub linger_ms: u64,

    /// While there is more to write, a lane begins a transaction only so often, in milliseconds, unless it is full; where there is
    /// much, it may wait four times as long
    #[arg(
        long = "persister-pace-ms",
        env = "HOLDFAST_PERSISTER_PACE_MS",
        default_value_t = 50,
        value_name = "MS"
    )]
    pub pace_ms: u64,

    /// Most connections to Postgres
    #[arg(
        id = "persister_connections", // The ingress has a field of this name, and `holdfast all` the options of both.
        long = "persister-connections",
        env = "HOLDFAST_PERSISTER_CONNECTIONS",
        default_value_t = 8,
        value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub postgres_connections: u32,

    /// Consumer group, behind the topic prefix: persisters of one group share the lanes
    #[arg(
        long = "persister-group",
        env = "HOLDFAST_PERSISTER_GROUP",
        default_value = "holdfast.persister",
        value_name = "GROUP"
    )]
    pub group: String,

    /// Processed event ids, command ids and sources are forgotten after so many days; longer than the topic keeps events
    #[arg(
        long = "persister-prune-days",
        env = "HOLDFAST_PERSISTER_PRUNE_DAYS",
        default_value_t = 40,
        value_name = "DAYS",
        value_parser = clap::value_parser!(u32).range(2..)
    )]
    pub prune_days: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            persister_postgres_login: None,
            batch: 2_000,
            linger_ms: 5,
            pace_ms: 50,
            postgres_connections: 8,
            group: "holdfast.persister".to_owned(),
            prune_days: 40,
        }
    }
}

/// What all lanes share.
struct Shared {
    brokers: Brokers,
    events: String,
    group_id: String,
    codec: Codec,
    pool: PgPool,
    batch: usize,
    linger: Duration,
    pace: Duration,
    positions: watch::Positions,
    health: Engines,
    context: Context,
}

/// What the role waits for, each by its name in the readiness report.
#[derive(Clone)]
struct Engines {
    postgres: Component,
    kafka: Component,
    registry: Component,
}

/// Runs until it is asked to stop. Engines that do not answer are waited for, at start and later.
///
/// # Errors
/// A configuration that cannot work, or a task that panicked.
#[must_use = "nothing runs before it is awaited"]
pub fn run(connections: Connections, options: Options, context: Context) -> Running {
    Box::pin(serve(connections, options, context))
}

async fn serve(connections: Connections, options: Options, context: Context) -> anyhow::Result<()> {
    let connections = connections.logged_in(options.persister_postgres_login.as_ref(), None);
    let topics = Topics::with_prefix(&connections.topic_prefix);
    let pool = postgres::connect_lazy(
        &connections.postgres_url,
        "holdfast-persister",
        options.postgres_connections,
    )
    .context("the URL of Postgres")?;
    let registry = Registry::new(connections.registry_url.expose()).context("the URL of the registry")?;
    let health = Engines {
        postgres: context.health.component("postgres"),
        kafka: context.health.component("kafka"),
        registry: context.health.component("registry"),
    };
    let (codec, migrated, partitions) = tokio::join!(
        wait_for_codec(registry, &connections.topic_prefix, &health.registry, &context.stop),
        wait_for_tables(&pool, &health.postgres, &context.stop),
        wait_for_topic(&connections.kafka_brokers, &topics.events, &health.kafka, &context.stop),
    );
    let (Some(codec), Some(()), Some(_)) = (codec?, migrated?, partitions?) else {
        return Ok(()); // Asked to stop while waiting.
    };
    let shared = Arc::new(Shared {
        group_id: format!("{}{}", connections.topic_prefix, options.group),
        brokers: connections.kafka_brokers,
        events: topics.events,
        codec,
        pool,
        batch: options.batch as usize,
        linger: Duration::from_millis(options.linger_ms),
        pace: Duration::from_millis(options.pace_ms),
        positions: watch::Positions::default(),
        health,
        context,
    });
    supervise::all(shared, options.prune_days).await
}

fn patience() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(3))
}

async fn wait_for_codec(
    registry: Registry,
    topic_prefix: &str,
    health: &Component,
    stop: &Stop,
) -> anyhow::Result<Option<Codec>> {
    let attempt = || async {
        let connected = Codec::connect(registry.clone(), topic_prefix).await;
        connected.map_err(|error| {
            if error.is_transient() {
                Attempt::again(error)
            } else {
                Attempt::Never(error.into())
            }
        })
    };
    wait::until(health, stop, attempt).await
}

async fn wait_for_tables(pool: &PgPool, health: &Component, stop: &Stop) -> anyhow::Result<Option<()>> {
    let attempt = || async {
        match picture::is_migrated(pool).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Attempt::again("its tables are not there yet: run `holdfast migrate`")),
            Err(error) => Err(Attempt::again(error)),
        }
    };
    wait::until(health, stop, attempt).await
}

async fn wait_for_topic(
    brokers: &Brokers,
    topic: &str,
    health: &Component,
    stop: &Stop,
) -> anyhow::Result<Option<usize>> {
    wait::until(health, stop, || async {
        consumer::wait_partition_count(brokers, topic).await
    })
    .await
}

fn kafka_says(error: &kafka::KafkaError) -> String {
    format!("Kafka does not answer: {error}")
}
