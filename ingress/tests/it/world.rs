//! One test's world: topics, subjects and a database of its own, an ingress, and an HTTP client.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, Command, FromArgMatches};
use domain::{Lane, Sku};
use ingress::{Options, Running};
use plumbing::{
    config::{Connections, SecretUrl},
    kafka::{admin, consumer},
    service::Context,
    stop::{self, Stopper},
};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header::HeaderMap};
use schemas::{Codec, Registry, Topics, picture, topics};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::reserver::Reserver;

pub const LANES: u16 = 4;

/// The HTTP side: enough to talk to one ingress.
pub struct Api {
    pub addr: SocketAddr,
    pub http: Client,
    context: Context,
    stopper: Stopper,
    running: Running,
}

/// An answer, read.
#[derive(Debug)]
pub struct Said {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Said {
    pub async fn read(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Self { status, headers, body }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// A problem of this status and code, whole.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), self.body["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("urn:holdfast:problem:{code}"));
        assert!(!self.body["title"].as_str().unwrap().is_empty());
        assert!(!self.body["detail"].as_str().unwrap().is_empty());
        assert_eq!(self.headers.contains_key("retry-after"), matches!(status, 429 | 503));
    }
}

/// The defaults, and any free port.
pub fn options() -> Options {
    let command = Options::augment_args(Command::new("options"));
    let mut options = Options::from_arg_matches(&command.get_matches_from(["options"])).unwrap();
    options.http_addr = ([127, 0, 0, 1], 0).into();
    options
}

impl Api {
    pub async fn start(connections: &Connections, options: Options) -> Self {
        let (stopper, stop) = stop::pair();
        let context = Context::new("ingress", stop);
        let running = ingress::start(connections.clone(), options, context.clone())
            .await
            .unwrap();
        Self {
            addr: running.addr,
            http: plumbing::tls::plain_client().build().unwrap(),
            context,
            stopper,
            running,
        }
    }

    pub async fn ready(&self) {
        wait_for("the ingress to be ready", async || {
            self.call(Method::GET, "/readyz").send().await.unwrap().status() == StatusCode::OK
        })
        .await;
    }

    pub fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.addr))
    }

    pub async fn get(&self, path: &str) -> Said {
        Said::read(self.call(Method::GET, path).send().await.unwrap()).await
    }

    pub fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.call(Method::POST, path).json(body)
    }

    pub fn is_down(&self, component: &str) -> Option<String> {
        let report = self.context.health.report();
        let found = report.components.into_iter().find(|found| found.name == component);
        found.and_then(|found| found.reason)
    }

    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    pub async fn stop(self) {
        self.stopper.stop();
        self.running.task.await.unwrap().unwrap();
    }
}

pub struct World {
    pub connections: Connections,
    pub topics: Topics,
    pub codec: Codec,
    pub registry: Registry,
    pub pool: PgPool,
    database: String,
    server: SecretUrl,
}

impl World {
    /// Topics, subjects, tables; nothing runs yet.
    pub async fn new() -> Self {
        let name = format!("ingress_{}", plumbing::id::random().simple());
        let mut connections = Connections::from_env();
        let server = connections.postgres_url.clone();
        let mut admin_connection = PgConnection::connect(server.expose()).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut admin_connection)
            .await
            .unwrap();
        let (before, _) = server.expose().rsplit_once('/').unwrap();
        connections.postgres_url = format!("{before}/{name}").into();
        connections.topic_prefix = format!("{name}.");
        let pool = plumbing::postgres::connect_lazy(&connections.postgres_url, "ingress-test", 4).unwrap();
        picture::migrate(&pool).await.unwrap();

        let registry = Registry::new(connections.registry_url.expose()).unwrap();
        for topic in topics::ALL {
            let settings = if topic.log_append_time {
                vec![("message.timestamp.type", "LogAppendTime".to_owned())]
            } else {
                Vec::new()
            };
            let spec = admin::TopicSpec {
                name: topic.full_name(&connections.topic_prefix),
                partitions: if topic.laned { i32::from(LANES) } else { 1 },
                settings,
            };
            admin::ensure_topic(&connections.kafka_brokers, &spec, 1).await.unwrap();
            if let Some(schema) = topic.schema {
                let subject = topic.subject(&connections.topic_prefix);
                registry.register(&subject, schema).await.unwrap();
            }
        }
        let codec = Codec::connect(registry.clone(), &connections.topic_prefix)
            .await
            .unwrap();
        Self {
            topics: Topics::with_prefix(&connections.topic_prefix),
            codec,
            registry,
            pool,
            database: name,
            server,
            connections,
        }
    }

    /// With an ingress that is ready and a reserver that owns all lanes.
    pub async fn with_all() -> (Self, Api, Reserver) {
        Self::with_options(options()).await
    }

    pub async fn with_options(options: Options) -> (Self, Api, Reserver) {
        let world = Self::new().await;
        let reserver = Reserver::own_all(&world).await;
        let api = Api::start(&world.connections, options).await;
        api.ready().await;
        (world, api, reserver)
    }

    /// Commands in the log, in all lanes.
    pub async fn commands_in_log(&self) -> i64 {
        let (brokers, topic) = (self.connections.kafka_brokers.clone(), self.topics.commands.clone());
        tokio::task::spawn_blocking(move || {
            let reader = consumer::reader(&brokers, "test", "test").unwrap();
            Lane::all(LANES)
                .map(|lane| consumer::bounds(&reader, &topic, lane.partition()).unwrap().1)
                .sum()
        })
        .await
        .unwrap()
    }

    pub async fn delete_topics(&self) {
        let names = [
            self.topics.commands.as_str(),
            self.topics.events.as_str(),
            self.topics.dead_letters.as_str(),
        ];
        admin::delete_topics(&self.connections.kafka_brokers, &names)
            .await
            .unwrap();
    }

    /// Leaves nothing behind. A test that fails leaves its world to be looked at.
    pub async fn end(self, api: Api, reserver: Reserver) {
        api.stop().await;
        reserver.stop().await;
        self.delete_topics().await;
        self.pool.close().await;
        let mut admin_connection = PgConnection::connect(self.server.expose()).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.database)))
            .execute(&mut admin_connection)
            .await
            .unwrap();
    }
}

/// A SKU that lives in this lane.
pub fn sku_in(lane: i32) -> Sku {
    (0..)
        .map(|number| Sku::parse(&format!("SKU-{number}")).unwrap())
        .find(|sku| Lane::of_sku(sku, LANES).partition() == lane)
        .unwrap()
}

pub async fn wait_for(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited 30 s for {what}");
}
