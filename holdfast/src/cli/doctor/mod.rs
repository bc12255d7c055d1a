//! `doctor`.

mod tools;

use std::{
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use clap::Args;
use plumbing::{
    config::Connections,
    kafka::{admin, consumer},
    task,
};
use schemas::{Registry, picture, topics};
use serde_json::Value;

use super::Outcome;
use crate::{
    http::{Api, HttpOptions},
    redis_lane,
    setup::timestamp_type,
};

/// Check tools, ports, versions and settings, each with its fix.
#[derive(Args, Debug)]
pub struct Doctor {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    connections: Connections,
}

/// How one check ended.
enum Finding {
    Good(String),
    /// Not needed here and now.
    Missing(String, String),
    /// Needed: what is wrong, and the fix.
    Wrong(String, String),
}

use Finding::{Good, Missing, Wrong};

impl Doctor {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        let (kafka, registry) = (self.kafka().await, self.registry().await);
        let (redis, postgres) = (self.redis().await, self.postgres().await);
        let answers = |findings: &[Finding]| matches!(findings.first(), Some(Good(_)));
        let tools = tools::tools(
            answers(&kafka) && answers(&registry),
            answers(&redis),
            answers(&postgres),
        );
        let sections = [
            ("tools", tools),
            ("Kafka", kafka),
            ("schema registry", registry),
            ("Redis", redis),
            ("Postgres", postgres),
            ("HTTP", self.api().await),
        ];
        let mut wrong = 0;
        let mut out = String::new();
        for (name, findings) in &sections {
            out += &format!("{name}\n");
            for finding in findings {
                out += &match finding {
                    Good(what) => format!("  ✓ {what}\n"),
                    Missing(what, fix) => format!("  - {what}\n    → {fix}\n"),
                    Wrong(what, fix) => {
                        wrong += 1;
                        format!("  ✗ {what}\n    → {fix}\n")
                    }
                };
            }
        }
        out += &match wrong {
            0 => "✓ all well\n".to_owned(),
            1 => "✗ 1 thing is wrong\n".to_owned(),
            more => format!("✗ {more} things are wrong\n"),
        };
        super::print(&out);
        Ok(if wrong == 0 { Outcome::Fine } else { Outcome::NotInOrder })
    }

    async fn kafka(&self) -> Vec<Finding> {
        let brokers = self.connections.kafka_brokers.clone();
        if let Some(closed) = closed(
            &brokers.addresses.split(',').collect::<Vec<_>>(),
            "HOLDFAST_KAFKA_BROKERS",
        ) {
            return vec![closed];
        }
        let prefix = self.connections.topic_prefix.clone();
        let counted = task::thread("doctor-kafka", move || {
            let reader = consumer::reader(&brokers, "holdfast-doctor", "holdfast-doctor")?;
            topics::ALL
                .into_iter()
                .map(|topic| Ok((topic, consumer::partition_count(&reader, &topic.full_name(&prefix))?)))
                .collect::<Result<Vec<_>, plumbing::kafka::KafkaError>>()
        })
        .await;
        let counted = match counted {
            Ok(Ok(counted)) => counted,
            Ok(Err(error)) => {
                return vec![Wrong(
                    format!("it does not answer: {error}"),
                    "infra/services.sh restart kafka".into(),
                )];
            }
            Err(error) => return vec![Wrong(error.to_string(), "report this".into())],
        };
        let mut findings = vec![Good(format!("answers on {}", self.connections.kafka_brokers))];
        let lanes = counted
            .iter()
            .find(|(topic, _)| topic.laned)
            .and_then(|(_, count)| *count);
        for (topic, count) in counted {
            findings.push(self.topic(&topic, count, lanes).await);
        }
        findings
    }

    async fn topic(&self, topic: &schemas::Topic, count: Option<usize>, lanes: Option<usize>) -> Finding {
        let name = topic.full_name(&self.connections.topic_prefix);
        let Some(count) = count else {
            return Wrong(format!("there is no topic {name}"), "holdfast topics".into());
        };
        if topic.laned && Some(count) != lanes {
            return Wrong(
                format!("{name} has {count} partitions, the commands have {lanes:?}: lanes must match"),
                "choose another HOLDFAST_TOPIC_PREFIX and run `holdfast topics`".into(),
            );
        }
        let wanted = timestamp_type(topic);
        match admin::topic_setting(&self.connections.kafka_brokers, &name, "message.timestamp.type").await {
            Err(error) => Wrong(
                format!("{name}: its settings cannot be read: {error}"),
                "look at Kafka's log".into(),
            ),
            Ok(Some(found)) if topic.log_append_time && found != wanted => Wrong(
                format!("{name} has message.timestamp.type={found}, not {wanted}"),
                format!(
                    "kafka-configs --alter --entity-type topics --entity-name {name} --add-config message.timestamp.type={wanted}"
                ),
            ),
            Ok(found) => Good(format!("{name}: {count} partitions, {}", found.unwrap_or_default())),
        }
    }

    async fn registry(&self) -> Vec<Finding> {
        let url = self.connections.registry_url.expose().trim_end_matches('/').to_owned();
        if let Some(closed) = closed(&[&host_port(&url)], "HOLDFAST_REGISTRY_URL") {
            return vec![closed];
        }
        let mut findings = Vec::new();
        match get_json(&format!("{url}/config")).await {
            Err(error) => {
                return vec![Wrong(
                    format!("it does not answer: {error:#}"),
                    "infra/services.sh restart registry".into(),
                )];
            }
            Ok(config) => {
                findings.push(Good(format!("answers on {}", self.connections.registry_url)));
                let level = ["compatibilityLevel", "compatibility"]
                    .iter()
                    .find_map(|name| config.get(*name)?.as_str())
                    .unwrap_or("unknown");
                findings.push(if level == schemas::registry::COMPATIBILITY {
                    Good(format!("compatibility is {level}"))
                } else {
                    Wrong(
                        format!("compatibility is {level}, not {}", schemas::registry::COMPATIBILITY),
                        "holdfast schemas".into(),
                    )
                });
            }
        }
        let registry = match Registry::new(&url) {
            Ok(registry) => registry,
            Err(error) => return vec![Wrong(error.to_string(), "mend HOLDFAST_REGISTRY_URL".into())],
        };
        for topic in topics::ALL {
            let Some(schema) = topic.schema else { continue };
            let subject = topic.subject(&self.connections.topic_prefix);
            findings.push(match registry.id_of(&subject, schema).await {
                Ok(id) => Good(format!("{subject} is schema {id}")),
                Err(error) => Wrong(format!("{subject}: {error}"), "holdfast schemas".into()),
            });
        }
        findings
    }

    async fn redis(&self) -> Vec<Finding> {
        if let Some(closed) = closed(&[&host_port(self.connections.redis_url.expose())], "HOLDFAST_REDIS_URL") {
            return vec![closed];
        }
        let connections = self.connections.clone();
        let asked = task::thread("doctor-redis", move || {
            let mut connection = redis_lane::connect(&connections)?;
            let mut facts = redis_lane::info(&mut connection, "server")?;
            facts.extend(redis_lane::info(&mut connection, "memory")?);
            facts.extend(redis_lane::info(&mut connection, "persistence")?);
            anyhow::Ok(facts)
        })
        .await;
        let facts = match asked {
            Ok(Ok(facts)) => facts,
            Ok(Err(error)) => return vec![Wrong(format!("{error:#}"), "infra/services.sh restart redis".into())],
            Err(error) => return vec![Wrong(error.to_string(), "report this".into())],
        };
        let fact = |name: &str| facts.get(name).map_or("unknown", String::as_str);
        let mut findings = vec![Good(format!("answers on {}", self.connections.redis_url))];
        let version = fact("redis_version");
        findings.push(if major(version) >= 7 {
            Good(format!("version {version}"))
        } else {
            Wrong(
                format!("version {version} is too old"),
                "install Redis 7 or later".into(),
            )
        });
        findings.push(match fact("maxmemory_policy") {
            "noeviction" => Good("maxmemory-policy noeviction".into()),
            other => Wrong(
                format!("maxmemory-policy {other}: it would throw stock away"),
                "redis-cli CONFIG SET maxmemory-policy noeviction, and in redis.conf".into(),
            ),
        });
        findings.push(match fact("aof_enabled") {
            "1" => Good("append-only file on".into()),
            _ => Missing(
                "append-only file off: a restart of Redis rebuilds every lane from the log".into(),
                "redis-cli CONFIG SET appendonly yes, and in redis.conf".into(),
            ),
        });
        findings
    }

    async fn postgres(&self) -> Vec<Finding> {
        if let Some(closed) = closed(
            &[&host_port(self.connections.postgres_url.expose())],
            "HOLDFAST_POSTGRES_URL",
        ) {
            return vec![closed];
        }
        let pool = match plumbing::postgres::connect_lazy(&self.connections.postgres_url, "holdfast doctor", 1) {
            Ok(pool) => pool,
            Err(error) => return vec![Wrong(error.to_string(), "mend HOLDFAST_POSTGRES_URL".into())],
        };
        let version: String = match sqlx::query_scalar("SHOW server_version").fetch_one(&pool).await {
            Ok(version) => version,
            Err(error) => {
                return vec![Wrong(
                    format!("it does not let us in: {error}"),
                    "mend HOLDFAST_POSTGRES_URL, or infra/services.sh restart postgres".into(),
                )];
            }
        };
        let mut findings = vec![Good(format!(
            "answers on {}, version {version}",
            self.connections.postgres_url
        ))];
        if major(&version) < 14 {
            findings.push(Wrong(
                format!("version {version} is too old"),
                "install PostgreSQL 14 or later".into(),
            ));
        }
        findings.push(match picture::is_migrated(&pool).await {
            Ok(true) => Good("tables are up to date".into()),
            Ok(false) => Wrong("tables are missing or old".into(), "holdfast migrate".into()),
            Err(error) => Wrong(
                format!("its tables cannot be looked at: {error}"),
                "holdfast migrate".into(),
            ),
        });
        findings
    }

    async fn api(&self) -> Vec<Finding> {
        let start = || "./run, or holdfast all".to_owned();
        let answer = match Api::new(&self.http) {
            Ok(api) => api.get("/readyz").await,
            Err(error) => Err(error),
        };
        match answer {
            Err(_) => vec![Wrong(format!("nobody answers on {}", self.http.url), start())],
            Ok(answer) if answer.status.is_success() => vec![Good(format!("ready on {}", self.http.url))],
            Ok(answer) => {
                let waits: Vec<String> = answer
                    .body
                    .get("components")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter(|component| component.get("ready") == Some(&Value::Bool(false)))
                    .map(|component| {
                        let text = |name: &str| component.get(name).and_then(Value::as_str).unwrap_or("");
                        format!("{} ({})", text("name"), text("reason"))
                    })
                    .collect();
                vec![Wrong(
                    format!("{} is not ready: {}", self.http.url, waits.join(", ")),
                    "see above; its log says more".into(),
                )]
            }
        }
    }
}

/// Host and port of a URL, with the scheme's usual port where it names none.
fn host_port(url: &str) -> String {
    let Ok(parsed) = reqwest::Url::parse(url) else {
        return url.to_owned();
    };
    let usual = match parsed.scheme() {
        "redis" => 6379,
        "postgres" | "postgresql" => 5432,
        "https" => 443,
        _ => 80,
    };
    format!(
        "{}:{}",
        parsed.host_str().unwrap_or("127.0.0.1"),
        parsed.port().unwrap_or(usual)
    )
}

/// What to say when nobody listens on any of these addresses.
fn closed(addresses: &[&str], variable: &str) -> Option<Finding> {
    let open = addresses.iter().any(|address| {
        address
            .to_socket_addrs()
            .into_iter()
            .flatten()
            .any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok())
    });
    (!open).then(|| {
        Wrong(
            format!("nobody listens on {}", addresses.join(", ")),
            format!("infra/services.sh start, or set {variable}"),
        )
    })
}

async fn get_json(url: &str) -> anyhow::Result<Value> {
    let (client, url) = plumbing::tls::client_for(url)?;
    let client = client.timeout(Duration::from_secs(5)).build()?;
    let answer = client.get(url).send().await?.error_for_status()?;
    Ok(serde_json::from_slice(&answer.bytes().await?)?)
}

fn major(version: &str) -> u32 {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_begin_with_their_major_number() {
        assert_eq!(major("7.0.15"), 7);
        assert_eq!(major("15.10 (Debian 15.10-0+deb12u1)"), 15);
        assert_eq!(major("unknown"), 0);
    }

    #[test]
    fn a_url_has_a_port_even_where_it_names_none() {
        assert_eq!(host_port("redis://:secret@cache"), "cache:6379");
        assert_eq!(host_port("postgres://u:p@db/x"), "db:5432");
        assert_eq!(host_port("http://127.0.0.1:18081/apis/ccompat/v7"), "127.0.0.1:18081");
    }
}
