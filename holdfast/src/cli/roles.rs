//! The roles as subcommands: each alone, or all in one process.

use std::process::ExitCode;

use super::{alone, console as console_cli};
use clap::{Args, Subcommand};
use plumbing::{
    config::{Connections, Telemetry},
    service::{self, Context, DRAIN_DEADLINE},
    task::Tasks,
};

/// A role's whole command line.
#[derive(Args, Debug, Clone)]
pub struct Settings<O: Args> {
    #[command(flatten)]
    options: O,
    #[command(flatten)]
    connections: Connections,
    #[command(flatten)]
    telemetry: Telemetry,
}

/// Options of every role.
#[derive(Args, Debug, Clone)]
pub struct AllOptions {
    #[command(flatten)]
    pub(super) ingress: ingress::Options,
    #[command(flatten)]
    reserver: reserver::Options,
    #[command(flatten)]
    persister: persister::Options,
    #[command(flatten)]
    expirer: expirer::Options,
    #[command(flatten)]
    fulfiller: fulfiller::Options,
    #[command(flatten)]
    pub(super) checkout: checkout::Options,
    #[command(flatten)]
    pub(super) console: console::Options,
}

/// The roles.
#[derive(Subcommand, Debug)]
pub enum Role {
    /// Serve HTTP: commands into the log, answers out of it
    Ingress(Box<Settings<ingress::Options>>),
    /// Decide commands, lane by lane
    Reserver(Box<Settings<reserver::Options>>),
    /// Write the log's picture into Postgres
    Persister(Box<Settings<persister::Options>>),
    /// Ask for the release of holds that are due
    Expirer(Box<Settings<expirer::Options>>),
    /// Ship what is paid; serves the orders' calls at an address of their own, `all` beside the API
    Fulfiller(Box<Settings<alone::Fulfiller>>),
    /// Bring payments to their end; serves checkout's calls at an address of their own, `all` beside the API
    Checkout(Box<Settings<alone::Checkout>>),
    /// Serve the console at an address of its own; `all` serves it beside the API
    Console(Box<Settings<console_cli::Alone>>),
    /// Every role in one process; if one fails, all stop
    All(Box<Settings<AllOptions>>),
}

impl Role {
    /// Runs the role until it is told to stop.
    pub fn run(self) -> ExitCode {
        match self {
            Self::Ingress(settings) => serve("ingress", *settings, ingress::run),
            Self::Reserver(settings) => serve("reserver", *settings, reserver::run),
            Self::Persister(settings) => serve("persister", *settings, persister::run),
            Self::Expirer(settings) => serve("expirer", *settings, expirer::run),
            Self::Fulfiller(settings) => serve("fulfiller", *settings, alone::fulfiller),
            Self::Checkout(settings) => serve("checkout", *settings, alone::checkout),
            Self::Console(settings) => serve("console", *settings, console_cli::run),
            Self::All(settings) => serve("holdfast", *settings, all),
        }
    }
}

fn serve<O: Args, F>(
    name: &'static str,
    settings: Settings<O>,
    run: impl FnOnce(Connections, O, Context) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    service::block_on_service(name, &settings.telemetry, |context| {
        run(settings.connections, settings.options, context)
    })
}

/// Every role side by side. The ingress serves the health and the metrics of all.
async fn all(connections: Connections, options: AllOptions, context: Context) -> anyhow::Result<()> {
    let mut roles: Tasks<anyhow::Error> = Tasks::new(&context.stop);
    // The roles watch the stop of the set, so that the end of one is the end of all.
    let context = Context {
        stop: roles.stop().clone(),
        ..context
    };
    let console = console_cli::beside(&connections, &options, context.stop.clone())?;
    let desk = connections
        .clone()
        .logged_in(options.fulfiller.fulfiller_postgres_login.as_ref(), None);
    let orders = fulfiller::router(&desk, alone::gate(options.ingress.token.clone()))?;
    let payments = checkout::Checkout::new(&connections, options.checkout, context.role("checkout"))?;
    let calls = payments.router(alone::gate(options.ingress.token.clone()));
    let beside = orders.merge(calls).merge(console.into());
    let connect = || connections.clone();
    roles.spawn(
        "reserver",
        reserver::run(connect(), options.reserver, context.role("reserver")),
    );
    roles.spawn(
        "persister",
        persister::run(connect(), options.persister, context.role("persister")),
    );
    roles.spawn(
        "expirer",
        expirer::run(connect(), options.expirer, context.role("expirer")),
    );
    roles.spawn("checkout", payments.run());
    roles.spawn(
        "fulfiller",
        fulfiller::run(connect(), options.fulfiller, context.role("fulfiller")),
    );
    roles.spawn(
        "ingress",
        ingress::run_beside(connect(), options.ingress, context.role("ingress"), beside),
    );
    roles.join_all(DRAIN_DEADLINE).await
}
