//! Secrets are never said: the whole system runs with marked ones at the most talkative level, through good calls, bad calls
//! and engines that refuse or do not answer; then everything that it has said is searched for the mark.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::world::{Setup, World};

/// In every secret of these tests, and in nothing else.
const MARK: &str = "k4n4r13";

/// A user of both engines with a marked password, who goes with the test.
struct Marked {
    user: String,
    login: String,
}

impl Marked {
    async fn new(world: &World) -> Self {
        let user = format!("u{}", world.connections.redis_prefix);
        let marked = Self {
            login: format!("{user}:{MARK}-engine"),
            user,
        };
        let create = format!("CREATE ROLE {} SUPERUSER LOGIN PASSWORD '{MARK}-engine'", marked.user);
        marked.in_postgres(world, create).await;
        let password = format!(">{MARK}-engine");
        let rights = ["SETUSER", &marked.user, "on", &password, "~*", "&*", "+@all"];
        marked.in_redis(world, &rights);
        marked
    }

    async fn remove(self, world: &World) {
        self.in_redis(world, &["DELUSER", &self.user]);
        self.in_postgres(world, format!("DROP ROLE {}", self.user)).await;
    }

    async fn in_postgres(&self, world: &World, statement: String) {
        let mut postgres = PgConnection::connect(world.connections.postgres_url.expose())
            .await
            .expect("Postgres answers");
        let done = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut postgres).await;
        done.expect("the administrator may");
    }

    fn in_redis(&self, world: &World, arguments: &[&str]) {
        let client = plumbing::redis::client(world.connections.redis_url.expose()).expect("a URL");
        let mut connection = client.get_connection().expect("Redis answers");
        redis::cmd("ACL")
            .arg(arguments)
            .exec(&mut connection)
            .expect("the administrator may");
    }
}

const LOGINS: [&str; 9] = [
    "HOLDFAST_INGRESS_POSTGRES_LOGIN",
    "HOLDFAST_RESERVER_POSTGRES_LOGIN",
    "HOLDFAST_PERSISTER_POSTGRES_LOGIN",
    "HOLDFAST_EXPIRER_POSTGRES_LOGIN",
    "HOLDFAST_CHECKOUT_POSTGRES_LOGIN",
    "HOLDFAST_FULFILLER_POSTGRES_LOGIN",
    "HOLDFAST_CONSOLE_POSTGRES_LOGIN",
    "HOLDFAST_RESERVER_REDIS_LOGIN",
    "HOLDFAST_EXPIRER_REDIS_LOGIN",
];

/// Secrets that are wrong or right wherever the process runs.
fn secrets(login: &str) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("HOLDFAST_LOG", "trace".to_owned()),
        ("HOLDFAST_TOKEN", format!("{MARK}-token")),
        ("STRIPE_SECRET_KEY", format!("sk_test_{MARK}")),
        ("STRIPE_WEBHOOK_SECRET", format!("whsec_{MARK}")),
        ("HOLDFAST_KAFKA_USER", "nobody".to_owned()),
        ("HOLDFAST_KAFKA_PASSWORD", format!("{MARK}-kafka")),
    ];
    settings.extend(LOGINS.map(|name| (name, login.to_owned())));
    settings
}

/// Everything that was said, each with who said it.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn hears(&mut self, who: impl Into<String>, what: String) {
        self.0.push((who.into(), what));
    }

    async fn hears_run(&mut self, world: &World, settings: &[(&'static str, String)], arguments: &[&str]) {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command
            .args(arguments)
            .envs(world.environment())
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .kill_on_drop(true);
        // Some of them wait for an engine that will not come.
        let Ok(output) = tokio::time::timeout(Duration::from_secs(12), command.output()).await else {
            return;
        };
        let output = output.expect("the binary starts");
        for text in [output.stdout, output.stderr] {
            self.hears(format!("{arguments:?}"), String::from_utf8_lossy(&text).into_owned());
        }
    }

    fn hears_log(&mut self, world: &World, process: &str) {
        let log = std::fs::read(world.log_of(process)).expect("a log");
        self.hears(process, String::from_utf8_lossy(&log).into_owned());
    }

    #[track_caller]
    fn holds_no_secret(&self) {
        let mut leaks = Vec::new();
        for (who, what) in &self.0 {
            leaks.extend(
                what.lines()
                    .filter(|line| line.contains(MARK))
                    .map(|line| format!("{who}: {line:.400}")),
            );
        }
        leaks.truncate(20);
        assert!(leaks.is_empty(), "{}", leaks.join("\n"));
    }

    /// The words that show that the secrets were in use at all.
    #[track_caller]
    fn mentions(&self, who: &str, word: &str) {
        let said = self
            .0
            .iter()
            .any(|(speaker, what)| speaker == who && what.contains(word));
        assert!(said, "{who} never said {word}");
    }
}

async fn answers(world: &World, path: &str, status: u16) {
    let begun = Instant::now();
    loop {
        let answer = world.client.get(format!("{}{path}", world.url)).send().await;
        if answer.is_ok_and(|answer| answer.status() == status) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{path} is never {status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Calls with the token, without it, and with what should not be said back.
async fn calls(world: &World, said: &mut Said) {
    let bodies = [
        (
            "POST",
            "/v1/stock/adjustments",
            json!({"sku": "canary", "set": 5, "reason": "test"}),
        ),
        (
            "POST",
            "/v1/holds",
            json!({"lines": [{"sku": "canary", "quantity": 1}], "user_id": "u"}),
        ),
        ("POST", "/v1/holds", json!({"token": format!("{MARK}-body")})),
        (
            "POST",
            "/console/api/login",
            json!({"name": "admin", "password": format!("{MARK}-console")}),
        ),
        (
            "POST",
            "/v1/webhooks/stripe",
            json!({"id": "evt_1", "type": "payment_intent.succeeded"}),
        ),
        ("GET", "/v1/stock/canary", json!(null)),
        ("GET", "/v1/live", json!(null)),
        ("GET", "/metrics", json!(null)),
        ("GET", "/readyz", json!(null)),
        ("GET", "/openapi.json", json!(null)),
    ];
    for token in [format!("{MARK}-token"), format!("{MARK}-wrong")] {
        for (method, path, body) in &bodies {
            if body.get("token").is_some() {
                continue; // What a body holds may be quoted to whoever sent it.
            }
            let answer = world
                .client
                .request(method.parse().expect("a method"), format!("{}{path}", world.url))
                .bearer_auth(&token)
                .header("stripe-signature", format!("t=1,v1={MARK}"))
                .json(body)
                .send()
                .await;
            let answer = answer.expect("an answer");
            let headers = format!("{:?}", answer.headers());
            let text = answer.text().await.expect("a body");
            said.hears(*path, format!("{headers}\n{text}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_said_at_any_level_by_a_system_that_works() {
    let world = Setup::new().prepare().await;
    let marked = Marked::new(&world).await;
    let settings = secrets(&marked.login);
    let borrowed: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    world.spawn_with("all", &borrowed).await;
    answers(&world, "/readyz", 200).await;
    let mut said = Said::default();
    calls(&world, &mut said).await;
    for arguments in [
        &["doctor"][..],
        &["verify"],
        &["lanes"],
        &["stock", "show", "canary"],
        &["--help"],
        &["all", "--help"],
    ] {
        said.hears_run(&world, &settings, arguments).await;
    }
    world.signal("all", "TERM").await;
    world.wait("all").await;
    said.hears_log(&world, "all");
    marked.remove(&world).await;
    said.holds_no_secret();
    said.mentions("all", "TRACE");
    said.mentions("/v1/stock/canary", "\"on_hand\":5");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_said_when_engines_refuse_or_do_not_answer() {
    let world = Setup::new().prepare().await;
    let mut said = Said::default();
    let wrong = format!("holdfast:{MARK}-wrong");
    let server = |scheme: &str, port: u16| format!("{scheme}://holdfast:{MARK}-url@127.0.0.1:{port}");
    let refused = {
        let mut settings = secrets(&wrong);
        settings.push(("HOLDFAST_STRIPE_URL", server("http", 1)));
        settings
    };
    let unreachable = {
        let mut settings = secrets(&wrong);
        settings.extend([
            ("HOLDFAST_POSTGRES_URL", server("postgres", 1) + "/x"),
            ("HOLDFAST_REDIS_URL", server("redis", 1)),
            ("HOLDFAST_REGISTRY_URL", server("http", 1)),
            ("HOLDFAST_KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT".to_owned()),
        ]);
        settings
    };
    for (process, settings) in [("all-2", refused), ("all-3", unreachable)] {
        let borrowed: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        world.spawn_with(process, &borrowed).await;
        answers(&world, "/livez", 200).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        calls(&world, &mut said).await;
        world.kill(process).await;
        said.hears_log(&world, process);
        for arguments in [&["doctor"][..], &["migrate"], &["topics"], &["verify"]] {
            said.hears_run(&world, &settings, arguments).await;
        }
    }
    // A value that is none is not repeated to whoever reads the log of the start.
    for (name, value) in [
        ("HOLDFAST_TOKEN", format!("{MARK} with a blank")),
        ("HOLDFAST_INGRESS_POSTGRES_LOGIN", MARK.to_owned()),
        ("HOLDFAST_RESERVER_REDIS_LOGIN", format!(":{MARK}")),
        ("HOLDFAST_POSTGRES_URL", format!("postgres://u:{MARK}@[/x")),
        ("HOLDFAST_REDIS_URL", format!("redis://u:{MARK}@:x:y")),
        ("HOLDFAST_REGISTRY_URL", format!("http://u:{MARK}@[")),
        ("STRIPE_SECRET_KEY", format!("sk_live_{MARK}")),
    ] {
        said.hears_run(&world, &[(name, value)], &["all"]).await;
    }
    said.holds_no_secret();
    said.mentions("all-2", "password authentication failed");
}
