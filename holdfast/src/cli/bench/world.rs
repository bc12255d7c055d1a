//! A world for a measurement: topics, tables and keys of its own, and roles of this very binary as processes.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use plumbing::{config::Connections, kafka::admin, task};
use schemas::Topics;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::plan::Plan;
use crate::{
    setup::{self, TopicOptions},
    verify,
};

/// How long roles may take to come up, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Topics, tables and keys, and who works on them.
pub struct World {
    pub connections: Connections,
    pub topics: Topics,
    pub lanes: u16,
    pub http: SocketAddr,
    settings: Vec<(String, String)>,
    roles: Vec<Role>,
}

/// A process under test; killed when it is dropped.
pub struct Role {
    pub name: String,
    child: Child,
}

impl Role {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits.
    pub fn end(mut self) -> anyhow::Result<()> {
        let asked = Command::new("kill").arg("-TERM").arg(self.pid().to_string()).status()?;
        let begun = Instant::now();
        while asked.success() && begun.elapsed() < PATIENCE {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("{} did not end within {} s", self.name, PATIENCE.as_secs())
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It has ended, or nobody wants what it still would do.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn command(connections: &Connections, arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("where this binary is")?);
    command
        .args(arguments)
        .envs(connections.environment())
        .env("HOLDFAST_LOG", "error")
        .env_remove("HOLDFAST_TOKEN")
        .env_remove("HOLDFAST_ADMIN_ADDR")
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
        .stdin(Stdio::null());
    Ok(command)
}

/// Connections to places of its own on the same engines.
fn apart(connections: &Connections) -> anyhow::Result<Connections> {
    let name = format!("bench{}", &plumbing::id::random().simple().to_string()[..8]);
    let (server, _) = connections
        .postgres_url
        .expose()
        .rsplit_once('/')
        .context("HOLDFAST_POSTGRES_URL names no database")?;
    Ok(Connections {
        topic_prefix: format!("{name}."),
        redis_prefix: name.clone(),
        postgres_url: format!("{server}/{name}").into(),
        ..connections.clone()
    })
}

/// Runs a statement on the server that a database is on: the database may be there or not.
async fn on_server(connections: &Connections, statement: &str) -> anyhow::Result<()> {
    let (server, name) = connections
        .postgres_url
        .expose()
        .rsplit_once('/')
        .context("a database")?;
    let mut server = PgConnection::connect(&format!("{server}/postgres")).await?;
    let statement = format!("{statement} \"{name}\"");
    sqlx::query(AssertSqlSafe(statement)).execute(&mut server).await?;
    Ok(server.close().await?)
}

/// Makes the database.
pub async fn create_database(connections: &Connections) -> anyhow::Result<()> {
    on_server(connections, "CREATE DATABASE").await
}

/// Gives `work` a place of its own on the engines, at most so long, and clears it whatever came of the work.
pub async fn in_place<T>(
    connections: &Connections,
    limit: Duration,
    work: impl AsyncFnOnce(&Connections) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let place = apart(connections)?;
    let worked = tokio::time::timeout(limit, work(&place)).await;
    let cleared = clear(&place).await;
    let result = worked.with_context(|| format!("not done within {} s", limit.as_secs()))??;
    cleared.context("what it left cannot be deleted")?;
    Ok(result)
}

/// Deletes the topics, the keys and the database.
async fn clear(place: &Connections) -> anyhow::Result<()> {
    let topics = Topics::with_prefix(&place.topic_prefix);
    let raw = raw_topics(place);
    let all = [&topics.commands, &topics.events, &topics.dead_letters]
        .into_iter()
        .chain(&raw);
    let all: Vec<&str> = all.map(String::as_str).collect();
    admin::delete_topics(&place.kafka_brokers, &all).await?;
    let (url, prefix) = (place.redis_url.expose().to_owned(), place.redis_prefix.clone());
    task::thread("clear-redis", move || clear_redis(&url, &prefix)).await??;
    let (server, name) = place.postgres_url.expose().rsplit_once('/').context("a database")?;
    let mut server = PgConnection::connect(&format!("{server}/postgres")).await?;
    let statement = format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)");
    sqlx::query(AssertSqlSafe(statement)).execute(&mut server).await?;
    Ok(server.close().await?)
}

/// Topics of a place that are no pipeline's: those of the ceilings.
pub fn raw_topics(place: &Connections) -> [String; 2] {
    ["from", "to"].map(|name| format!("{}{name}", place.topic_prefix))
}

fn clear_redis(url: &str, prefix: &str) -> anyhow::Result<()> {
    let mut connection = plumbing::redis::client(url)?.get_connection()?;
    let mut cursor = 0_u64;
    loop {
        let (next, keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{prefix}:*"))
            .arg("COUNT")
            .arg(2_000)
            .query(&mut connection)?;
        if !keys.is_empty() {
            redis::cmd("UNLINK").arg(keys).exec(&mut connection)?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}

/// Starts a baseline and waits until it says where it listens.
pub fn baseline(connections: &Connections, name: &str) -> anyhow::Result<(Role, SocketAddr)> {
    let mut child = command(connections, &["bench", "--be", name])?
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("it was just piped")?;
    let role = Role {
        name: "baseline".to_owned(),
        child,
    };
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let addr = line.trim().parse().with_context(|| format!("{name} did not start"))?;
    Ok((role, addr))
}

impl World {
    /// Topics, schemas and tables in a place, and nobody at work.
    pub async fn new(place: &Connections, plan: &Plan, lanes: u16) -> anyhow::Result<Self> {
        let options = TopicOptions { lanes, replication: 1 };
        setup::topics(place, options).await?;
        setup::schemas(place).await?;
        create_database(place).await?;
        setup::migrate(place).await?;
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Ok(Self {
            topics: Topics::with_prefix(&place.topic_prefix),
            connections: place.clone(),
            lanes,
            http: free,
            settings: plan.settings.clone(),
            roles: Vec::new(),
        })
    }

    /// Roles that start from now on get this in their environment.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.settings.push((name.to_owned(), value.to_string()));
    }

    /// Starts a role, or `all`.
    pub fn start(&mut self, name: &str) -> anyhow::Result<()> {
        let child = command(&self.connections, &[name])?
            .env("HOLDFAST_HTTP_ADDR", self.http.to_string())
            .env("HOLDFAST_HTTP_IN_FLIGHT", "20000")
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        let name = if name == "all" { "holdfast" } else { name };
        self.roles.push(Role {
            name: name.to_owned(),
            child,
        });
        Ok(())
    }

    /// Names and pids of the roles.
    pub fn roles(&self) -> Vec<(String, u32)> {
        self.roles.iter().map(|role| (role.name.clone(), role.pid())).collect()
    }

    /// Waits until the HTTP API is ready.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let client = plumbing::tls::plain_client().timeout(PATIENCE).build()?;
        let (url, begun) = (format!("http://{}/readyz", self.http), Instant::now());
        while begun.elapsed() < PATIENCE {
            if client
                .get(&url)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                return Ok(());
            }
            for role in &mut self.roles {
                if let Some(status) = role.child.try_wait()? {
                    bail!("{} ended while starting: {status}", role.name);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("{url} is not ready after {} s", PATIENCE.as_secs())
    }

    /// Differences between the log, Redis and Postgres once nothing moves.
    pub async fn verify(&self) -> anyhow::Result<u64> {
        let options = verify::Options {
            at_rest: Some(Duration::from_secs(300)),
            ..verify::Options::default()
        };
        let report = verify::run(&self.connections, options).await?;
        if report.agrees() {
            return Ok(0);
        }
        eprint!("{}", verify::render::text(&report));
        Ok(report.differences.len() as u64 + report.more_differences)
    }

    /// Ends a role.
    pub fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        let index = self.roles.iter().position(|role| role.name == name);
        self.roles
            .remove(index.with_context(|| format!("no {name} is at work"))?)
            .end()
    }

    /// Ends all roles.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.roles.drain(..).try_for_each(Role::end)
    }
}
