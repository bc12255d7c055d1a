//! Outages: what answers while a dependency is away, what waits, and that all goes on by itself afterwards.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewPartitions},
    client::DefaultClientContext,
};
use tokio::process::Command;

use holdfast::torture::proxy::{Proxy, host_of};

use crate::world::{Answer, Setup, World, free_port, play, times};

/// The engine of a world that is behind a proxy.
#[derive(Clone, Copy)]
enum Engine {
    Postgres,
    Registry,
    Redis,
}

/// A setup whose engine is behind a proxy.
async fn behind_proxy(mut setup: Setup, engine: Engine) -> (Setup, Proxy) {
    let url = match engine {
        Engine::Postgres => &mut setup.connections.postgres_url,
        Engine::Registry => &mut setup.connections.registry_url,
        Engine::Redis => &mut setup.connections.redis_url,
    };
    let target = host_of(url.expose()).to_owned();
    let proxy = Proxy::start(&target).await.expect("a free port");
    *url = url.expose().replace(&target, &proxy.address.to_string()).into();
    (setup, proxy)
}

/// Reserve, confirm, reserve, cancel: each is decided, not put off.
async fn decides_as_ever(world: &World, sku: &str, round: usize) {
    for (number, call) in ["confirm", "cancel"].into_iter().enumerate() {
        let hold = world.reserve(&format!("{sku}-{round}-{number}"), sku, 1, "ann").await;
        assert_eq!(hold.status, 201, "{hold:?}");
        let ended = match call {
            "confirm" => world.confirm(&hold.hold_id()).await,
            _ => world.cancel(&hold.hold_id()).await,
        };
        assert_eq!(ended.status, 200, "{ended:?}");
    }
}

async fn goes_on_without(engine: Engine, sku: &str) {
    let (setup, proxy) = behind_proxy(Setup::new(), engine).await;
    let world = setup.start().await;
    world.stock(sku, 10_000).await;
    decides_as_ever(&world, sku, 0).await;
    proxy.cut();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    let mut rounds = 1;
    while begun.elapsed() < Duration::from_secs(times(5, 60) as u64) {
        decides_as_ever(&world, sku, rounds).await;
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    proxy.heal();
    let report = world.assert_verified().await;
    assert_eq!(
        report.holds().get("confirmed"),
        Some(&(rounds as u64)),
        "the rows caught up"
    );
}

#[test]
fn without_postgres_holds_are_decided_at_normal_speed_and_rows_catch_up() {
    play(async {
        goes_on_without(Engine::Postgres, "no-postgres").await;
    });
}

#[test]
fn without_the_registry_holds_are_decided_at_normal_speed() {
    play(async {
        goes_on_without(Engine::Registry, "no-registry").await;
    });
}

/// 202 with a place to look, and the decision when it is back.
async fn decided_later(world: &World, answer: &Answer) {
    assert_eq!(answer.status, 202, "{answer:?}");
    let location = answer.header("location").expect("a place to look").to_owned();
    assert!(location.contains("?command="), "{location}");
    world
        .eventually("it is decided", async || {
            let hold = world.get(&location).await;
            if hold.state() == "held" {
                Ok(())
            } else {
                Err(format!("{hold:?}"))
            }
        })
        .await;
}

fn impatient(world: &World, key: &str, sku: &str) -> reqwest::RequestBuilder {
    world
        .posting("/v1/holds", &World::wanting(sku, 1, "ann"))
        .header("Idempotency-Key", key)
        .header("Prefer", "wait=1")
}

#[test]
fn without_redis_requests_are_accepted_and_decided_when_it_is_back() {
    play(async {
        let (setup, proxy) = behind_proxy(Setup::new(), Engine::Redis).await;
        let world = setup.start().await;
        world.stock("no-redis", 10).await;
        proxy.cut();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let answer = world.request(impatient(&world, "no-redis", "no-redis")).await;
        let pending = world.get(answer.header("location").expect("a place to look")).await;
        assert_eq!((pending.status, pending.state()), (200, "pending"), "{pending:?}");
        let ready = world.get("/readyz").await;
        assert_eq!(ready.status, 503);
        assert!(
            ready.body.to_string().contains("Redis"),
            "readiness names it: {ready:?}"
        );
        proxy.heal();
        decided_later(&world, &answer).await;
        world.assert_verified().await;
    });
}

#[test]
fn without_a_reserver_requests_are_accepted_and_decided_when_it_is_back() {
    play(async {
        let world = Setup::new().apart().start().await;
        world.stock("no-reserver", 10).await;
        world.kill("reserver").await;
        let answer = world.request(impatient(&world, "no-reserver", "no-reserver")).await;
        let at_once = world
            .request(impatient(&world, "no-reserver-2", "no-reserver").header("Prefer", "respond-async"))
            .await;
        assert_eq!(at_once.status, 202, "{at_once:?}");
        world.spawn("reserver").await;
        decided_later(&world, &answer).await;
        decided_later(&world, &at_once).await;
        world.assert_verified().await;
    });
}

/// An engine of the test's own, started as `./run` starts one.
struct Own {
    engine: &'static str,
    state: PathBuf,
    port: u16,
    controller: u16,
}

impl Own {
    async fn start(engine: &'static str) -> Self {
        let name = format!("{engine}-{}", std::process::id());
        let own = Self {
            engine,
            state: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name),
            port: free_port(),
            controller: free_port(),
        };
        own.services("wipe").await;
        own.services("start").await;
        own
    }

    async fn services(&self, what: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/services.sh");
        let mut command = Command::new(script);
        command.arg(what).stdin(Stdio::null()).stdout(Stdio::null());
        if what != "wipe" {
            command.arg(self.engine);
        }
        let done = command
            .env("HOLDFAST_STATE", &self.state)
            .env("HOLDFAST_KAFKA_PORT", self.port.to_string())
            .env("HOLDFAST_KAFKA_CONTROLLER_PORT", self.controller.to_string())
            .env("HOLDFAST_REDIS_PORT", self.port.to_string())
            .env("HOLDFAST_NATIVE", "1")
            .status()
            .await
            .expect("infra/services.sh starts");
        assert!(done.success(), "infra/services.sh {what}");
    }
}

/// A Redis that is nearly full keeps its room for what gives units back; one that was made a replica answers, and refuses. No
/// command is bad for that.
#[test]
fn a_redis_that_refuses_to_write_is_waited_for_and_nothing_is_lost() {
    play(async {
        let redis = Own::start("redis").await;
        let mut setup = Setup::new();
        let url = format!("redis://127.0.0.1:{}", redis.port);
        setup.connections.redis_url = url.clone().into();
        let world = setup.start().await;
        world.stock("refusing", 100_000).await;
        let held = world.reserve("before", "refusing", 1, "ann").await;
        let client = plumbing::redis::client(&url).expect("a URL");
        let mut connection = client.get_connection().expect("Redis answers");
        let mut tell = |words: &str| {
            let mut words = words.split(' ');
            let mut command = redis::cmd(words.next().expect("a command"));
            command.arg(words.collect::<Vec<_>>());
            command.exec(&mut connection).expect("Redis obeys");
        };
        let until = async |what: &str, is_it: fn(&Answer) -> bool| {
            world
                .eventually(what, async || {
                    let key = plumbing::id::random().to_string();
                    let answer = world.reserve(&key, "refusing", 1, "ann").await;
                    if is_it(&answer) {
                        Ok(answer)
                    } else {
                        Err(format!("{answer:?}"))
                    }
                })
                .await
        };

        tell("CONFIG SET maxmemory 1");
        until("refused-as-busy", |answer| {
            (answer.status, answer.code()) == (503, "busy")
        })
        .await;
        assert_eq!(
            world.cancel(&held.hold_id()).await.status,
            200,
            "what is held can be given back"
        );
        tell("CONFIG SET maxmemory 0");
        until("taken-again", |answer| answer.status == 201).await;

        tell("REPLICAOF 127.0.0.1 1");
        let answer = world.request(impatient(&world, "readonly", "refusing")).await;
        world
            .eventually("readiness says why", async || {
                let ready = world.get("/readyz").await;
                let says_why = ready.status == 503 && ready.body.to_string().contains("read only replica");
                if says_why { Ok(()) } else { Err(format!("{ready:?}")) }
            })
            .await;
        tell("REPLICAOF NO ONE");
        decided_later(&world, &answer).await;
        world.assert_verified().await;
        drop(world);
        redis.services("wipe").await;
    });
}

#[test]
fn without_kafka_requests_are_refused_as_unavailable_and_all_goes_on_when_it_is_back() {
    play(async {
        let broker = Own::start("kafka").await;
        let mut setup = Setup::new();
        setup.connections.kafka_brokers = format!("127.0.0.1:{}", broker.port).into();
        let world = setup.start().await;
        world.stock("no-kafka", 10).await;
        broker.services("kill").await;
        let answer = world.request(impatient(&world, "no-kafka", "no-kafka")).await;
        assert_eq!((answer.status, answer.code()), (503, "unavailable"), "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        assert_eq!(world.get("/livez").await.status, 200);
        broker.services("start").await;
        let answer = world
            .eventually("it goes on by itself", async || {
                let answer = world.reserve("no-kafka", "no-kafka", 1, "ann").await;
                if matches!(answer.status, 200 | 201) {
                    Ok(answer)
                } else {
                    Err(format!("{answer:?}"))
                }
            })
            .await;
        assert_eq!(answer.state(), "held");
        world.assert_verified().await;
        drop(world);
        broker.services("wipe").await;
    });
}

#[test]
fn started_before_anything_is_there_roles_wait_and_readiness_names_what_is_missing() {
    play(async {
        let (setup, redis) = behind_proxy(Setup::new(), Engine::Redis).await;
        let (setup, registry) = behind_proxy(setup, Engine::Registry).await;
        let (setup, postgres) = behind_proxy(setup, Engine::Postgres).await;
        for proxy in [&redis, &registry, &postgres] {
            proxy.cut();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let world = Arc::new(setup.unprepared());
        world.spawn("all").await;
        let named = async |what: &str| {
            world
                .eventually("readiness names it", async || {
                    let request = world.client.get(format!("{}/readyz", world.url));
                    let answer = world.try_request(request).await.map_err(|error| error.to_string())?;
                    let text = answer.body.to_string();
                    if answer.status == 503 && text.contains(what) {
                        Ok(())
                    } else {
                        Err(text)
                    }
                })
                .await;
        };
        named("registry").await;
        let refused = world.post("/v1/holds", &World::wanting("early", 1, "ann")).await;
        assert_eq!((refused.status, refused.code()), (503, "unavailable"), "{refused:?}");
        registry.heal();
        postgres.heal();
        world.set_up().await;
        named("Redis").await;
        redis.heal();
        world.ready().await;
        world.stock("early", 1).await;
        assert_eq!(world.reserve("early", "early", 1, "ann").await.status, 201);
        world.assert_verified().await;
    });
}

/// Rule 9: a SKU's lane depends on the number of partitions; with more of them a shop would have two stocks of one SKU.
#[test]
fn topics_that_grew_partitions_are_refused_with_what_to_do() {
    play(async {
        let world = Setup::new().start().await;
        world.stock("grown", 1).await;
        world.signal("all", "TERM").await;
        assert_eq!(world.wait("all").await, 0);
        let connections = &world.connections;
        let admin: AdminClient<DefaultClientContext> =
            plumbing::kafka::client::admin(&connections.kafka_brokers, "test")
                .create()
                .expect("a client");
        let topics = schemas::Topics::with_prefix(&connections.topic_prefix);
        let more = [
            NewPartitions::new(&topics.commands, 8),
            NewPartitions::new(&topics.events, 8),
        ];
        admin
            .create_partitions(&more, &AdminOptions::new())
            .await
            .expect("Kafka answers");
        world.spawn("all").await;
        world
            .eventually("readiness says what to do", async || {
                let request = world.client.get(format!("{}/readyz", world.url));
                let answer = world.try_request(request).await.map_err(|error| error.to_string())?;
                let text = answer.body.to_string();
                let halted = text.matches("was opened with 4 lanes").count();
                if answer.status == 503 && halted == 8 {
                    Ok(())
                } else {
                    Err(text)
                }
            })
            .await;
    });
}
