//! Topics, a database and a persister of a test's own, on the real engines of `HOLDFAST_*`.

use std::time::{Duration, Instant};

use domain::{Event, Lane, Ledger};
use persister::Options;
use plumbing::{
    config::{Connections, SecretUrl},
    health::Health,
    kafka::{
        admin::{self, TopicSpec},
        producer::{Producer, Record},
    },
    service::Context,
    stop::{self, Stopper},
    task::{self, Task},
};
use schemas::{Codec, Registry, Topics, headers, picture, topics::EVENTS};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::oneshot;

pub const SOURCE: &str = "/holdfast/test";

pub struct World {
    pub connections: Connections,
    pub topics: Topics,
    pub codec: Codec,
    pub pool: PgPool,
    producer: Producer,
    database: String,
    server: PgPool,
}

impl World {
    pub async fn new(lanes: i32) -> Self {
        let mut connections = Connections::from_env();
        let name = format!("t{}", plumbing::id::random().simple());
        connections.topic_prefix = format!("{name}.");
        let topics = Topics::with_prefix(&connections.topic_prefix);
        let spec = TopicSpec {
            name: topics.events.clone(),
            partitions: lanes,
            settings: vec![],
        };
        admin::ensure_topic(&connections.kafka_brokers, &spec, 1).await.unwrap();

        let registry = Registry::new(connections.registry_url.expose()).unwrap();
        let id = registry
            .register(&EVENTS.subject(&connections.topic_prefix), EVENTS.schema.unwrap())
            .await
            .unwrap();
        registry
            .register(
                &schemas::topics::COMMANDS.subject(&connections.topic_prefix),
                schemas::topics::COMMANDS.schema.unwrap(),
            )
            .await
            .unwrap();

        let server = plumbing::postgres::connect_lazy(&connections.postgres_url, "test", 1).unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&server)
            .await
            .unwrap();
        let (base, _) = connections.postgres_url.expose().rsplit_once('/').unwrap();
        connections.postgres_url = SecretUrl::from(format!("{base}/{name}"));
        let pool = plumbing::postgres::connect_lazy(&connections.postgres_url, "test", 3).unwrap();
        picture::migrate(&pool).await.unwrap();
        Self {
            producer: Producer::new(&connections.kafka_brokers, "test", "1").unwrap(),
            codec: Codec::with_ids(registry, 1, id),
            connections,
            topics,
            pool,
            database: name,
            server,
        }
    }

    /// Writes events to a lane in order and returns the offset of the first.
    pub async fn write(&self, lane: Lane, events: &[Event]) -> i64 {
        let mut acknowledged = Vec::with_capacity(events.len());
        for event in events {
            let headers = headers::of_event(event, SOURCE);
            acknowledged.push(self.send(lane, &self.codec.encode_event(event), &headers));
        }
        let mut first = None;
        for result in acknowledged {
            first = first.or(Some(result.await.unwrap()));
        }
        first.expect("there is an event")
    }

    pub async fn write_bytes(&self, lane: Lane, value: &[u8], headers: &[(&'static str, String)]) -> i64 {
        self.send(lane, value, headers).await.unwrap()
    }

    fn send(&self, lane: Lane, value: &[u8], headers: &[(&'static str, String)]) -> oneshot::Receiver<i64> {
        let record = Record {
            topic: &self.topics.events,
            partition: Some(lane.partition()),
            key: Some(b"key"),
            value: Some(value),
            headers,
        };
        let (done, acknowledged) = oneshot::channel();
        let sent = self.producer.send_then(record, move |result| {
            let _unwatched = done.send(result.unwrap().offset);
        });
        sent.unwrap();
        acknowledged
    }

    /// Starts a persister of a group.
    pub fn persister(&self, group: &str, batch: u32) -> Running {
        self.persister_with(self.connections.clone(), group, batch)
    }

    pub fn persister_with(&self, connections: Connections, group: &str, batch: u32) -> Running {
        let (stopper, stop) = stop::pair();
        let context = Context::new("persister", stop);
        let health = context.health.clone();
        let options = Options {
            batch,
            group: group.to_owned(),
            ..Options::default()
        };
        let task = task::spawn("persister", persister::run(connections, options, context));
        Running { stopper, health, task }
    }

    pub async fn position(&self, lane: Lane) -> i64 {
        let checkpoint = picture::checkpoint(&self.pool, lane).await.unwrap();
        checkpoint.map_or(0, |checkpoint| checkpoint.next_event_offset)
    }

    pub async fn reaches(&self, lane: Lane, offset: i64) {
        eventually(&format!("lane {lane} reaches {offset}"), async || {
            self.position(lane).await >= offset
        })
        .await;
    }

    pub async fn ledger(&self, lane: Lane, remember_ms: i64) -> Ledger {
        let (pool, loaded) = (self.pool.clone(), picture::load);
        let task = task::spawn("load", async move { loaded(&pool, lane, remember_ms).await });
        task.await.unwrap().unwrap().expect("the lane has a checkpoint").1
    }

    pub async fn count(&self, what: &str) -> i64 {
        let query = format!("SELECT count(*) FROM {what}");
        sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Every table that grows, in one number each: what must not change when events are read again.
    pub async fn counts(&self) -> Vec<i64> {
        let mut counts = Vec::new();
        for table in [
            "processed_events",
            "stock",
            "holds",
            "hold_lines",
            "user_limits",
            "stock_movements",
            "orders",
        ] {
            counts.push(self.count(table).await);
        }
        counts
    }

    pub async fn end(self) {
        self.pool.close().await;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        sqlx::query(AssertSqlSafe(drop)).execute(&self.server).await.unwrap();
        admin::delete_topics(&self.connections.kafka_brokers, &[&self.topics.events])
            .await
            .unwrap();
    }
}

pub struct Running {
    stopper: Stopper,
    pub health: Health,
    task: Task<anyhow::Result<()>>,
}

impl Running {
    pub async fn stop(self) {
        self.stopper.stop();
        self.task.await.unwrap().unwrap();
    }

    /// Of a persister whose runtime is gone: threads outlive a runtime, though not a process.
    pub fn threads_end(self) {
        self.stopper.stop();
    }

    pub fn metrics(&self) -> String {
        plumbing::telemetry::MetricsHandle::install().render()
    }

    /// Why a component is not ready.
    pub fn reason(&self, component: &str) -> Option<String> {
        let report = self.health.report();
        let found = report.components.into_iter().find(|found| found.name == component)?;
        found.reason.filter(|_| !found.ready)
    }
}

pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < Duration::from_secs(15), "not within 15 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
