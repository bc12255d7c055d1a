//! Topics, Redis keys, a database and an expirer of a test's own, on the real engines of `HOLDFAST_*`.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use domain::{
    Command, CommandBody, Fingerprint, HoldId, HoldState, HoldTerms, Key, Lane, Policy, Sku, Tenant, UserId,
    ledger::LedgerHold,
};
use expirer::Options;
use plumbing::{
    config::{Brokers, Connections, SecretUrl},
    health::Health,
    kafka::{
        admin::{self, TopicSpec},
        consumer,
    },
    service::Context,
    stop::{self, Stopper},
    task::{self, Task},
};
use rdkafka::Message;
use redis::{AsyncTypedCommands, aio::MultiplexedConnection};
use schemas::{
    Codec, Registry, Topics,
    cells::{self, HoldCell},
    keys::{GenerationKeys, LaneKeys},
    picture,
    topics::{COMMANDS, EVENTS},
};
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

pub const LANES: i32 = 3;

/// A command as it stands in the log.
#[derive(Debug, Clone)]
pub struct Seen {
    pub command: Command,
    pub partition: i32,
    pub key: String,
    pub broker_ms: i64,
}

impl Seen {
    pub fn hold_id(&self) -> HoldId {
        self.command
            .body
            .hold_id()
            .expect("the expirer sends hold commands only")
    }

    pub fn is_release(&self) -> bool {
        matches!(self.command.body, CommandBody::Release { .. })
    }
}

pub struct World {
    pub connections: Connections,
    pub redis: MultiplexedConnection,
    pub pool: PgPool,
    topics: Topics,
    database: String,
    server: PgPool,
    seen: Arc<Mutex<Vec<Seen>>>,
    reading: (Stopper, Task<()>),
}

impl World {
    pub async fn new() -> Self {
        let mut connections = Connections::from_env();
        let name = format!("t{}", plumbing::id::random().simple());
        connections.topic_prefix = format!("{name}.");
        connections.redis_prefix = name.clone();
        let topics = Topics::with_prefix(&connections.topic_prefix);
        let spec = TopicSpec {
            name: topics.commands.clone(),
            partitions: LANES,
            settings: vec![("message.timestamp.type", "LogAppendTime".to_owned())],
        };
        admin::ensure_topic(&connections.kafka_brokers, &spec, 1).await.unwrap();
        let registry = Registry::new(connections.registry_url.expose()).unwrap();
        for topic in [COMMANDS, EVENTS] {
            registry
                .register(&topic.subject(&connections.topic_prefix), topic.schema.unwrap())
                .await
                .unwrap();
        }
        let codec = Codec::connect(registry, &connections.topic_prefix).await.unwrap();

        let server = plumbing::postgres::connect_lazy(&connections.postgres_url, "test", 1).unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&server)
            .await
            .unwrap();
        let (base, _) = connections.postgres_url.expose().rsplit_once('/').unwrap();
        connections.postgres_url = SecretUrl::from(format!("{base}/{name}"));
        let pool = plumbing::postgres::connect_lazy(&connections.postgres_url, "test", 2).unwrap();
        picture::migrate(&pool).await.unwrap();

        let client = plumbing::redis::client(connections.redis_url.expose()).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stopper, stop) = stop::pair();
        let (brokers, topic, into) = (connections.kafka_brokers.clone(), topics.commands.clone(), seen.clone());
        let reading = task::thread("commands", move || read(&brokers, &topic, &codec, &into, &stop));
        Self {
            redis: client.get_multiplexed_async_connection().await.unwrap(),
            connections,
            topics,
            pool,
            database: name,
            server,
            seen,
            reading: (stopper, reading),
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn expirer(&self) -> Running {
        self.expirer_with(self.connections.clone())
    }

    pub fn expirer_with(&self, connections: Connections) -> Running {
        let (stopper, stop) = stop::pair();
        let context = Context::new("expirer", stop);
        let health = context.health.clone();
        let options = Options {
            sweep_seconds: 1,
            key_sweep_ms: 100,
            ..Options::default()
        };
        let task = task::spawn("expirer", expirer::run(connections, options, context));
        Running { stopper, health, task }
    }

    pub fn keys(&self, lane: Lane) -> LaneKeys {
        LaneKeys::new(&self.connections.redis_prefix, lane)
    }

    /// The lane as its owner leaves it.
    pub async fn lane(&self, lane: Lane, generation: i64, fence: i64) -> GenerationKeys {
        let fields = [("epoch", generation), ("generation", generation), ("fence", fence)];
        self.redis
            .clone()
            .hset_multiple(self.keys(lane).lane(), &fields)
            .await
            .unwrap();
        self.keys(lane).generation(generation)
    }

    /// A held hold in Redis.
    pub async fn place(&self, keys: &GenerationKeys, hold_id: HoldId, tenant: &str, expires_at: i64) {
        let hold = held(hold_id, tenant, expires_at);
        let bytes = cells::pack(&HoldCell::from(&hold));
        let mut redis = self.redis.clone();
        redis.hset(keys.holds(), &hold_id.bytes(), bytes).await.unwrap();
        redis.zadd(keys.due(), &hold_id.bytes(), expires_at).await.unwrap();
    }

    pub async fn unplace(&self, keys: &GenerationKeys, hold_id: HoldId) {
        self.redis.clone().zrem(keys.due(), &hold_id.bytes()).await.unwrap();
    }

    /// A hold's row, and the movement of its creation, as the persister writes them.
    pub async fn store(&self, hold_id: HoldId, state: &str, created_at: i64, expires_at: i64, command_offset: i64) {
        let lane = picture::lane_number(hold_id.lane());
        let mut transaction = self.pool.begin().await.unwrap();
        let hold = "INSERT INTO holds (hold_id, attempt, lane, tenant, state, user_id, idempotency_key, key_bits, fingerprint, \
                    created_at, expires_at, changed_at, policy, command_offset) VALUES ($1, $2, $3, 'shop', $4, 'u', 'k', $5, \
                    ''::bytea, $6, $7, $6, 'all_or_nothing', $2)";
        sqlx::query(hold)
            .bind(hold_id.uuid())
            .bind(command_offset)
            .bind(lane)
            .bind(state)
            .bind(Uuid::from_u128(hold_id.key_bits()))
            .bind(created_at)
            .bind(expires_at)
            .execute(&mut *transaction)
            .await
            .unwrap();
        let movement = "INSERT INTO stock_movements (lane, command_offset, sku, tenant, event_id, event_offset, kind, \
                        on_hand_change, held_change, allocated_change, on_hand, held, allocated, version, hold_id, decided_at) \
                        VALUES ($1, $2, 'A', 'shop', $3, $2, 'HoldCreated', 0, 1, 0, 9, 1, 0, 1, $3, $4)";
        sqlx::query(movement)
            .bind(lane)
            .bind(command_offset)
            .bind(hold_id.uuid())
            .bind(created_at)
            .execute(&mut *transaction)
            .await
            .unwrap();
        let head = "INSERT INTO lanes (lane, last_command_offset) VALUES ($1, $2) \
                    ON CONFLICT (lane) DO UPDATE SET last_command_offset = EXCLUDED.last_command_offset";
        sqlx::query(head)
            .bind(lane)
            .bind(command_offset)
            .execute(&mut *transaction)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    pub async fn set_state(&self, hold_id: HoldId, state: &str) {
        let query = "UPDATE holds SET state = $2 WHERE hold_id = $1";
        sqlx::query(query)
            .bind(hold_id.uuid())
            .bind(state)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    pub async fn end(self) {
        let (stopper, reading) = self.reading;
        stopper.stop();
        reading.await.unwrap();
        self.pool.close().await;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        sqlx::query(AssertSqlSafe(drop)).execute(&self.server).await.unwrap();
        admin::delete_topics(&self.connections.kafka_brokers, &[&self.topics.commands])
            .await
            .unwrap();
        let mut redis = self.redis;
        let keys = redis
            .keys(format!("{}:*", self.connections.redis_prefix))
            .await
            .unwrap();
        if !keys.is_empty() {
            redis.del(keys).await.unwrap();
        }
    }
}

pub struct Running {
    stopper: Stopper,
    pub health: Health,
    task: Task<anyhow::Result<()>>,
}

impl Running {
    pub async fn ready(self) -> Self {
        eventually("the expirer is ready", async || self.health.is_ready()).await;
        self
    }

    pub async fn stop(self) {
        self.stopper.stop();
        self.task.await.unwrap().unwrap();
    }
}

fn read(brokers: &Brokers, topic: &str, codec: &Codec, seen: &Mutex<Vec<Seen>>, stop: &stop::Stop) {
    let reader = consumer::reader(brokers, "test", "test").unwrap();
    let from: Vec<(&str, i32, i64)> = (0..LANES).map(|lane| (topic, lane, 0)).collect();
    consumer::assign(&reader, &from).unwrap();
    while !stop.is_requested() {
        if let Some(Ok(record)) = reader.poll(Duration::from_millis(50)) {
            let command = codec.decode_command(record.payload().unwrap()).unwrap();
            let headers: Vec<String> = consumer::headers(&record).map(|(name, _)| name.to_owned()).collect();
            assert!(headers.contains(&"ce_type".to_owned()), "{headers:?}");
            seen.lock().unwrap().push(Seen {
                command,
                partition: record.partition(),
                key: String::from_utf8(record.key().unwrap().to_vec()).unwrap(),
                broker_ms: record.timestamp().to_millis().unwrap(),
            });
        }
    }
}

pub fn lane(number: i32) -> Lane {
    Lane::new(number).unwrap()
}

pub fn hold_id(number: i32, tenant: &str, key: &str) -> HoldId {
    HoldId::of(
        lane(number),
        &Tenant::parse(tenant).unwrap(),
        &Key::parse("key", key).unwrap(),
    )
}

fn held(hold_id: HoldId, tenant: &str, expires_at: i64) -> LedgerHold {
    LedgerHold {
        tenant: Tenant::parse(tenant).unwrap(),
        terms: HoldTerms {
            attempt: 0,
            state: HoldState::Held,
            user_id: UserId::parse("u").unwrap(),
            idempotency_key: Key::parse("key", &hold_id.to_string()).unwrap(),
            fingerprint: Fingerprint::from_bytes(&[1; 32]).unwrap(),
            created_at: 0,
            expires_at,
            changed_at: 0,
            policy: Policy::AllOrNothing,
            external_ref: None,
            payment_ref: None,
            reason: None,
            remaining_ms: None,
            cart: None,
            asked: Vec::new(),
        },
        lines: vec![(Sku::parse("A").unwrap(), 1)],
    }
}

pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
