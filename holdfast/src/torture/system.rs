//! The system under torture: its own topics, tables and keys on the configured engines, and a process per role.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use plumbing::config::Connections;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use sqlx::Connection as _;
use tokio::process::{Child, Command};

use super::proxy::{Proxy, host_of};
use crate::setup;

/// Lanes of the tortured system.
pub const LANES: u16 = 4;

/// Processes on topics, tables and keys of their own.
#[derive(Debug)]
pub struct System {
    /// Where the engines are, and the names of this run.
    pub connections: Connections,
    /// Where processes log.
    pub logs: PathBuf,
    /// `infra/services.sh`, which kills and starts engines.
    pub services: PathBuf,
    /// In front of Redis, for every process; of Kafka and Postgres, for the first of each role.
    redis: Proxy,
    /// As above.
    pub kafka: Proxy,
    /// As above.
    pub postgres: Proxy,
    ports: BTreeMap<String, u16>,
    running: BTreeMap<String, Child>,
    /// A small disk with the engines' state, which may be filled.
    pub disk: Option<PathBuf>,
    /// Processes that ended without being told to.
    pub ended: Vec<String>,
}

impl System {
    /// Creates topics, schemas and tables under a name of their own.
    ///
    /// # Errors
    /// An engine does not answer.
    pub async fn create(
        connections: Connections,
        name: &str,
        logs: PathBuf,
        services: PathBuf,
    ) -> anyhow::Result<Self> {
        let mut connections = connections;
        let (server, _) = connections
            .postgres_url
            .expose()
            .rsplit_once('/')
            .context("HOLDFAST_POSTGRES_URL names no database")?;
        connections.postgres_url = format!("{server}/{name}").into();
        connections.topic_prefix = format!("{name}.");
        connections.redis_prefix = name.to_owned();
        std::fs::create_dir_all(&logs).with_context(|| format!("{} cannot be made", logs.display()))?;
        let system = Self {
            redis: Proxy::start(host_of(connections.redis_url.expose())).await?,
            kafka: Proxy::kafka(&connections.kafka_brokers.addresses).await?,
            postgres: Proxy::start(host_of(connections.postgres_url.expose())).await?,
            connections,
            logs,
            services,
            ports: BTreeMap::new(),
            running: BTreeMap::new(),
            disk: None,
            ended: Vec::new(),
        };
        system.sql(&format!("CREATE DATABASE {name}")).await?;
        let options = setup::TopicOptions {
            lanes: LANES,
            replication: 1,
        };
        setup::topics(&system.connections, options).await?;
        setup::schemas(&system.connections).await?;
        setup::migrate(&system.connections).await?;
        Ok(system)
    }

    async fn sql(&self, statement: &str) -> anyhow::Result<()> {
        let url = self.connections.postgres_url.expose();
        let (server, _) = url.rsplit_once('/').context("a database URL has a database")?;
        let mut server = sqlx::PgConnection::connect(&format!("{server}/postgres")).await?;
        sqlx::query(sqlx::AssertSqlSafe(statement.to_owned()))
            .execute(&mut server)
            .await?;
        Ok(())
    }

    /// Kills what runs and deletes what it had.
    ///
    /// # Errors
    /// An engine does not answer.
    pub async fn remove(mut self) -> anyhow::Result<()> {
        for (_, mut child) in std::mem::take(&mut self.running) {
            child.kill().await?;
        }
        let name = self.connections.redis_prefix.clone();
        self.sql(&format!("DROP DATABASE {name} WITH (FORCE)")).await?;
        let topics = schemas::Topics::with_prefix(&self.connections.topic_prefix);
        let admin: AdminClient<DefaultClientContext> =
            plumbing::kafka::client::admin(&self.connections.kafka_brokers, "holdfast-torture").create()?;
        let all = [&*topics.commands, &*topics.events, &*topics.dead_letters];
        admin.delete_topics(&all, &AdminOptions::new()).await?;
        let mut redis = self.redis()?;
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg(format!("{name}:*")).query(&mut redis)?;
        for some in keys.chunks(1_000) {
            redis::cmd("UNLINK").arg(some).exec(&mut redis)?;
        }
        Ok(())
    }

    /// A connection to Redis.
    ///
    /// # Errors
    /// It does not answer.
    pub fn redis(&self) -> anyhow::Result<redis::Connection> {
        let client = plumbing::redis::client(self.connections.redis_url.expose())?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(connection)
    }

    /// `host:port` of Redis.
    #[must_use]
    pub fn redis_address(&self) -> String {
        host_of(self.connections.redis_url.expose()).to_owned()
    }

    /// The proxy in front of Redis.
    #[must_use]
    pub fn redis_proxy(&self) -> &Proxy {
        &self.redis
    }

    /// Names of the processes of a role.
    #[must_use]
    pub fn of_role(&self, role: &str) -> Vec<String> {
        let of_role = |name: &&String| name.split('-').next() == Some(role);
        self.running.keys().filter(of_role).cloned().collect()
    }

    /// Base URLs of the ingresses, whether they run or not.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.ports
            .values()
            .map(|port| format!("http://127.0.0.1:{port}"))
            .collect()
    }

    /// Starts a process; `reserver-2` is a second reserver. It dies with this one.
    ///
    /// # Errors
    /// It does not start.
    pub fn spawn(&mut self, name: &str) -> anyhow::Result<()> {
        self.spawn_armed(name, "")
    }

    /// Starts a process that ends at a fail point.
    ///
    /// # Errors
    /// It does not start.
    pub fn spawn_armed(&mut self, name: &str, point: &str) -> anyhow::Result<()> {
        let role = name.split('-').next().unwrap_or(name);
        let port = match (role, self.ports.get(name)) {
            ("ingress", Some(port)) => *port,
            ("ingress", None) => {
                let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
                self.ports.insert(name.to_owned(), port);
                port
            }
            _ => 0,
        };
        let log = File::options().create(true).append(true).open(self.log_of(name))?;
        let connections = self.behind_proxies(name.ends_with("-1"));
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(std::env::current_exe()?)
            .arg(role)
            .envs(connections.environment())
            .env("HOLDFAST_HTTP_ADDR", format!("127.0.0.1:{port}"))
            .env(plumbing::failpoint::VARIABLE, point)
            .env_remove("HOLDFAST_ADMIN_ADDR")
            // A replica that is promoted knows no users.
            .env_remove("HOLDFAST_RESERVER_REDIS_LOGIN")
            .env_remove("HOLDFAST_EXPIRER_REDIS_LOGIN")
            .env_remove("HOLDFAST_TOKEN")
            .env(
                "HOLDFAST_LOG",
                "info,reserver=debug,persister=debug,ingress=info,expirer=debug",
            )
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("setpriv (util-linux) does not start")?;
        self.running.insert(name.to_owned(), child);
        Ok(())
    }

    /// Where a process finds the engines: Redis behind the proxy, the others too where it is the first of its role.
    fn behind_proxies(&self, all: bool) -> Connections {
        let mut connections = self.connections.clone();
        let behind = |url: &str, proxy: &Proxy| url.replace(host_of(url), &proxy.address.to_string());
        connections.redis_url = behind(connections.redis_url.expose(), &self.redis).into();
        if all {
            connections.postgres_url = behind(connections.postgres_url.expose(), &self.postgres).into();
            connections.kafka_brokers = self.kafka.address.to_string().into();
        }
        connections
    }

    /// Whether a process has ended, and then forgets it.
    ///
    /// # Errors
    /// There is no such process.
    pub fn has_ended(&mut self, name: &str) -> anyhow::Result<bool> {
        let child = self.running.get_mut(name);
        let ended = child
            .with_context(|| format!("{name} does not run"))?
            .try_wait()?
            .is_some();
        if ended {
            self.running.remove(name);
        }
        Ok(ended)
    }

    /// Where a process logs.
    #[must_use]
    pub fn log_of(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// There is no such process.
    pub async fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let mut child = self
            .running
            .remove(name)
            .with_context(|| format!("{name} does not run"))?;
        child.kill().await?;
        Ok(())
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Errors
    /// It does not end with 0 within half a minute.
    pub async fn end(&mut self, name: &str) -> anyhow::Result<()> {
        self.awaits_signals(name).await;
        self.signal(name, "TERM").await?;
        let mut child = self
            .running
            .remove(name)
            .with_context(|| format!("{name} does not run"))?;
        match tokio::time::timeout(Duration::from_secs(30), child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => {}
            Ok(status) => self.ended.push(format!("{name}, told to end, ended with {status:?}")),
            Err(_) => {
                self.ended.push(format!("{name}, told to end, did not within 30 s"));
                child.kill().await?;
            }
        }
        Ok(())
    }

    /// Waits until a process handles SIGTERM (proc(5), `SigCgt`): one that is only just starting would be killed by it.
    async fn awaits_signals(&self, name: &str) {
        const TERM: u64 = 1 << (15 - 1);
        let handles = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
            u64::from_str_radix(caught.trim(), 16)
                .ok()
                .map(|caught| caught & TERM != 0)
        };
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            match self.running.get(name).and_then(Child::id).and_then(handles) {
                Some(false) => tokio::time::sleep(Duration::from_millis(10)).await,
                _ => return,
            }
        }
    }

    /// Another signal.
    ///
    /// # Errors
    /// It cannot be sent.
    pub async fn signal(&self, name: &str, signal: &str) -> anyhow::Result<()> {
        let child = self.running.get(name).with_context(|| format!("{name} does not run"))?;
        let id = child.id().with_context(|| format!("{name} has ended"))?.to_string();
        let done = Command::new("kill").args([&format!("-{signal}"), &id]).status().await?;
        anyhow::ensure!(done.success(), "{name} could not be sent SIG{signal}");
        Ok(())
    }

    /// Starts again what has ended by itself, and notes it: nobody should.
    ///
    /// # Errors
    /// It does not start.
    pub fn mind(&mut self) -> anyhow::Result<()> {
        let mut gone = Vec::new();
        for (name, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                gone.push((name.clone(), status));
            }
        }
        for (name, status) in gone {
            self.running.remove(&name);
            self.ended.push(format!("{name} ended by itself: {status}"));
            self.spawn(&name)?;
        }
        Ok(())
    }

    /// Runs `infra/services.sh <what> <engine>`.
    ///
    /// # Errors
    /// It fails.
    pub async fn services(&self, what: &str, engine: &str) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_of("services"))?;
        let done = Command::new(&self.services)
            .args([what, engine])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()
            .await
            .with_context(|| format!("{} does not start", self.services.display()))?;
        if !done.success() {
            bail!(
                "{} {what} {engine}: see {}",
                self.services.display(),
                self.log_of("services").display()
            );
        }
        Ok(())
    }

    /// Panics in the logs of all processes.
    #[must_use]
    pub fn panics(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(&self.logs) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for file in files.flatten() {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            let lines = text.lines().filter(|line| line.contains("panicked"));
            found.extend(lines.map(|line| format!("{}: {line}", name_of(&file.path()))));
        }
        found
    }
}

fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
