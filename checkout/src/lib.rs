//! Checkout: money, and nothing else.
//!
//! In     HTTP calls, Stripe's webhooks; Postgres' picture of holds; Stripe's intents, read whenever it is in doubt.
//! Out    `inventory.commands.v1`: BeginPayment, AbortPayment, Confirm, Reserve (late money), Unallocate (no money),
//!        RequireRefund; calls of Stripe.
//! Owns   the tables `prices`, `payments`, `payment_steps`, `webhook_events`; of `refund_requests` what became of them.
//!
//! ```text
//! routes -> begin   POST checkout: row -> BeginPayment -> intent -> the buyer's secret
//!        -> webhook signature -> stored once -> the row is due now
//! worker            due rows, leased: read Stripe and the picture -> domain::payment::next -> one step -> again
//! refunds           given up orders, sales taken back, money given back by hand -> their payments are due, and go back
//! reconcile         Stripe's own list -> rows for intents that no row knows
//! ```
//!
//! A webhook moves nothing by itself: it wakes the worker, which reads the intent from Stripe. So neither its order, its
//! loss nor its repetition matters; the worker looks at every open row every few minutes anyhow.

mod begin;
mod bodies;
mod outbox;
mod prices;
mod reconcile;
mod refunds;
mod routes;
mod signature;
mod store;
mod stripe;
mod webhook;
mod worker;

use std::sync::Arc;

use anyhow::Context as _;
use axum::http::HeaderMap;
use domain::Millis;
use plumbing::{
    config::{Connections, Login, SecretUrl},
    postgres,
    service::{Context, Running},
};
use sqlx::PgPool;
use utoipa_axum::router::OpenApiRouter;

/// The whole command line of the worker.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Where the engines are.
    #[command(flatten)]
    pub connections: Connections,
    /// How it works.
    #[command(flatten)]
    pub options: Options,
}

/// How checkout works.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Checkout")]
#[group(skip)] // Of the same name in every role, and `holdfast all` has them all.
pub struct Options {
    /// Login of checkout at Postgres, as user:password; else that of HOLDFAST_POSTGRES_URL
    #[arg(
        long,
        env = "HOLDFAST_CHECKOUT_POSTGRES_LOGIN",
        hide_env_values = true,
        value_name = "LOGIN"
    )]
    pub checkout_postgres_login: Option<Login>,

    /// Base URL of Stripe's API
    #[arg(
        long,
        env = "HOLDFAST_STRIPE_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:18420",
        value_name = "URL"
    )]
    pub stripe_url: SecretUrl,

    /// Stripe's secret key; the default is good for the local stand-in only
    #[arg(
        long,
        env = "STRIPE_SECRET_KEY",
        hide_env_values = true,
        default_value = "sk_test_holdfast",
        value_name = "KEY"
    )]
    pub stripe_secret_key: SecretUrl,

    /// The secret that signs Stripe's webhooks; without it they are refused
    #[arg(long, env = "STRIPE_WEBHOOK_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub stripe_webhook_secret: Option<SecretUrl>,

    /// How long a buyer may take to pay, in seconds
    #[arg(long, env = "HOLDFAST_PAYMENT_CAP_SECONDS", default_value_t = 600, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub payment_cap_seconds: u64,

    /// How often Stripe is asked about a payment without news, in seconds
    #[arg(long, env = "HOLDFAST_RECONCILE_SECONDS", default_value_t = 120, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=600))]
    pub reconcile_seconds: u64,

    /// How often Stripe's list of intents is looked through for what no row knows, in seconds
    #[arg(long, env = "HOLDFAST_STRIPE_LIST_SECONDS", default_value_t = 300, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub stripe_list_seconds: u64,

    /// How long a payment is one worker's, or its maker's, in seconds: after a crash another goes on then
    #[arg(long, env = "HOLDFAST_CHECKOUT_LEASE_SECONDS", default_value_t = 60, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=600))]
    pub checkout_lease_seconds: u64,
}

/// Routes and worker of one process, over shared connections.
pub struct Checkout {
    shared: Arc<Shared>,
    connections: Connections,
    context: Context,
}

/// What handlers and the worker share.
pub(crate) struct Shared {
    pub(crate) pool: PgPool,
    pub(crate) stripe: stripe::Stripe,
    pub(crate) outbox: outbox::Outbox,
    pub(crate) options: Options,
}

fn ms(seconds: u64) -> Millis {
    i64::try_from(seconds).expect("options are small") * 1_000
}

impl Shared {
    /// How long a payment is one worker's, and one that is begun its maker's, in milliseconds.
    pub(crate) fn lease_ms(&self) -> Millis {
        ms(self.options.checkout_lease_seconds)
    }

    /// How long a buyer may take, in milliseconds.
    pub(crate) fn cap_ms(&self) -> Millis {
        ms(self.options.payment_cap_seconds)
    }
}

impl Checkout {
    /// Prepares; nothing is connected yet.
    ///
    /// # Errors
    /// A URL that cannot be used.
    pub fn new(connections: &Connections, options: Options, context: Context) -> anyhow::Result<Self> {
        let connections = connections
            .clone()
            .logged_in(options.checkout_postgres_login.as_ref(), None);
        let pool =
            postgres::connect_lazy(&connections.postgres_url, "holdfast-checkout", 6).context("the URL of Postgres")?;
        let shared = Shared {
            pool,
            stripe: stripe::Stripe::new(options.stripe_url.expose(), options.stripe_secret_key.expose())?,
            outbox: outbox::Outbox::new(&connections.kafka_brokers, &connections.topic_prefix)?,
            options,
        };
        Ok(Self {
            shared: Arc::new(shared),
            connections,
            context,
        })
    }

    /// The calls with their description, for the process that serves HTTP. `is_let_in` judges every call but Stripe's by its headers.
    pub fn router(&self, is_let_in: impl Fn(&HeaderMap) -> bool + Send + Sync + 'static) -> OpenApiRouter {
        routes::router(Arc::clone(&self.shared), Arc::new(is_let_in))
    }

    /// Works until the stop.
    ///
    /// # Errors
    /// A registry that refuses our schemas.
    #[must_use = "nothing runs before it is awaited"]
    pub fn run(self) -> Running {
        Box::pin(worker::run(self.shared, self.connections, self.context))
    }
}

/// The worker alone, until the stop.
///
/// # Errors
/// As [`Checkout::new`] and [`Checkout::run`].
#[must_use = "nothing runs before it is awaited"]
pub fn run(connections: Connections, options: Options, context: Context) -> Running {
    Box::pin(async move { Checkout::new(&connections, options, context)?.run().await })
}
