//! A role as a process: configuration in, an exit code out.
//!
//! ```text
//! parse -> logs, traces, metrics -> signals -> admin server -> run(config, context) -> drain -> flush -> exit code
//! ```
//!
//! SIGTERM and SIGINT ask for a stop: not ready any more, then the role drains. Whatever happens then (a consumer's close
//! that hangs, a task that ignores the stop), the process ends within [`SHUTDOWN_DEADLINE`], and says so if it was cut off.
//! A second signal ends it at once.

use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Once;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, FromArgMatches};
use futures::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Telemetry, without_secrets};
use crate::health::{self, Health};
use crate::stop::{self, Stop, Stopper};
use crate::telemetry::{self, MetricsHandle};
use crate::{files, http, task};

/// From the stop to the end of a service, at most.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(15);

/// What a role may give its tasks out of that: the rest is for closing consumers and flushing.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(11);
const _: () = assert!(DRAIN_DEADLINE.as_millis() < SHUTDOWN_DEADLINE.as_millis());

/// From Ctrl-C to the end of a command. Somebody is waiting at a terminal.
const COMMAND_DEADLINE: Duration = Duration::from_secs(3);

/// What a running role is given. Clones are the same.
#[derive(Clone, Debug)]
pub struct Context {
    /// The role, such as `reserver`.
    pub name: &'static str,
    /// Asked for when the process has to end.
    pub stop: Stop,
    /// Where the role says what it waits for.
    pub health: Health,
    /// The process's metrics, for whoever serves `/metrics`.
    pub metrics: MetricsHandle,
}

impl Context {
    /// A context with a health of its own, for a test or an embedded role.
    #[must_use]
    pub fn new(name: &'static str, stop: Stop) -> Self {
        Self {
            name,
            stop,
            health: Health::new(),
            metrics: MetricsHandle::install(),
        }
    }

    /// The context of one of several roles in this process: components are reported as `<name>.<component>`.
    #[must_use]
    pub fn role(&self, name: &'static str) -> Self {
        Self {
            name,
            health: self.health.scoped(name),
            ..self.clone()
        }
    }
}

/// The `main` of a role's own binary: the command line and the environment give `C` and [`Telemetry`].
pub fn main<C, F, Fut>(name: &'static str, run: F) -> ExitCode
where
    C: Args,
    F: FnOnce(C, Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let command = clap::Command::new(name).version(env!("CARGO_PKG_VERSION"));
    let command = Telemetry::augment_args(C::augment_args(command));
    let parsed = command
        .clone()
        .try_get_matches()
        .and_then(|matches| Ok((C::from_arg_matches(&matches)?, Telemetry::from_arg_matches(&matches)?)));
    match parsed.map_err(|error| without_secrets(&command, error)) {
        Ok((config, telemetry)) => block_on_service(name, &telemetry, |context| run(config, context)),
        Err(error) => error.exit(),
    }
}

/// A role at work: what its `run` gives. Boxed there, so that a role is compiled once, in its library, and not again in every binary
/// that polls it.
pub type Running = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// Runs a role until it ends or is asked to stop, for a binary that has parsed its command line itself.
pub fn block_on_service<F, Fut>(name: &'static str, telemetry: &Telemetry, make: F) -> ExitCode
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    block_on(
        Process {
            name,
            deadline: SHUTDOWN_DEADLINE,
            talkative: true,
        },
        telemetry,
        make,
    )
}

/// Runs a command that somebody waits for: no lines about start and stop, no admin server, a failure as `error: ...`.
pub fn block_on_command<F, Fut>(name: &'static str, telemetry: &Telemetry, make: F) -> ExitCode
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    block_on(
        Process {
            name,
            deadline: COMMAND_DEADLINE,
            talkative: false,
        },
        telemetry,
        make,
    )
}

#[derive(Clone, Copy)]
struct Process {
    name: &'static str,
    deadline: Duration,
    /// A service tells its life to the log; a command answers a person.
    talkative: bool,
}

impl Process {
    fn failed(self, error: &anyhow::Error) -> ExitCode {
        if self.talkative {
            tracing::error!("{} failed: {error:#}", self.name);
        } else {
            eprintln!("error: {error:#}");
        }
        ExitCode::FAILURE
    }

    fn say(self, what: impl Display) {
        if self.talkative {
            tracing::info!("{} {what}", self.name);
        }
    }

    /// From now on the deadline runs. A thread of its own: whatever hangs, it does not.
    fn end_within_deadline(self) {
        static STARTED: Once = Once::new();
        STARTED.call_once(|| {
            drop(task::thread("deadline", move || {
                thread::sleep(self.deadline);
                let deadline_ms = self.deadline.as_millis();
                tracing::error!(
                    deadline_ms,
                    "{} did not stop within {deadline_ms} ms and is cut off",
                    self.name
                );
                exit(1);
            }));
        });
    }
}

fn block_on<F, Fut>(process: Process, telemetry: &Telemetry, make: F) -> ExitCode
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let guard = match telemetry::init(process.name, telemetry) {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2); // As clap does for a wrong command line.
        }
    };
    let metrics = MetricsHandle::install();
    files::raise_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name(process.name)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return process.failed(&anyhow::Error::new(error).context("no runtime")),
    };
    let (stopper, stop) = stop::pair();
    let context = Context {
        name: process.name,
        stop,
        health: Health::new(),
        metrics,
    };
    let admin_addr = telemetry.admin_addr.filter(|_| process.talkative);
    let result = runtime.block_on(live(process, context, stopper, admin_addr, make));
    // Tasks that the role left behind end here, at their next await.
    process.end_within_deadline();
    runtime.shutdown_timeout(Duration::from_secs(1));
    let code = match result {
        Ok(()) => {
            process.say("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => process.failed(&error),
    };
    guard.flush();
    code
}

async fn live<F, Fut>(
    process: Process,
    context: Context,
    stopper: Stopper,
    admin_addr: Option<std::net::SocketAddr>,
    make: F,
) -> anyhow::Result<()>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let signals = Signals::listen().context("the signal handlers cannot be installed")?;
    let waiting = task::spawn(
        "signals",
        signals.stop_then_exit(process, stopper, context.health.clone()),
    );
    // Up until the role has ended, so that probes see a process that drains, not one that is gone.
    let (admin_stopper, admin_stop) = stop::pair();
    let admin = match admin_addr {
        Some(addr) => {
            let router = health::router(context.health.clone(), context.metrics.clone());
            let (bound, serving) = http::serve(addr, router, admin_stop)
                .await
                .context("the admin server")?;
            tracing::info!(http.addr = %bound, "/livez, /readyz and /metrics are served");
            Some(task::spawn("admin", serving))
        }
        None => None,
    };
    process.say(format_args!("{} started", env!("CARGO_PKG_VERSION")));
    let running = AssertUnwindSafe(async { make(context).await }).catch_unwind();
    let result = running
        .await
        .unwrap_or_else(|panic| Err(anyhow::anyhow!("a panic: {}", task::panic_message(&*panic))));
    admin_stopper.stop();
    drop((admin, waiting)); // They end with the runtime.
    result
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next signal: its name and its number.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate().as_raw_value()),
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt().as_raw_value()),
        }
    }

    async fn stop_then_exit(mut self, process: Process, stopper: Stopper, health: Health) {
        let (name, _) = self.next().await;
        process.say(format_args!("stops: {name}"));
        health.stopping();
        process.end_within_deadline();
        stopper.stop();
        let (name, number) = self.next().await;
        process.say(format_args!("ends at once: a second signal, {name}"));
        exit(128 + number); // As a shell reports a process that a signal has killed.
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the two ends that wait for nobody: the deadline and a second signal"
)]
fn exit(code: i32) -> ! {
    std::process::exit(code)
}
