//! Kafka, and how to prove to it who one is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::Secret;

/// Where Kafka is, and as whom to speak to it. The names are those of every Kafka client.
#[derive(Args, Clone, Debug, Eq, PartialEq)]
pub struct Brokers {
    /// Kafka bootstrap servers, as host:port,host:port
    #[arg(
        id = "kafka_brokers",
        long = "kafka-brokers",
        env = "HOLDFAST_KAFKA_BROKERS",
        default_value = "127.0.0.1:19092",
        value_name = "ADDRESSES"
    )]
    pub addresses: String,

    /// PLAINTEXT, SASL_PLAINTEXT, SSL or SASL_SSL; the last two in a build with the feature `kafka-tls`
    #[arg(
        id = "kafka_security_protocol",
        long = "kafka-security-protocol",
        env = "HOLDFAST_KAFKA_SECURITY_PROTOCOL",
        default_value = "PLAINTEXT",
        value_name = "PROTOCOL"
    )]
    pub security: Security,

    /// PEM file of the authorities that may vouch for Kafka; the system's by default
    #[arg(id = "kafka_ca", long = "kafka-ca", env = "HOLDFAST_KAFKA_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; the last two in a build with the feature `kafka-tls`
    #[arg(
        id = "kafka_sasl_mechanism",
        long = "kafka-sasl-mechanism",
        env = "HOLDFAST_KAFKA_SASL_MECHANISM",
        default_value = "PLAIN",
        value_name = "MECHANISM"
    )]
    pub mechanism: Mechanism,

    /// SASL user
    #[arg(
        id = "kafka_user",
        long = "kafka-user",
        env = "HOLDFAST_KAFKA_USER",
        value_name = "USER"
    )]
    pub user: Option<String>,

    /// SASL password
    #[arg(
        id = "kafka_password",
        long = "kafka-password",
        env = "HOLDFAST_KAFKA_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    pub password: Option<Secret>,
}

/// How connections to Kafka are protected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Security {
    /// Not at all.
    Plaintext,
    /// By TLS.
    Ssl,
    /// By a login.
    SaslPlaintext,
    /// By a login, over TLS.
    SaslSsl,
}

impl Security {
    /// Its name in Kafka's `security.protocol`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// Whether a login is shown.
    #[must_use]
    pub fn has_login(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// What Kafka's own cryptography needs: librdkafka knows none in a build without it.
fn needs_tls<T>(value: T) -> Result<T, &'static str> {
    if cfg!(feature = "kafka-tls") {
        Ok(value)
    } else {
        Err(
            "this build has no cryptography for Kafka: build holdfast with `--features kafka-tls`, which needs libssl-dev",
        )
    }
}

impl FromStr for Security {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.to_ascii_uppercase().as_str() {
            "PLAINTEXT" => Ok(Self::Plaintext),
            "SASL_PLAINTEXT" => Ok(Self::SaslPlaintext),
            "SSL" => needs_tls(Self::Ssl),
            "SASL_SSL" => needs_tls(Self::SaslSsl),
            _ => Err("must be PLAINTEXT, SASL_PLAINTEXT, SSL or SASL_SSL"),
        }
    }
}

/// How a login is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mechanism {
    /// As it is.
    Plain,
    /// As a proof that one knows it.
    ScramSha256,
    /// As the same, longer.
    ScramSha512,
}

impl Mechanism {
    /// Its name in Kafka's `sasl.mechanism`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl FromStr for Mechanism {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.to_ascii_uppercase().as_str() {
            "PLAIN" => Ok(Self::Plain),
            "SCRAM-SHA-256" => needs_tls(Self::ScramSha256),
            "SCRAM-SHA-512" => needs_tls(Self::ScramSha512),
            _ => Err("must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
        }
    }
}

impl Brokers {
    /// The environment that says the same to a child process.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("HOLDFAST_KAFKA_BROKERS", self.addresses.clone()),
            ("HOLDFAST_KAFKA_SECURITY_PROTOCOL", self.security.name().to_owned()),
            ("HOLDFAST_KAFKA_SASL_MECHANISM", self.mechanism.name().to_owned()),
        ];
        let ca = self.ca.as_ref().map(|path| path.display().to_string());
        let password = self.password.as_ref().map(|password| password.expose().to_owned());
        let optional = [
            ("HOLDFAST_KAFKA_CA", ca),
            ("HOLDFAST_KAFKA_USER", self.user.clone()),
            ("HOLDFAST_KAFKA_PASSWORD", password),
        ];
        variables.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        variables
    }
}

impl From<String> for Brokers {
    /// Without protection.
    fn from(addresses: String) -> Self {
        Self {
            addresses,
            security: Security::Plaintext,
            ca: None,
            mechanism: Mechanism::Plain,
            user: None,
            password: None,
        }
    }
}

impl From<&str> for Brokers {
    fn from(addresses: &str) -> Self {
        addresses.to_owned().into()
    }
}

impl fmt::Display for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.addresses)
    }
}
