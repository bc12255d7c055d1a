//! Console: what the system does, and what a person may do about it, in a browser.
//!
//! In     HTTP under `/console`, from people who have logged in.
//! Out    calls of the HTTP API as the person (`X-Actor`), Holdfast's own tools, reads of Postgres.
//! Owns   the tables `console_users`, `console_sessions`, `dead_letters_sent`, `check_results`; writes `audit_log`.
//!
//! ```text
//! page     the embedded web app, under a policy that lets nothing else in
//! access   users, sessions, roles, CSRF, the brake on guessing
//! pass     calls of the HTTP API      watch    live stock, passed on      tools    show, lanes, as processes
//! letters  dead letters, corrected    checks   verify and torture         reads    what only Postgres knows
//! tour     a sale, a takeover         audit    what people did
//! ```
//!
//! It decides nothing about stock: whatever a person changes is a command in the log, like anybody's.

mod access;
mod audit;
mod brake;
mod checks;
mod letters;
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
use plumbing::{
    config::{Connections, Login},
    stop::Stop,
};
use sqlx::PgPool;

pub use tour::TestCard;
pub use users::{Role, add_user};

/// The console's own options.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Console")]
#[group(skip)]
pub struct Options {
    /// Login of the console at Postgres, as user:password; else that of HOLDFAST_POSTGRES_URL
    #[arg(
        long,
        env = "HOLDFAST_CONSOLE_POSTGRES_LOGIN",
        hide_env_values = true,
        value_name = "LOGIN"
    )]
    pub console_postgres_login: Option<Login>,

    /// Send the console's cookie over HTTPS only: where a proxy in front speaks TLS
    #[arg(long, env = "HOLDFAST_CONSOLE_SECURE")]
    pub console_secure: bool,

    /// Offer the tour: buttons that start sales, kill a reserver and pay with a test card. For a system on one's own machine
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
    test_card: Option<TestCard>,
    stage: tour::Stage,
    stop: Stop,
}

type App = Arc<Console>;

/// The console's routes, to be served beside others. `test_card`: where the tour pays.
///
/// # Errors
/// A Postgres URL that is none; a process that does not know its own file.
pub fn router(
    connections: &Connections,
    options: Options,
    api: Api,
    test_card: Option<TestCard>,
    stop: Stop,
) -> anyhow::Result<Router> {
    let own = connections
        .clone()
        .logged_in(options.console_postgres_login.as_ref(), None);
    let pool =
        plumbing::postgres::connect_lazy(&own.postgres_url, "holdfast-console", 4).context("HOLDFAST_POSTGRES_URL")?;
    let console = Console {
        tools: tools::Tools::new(connections, &api)?,
        client: plumbing::tls::client_for(&api.url)?
            .0
            .timeout(pass::TIMEOUT)
            .build()
            .context("an HTTP client")?,
        options,
        api,
        pool,
        brake: brake::Brake::default(),
        test_card,
        stage: tour::Stage::default(),
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
        .route("/checks", get(checks::last))
        .route("/verify", post(checks::verify))
        .route("/dead-letters", get(letters::list))
        .route("/dead-letters/{offset}", get(letters::show))
        .route("/dead-letters/{offset}/send", post(letters::send))
        .route("/movements", get(reads::movements))
        .route("/prices", get(reads::prices))
        .route("/payments/{hold_id}", get(reads::payments))
        .route("/audit", get(reads::audit))
        .route("/tour/sale", post(tour::sale))
        .route("/tour/takeover", get(tour::look).post(tour::take_over))
        .route("/tour/pay/{hold_id}", post(tour::pay))
        .fallback(|| async { problem::Problem::not_found() });
    Ok(Router::new()
        .nest("/console/api", calls)
        .merge(page::routes())
        .with_state(Arc::new(console)))
}
