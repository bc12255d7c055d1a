//! A world: topics, tables and Redis keys of its own, and the processes of the `holdfast` binary that work on them.

use std::{
    collections::BTreeMap,
    fs::File,
    path::PathBuf,
    process::Stdio,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{Lane, Sku};
use holdfast::{setup, verify};
use plumbing::config::Connections;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tokio::{
    process::{Child, Command},
    runtime::Runtime,
    sync::OnceCell,
};

/// The binary under test.
const HOLDFAST: &str = env!("CARGO_BIN_EXE_holdfast");
/// The longest wait that the ingress grants.
const PATIENTLY: &str = "wait=30";
/// How long anything may take to come up or settle.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The one runtime of all tests of this binary: worlds and their clients are shared between tests.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// Runs a test.
pub fn play<T>(test: impl Future<Output = T>) -> T {
    RUNTIME.block_on(test)
}

/// How often a repeated case runs: a few times, or as often as the promise is stated for.
pub fn times(few: usize, full: usize) -> usize {
    if std::env::var_os("HOLDFAST_TEST_FULL").is_some() {
        full
    } else {
        few
    }
}

/// What a world is made of, before it starts.
pub struct Setup {
    pub connections: Connections,
    pub lanes: u16,
    /// Which processes, each by its subcommand.
    pub processes: Vec<&'static str>,
    /// Settings of all processes.
    pub environment: BTreeMap<String, String>,
}

impl Setup {
    /// All roles in one process, four lanes, on the engines that the environment names.
    pub fn new() -> Self {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let name = format!("w{}x{}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
        let mut connections = Connections::from_env();
        let server = connections.postgres_url.expose().to_owned();
        let (server, _) = server.rsplit_once('/').expect("a database URL has a database");
        connections.postgres_url = format!("{server}/{name}").into();
        connections.topic_prefix = format!("{name}.");
        connections.redis_prefix = name;
        Self {
            connections,
            lanes: 4,
            processes: vec!["all"],
            environment: BTreeMap::new(),
        }
    }

    /// Each role in a process of its own, so that each can be killed.
    pub fn apart(mut self) -> Self {
        self.processes = vec!["ingress", "reserver", "persister", "expirer"];
        self
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// Creates topics, schemas and tables, starts the processes, and waits until the ingress is ready.
    pub async fn start(self) -> World {
        let world = self.prepare().await;
        for process in world.processes.clone() {
            world.spawn(process).await;
        }
        world.ready().await;
        world
    }

    /// Creates topics, schemas and tables, and starts nothing.
    pub async fn prepare(self) -> World {
        let world = self.unprepared();
        world.set_up().await;
        world
    }

    /// Names only: nothing exists yet.
    pub fn unprepared(self) -> World {
        let port = free_port();
        World {
            url: format!("http://127.0.0.1:{port}"),
            port,
            connections: self.connections,
            lanes: self.lanes,
            processes: self.processes,
            environment: self.environment,
            running: tokio::sync::Mutex::default(),
            client: plumbing::tls::plain_client()
                .no_proxy()
                .timeout(Duration::from_secs(40))
                .build()
                .expect("a client"),
        }
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// A running system.
pub struct World {
    pub url: String,
    port: u16,
    pub connections: Connections,
    pub lanes: u16,
    processes: Vec<&'static str>,
    environment: BTreeMap<String, String>,
    running: tokio::sync::Mutex<BTreeMap<&'static str, Child>>,
    pub client: reqwest::Client,
}

/// An HTTP answer: its status, the headers that clients look at, and its JSON.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// A problem's stable code.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn hold_id(&self) -> String {
        self.body["hold_id"]
            .as_str()
            .unwrap_or_else(|| panic!("no hold in {self:?}"))
            .to_owned()
    }

    pub fn state(&self) -> &str {
        self.body["state"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl World {
    /// The world that tests without faults share.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<&'static World> = OnceCell::const_new();
        // Its processes outlive every test of this binary; they end with it (see `spawn`).
        SHARED
            .get_or_init(|| async { &*Box::leak(Box::new(Setup::new().start().await)) })
            .await
    }

    /// Creates topics, schemas and tables.
    pub async fn set_up(&self) {
        let options = setup::TopicOptions {
            lanes: self.lanes,
            replication: 1,
        };
        setup::topics(&self.connections, options).await.expect("topics");
        setup::schemas(&self.connections).await.expect("schemas");
        self.create_database().await;
        setup::migrate(&self.connections).await.expect("tables");
    }

    async fn create_database(&self) {
        let url = self.connections.postgres_url.expose();
        let (server, name) = url.rsplit_once('/').expect("a database URL has a database");
        let mut server = sqlx::PgConnection::connect(&format!("{server}/postgres"))
            .await
            .expect("Postgres answers");
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut server)
            .await
            .expect("a database");
    }

    /// What its processes are told.
    pub fn environment(&self) -> Vec<(String, String)> {
        let connections = &self.connections;
        let mut all = [
            ("HOLDFAST_HTTP_ADDR", format!("127.0.0.1:{}", self.port)),
            ("HOLDFAST_URL", self.url.clone()),
        ]
        .into_iter()
        .chain(connections.environment())
        .map(|(name, value)| (name.to_owned(), value))
        .collect::<Vec<_>>();
        all.extend(self.environment.clone());
        all
    }

    /// Where a process' output goes, for whoever looks into a failure.
    pub fn log_of(&self, process: &str) -> PathBuf {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(self.connections.redis_prefix.as_str());
        std::fs::create_dir_all(&folder).expect("a folder for logs");
        folder.join(format!("{process}.log"))
    }

    /// Runs a command of the binary to its end: exit code, standard output, standard error.
    pub async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(HOLDFAST)
            .args(arguments)
            .envs(self.environment())
            .output()
            .await
            .expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (
            output.status.code().unwrap_or(-1),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// Starts a process, named by its subcommand (`reserver-2` is a second reserver). It dies with the test: the kernel
    /// sees to it even when the test is killed.
    pub async fn spawn(&self, process: &'static str) {
        self.spawn_with(process, &[]).await;
    }

    /// Starts a process with settings of its own.
    pub async fn spawn_with(&self, process: &'static str, settings: &[(&str, &str)]) {
        let role = process.split('-').next().expect("a role");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_of(process))
            .expect("a log");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", HOLDFAST, role])
            .envs(self.environment())
            .env(
                "HOLDFAST_LOG",
                "info,holdfast=debug,ingress=debug,reserver=debug,persister=debug,expirer=debug",
            )
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .kill_on_drop(true);
        // On a thread that lives as long as this binary: the kernel sends the signal when the *thread* ends.
        let child = RUNTIME
            .spawn(async move { command.spawn().expect("the binary starts") })
            .await
            .expect("no panic");
        self.running.lock().await.insert(process, child);
    }

    /// SIGKILL, by the process' own id.
    pub async fn kill(&self, process: &'static str) {
        let mut child = self.running.lock().await.remove(process).expect("it runs");
        child.kill().await.expect("killed");
    }

    /// The process' id.
    pub async fn pid(&self, process: &'static str) -> u32 {
        self.running.lock().await[process].id().expect("it runs")
    }

    /// Another signal (STOP, CONT, TERM).
    pub async fn signal(&self, process: &'static str, signal: &str) {
        let running = self.running.lock().await;
        let id = running[process].id().expect("it runs").to_string();
        let done = Command::new("kill")
            .args([&format!("-{signal}"), &id])
            .status()
            .await
            .expect("kill starts");
        assert!(done.success(), "{process} was sent {signal}");
    }

    /// Waits for a process that was told to end, and returns its exit code.
    pub async fn wait(&self, process: &'static str) -> i32 {
        let mut child = self.running.lock().await.remove(process).expect("it runs");
        let status = tokio::time::timeout(PATIENCE, child.wait())
            .await
            .expect("it ends in time")
            .expect("waited");
        status.code().unwrap_or(-1)
    }

    /// Whether a process has not ended.
    pub async fn is_running(&self, process: &'static str) -> bool {
        let mut running = self.running.lock().await;
        let child = running.get_mut(process).expect("it was started");
        child.try_wait().expect("it can be asked").is_none()
    }

    /// Whether a process ends by itself in time.
    pub async fn ends_within(&self, process: &'static str, time: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < time {
            if !self.is_running(process).await {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Waits until `/readyz` says yes.
    pub async fn ready(&self) {
        self.eventually("ready", async || {
            match self.client.get(format!("{}/readyz", self.url)).send().await {
                Ok(answer) if answer.status() == 200 => Ok(()),
                Ok(answer) => Err(answer.text().await.unwrap_or_default()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        // The reserver may be another process: a world is ready when every lane decides.
        let names: Vec<String> = Lane::all(self.lanes).map(|lane| self.sku_in(lane, "ready")).collect();
        for name in names {
            self.eventually("every lane decides", async || {
                let answer = self.set(&name, 1).await;
                if answer.status == 200 {
                    Ok(())
                } else {
                    Err(format!("{answer:?}"))
                }
            })
            .await;
        }
    }

    /// Repeats until it works; fails with the last reason when that takes too long.
    pub async fn eventually<T>(&self, what: &str, attempt: impl AsyncFn() -> Result<T, String>) -> T {
        let begun = Instant::now();
        loop {
            match attempt().await {
                Ok(done) => return done,
                Err(reason) if begun.elapsed() > PATIENCE => {
                    panic!(
                        "{what}: {reason} (logs: {})",
                        self.log_of("x").parent().expect("a folder").display()
                    )
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        }
    }

    /// A SKU that lives in a lane.
    pub fn sku_in(&self, lane: Lane, name: &str) -> String {
        (0..)
            .map(|number| format!("{name}-{number}"))
            .find(|sku| Lane::of_sku(&Sku::parse(sku).expect("a SKU"), self.lanes) == lane)
            .expect("some number fits")
    }

    /// Several SKUs of one lane.
    pub fn skus_in(&self, lane: Lane, name: &str, count: usize) -> Vec<String> {
        (0..)
            .map(|number| format!("{name}-{number}"))
            .filter(|sku| Lane::of_sku(&Sku::parse(sku).expect("a SKU"), self.lanes) == lane)
            .take(count)
            .collect()
    }

    pub async fn request(&self, request: reqwest::RequestBuilder) -> Answer {
        self.try_request(request).await.expect("the ingress answers")
    }

    /// On the one runtime: a connection of the pool ends with the runtime that drives it, and other tests use it, too.
    pub async fn try_request(&self, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let answered = RUNTIME.spawn(async move {
            let response = request.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Ok((status, headers, response.text().await?))
        });
        let (status, headers, text) = answered.await.expect("no panic")?;
        Ok(Answer {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        })
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request(self.client.get(format!("{}{path}", self.url))).await
    }

    pub fn posting(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).json(body)
    }

    /// Posts, and waits for the decision as long as the ingress allows: a busy machine is no failure.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(self.posting(path, body).header("Prefer", PATIENTLY)).await
    }

    pub async fn post_keyed(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.request(
            self.posting(path, body)
                .header("Idempotency-Key", key)
                .header("Prefer", PATIENTLY),
        )
        .await
    }

    /// Sets stock on hand.
    pub async fn set(&self, sku: &str, units: i64) -> Answer {
        self.post(
            "/v1/stock/adjustments",
            &json!({"sku": sku, "set": units, "reason": "test"}),
        )
        .await
    }

    /// Makes a SKU with so many units.
    pub async fn stock(&self, sku: &str, units: i64) {
        let answer = self.set(sku, units).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// A reserve body of one line.
    pub fn wanting(sku: &str, quantity: i64, user: &str) -> Value {
        json!({"lines": [{"sku": sku, "quantity": quantity}], "user_id": user})
    }

    /// Reserves one line under a key.
    pub async fn reserve(&self, key: &str, sku: &str, quantity: i64, user: &str) -> Answer {
        self.post_keyed("/v1/holds", key, &Self::wanting(sku, quantity, user))
            .await
    }

    pub async fn confirm(&self, hold_id: &str) -> Answer {
        self.post(
            &format!("/v1/holds/{hold_id}/confirm"),
            &json!({"payment_ref": "payment-1"}),
        )
        .await
    }

    pub async fn cancel(&self, hold_id: &str) -> Answer {
        self.post(&format!("/v1/holds/{hold_id}/cancel"), &json!({"reason": "test"}))
            .await
    }

    /// (on_hand, held, allocated, available) of a SKU.
    pub async fn counters(&self, sku: &str) -> (i64, i64, i64, i64) {
        let answer = self.get(&format!("/v1/stock/{sku}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let number = |name: &str| {
            answer.body[name]
                .as_i64()
                .unwrap_or_else(|| panic!("no {name} in {answer:?}"))
        };
        (
            number("on_hand"),
            number("held"),
            number("allocated"),
            number("available"),
        )
    }

    /// Waits until nothing moves, and fails unless the log, Redis and Postgres agree.
    pub async fn assert_verified(&self) -> verify::Report {
        let report = verify::run(&self.connections, verify::Options::at_rest())
            .await
            .expect("verify can look");
        assert!(report.agrees(), "{:#?}", report.differences);
        report
    }
}
