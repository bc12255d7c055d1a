//! Fulfiller: from a confirmed hold to a parcel, the failed queue, and returns.
//!
//! In     Postgres: orders and holds of the log's picture, read only.
//! Out    Postgres: `fulfilments`, `fulfilment_tries`, `refund_requests`, `order_returns`; the carrier; and, in the hold's
//!        lane, `Ship`, `Unallocate` and `ReturnStock`.
//! Owns   the rows above. Stock is decided by the reserver, as ever.
//!
//! ```text
//! router -> desk    (HTTP): retry, cancel, return: rows only
//! run    -> current : whether the picture is of today, before anything is shipped by it
//!        -> work    : a row for each order, a lease, the carrier, what it said
//!        -> settle  : rows -> commands, again until the picture shows them; the janitor
//! ```
//!
//! Whatever is asked stands in a row before it is done, so whoever dies between two steps is followed by another that
//! goes on. Several fulfillers do no harm.

mod bodies;
mod carrier;
mod current;
mod desk;
mod outbox;
mod problem;
mod settle;
mod work;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use plumbing::{
    config::{Connections, Login},
    postgres,
    service::{Context, DRAIN_DEADLINE, Running},
    task::Tasks,
    wait::{self, Attempt},
};
use schemas::{Codec, Registry, Topics};

pub use carrier::Choice;
pub use desk::router;

/// The whole command line of a fulfiller.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Where the engines are.
    #[command(flatten)]
    pub connections: Connections,
    /// How it works.
    #[command(flatten)]
    pub options: Options,
}

/// How the fulfiller works.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Fulfiller")]
#[group(skip)] // Of the same name in every role, and `holdfast all` has them all.
pub struct Options {
    /// Login of the fulfiller at Postgres, as user:password; else that of HOLDFAST_POSTGRES_URL
    #[arg(
        long,
        env = "HOLDFAST_FULFILLER_POSTGRES_LOGIN",
        hide_env_values = true,
        value_name = "LOGIN"
    )]
    pub fulfiller_postgres_login: Option<Login>,

    /// Who ships: none (orders wait), log (a carrier's book in Postgres, for a machine to play on), or the http:// URL of a carrier
    #[arg(
        long,
        env = "HOLDFAST_FULFILLER_CARRIER",
        default_value = "none",
        value_name = "CARRIER"
    )]
    pub fulfiller_carrier: Choice,

    /// How often it looks for work, in milliseconds
    #[arg(long, env = "HOLDFAST_FULFILLER_TICK_MS", default_value_t = 250, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub fulfiller_tick_ms: u64,

    /// Tries with the carrier before an order goes to the failed queue
    #[arg(long, env = "HOLDFAST_FULFILLER_TRIES", default_value_t = 3, value_name = "TRIES",
          value_parser = clap::value_parser!(i32).range(1..=100))]
    pub fulfiller_tries: i32,

    /// Wait after the first failed try, in milliseconds; each further wait is four times the last
    #[arg(long, env = "HOLDFAST_FULFILLER_WAIT_MS", default_value_t = 5_000, value_name = "MS",
          value_parser = clap::value_parser!(i64).range(1..=3_600_000))]
    pub fulfiller_wait_ms: i64,

    /// How long the carrier may take to answer, in milliseconds
    #[arg(long, env = "HOLDFAST_FULFILLER_TIMEOUT_MS", default_value_t = 10_000, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub fulfiller_timeout_ms: u64,

    /// How long a failed order waits for a person before the janitor cancels it, in seconds
    #[arg(long, env = "HOLDFAST_FULFILLER_GIVE_UP_SECONDS", default_value_t = 86_400, value_name = "SECONDS",
          value_parser = clap::value_parser!(i64).range(1..=31_536_000))]
    pub fulfiller_give_up_seconds: i64,
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
    let connections = connections.logged_in(options.fulfiller_postgres_login.as_ref(), None);
    let topics = Topics::with_prefix(&connections.topic_prefix);
    let pool =
        postgres::connect_lazy(&connections.postgres_url, "holdfast-fulfiller", 4).context("the URL of Postgres")?;
    let registry = Registry::new(connections.registry_url.expose()).context("the URL of the registry")?;
    let kafka_health = context.health.component("kafka");
    let registry_health = context.health.component("registry");
    let postgres_health = context.health.component("postgres");
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
    let outbox = outbox::Outbox::new(
        &connections.kafka_brokers,
        &topics.commands,
        codec,
        kafka_health.clone(),
    )?;
    let timeout = Duration::from_millis(options.fulfiller_timeout_ms);
    let carrier: Option<Arc<dyn carrier::Carrier>> = match &options.fulfiller_carrier {
        Choice::None => None,
        Choice::Log => Some(Arc::new(carrier::LogCarrier { pool: pool.clone() })),
        Choice::Http(url) => Some(Arc::new(carrier::HttpCarrier::new(url.clone(), timeout)?)),
    };
    let mut tasks = Tasks::<anyhow::Error>::new(&context.stop);
    let stop = tasks.stop().clone();
    tasks.spawn(
        "work",
        work::run(work::Worker {
            pool,
            outbox,
            carrier,
            options,
            lanes,
            current: current::Current::new(connections.kafka_brokers.clone(), topics.events, lanes),
            health: postgres_health,
            stop: stop.clone(),
        }),
    );
    let (brokers, topic) = (connections.kafka_brokers, topics.commands);
    tasks.thread("kafka", move || {
        wait::watch_kafka("fulfiller", &brokers, &topic, &kafka_health, &stop)
    });
    tasks.join_all(DRAIN_DEADLINE).await
}
