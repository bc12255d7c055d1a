//! A small world for the tools: topics, tables and keys of its own, and roles that run in this process.

use std::{
    process::Output,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use clap::{Args, FromArgMatches};
use domain::{
    Adjustment, Command, CommandBody, Event, HoldId, Key, Lane, LaneState, Line, Lines, Policy, Quantity, Reserve, Sku,
    Tenant, Text, UserId, limits,
};
use holdfast::{
    log::LogReader,
    setup::{self, TopicOptions},
    verify::{self, Report},
};
use plumbing::{
    config::Connections,
    kafka::producer::{Producer, Record},
    service::Context,
    stop::{self, Stopper},
    task::{self, Task},
};
use schemas::{Codec, Registry, Topics, headers};
use sqlx::Connection as _;

pub const LANES: u16 = 2;

pub struct World {
    pub connections: Connections,
    pub topics: Topics,
    pub codec: Codec,
    pub producer: Producer,
    ids: AtomicU32,
}

/// Roles that work on a world until they are ended.
pub struct Roles {
    stopper: Stopper,
    running: Vec<Task<anyhow::Result<()>>>,
}

impl Roles {
    pub async fn end(self) {
        self.stopper.stop();
        for role in self.running {
            role.await.expect("no panic").expect("a clean end");
        }
    }
}

fn defaults<O: Args + FromArgMatches>() -> O {
    let matches = O::augment_args(clap::Command::new("defaults")).get_matches_from(["defaults"]);
    O::from_arg_matches(&matches).expect("every option has a default")
}

pub fn sku(name: &str) -> Sku {
    Sku::parse(name).expect("a SKU")
}

pub fn text(words: &str) -> Text {
    Text::parse("text", words).expect("a text")
}

pub fn key(name: &str) -> Key {
    Key::parse("key", name).expect("a key")
}

pub fn tenant() -> Tenant {
    Tenant::parse("default").expect("a tenant")
}

/// The first SKU of that name that lives in a lane.
pub fn sku_in(lane: u16, name: &str) -> Sku {
    (0..)
        .map(|number| sku(&format!("{name}-{number}")))
        .find(|sku| Lane::of_sku(sku, LANES).number() == lane)
        .expect("some number falls there")
}

pub fn hold_of(sku: &Sku, name: &str) -> HoldId {
    HoldId::of(Lane::of_sku(sku, LANES), &tenant(), &key(name))
}

impl World {
    /// Names only.
    pub fn unprepared() -> Connections {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let name = format!("cli{}x{}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
        let mut connections = Connections::from_env();
        let server = connections.postgres_url.expose().to_owned();
        let (server, _) = server.rsplit_once('/').expect("a database URL has a database");
        connections.postgres_url = format!("{server}/{name}").into();
        connections.topic_prefix = format!("{name}.");
        connections.redis_prefix = name;
        connections
    }

    pub async fn new() -> Self {
        let connections = Self::unprepared();
        let options = TopicOptions {
            lanes: LANES,
            replication: 1,
        };
        setup::topics(&connections, options).await.expect("topics");
        setup::schemas(&connections).await.expect("schemas");
        let (server, name) = connections.postgres_url.expose().rsplit_once('/').expect("a database");
        let mut postgres = sqlx::PgConnection::connect(&format!("{server}/postgres"))
            .await
            .expect("Postgres answers");
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut postgres)
            .await
            .expect("a database");
        setup::migrate(&connections).await.expect("tables");
        let registry = Registry::new(connections.registry_url.expose()).expect("a URL");
        Self {
            topics: Topics::with_prefix(&connections.topic_prefix),
            codec: Codec::connect(registry, &connections.topic_prefix)
                .await
                .expect("schemas"),
            producer: Producer::new(&connections.kafka_brokers, "test", "0").expect("a producer"),
            connections,
            ids: AtomicU32::new(0),
        }
    }

    /// A world after a short, clean life: two SKUs in two lanes, holds of every state, one purchase limit.
    pub async fn lived() -> Self {
        let world = Self::new().await;
        let (a, b) = (sku_in(0, "a"), sku_in(1, "b"));
        world.stock(&a, 10).await;
        world.stock(&b, 5).await;
        world.reserve(&a, "held", 2, 600_000).await;
        world.reserve(&a, "paid", 3, 600_000).await;
        world.reserve(&b, "cancelled", 1, 600_000).await;
        world.reserve(&b, "too-many", 50, 600_000).await;
        world
            .ask(
                hold_of(&a, "paid").to_string(),
                CommandBody::Confirm {
                    hold_id: hold_of(&a, "paid"),
                    payment_ref: text("pay-1"),
                },
            )
            .await;
        world
            .ask(
                hold_of(&b, "cancelled").to_string(),
                CommandBody::Cancel {
                    hold_id: hold_of(&b, "cancelled"),
                    reason: text("changed my mind"),
                },
            )
            .await;
        let roles = world.start();
        world.settle().await;
        roles.end().await;
        world
    }

    /// Starts the reserver and the persister.
    pub fn start(&self) -> Roles {
        let (stopper, stop) = stop::pair();
        let running = vec![
            task::spawn(
                "reserver",
                reserver::run(
                    self.connections.clone(),
                    defaults(),
                    Context::new("reserver", stop.clone()),
                ),
            ),
            task::spawn(
                "persister",
                persister::run(self.connections.clone(), defaults(), Context::new("persister", stop)),
            ),
        ];
        Roles { stopper, running }
    }

    /// Waits until everything is decided and stored, and verified.
    pub async fn settle(&self) {
        let options = verify::Options {
            at_rest: Some(Duration::from_secs(60)),
            ..verify::Options::default()
        };
        let report = verify::run(&self.connections, options).await.expect("engines answer");
        assert!(report.agrees(), "{}", verify::render::text(&report));
    }

    pub async fn verify(&self) -> Report {
        verify::run(&self.connections, verify::Options::default())
            .await
            .expect("engines answer")
    }

    pub async fn stock(&self, sku: &Sku, units: i64) -> i64 {
        let body = CommandBody::AdjustStock {
            sku: sku.clone(),
            adjustment: Adjustment::Change(units),
            expected_on_hand: None,
            reason: text("delivery"),
            reference: None,
            actor: text("test"),
        };
        self.ask(sku.to_string(), body).await
    }

    pub async fn reserve(&self, sku: &Sku, name: &str, units: i64, ttl_ms: i64) -> i64 {
        let line = Line {
            sku: sku.clone(),
            quantity: Quantity::parse(units).expect("a quantity"),
        };
        let body = CommandBody::Reserve(Reserve {
            idempotency_key: key(name),
            user_id: UserId::parse("ann").expect("a user"),
            lines: Lines::parse(vec![line]).expect("lines"),
            ttl_ms: Some(ttl_ms.min(limits::HOLD_TTL_MS_MAX)),
            policy: Policy::AllOrNothing,
            external_ref: None,
        });
        self.ask(sku.to_string(), body).await
    }

    pub fn command(&self, body: CommandBody) -> Command {
        let id = format!("c-{}", self.ids.fetch_add(1, Ordering::Relaxed));
        Command {
            command_id: key(&id),
            request_id: key(&id),
            tenant: tenant(),
            issued_at: 0,
            source: None,
            body,
        }
    }

    /// Produces a command into the lane where it belongs; returns its offset.
    pub async fn ask(&self, subject: String, body: CommandBody) -> i64 {
        let lane = body
            .hold_id()
            .map_or_else(|| Lane::of_sku(&sku(&subject), LANES), HoldId::lane);
        let command = self.command(body);
        let headers = headers::of_command(command.command_id.as_str(), "/test", command.body.name(), &subject);
        let value = self.codec.encode_command(&command);
        self.produce(
            &self.topics.commands,
            lane.partition(),
            &subject,
            Some(&value),
            &headers,
        )
        .await
    }

    /// Produces an event as a reserver would; returns its offset.
    pub async fn write_event(&self, lane: u16, event: &Event) -> i64 {
        let value = self.codec.encode_event(event);
        let headers = headers::of_event(event, "/test");
        self.produce(&self.topics.events, i32::from(lane), "test", Some(&value), &headers)
            .await
    }

    pub async fn produce(
        &self,
        topic: &str,
        partition: i32,
        key: &str,
        value: Option<&[u8]>,
        headers: &[(&'static str, String)],
    ) -> i64 {
        let record = Record {
            topic,
            partition: Some(partition),
            key: Some(key.as_bytes()),
            value,
            headers,
        };
        let sent = self.producer.send(record).expect("queued");
        sent.await.expect("acknowledged").offset
    }

    /// What the log says of a lane now, and its valid events.
    pub async fn fold(&self, lane: u16) -> (LaneState, Vec<Event>) {
        let (brokers, topic, codec) = (
            self.connections.kafka_brokers.clone(),
            self.topics.events.clone(),
            self.codec.clone(),
        );
        task::thread("fold", move || {
            let mut state = LaneState::default();
            let mut events = Vec::new();
            let mut log = LogReader::open(&brokers, &topic, i32::from(lane), 0)?;
            log.read_to_end(|record| {
                if record.verdict(&mut state) == domain::Verdict::Valid {
                    events.push(codec.decode_event(record.value.as_deref().unwrap_or_default())?);
                }
                Ok(())
            })?;
            anyhow::Ok((state, events))
        })
        .await
        .expect("no panic")
        .expect("Kafka answers")
    }

    /// Does what retention does: takes everything before these offsets out of the log.
    pub async fn expire_records(&self, before: &[(&str, i32, i64)]) {
        let admin: rdkafka::admin::AdminClient<_> =
            plumbing::kafka::client::admin(&self.connections.kafka_brokers, "test")
                .create()
                .expect("an admin client");
        let mut list = rdkafka::TopicPartitionList::new();
        for (topic, partition, offset) in before {
            list.add_partition_offset(topic, *partition, rdkafka::Offset::Offset(*offset))
                .expect("a position");
        }
        admin
            .delete_records(&list, &rdkafka::admin::AdminOptions::new())
            .await
            .expect("records are gone");
    }

    /// Runs the binary on this world.
    pub async fn holdfast(&self, arguments: &[&str]) -> Output {
        holdfast(&self.connections, arguments).await
    }

    pub fn redis(&self) -> redis::Connection {
        holdfast::redis_lane::connect(&self.connections).expect("Redis answers")
    }

    pub async fn postgres(&self) -> sqlx::PgConnection {
        sqlx::PgConnection::connect(self.connections.postgres_url.expose())
            .await
            .expect("Postgres answers")
    }
}

pub async fn holdfast(connections: &Connections, arguments: &[&str]) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(arguments)
        .envs(connections.environment())
        .env("HOLDFAST_LANES", LANES.to_string())
        .env("HOLDFAST_LOG", "warn")
        .output()
        .await
        .expect("the binary starts")
}

pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
