//! From nothing to answering: waits for the registry and the topics, finds where the tail starts, follows the events.
//!
//! Each thing that is waited for has its health component: `registry`, `kafka`, `tail`. Postgres is no reason to wait
//! while the events go back to their beginning.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use domain::{Lane, LaneState, limits};
use plumbing::{
    backoff::Backoff,
    config::Connections,
    health::Component,
    kafka::{
        consumer,
        window::{Clients, Windows},
    },
    service::Context,
    stop::Stop,
    task,
};
use schemas::{Codec, Registry, Topics, picture};
use sqlx::PgPool;
use tokio::{runtime::Handle, sync::watch};

use crate::{
    app::{App, Live, tenant},
    commands::{self, Commander},
    live_stock::Rooms,
    memory::Memory,
    meters,
    reads::Reads,
    sold_out::SoldOut,
    tail::{self, End, Start},
    waiters::Waiters,
};

/// How often the brokers are asked whether they are there.
const WATCH_EVERY: Duration = Duration::from_secs(2);

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(2))
}

/// Brings the ingress up and follows the events until `stop`.
///
/// # Errors
/// Something that no waiting can mend.
pub async fn run(app: Arc<App>, connections: Connections, context: Context, stop: Stop) -> anyhow::Result<()> {
    let kafka = context.health.component("kafka");
    let registry = context.health.component("registry");
    let tail_health = context.health.component("tail");
    let topics = Topics::with_prefix(&connections.topic_prefix);
    let brokers = &connections.kafka_brokers;
    let group = format!("{}holdfast.tail", connections.topic_prefix);
    let asker = Arc::new(consumer::reader(brokers, "holdfast-ingress-watch", &group)?);

    // At once, so that health names all that is missing.
    let (codec, lanes) = tokio::try_join!(
        connect_registry(&connections, &registry, &stop),
        find_lanes(&asker, &topics, &kafka, &stop),
    )?;
    let (Some(codec), Some(lanes)) = (codec, lanes) else {
        return Ok(());
    };
    let pool = plumbing::postgres::connect_lazy(
        &connections.postgres_url,
        "holdfast-ingress",
        app.options.postgres_connections,
    )
    .context("HOLDFAST_POSTGRES_URL")?;
    let memory = Arc::new(Memory::new(
        tenant(),
        lanes,
        app.options.tail_holds,
        app.options.tail_skus,
    ));
    let waiters = Arc::new(Waiters::default());
    let rooms = Arc::new(Rooms::default());
    let clients = Clients::new(brokers, "holdfast-ingress", &app.options.ingress_linger_ms)
        .context("HOLDFAST_INGRESS_LINGER_MS")?;
    let windows = Windows::paced(&clients, &topics.commands, lanes);
    let (caught_up, mut is_caught_up) = watch::channel(false);
    let parts = tail::Parts {
        topic: topics.events.clone(),
        commands: windows.clone(),
        codec: codec.clone(),
        memory: Arc::clone(&memory),
        waiters: Arc::clone(&waiters),
        rooms: Arc::clone(&rooms),
        health: tail_health,
        runtime: Handle::current(),
        caught_up,
    };
    let watching = task::thread("kafka-watch", {
        // Ends with the process's stop, not after the drain: a question to a dead broker takes seconds.
        let (memory, topics, stop) = (Arc::clone(&memory), topics.clone(), context.stop.clone());
        move || watch_kafka(&asker, &topics, lanes, &memory, &kafka, &stop)
    });
    let publishing = task::spawn("live-stock", {
        let (rooms, memory, stop) = (Arc::clone(&rooms), Arc::clone(&memory), stop.clone());
        async move { rooms.publish(&memory, &stop).await }
    });
    for lane in 0..lanes {
        let (windows, stop) = (windows.clone(), stop.clone());
        drop(task::spawn("pace", async move {
            windows.keep_pace(i32::from(lane), &stop).await
        }));
    }
    let live = Live {
        lanes,
        commands: Commander::new(commands::Parts {
            windows,
            codec,
            waiters,
            stop: context.stop,
        }),
        memory,
        reads: Reads::new(pool.clone(), lanes),
        rooms,
        sold_out: SoldOut::new(app.options.sold_out_from_tail, lanes),
        is_caught_up: is_caught_up.clone(),
    };
    let opening = task::spawn("open", {
        let stop = stop.clone();
        async move {
            // The sender lives as long as the tail.
            let waited = stop
                .unless_requested(is_caught_up.wait_for(|caught_up| *caught_up))
                .await;
            if matches!(waited, Some(Ok(_))) {
                app.open(live);
            }
        }
    });
    let followed = follow(&connections, &group, lanes, &pool, parts, &stop).await;
    drop(opening); // It ends with the stop, or has ended.
    watching.await?;
    publishing.await?;
    let flushed = task::thread("flush", move || clients.flush(FLUSH)).await?;
    if let Err(error) = flushed {
        tracing::warn!(%error, flush_ms = FLUSH.as_millis(), "commands without an acknowledgement are left at the stop; their senders were told");
    }
    // A read that hangs must not hold up the stop.
    let _closed = tokio::time::timeout(Duration::from_secs(1), pool.close()).await;
    followed
}

/// How long commands without an acknowledgement are waited for at the stop.
const FLUSH: Duration = Duration::from_secs(2);

/// `None` when stopped first.
async fn connect_registry(connections: &Connections, health: &Component, stop: &Stop) -> anyhow::Result<Option<Codec>> {
    let registry = Registry::new(connections.registry_url.expose()).context("HOLDFAST_REGISTRY_URL")?;
    let mut backoff = backoff();
    loop {
        match Codec::connect(registry.clone(), &connections.topic_prefix).await {
            Ok(codec) => {
                health.up();
                return Ok(Some(codec));
            }
            Err(error) => health.down(error),
        }
        if !backoff.sleep(stop).await {
            return Ok(None);
        }
    }
}

/// The number of lanes, once both topics are there; `None` when stopped first.
async fn find_lanes(
    asker: &Arc<consumer::Reader>,
    topics: &Topics,
    health: &Component,
    stop: &Stop,
) -> anyhow::Result<Option<u16>> {
    let mut backoff = backoff();
    loop {
        let (asker, topics) = (Arc::clone(asker), topics.clone());
        match task::thread("kafka-metadata", move || count_lanes(&asker, &topics)).await? {
            Ok(lanes) => {
                health.up();
                return Ok(Some(lanes));
            }
            Err(why) => health.down(why),
        }
        if !backoff.sleep(stop).await {
            return Ok(None);
        }
    }
}

/// Partitions of both topics, which must agree.
fn count_lanes(asker: &consumer::Reader, topics: &Topics) -> Result<u16, String> {
    let count = |topic: &str| match consumer::partition_count(asker, topic) {
        Ok(Some(count)) => u16::try_from(count)
            .ok()
            .filter(|lanes| *lanes <= limits::LANES_MAX)
            .ok_or_else(|| {
                format!(
                    "topic {topic} has {count} partitions; at most {} can be lanes",
                    limits::LANES_MAX
                )
            }),
        Ok(None) => Err(format!("topic {topic} does not exist yet: run `holdfast topics`")),
        Err(error) => Err(format!("no broker answers: {error}")),
    };
    let (commands, events) = (count(&topics.commands)?, count(&topics.events)?);
    if commands != events {
        return Err(format!(
            "topics {} and {} have {commands} and {events} partitions; they must have the same number",
            topics.commands, topics.events
        ));
    }
    Ok(commands)
}

/// Follows the events until the stop; where the place in the log is lost, from a checkpoint again.
async fn follow(
    connections: &Connections,
    group: &str,
    lanes: u16,
    pool: &PgPool,
    parts: tail::Parts,
    stop: &Stop,
) -> anyhow::Result<()> {
    let mut backoff = backoff();
    let reader = Arc::new(consumer::reader(
        &connections.kafka_brokers,
        "holdfast-ingress-tail",
        group,
    )?);
    while !stop.is_requested() {
        match find_starts(&reader, &parts.topic, lanes, pool).await? {
            Ok(starts) => {
                let (reader, parts, stop) = (Arc::clone(&reader), parts.clone(), stop.clone());
                let health = parts.health.clone();
                let ended = task::thread("tail", move || {
                    parts.caught_up.send_replace(false);
                    parts.memory.clear();
                    tail::follow(&reader, &starts, parts, stop)
                });
                match ended.await?? {
                    End::Stopped => return Ok(()),
                    End::Lost(why) => health.down(why),
                }
            }
            Err(why) => parts.health.down(why),
        }
        if !backoff.sleep(stop).await {
            return Ok(());
        }
    }
    Ok(())
}

/// Where each lane's reading starts: at Postgres' checkpoint, or at the beginning of the log while it is still there.
async fn find_starts(
    reader: &Arc<consumer::Reader>,
    topic: &str,
    lanes: u16,
    pool: &PgPool,
) -> anyhow::Result<Result<Vec<Start>, String>> {
    let stored = task::spawn("checkpoints", {
        let pool = pool.clone();
        async move { picture::checkpoints(&pool).await }
    })
    .await?;
    let (reader, topic) = (Arc::clone(reader), topic.to_owned());
    let starts = task::thread("bounds", move || {
        Lane::all(lanes)
            .map(|lane| {
                let (first, next) = consumer::bounds(&reader, &topic, lane.partition())
                    .map_err(|error| format!("no broker answers: {error}"))?;
                start_of(lane, first, next, &stored)
            })
            .collect()
    });
    Ok(starts.await?)
}

fn start_of(
    lane: Lane,
    first: i64,
    next: i64,
    stored: &Result<Vec<(Lane, picture::Checkpoint)>, picture::Error>,
) -> Result<Start, String> {
    let found = stored.as_ref().map(|all| all.iter().find(|(of, _)| *of == lane));
    match found {
        Ok(Some((_, checkpoint))) if (first..=next).contains(&checkpoint.next_event_offset) => {
            Ok((lane, checkpoint.next_event_offset, checkpoint.state))
        }
        Ok(Some((_, checkpoint))) => Err(format!(
            "lane {lane}: Postgres stands at event {}, but the events topic has {first} to {next}: do they belong together?",
            checkpoint.next_event_offset
        )),
        Ok(None) | Err(_) if first == 0 => Ok((lane, 0, LaneState::default())),
        Ok(None) => Err(format!(
            "lane {lane}: the events before {first} are gone, and Postgres has no checkpoint: run the persister"
        )),
        Err(error) => Err(format!(
            "lane {lane}: the events before {first} are gone, and Postgres' checkpoint cannot be read: {error}"
        )),
    }
}

/// Asks the brokers now and then, so that readiness is right while nobody sends anything, and the tail's lag is known.
fn watch_kafka(
    asker: &consumer::Reader,
    topics: &Topics,
    lanes: u16,
    memory: &Memory,
    health: &Component,
    stop: &Stop,
) {
    const STEP: Duration = Duration::from_millis(100);
    while !stop.is_requested() {
        match count_lanes(asker, topics) {
            Ok(found) if found == lanes => health.up(),
            Ok(found) => health.down(format!(
                "the topics have {found} partitions, but holds live in {lanes} lanes: the number of lanes is fixed"
            )),
            Err(why) => health.down(why),
        }
        for lane in Lane::all(lanes) {
            if stop.is_requested() || !health.is_up() {
                break;
            }
            if let Ok((_, next)) = consumer::bounds(asker, &topics.events, lane.partition()) {
                let position = memory.last_event(lane) + 1;
                meters::tail(lane, position, (next - position).max(0));
            }
        }
        let mut waited = Duration::ZERO;
        while waited < WATCH_EVERY && !stop.is_requested() {
            std::thread::sleep(STEP);
            waited += STEP;
        }
    }
}
