//! Holdfast's own tools, run as a person at a terminal would: `show`, `lanes`; `letters` and `checks` run theirs by it.
//!
//! A tool is a process of its own: what it reads of a log costs the console nothing when it is done, and one that hangs is
//! ended. Their arguments are parsed values, never a person's text.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::Context as _;
use axum::{
    Json,
    extract::{Path, State},
    response::IntoResponse,
};
use domain::HoldId;
use plumbing::config::Connections;
use serde_json::Value;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    sync::Semaphore,
};

use crate::{
    Api, App,
    access::Person,
    problem::{Answer, Problem},
};

/// Tools at work at once.
const RUNNING_MAX: usize = 3;
/// A tool that takes longer is ended.
const TIMEOUT: Duration = Duration::from_secs(90);

pub struct Tools {
    program: PathBuf,
    environment: Vec<(&'static str, String)>,
    running: Semaphore,
}

/// How a tool ended.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    error: String,
}

impl Tools {
    pub fn new(connections: &Connections, api: &Api) -> anyhow::Result<Self> {
        let mut environment = connections.environment();
        environment.push(("HOLDFAST_URL", api.url.clone()));
        environment.extend(api.token.clone().map(|token| ("HOLDFAST_TOKEN", token)));
        Ok(Self {
            program: std::env::current_exe().context("the program's own file")?,
            environment,
            running: Semaphore::new(RUNNING_MAX),
        })
    }

    /// Runs a tool to its end.
    pub async fn run(&self, arguments: &[&str]) -> Result<Said, Problem> {
        self.run_on(arguments, "").await
    }

    /// Runs a tool that reads `input`.
    pub async fn run_on(&self, arguments: &[&str], input: &str) -> Result<Said, Problem> {
        let _turn = self
            .running
            .try_acquire()
            .map_err(|_| Problem::too_many("other tools are at work: try again in a moment"))?;
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .env("HOLDFAST_LOG", "warn")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let running = async {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // A tool that reads nothing may have closed it.
                let _closed = stdin.write_all(input.as_bytes()).await;
            }
            child.wait_with_output().await
        };
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

    /// Starts a role in a process of its own, which dies with this one: the kernel sees to it.
    pub fn start(&self, role: &str) -> Result<Child, Problem> {
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(&self.program)
            .arg(role)
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .env_remove("HOLDFAST_ADMIN_ADDR")
            .env("HOLDFAST_LOG", "warn")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Problem::unavailable(format!("setpriv (util-linux) does not start: {error}")))
    }
}

impl Said {
    /// The JSON that it printed.
    pub fn json(self) -> Result<Value, Problem> {
        serde_json::from_str(&self.out).map_err(|_| self.failed())
    }

    /// Its own words for why it did not work.
    pub fn failed(&self) -> Problem {
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
