//! Console: what the system does, and what a person may do about it, in a browser.
//!
//! In     HTTP under `/console`, from people who have logged in.
//! Out    calls of the HTTP API as the person (`X-Actor`), Holdfast's own tools, reads of Postgres.
//! Owns   the tables `console_users`, `console_sessions`, `audit_log`.
//!
//! ```text
//! page     the embedded web app, under a policy that lets nothing else in
//! access   users, sessions, roles, CSRF, the brake on guessing
//! pass     calls of the HTTP API      watch    live stock, passed on      tools    show, lanes, verify, dead letters
//! reads    movements and the audit    tour     a flash sale to look at    audit    what people did
//! ```
//!
//! It decides nothing about stock: whatever a person changes is a command in the log, like anybody's.

mod access;
mod audit;
mod brake;
mod page;
mod pass;
mod problem;
mod reads;
mod tools;
mod tour;
mod users;
mod watch;

use std::sync::Arc;

use anyhow::Context as _;
use axum::{
    Router,
    routing::{get, post},
};
use plumbing::{config::Connections, stop::Stop};
use sqlx::PgPool;

pub use users::{Role, add_user};

/// The console's own options.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Console")]
#[group(skip)]
pub struct Options {
    /// Send the console's cookie over HTTPS only: where a proxy in front speaks TLS
    #[arg(long, env = "HOLDFAST_CONSOLE_SECURE")]
    pub console_secure: bool,

    /// Offer the tour: buttons that start a flash sale. For a system on one's own machine
    #[arg(long, env = "HOLDFAST_TOUR")]
    pub tour: bool,
}

/// The HTTP API that the console speaks to.
#[derive(Clone)]
pub struct Api {
    /// Base URL, without a slash at the end.
    pub url: String,
    /// Its bearer token.
    pub token: Option<String>,
}

/// What every handler shares.
struct Console {
    options: Options,
    api: Api,
    client: reqwest::Client,
    pool: PgPool,
    brake: brake::Brake,
    tools: tools::Tools,
    stop: Stop,
}

type App = Arc<Console>;

/// The console's routes, to be served beside others.
///
/// # Errors
/// A Postgres URL that is none; a process that does not know its own file.
pub fn router(connections: &Connections, options: Options, api: Api, stop: Stop) -> anyhow::Result<Router> {
    let pool = plumbing::postgres::connect_lazy(&connections.postgres_url, "holdfast-console", 4)
        .context("HOLDFAST_POSTGRES_URL")?;
    let console = Console {
        tools: tools::Tools::new(connections, &api)?,
        client: reqwest::Client::builder()
            .no_proxy()
            .timeout(pass::TIMEOUT)
            .build()
            .context("an HTTP client")?,
        options,
        api,
        pool,
        brake: brake::Brake::default(),
        stop,
    };
    let calls = Router::new()
        .route("/login", post(access::log_in))
        .route("/logout", post(access::log_out))
        .route("/me", get(access::me))
        .route("/v1/{*path}", get(pass::read).post(pass::change).put(pass::change))
        .route("/live", get(watch::watch))
        .route("/metrics", get(pass::metrics))
        .route("/show/{hold_id}", get(tools::show))
        .route("/lanes", get(tools::lanes))
        .route("/verify", get(tools::last_verify).post(tools::verify))
        .route("/dead-letters", get(tools::dead_letters))
        .route("/dead-letters/{offset}", get(tools::dead_letter))
        .route("/dead-letters/{offset}/send", post(tools::send_dead_letter))
        .route("/movements", get(reads::movements))
        .route("/audit", get(reads::audit))
        .route("/tour/sale", post(tour::sale))
        .fallback(|| async { problem::Problem::not_found() });
    Ok(Router::new()
        .nest("/console/api", calls)
        .merge(page::routes())
        .with_state(Arc::new(console)))
}
