//! Holdfast's own tools, run as a person at a terminal would: `show`, `lanes`, `verify`, `dead-letters`.
//!
//! A tool is a process of its own: what it reads of a log costs the console nothing when it is done, and one that hangs is
//! ended. Their arguments are parsed values, never a person's text.

use std::{path::PathBuf, process::Stdio, sync::Mutex, sync::PoisonError, time::Duration};

use anyhow::Context as _;
use axum::{
    Json,
    extract::{Path, State},
    response::IntoResponse,
};
use domain::HoldId;
use plumbing::config::Connections;
use serde_json::{Value, json};
use tokio::{process::Command, sync::Semaphore};

use crate::{
    Api, App,
    access::Person,
    audit,
    problem::{Answer, Problem},
    users::Role,
};

/// Tools at work at once.
const RUNNING_MAX: usize = 3;
/// A tool that takes longer is ended.
const TIMEOUT: Duration = Duration::from_secs(90);

pub struct Tools {
    program: PathBuf,
    environment: Vec<(&'static str, String)>,
    running: Semaphore,
    last_verify: Mutex<Value>,
}

struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

impl Tools {
    pub fn new(connections: &Connections, api: &Api) -> anyhow::Result<Self> {
        let mut environment = vec![
            ("HOLDFAST_KAFKA_BROKERS", connections.kafka_brokers.clone()),
            ("HOLDFAST_TOPIC_PREFIX", connections.topic_prefix.clone()),
            ("HOLDFAST_REGISTRY_URL", connections.registry_url.expose().to_owned()),
            ("HOLDFAST_REDIS_URL", connections.redis_url.expose().to_owned()),
            ("HOLDFAST_REDIS_PREFIX", connections.redis_prefix.clone()),
            ("HOLDFAST_POSTGRES_URL", connections.postgres_url.expose().to_owned()),
            ("HOLDFAST_URL", api.url.clone()),
        ];
        environment.extend(api.token.clone().map(|token| ("HOLDFAST_TOKEN", token)));
        Ok(Self {
            program: std::env::current_exe().context("the program's own file")?,
            environment,
            running: Semaphore::new(RUNNING_MAX),
            last_verify: Mutex::new(Value::Null),
        })
    }

    async fn run(&self, arguments: &[&str]) -> Result<Said, Problem> {
        let _turn = self
            .running
            .try_acquire()
            .map_err(|_| Problem::too_many("other tools are at work: try again in a moment"))?;
        let running = Command::new(&self.program)
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .env("HOLDFAST_LOG", "warn")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(TIMEOUT, running)
            .await
            .map_err(|_| Problem::unavailable(format!("the tool took longer than {} s", TIMEOUT.as_secs())))?
            .map_err(|error| Problem::unavailable(format!("the tool could not be started: {error}")))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        Ok(Said {
            code: output.status.code(),
            out: text(output.stdout),
            error: text(output.stderr),
        })
    }
}

impl Said {
    /// The JSON that it printed.
    fn json(self) -> Result<Value, Problem> {
        serde_json::from_str(&self.out).map_err(|_| self.failed())
    }

    fn failed(&self) -> Problem {
        let line = self.error.lines().last().unwrap_or("the tool said nothing");
        Problem::refused(line.trim_start_matches("error: "))
    }
}

/// A hold's whole life.
pub async fn show(State(app): State<App>, _person: Person, Path(hold_id): Path<String>) -> Answer {
    let hold_id = HoldId::parse(&hold_id).map_err(|invalid| Problem::invalid(invalid.to_string()))?;
    let said = app.tools.run(&["show", &hold_id.to_string(), "--json"]).await?;
    Ok(Json(said.json()?).into_response())
}

/// Who owns each lane, and how far everybody is.
pub async fn lanes(State(app): State<App>, _person: Person) -> Answer {
    Ok(Json(app.tools.run(&["lanes", "--json"]).await?.json()?).into_response())
}

/// What the last "verify now" found.
pub async fn last_verify(State(app): State<App>, _person: Person) -> Answer {
    let last = app
        .tools
        .last_verify
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    Ok(Json(last).into_response())
}

/// Verifies now. It only reads, so whoever may look may ask for it.
pub async fn verify(State(app): State<App>, person: Person) -> Answer {
    let said = app.tools.run(&["verify", "--json"]).await?;
    let agrees = said.code == Some(0);
    let verified = json!({"at": plumbing::time::now_ms(), "by": person.name, "agrees": agrees, "report": said.json()?});
    app.tools
        .last_verify
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone_from(&verified);
    Ok(Json(verified).into_response())
}

/// All records that could not be read.
pub async fn dead_letters(State(app): State<App>, _person: Person) -> Answer {
    let said = app.tools.run(&["dead-letters", "list", "--json"]).await?;
    if said.code != Some(0) {
        return Err(said.failed());
    }
    let letters: Vec<Value> = said
        .out
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    Ok(Json(letters).into_response())
}

/// One of them, as text: where, why, its bytes, and what they mean if they can be read by now.
pub async fn dead_letter(State(app): State<App>, _person: Person, Path(offset): Path<u32>) -> Answer {
    let said = app.tools.run(&["dead-letters", "show", &offset.to_string()]).await?;
    if said.code != Some(0) {
        return Err(said.failed());
    }
    Ok(Json(json!({"text": said.out})).into_response())
}

/// Sends one where it belongs.
pub async fn send_dead_letter(State(app): State<App>, person: Person, Path(offset): Path<u32>) -> Answer {
    person.must_be(Role::Operator)?;
    let begun = audit::begin(&app, &person, "send_dead_letter", &offset.to_string(), json!({})).await?;
    let said = app.tools.run(&["dead-letters", "send", &offset.to_string()]).await;
    let is_sent = said.as_ref().is_ok_and(|said| said.code == Some(0));
    begun.end(if is_sent { "ok" } else { "refused" }).await;
    let said = said?;
    if !is_sent {
        return Err(said.failed());
    }
    Ok(Json(json!({"text": said.out})).into_response())
}
