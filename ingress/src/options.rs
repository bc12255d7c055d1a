//! What the ingress is told from outside, and what it refuses to start with.

use std::net::SocketAddr;

use plumbing::config::{Connections, Login};

use crate::{auth::Token, live_stock::Origin};

/// The ingress's whole configuration.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Where the engines are.
    #[command(flatten)]
    pub connections: Connections,
    /// The ingress's own options.
    #[command(flatten)]
    pub options: Options,
}

/// The ingress's own options.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Ingress")]
#[group(skip)] // Of the same name in every role, and `holdfast all` has them all.
pub struct Options {
    /// Login of the ingress at Postgres, as user:password; else that of HOLDFAST_POSTGRES_URL
    #[arg(
        long,
        env = "HOLDFAST_INGRESS_POSTGRES_LOGIN",
        hide_env_values = true,
        value_name = "LOGIN"
    )]
    pub ingress_postgres_login: Option<Login>,

    /// Where the HTTP API listens; another address than loopback needs a token
    #[arg(
        long,
        env = "HOLDFAST_HTTP_ADDR",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS"
    )]
    pub http_addr: SocketAddr,

    /// Bearer token that every call of the API must carry; none by default
    #[arg(long, env = "HOLDFAST_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<Token>,

    /// How long a call waits for its outcome when it does not say, in milliseconds
    #[arg(long, env = "HOLDFAST_WAIT_DEFAULT_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(..=WAIT_MS_MAX), value_name = "MS")]
    pub wait_default_ms: u64,

    /// How long many commands of a lane that come at once may wait to share a request, in milliseconds; few never wait
    #[arg(long, env = "HOLDFAST_INGRESS_LINGER_MS", default_value = "0.3", value_name = "MS")]
    pub ingress_linger_ms: String,

    /// Calls in flight; those beyond are answered 429
    #[arg(
        long,
        env = "HOLDFAST_HTTP_IN_FLIGHT",
        default_value_t = 10_000,
        value_name = "CALLS"
    )]
    pub in_flight_max: usize,

    /// Connections at once, those that watch live stock included; those beyond are answered 503. Each needs a file descriptor
    #[arg(
        long,
        env = "HOLDFAST_HTTP_CONNECTIONS",
        default_value_t = 25_000,
        value_name = "CONNECTIONS"
    )]
    pub connections_max: usize,

    /// Connections that watch live stock; those beyond are answered 429. Each needs a file descriptor (ulimit -Hn)
    #[arg(
        long,
        env = "HOLDFAST_LIVE_VIEWERS",
        default_value_t = 20_000,
        value_parser = clap::value_parser!(u32).range(..=1_000_000),
        value_name = "VIEWERS"
    )]
    pub live_viewers_max: u32,

    /// Origins of other servers' pages that may watch live stock, such as https://shop.example; `*` for all
    #[arg(long, env = "HOLDFAST_LIVE_ORIGINS", value_delimiter = ',', value_name = "ORIGINS")]
    pub live_origins: Vec<Origin>,

    /// Holds whose newest state is kept in memory, about 600 bytes each, and 200 more for each further line
    #[arg(long, env = "HOLDFAST_TAIL_HOLDS", default_value_t = 200_000, value_name = "HOLDS")]
    pub tail_holds: usize,

    /// SKUs whose newest counters are kept in memory, about 200 bytes each
    #[arg(long, env = "HOLDFAST_TAIL_SKUS", default_value_t = 200_000, value_name = "SKUS")]
    pub tail_skus: usize,

    /// While a lane is behind, answer "sold out" (409 with as_of) from what the tail has read, before the log has decided
    #[arg(
        long,
        env = "HOLDFAST_SOLD_OUT_FROM_TAIL",
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        default_value_t = false,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub sold_out_from_tail: bool,

    /// Who changed stock, where a call does not say with `X-Actor`
    #[arg(long, env = "HOLDFAST_ACTOR", default_value = "http", value_name = "NAME")]
    pub actor: String,

    /// Connections to Postgres, which serve reads only
    #[arg(
        long,
        env = "HOLDFAST_INGRESS_POSTGRES_CONNECTIONS",
        default_value_t = 8,
        value_name = "CONNECTIONS"
    )]
    pub postgres_connections: u32,
}

/// Longest time that a call may wait for its outcome, in milliseconds.
pub const WAIT_MS_MAX: u64 = 30_000;

impl Options {
    /// Refuses what would be unsafe or cannot work.
    ///
    /// # Errors
    /// A sentence that says what to set.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.http_addr.ip().is_loopback() || self.token.is_some(),
            "{} can be reached from other machines: set HOLDFAST_TOKEN, or listen on 127.0.0.1",
            self.http_addr
        );
        anyhow::ensure!(
            self.in_flight_max > 0
                && self.connections_max > 0
                && self.tail_holds > 0
                && self.tail_skus > 0
                && self.postgres_connections > 0,
            "HOLDFAST_HTTP_IN_FLIGHT, HOLDFAST_HTTP_CONNECTIONS, HOLDFAST_TAIL_HOLDS, HOLDFAST_TAIL_SKUS and HOLDFAST_INGRESS_POSTGRES_CONNECTIONS must be above 0"
        );
        domain::Text::parse_some("HOLDFAST_ACTOR", &self.actor)?;
        Ok(())
    }
}
