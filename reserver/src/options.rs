//! What can be configured of the reserver.

use domain::limits;
use plumbing::config::{Connections, Login};

use crate::pack::Rules;

/// Most commands that one script call may take: more would keep Redis from everybody else for too long.
const BATCH_MAX: u16 = 128;

/// The reserver's own process: its connections and options.
#[derive(clap::Args, Debug, Clone)]
pub struct Config {
    /// Where the other services are.
    #[command(flatten)]
    pub connections: Connections,
    /// The reserver's own options.
    #[command(flatten)]
    pub options: Options,
}

/// The reserver's options.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Reserver")]
#[group(skip)] // Of the same name in every role, and `holdfast all` has them all.
pub struct Options {
    /// Login of the reserver at Postgres, as user:password; else that of HOLDFAST_POSTGRES_URL
    #[arg(
        long,
        env = "HOLDFAST_RESERVER_POSTGRES_LOGIN",
        hide_env_values = true,
        value_name = "LOGIN"
    )]
    pub reserver_postgres_login: Option<Login>,

    /// Login of the reserver at Redis, as user:password; else that of HOLDFAST_REDIS_URL
    #[arg(
        long,
        env = "HOLDFAST_RESERVER_REDIS_LOGIN",
        hide_env_values = true,
        value_name = "LOGIN"
    )]
    pub reserver_redis_login: Option<Login>,

    /// How long ended holds, command ids and forwarded sources are remembered, in seconds of log time.
    #[arg(long, env = "HOLDFAST_REMEMBER_SECONDS", default_value_t = limits::REMEMBER_MS_DEFAULT / 1_000)]
    pub remember_seconds: i64,
    /// Longest life of a hold from its creation, through all its extensions, in seconds.
    #[arg(long, env = "HOLDFAST_MAX_HOLD_SECONDS", default_value_t = limits::HOLD_TTL_MS_MAX / 1_000)]
    pub max_hold_seconds: i64,
    /// Time to live of a hold that names none, in seconds.
    #[arg(long, env = "HOLDFAST_HOLD_TTL_SECONDS", default_value_t = limits::HOLD_TTL_MS_DEFAULT / 1_000)]
    pub hold_ttl_seconds: i64,
    /// How long the lanes of a cart may take to hold it, in milliseconds of log time; then it is rejected.
    #[arg(
        long,
        env = "HOLDFAST_RELAY_MS",
        default_value_t = limits::RELAY_MS_DEFAULT,
        value_parser = clap::value_parser!(i64).range(1..=3_600_000)
    )]
    pub relay_ms: i64,
    /// Share of Redis' maxmemory above which reservations are refused as busy, so that releases always work.
    #[arg(long, env = "HOLDFAST_BUSY_SHARE", default_value_t = 0.9)]
    pub busy_share: f64,
    /// Offsets without a record at a lane's end that have not changed for so many seconds are closed by a decision of
    /// their own. Must be longer than the brokers' transaction.max.timeout.ms.
    #[arg(long, env = "HOLDFAST_SKIP_SECONDS", default_value_t = 3_600)]
    pub skip_seconds: u64,
    /// Most commands in one script call.
    #[arg(
        long,
        env = "HOLDFAST_RESERVER_BATCH",
        default_value_t = BATCH_MAX,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(BATCH_MAX))
    )]
    pub reserver_batch: u16,
    /// How long a schema id that the registry does not know is asked for before its record is buried, in seconds.
    #[arg(long, env = "HOLDFAST_UNKNOWN_SCHEMA_SECONDS", default_value_t = 10)]
    pub unknown_schema_seconds: u64,
    /// How long many events of a lane may wait to share a request, in milliseconds; few never wait.
    #[arg(long, env = "HOLDFAST_RESERVER_LINGER_MS", default_value = "0.3")]
    pub reserver_linger_ms: String,
}

impl Options {
    /// What decisions need of the configuration.
    #[must_use]
    pub fn rules(&self, lanes: u16) -> Rules {
        Rules {
            remember_ms: self.remember_seconds * 1_000,
            request_ms: limits::REMEMBER_REQUEST_MS,
            max_hold_ms: self.max_hold_seconds * 1_000,
            default_ttl_ms: self.hold_ttl_seconds * 1_000,
            relay_ms: self.relay_ms,
            lanes,
        }
    }
}
