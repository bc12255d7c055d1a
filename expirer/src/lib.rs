//! Expirer: asks for the release of holds that are due, and ends what a race over lanes left behind.
//!
//! In     Redis `{lane}` keys `lane`, `due` and `hold`, read only; as a safety net, slowly, Postgres.
//! Out    `inventory.commands.v1`, in the hold's lane: `Release`, and `Cancel` of the later of two live holds of one key (I3).
//! Owns   nothing. It decides nothing either: the reserver refuses what is not due by log time, and what has ended.
//!
//! ```text
//! run -> due    (every 50 ms, or when the next deadline is): Redis -> Release
//!     -> sweep  (every second: keys; every 15 s: overdue holds): Postgres -> Cancel, Release
//! ```
//!
//! Two expirers do no harm, and none for a while does little: units come back later.

mod due;
mod outbox;
mod sent;
mod sweep;

use std::time::Duration;

use anyhow::Context as _;
use domain::Lane;
use plumbing::{
    config::{Connections, Login},
    postgres,
    service::{Context, DRAIN_DEADLINE, Running},
    task::Tasks,
    wait::{self, Attempt},
};
use schemas::{Codec, Registry, Topics};

use outbox::Outbox;

/// The whole command line of an expirer.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Where the engines are.
    #[command(flatten)]
    pub connections: Connections,
    /// How it works.
    #[command(flatten)]
    pub options: Options,
}

/// How the expirer works.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Expirer")]
#[group(skip)] // Of the same name in every role, and `holdfast all` has them all.
pub struct Options {
    /// Login of the expirer at Postgres, as user:password; else that of HOLDFAST_POSTGRES_URL
    #[arg(
        long,
        env = "HOLDFAST_EXPIRER_POSTGRES_LOGIN",
        hide_env_values = true,
        value_name = "LOGIN"
    )]
    pub expirer_postgres_login: Option<Login>,

    /// Login of the expirer at Redis, as user:password; else that of HOLDFAST_REDIS_URL
    #[arg(
        long,
        env = "HOLDFAST_EXPIRER_REDIS_LOGIN",
        hide_env_values = true,
        value_name = "LOGIN"
    )]
    pub expirer_redis_login: Option<Login>,

    /// How often it looks for due holds in Redis when no deadline is near, in milliseconds
    #[arg(
        long = "expirer-tick-ms",
        env = "HOLDFAST_EXPIRER_TICK_MS",
        default_value_t = 50,
        value_name = "MS",
        value_parser = clap::value_parser!(u64).range(1..=10_000)
    )]
    pub tick_ms: u64,

    /// How often it looks for overdue holds in Postgres, which Redis has forgotten, in seconds
    #[arg(
        long = "expirer-sweep-seconds",
        env = "HOLDFAST_EXPIRER_SWEEP_SECONDS",
        default_value_t = 15,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub sweep_seconds: u64,

    /// How often it looks for keys that are alive in several lanes, in milliseconds
    #[arg(
        long = "expirer-key-sweep-ms",
        env = "HOLDFAST_EXPIRER_KEY_SWEEP_MS",
        default_value_t = 1_000,
        value_name = "MS",
        value_parser = clap::value_parser!(u64).range(50..)
    )]
    pub key_sweep_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            expirer_postgres_login: None,
            expirer_redis_login: None,
            tick_ms: 50,
            sweep_seconds: 15,
            key_sweep_ms: 1_000,
        }
    }
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
    let connections = connections.logged_in(
        options.expirer_postgres_login.as_ref(),
        options.expirer_redis_login.as_ref(),
    );
    let topics = Topics::with_prefix(&connections.topic_prefix);
    let pool =
        postgres::connect_lazy(&connections.postgres_url, "holdfast-expirer", 2).context("the URL of Postgres")?;
    let registry = Registry::new(connections.registry_url.expose()).context("the URL of the registry")?;
    let redis = plumbing::redis::client(connections.redis_url.expose()).context("the URL of Redis")?;
    let kafka_health = context.health.component("kafka");
    let registry_health = context.health.component("registry");
    let redis_health = context.health.component("redis");
    let postgres_health = context.health.component("postgres");
    redis_health.down("not asked yet");
    postgres_health.down("not asked yet");
    let (codec, lanes) = tokio::join!(
        wait::until(&registry_health, &context.stop, || async {
            let connected = Codec::connect(registry.clone(), &connections.topic_prefix).await;
            connected.map_err(|error| Attempt::of(error.is_transient(), error))
        }),
        wait::for_partitions(
            &connections.kafka_brokers,
            &topics.commands,
            &kafka_health,
            &context.stop
        ),
    );
    let (Some(codec), Some(lanes)) = (codec?, lanes?) else {
        return Ok(()); // Asked to stop while waiting.
    };
    let outbox = Outbox::new(
        &connections.kafka_brokers,
        &topics.commands,
        codec,
        kafka_health.clone(),
    )?;
    let mut tasks = Tasks::<anyhow::Error>::new(&context.stop);
    let stop = tasks.stop().clone();
    tasks.spawn(
        "due",
        due::run(due::Due {
            redis,
            lanes: Lane::all(lanes)
                .map(|lane| due::LaneWatch::new(&connections.redis_prefix, lane))
                .collect(),
            outbox: outbox.clone(),
            tick: Duration::from_millis(options.tick_ms),
            health: redis_health,
            stop: stop.clone(),
        }),
    );
    tasks.spawn(
        "sweep",
        sweep::run(sweep::Sweep {
            pool,
            outbox: outbox.clone(),
            overdue_every: Duration::from_secs(options.sweep_seconds),
            keys_every: Duration::from_millis(options.key_sweep_ms),
            health: postgres_health,
            stop: stop.clone(),
        }),
    );
    let (brokers, topic) = (connections.kafka_brokers, topics.commands);
    tasks.thread("kafka", move || {
        wait::watch_kafka("expirer", &brokers, &topic, &kafka_health, &stop)
    });
    tasks.join_all(DRAIN_DEADLINE).await?;
    // What is queued is written, or made again by the next expirer.
    let flushing = plumbing::task::thread("flush", move || outbox.flush());
    flushing.await?;
    Ok(())
}
