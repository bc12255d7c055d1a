//! What every role is told from outside: where the engines are, and how it reports about itself.
//!
//! Flags and `HOLDFAST_*` environment variables (12factor.net, III), the flag first. The defaults are the local services of
//! `./run`, so that nothing needs to be set on a developer's machine. A role flattens [`Connections`] into its own
//! configuration; [`Telemetry`] is added by [`crate::service`].

mod brokers;
mod secret;

use std::net::SocketAddr;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, FromArgMatches, ValueEnum};

pub use brokers::{Brokers, Mechanism, Security};
pub use secret::{Login, Secret, SecretUrl};

/// Where the engines are, and the prefixes that keep two installations on the same engines apart.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub struct Connections {
    /// Kafka, and how to prove to it who one is.
    #[command(flatten)]
    pub kafka_brokers: Brokers,

    /// Prefix of all topics, subjects and consumer groups
    #[arg(long, env = "HOLDFAST_TOPIC_PREFIX", default_value = "", value_name = "PREFIX")]
    pub topic_prefix: String,

    /// Base URL of the schema registry (Confluent's API); `https://user:password@...?sslrootcert=FILE` where it wants that
    #[arg(
        long,
        env = "HOLDFAST_REGISTRY_URL",
        default_value = "http://127.0.0.1:18081/apis/ccompat/v7",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub registry_url: SecretUrl,

    /// Redis, which must run with maxmemory-policy noeviction; `rediss://user:password@...?sslrootcert=FILE` for TLS
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

    /// Postgres, migrated by `holdfast migrate`; `?sslmode=verify-full&sslrootcert=FILE` for TLS
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

    /// The same engines, as another user: what a service connects with, where it has a login of its own.
    #[must_use]
    pub fn logged_in(mut self, postgres: Option<&Login>, redis: Option<&Login>) -> Self {
        if let Some(login) = postgres {
            self.postgres_url = self.postgres_url.with_login(login);
        }
        if let Some(login) = redis {
            self.redis_url = self.redis_url.with_login(login);
        }
        self
    }

    /// The environment that says the same to a child process.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut variables = self.kafka_brokers.environment();
        variables.extend([
            ("HOLDFAST_TOPIC_PREFIX", self.topic_prefix.clone()),
            ("HOLDFAST_REGISTRY_URL", self.registry_url.expose().to_owned()),
            ("HOLDFAST_REDIS_URL", self.redis_url.expose().to_owned()),
            ("HOLDFAST_REDIS_PREFIX", self.redis_prefix.clone()),
            ("HOLDFAST_POSTGRES_URL", self.postgres_url.expose().to_owned()),
        ]);
        variables
    }
}

/// The error of a command line without the value of a secret: one whose environment variable `--help` does not show either.
#[must_use]
pub fn without_secrets(command: &clap::Command, mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg)
        && is_secret(command, named)
    {
        error.insert(ContextKind::InvalidValue, ContextValue::String("***".to_owned()));
    }
    error
}

/// Whether an argument as an error names it (`--token <TOKEN>`) is a secret of the command or of one below it.
fn is_secret(command: &clap::Command, named: &str) -> bool {
    let flag = named.split([' ', '=']).next().and_then(|flag| flag.strip_prefix("--"));
    let mut arguments = command.get_arguments();
    arguments.any(|argument| argument.is_hide_env_values_set() && argument.get_long() == flag)
        || command.get_subcommands().any(|below| is_secret(below, named))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_print_without_passwords_and_read_flags() {
        let command = Connections::augment_args(clap::Command::new("test"));
        let matches = command.get_matches_from([
            "test",
            "--postgres-url=postgres://u:s3cret@db/x",
            "--redis-url=redis://:s3cret@cache",
            "--registry-url=http://u:s3cret@registry",
            "--topic-prefix=t1.",
            "--kafka-user=u",
            "--kafka-password=s3cret",
            "--kafka-security-protocol=SASL_PLAINTEXT",
        ]);
        let connections = Connections::from_arg_matches(&matches).unwrap();
        assert!(!format!("{connections:?}").contains("s3cret"));
        assert_eq!(connections.topic_prefix, "t1.");
        assert_eq!(connections.postgres_url.expose(), "postgres://u:s3cret@db/x");
        let logins = ["persister:p", "reserver:r"].map(|login| login.parse().unwrap());
        let service = connections.clone().logged_in(Some(&logins[0]), Some(&logins[1]));
        assert_eq!(service.postgres_url.expose(), "postgres://persister:p@db/x");
        assert_eq!(service.redis_url.expose(), "redis://reserver:r@cache");
        // A child that is told so is told the same.
        let said = connections.environment();
        assert!(said.contains(&("HOLDFAST_KAFKA_PASSWORD", "s3cret".to_owned())));
        assert!(said.contains(&("HOLDFAST_REDIS_URL", "redis://:s3cret@cache".to_owned())));
    }

    #[test]
    fn help_names_every_variable() {
        let mut command = Telemetry::augment_args(Connections::augment_args(clap::Command::new("test")));
        let help = command.render_long_help().to_string();
        for name in [
            "HOLDFAST_KAFKA_BROKERS",
            "HOLDFAST_KAFKA_SECURITY_PROTOCOL",
            "HOLDFAST_KAFKA_CA",
            "HOLDFAST_KAFKA_SASL_MECHANISM",
            "HOLDFAST_KAFKA_USER",
            "HOLDFAST_KAFKA_PASSWORD",
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
