//! What every role is told from outside: where the engines are, and how it reports about itself.
//!
//! Flags and `HOLDFAST_*` environment variables (12factor.net, III), the flag first. The defaults are the local services of
//! `./run`, so that nothing needs to be set on a developer's machine. A role flattens [`Connections`] into its own
//! configuration; [`Telemetry`] is added by [`crate::service`].

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use clap::{Args, FromArgMatches, ValueEnum};

/// Where the engines are, and the prefixes that keep two installations on the same engines apart.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub struct Connections {
    /// Kafka bootstrap servers, as host:port,host:port
    #[arg(
        long,
        env = "HOLDFAST_KAFKA_BROKERS",
        default_value = "127.0.0.1:19092",
        value_name = "ADDRESSES"
    )]
    pub kafka_brokers: String,

    /// Prefix of all topics, subjects and consumer groups
    #[arg(long, env = "HOLDFAST_TOPIC_PREFIX", default_value = "", value_name = "PREFIX")]
    pub topic_prefix: String,

    /// Base URL of the schema registry (Confluent's API)
    #[arg(
        long,
        env = "HOLDFAST_REGISTRY_URL",
        default_value = "http://127.0.0.1:18081/apis/ccompat/v7",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub registry_url: SecretUrl,

    /// Redis, which must run with maxmemory-policy noeviction
    #[arg(
        long,
        env = "HOLDFAST_REDIS_URL",
        default_value = "redis://127.0.0.1:16379",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub redis_url: SecretUrl,

    /// Prefix of all Redis keys
    #[arg(long, env = "HOLDFAST_REDIS_PREFIX", default_value = "hf", value_name = "PREFIX")]
    pub redis_prefix: String,

    /// Postgres, migrated by `holdfast migrate`
    #[arg(
        long,
        env = "HOLDFAST_POSTGRES_URL",
        default_value = "postgres://holdfast:holdfast@127.0.0.1:15432/holdfast",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub postgres_url: SecretUrl,
}

impl Connections {
    /// The environment and the defaults, without a command line: what a test starts from.
    #[must_use]
    pub fn from_env() -> Self {
        let command = Self::augment_args(clap::Command::new("environment"));
        Self::from_arg_matches(&command.get_matches_from(["environment"]))
            .expect("every argument has a default, and every text is a legal value")
    }
}

/// How a process reports about itself.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Telemetry")]
pub struct Telemetry {
    /// What is logged, such as `info` or `warn,reserver=debug` (tracing-subscriber's EnvFilter)
    #[arg(long, env = "HOLDFAST_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// How log lines look on standard error
    #[arg(long, env = "HOLDFAST_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// OTLP collector that gets the traces (http/protobuf, such as http://127.0.0.1:4318); none by default
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub otlp_endpoint: Option<String>,

    /// Where a role without an HTTP API serves /livez, /readyz and /metrics; nowhere by default
    #[arg(long, env = "HOLDFAST_ADMIN_ADDR", value_name = "ADDRESS")]
    pub admin_addr: Option<SocketAddr>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            admin_addr: None,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people, in colour when standard error is a terminal.
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

/// A URL that may carry a password. It prints without it, so that no log line and no `{:?}` gives it away.
#[derive(Clone, Eq, PartialEq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The whole URL, with the password: only for the client that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretUrl {
    type Err = Infallible;

    fn from_str(url: &str) -> Result<Self, Infallible> {
        Ok(Self(url.to_owned()))
    }
}

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, query) = match self.0.split_once('?') {
            Some((address, query)) => (address, Some(query)),
            None => (self.0.as_str(), None),
        };
        let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
        if !scheme.is_empty() {
            write!(f, "{scheme}://")?;
        }
        // To the last '@', not to the first '/': a password with a bare '/' is a mistake, and still a password.
        match rest.rsplit_once('@') {
            Some((login, host)) => match login.split_once(':') {
                Some((user, _)) => write!(f, "{user}:***@{host}")?,
                None => write!(f, "{login}@{host}")?,
            },
            None => f.write_str(rest)?,
        }
        let Some(query) = query else { return Ok(()) };
        for (index, pair) in query.split('&').enumerate() {
            f.write_str(if index == 0 { "?" } else { "&" })?;
            match pair.split_once('=') {
                Some((key, _)) if key.to_ascii_lowercase().contains("pass") => write!(f, "{key}=***")?,
                _ => f.write_str(pair)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_prints_without_its_password() {
        for (url, printed) in [
            (
                "postgres://holdfast:s3cret@db:5432/holdfast",
                "postgres://holdfast:***@db:5432/holdfast",
            ),
            ("redis://:s3cret@127.0.0.1:6379/0", "redis://:***@127.0.0.1:6379/0"),
            ("postgres://u:s3/cr@et@db/x", "postgres://u:***@db/x"),
            (
                "postgres://db/x?user=u&password=s3cret&sslmode=disable",
                "postgres://db/x?user=u&password=***&sslmode=disable",
            ),
            ("u:s3cret@db", "u:***@db"),
            (
                "http://127.0.0.1:18081/apis/ccompat/v7",
                "http://127.0.0.1:18081/apis/ccompat/v7",
            ),
            ("redis://127.0.0.1:16379", "redis://127.0.0.1:16379"),
            ("redis://name@host", "redis://name@host"),
            ("", ""),
        ] {
            let secret = SecretUrl::from(url);
            assert_eq!(secret.to_string(), printed);
            assert_eq!(format!("{secret:?}"), format!("\"{printed}\""));
            assert_eq!(secret.expose(), url);
        }
    }

    #[test]
    fn connections_print_without_passwords_and_read_flags() {
        let command = Connections::augment_args(clap::Command::new("test"));
        let matches = command.get_matches_from([
            "test",
            "--postgres-url=postgres://u:s3cret@db/x",
            "--redis-url=redis://:s3cret@cache",
            "--registry-url=http://u:s3cret@registry",
            "--topic-prefix=t1.",
        ]);
        let connections = Connections::from_arg_matches(&matches).unwrap();
        assert!(!format!("{connections:?}").contains("s3cret"));
        assert_eq!(connections.topic_prefix, "t1.");
        assert_eq!(connections.postgres_url.expose(), "postgres://u:s3cret@db/x");
    }

    #[test]
    fn help_names_every_variable() {
        let mut command = Telemetry::augment_args(Connections::augment_args(clap::Command::new("test")));
        let help = command.render_long_help().to_string();
        for name in [
            "HOLDFAST_KAFKA_BROKERS",
            "HOLDFAST_TOPIC_PREFIX",
            "HOLDFAST_REGISTRY_URL",
            "HOLDFAST_REDIS_URL",
            "HOLDFAST_REDIS_PREFIX",
            "HOLDFAST_POSTGRES_URL",
            "HOLDFAST_LOG",
            "HOLDFAST_LOG_FORMAT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "HOLDFAST_ADMIN_ADDR",
        ] {
            assert!(help.contains(name), "{name} is missing in:\n{help}");
        }
    }
}
