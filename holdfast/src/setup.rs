//! What must exist before a role can work: topics, schemas, tables. Each step is idempotent and waits a little for its
//! engine, because all of them are usually started together.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use plumbing::{
    backoff::Backoff,
    config::Connections,
    kafka::{
        admin::{self, Created, TopicSpec},
        consumer,
    },
    stop::Stop,
    task,
};
use schemas::{
    Topic, picture,
    registry::{Registry, RegistryError},
    topics,
};

/// How long a step waits for its engine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How the topics are made.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct TopicOptions {
    /// Lanes: partitions of the commands and of the events, for ever (1 to 4096)
    #[arg(long, env = "HOLDFAST_LANES", default_value_t = topics::LANES_DEFAULT,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(domain::limits::LANES_MAX)))]
    pub lanes: u16,

    /// Copies of each record, at most the number of brokers
    #[arg(long, env = "HOLDFAST_REPLICATION", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=99))]
    pub replication: i32,
}

impl Default for TopicOptions {
    fn default() -> Self {
        Self {
            lanes: topics::LANES_DEFAULT,
            replication: 1,
        }
    }
}

/// Creates the topics that are missing and returns each with whether it is new. An existing topic is never changed.
///
/// # Errors
/// Kafka does not answer within [`PATIENCE`], or a topic exists with another number of partitions or another clock.
pub async fn topics(connections: &Connections, options: TopicOptions) -> anyhow::Result<Vec<(String, Created)>> {
    let brokers = &connections.kafka_brokers;
    wait_for(&format!("Kafka on {brokers}"), async || {
        let brokers = brokers.clone();
        task::thread("kafka-answers", move || {
            let reader = consumer::reader(&brokers, "holdfast-setup", "holdfast-setup")?;
            consumer::partition_count(&reader, "__holdfast_is_anybody_there").map(|_| ())
        })
        .await
        .map_err(|error| Attempt::Final(error.into()))?
        .map_err(|error| Attempt::Again(error.into()))
    })
    .await?;
    let mut made = Vec::with_capacity(topics::ALL.len());
    for topic in topics::ALL {
        let spec = spec_of(&topic, connections, options);
        let created = admin::ensure_topic(brokers, &spec, options.replication)
            .await
            .with_context(|| format!("topic {} could not be created", spec.name))?;
        if created == Created::Existed {
            check_existing(connections, &topic, &spec).await?;
        }
        made.push((spec.name, created));
    }
    Ok(made)
}

fn spec_of(topic: &Topic, connections: &Connections, options: TopicOptions) -> TopicSpec {
    TopicSpec {
        name: topic.full_name(&connections.topic_prefix),
        partitions: if topic.laned { i32::from(options.lanes) } else { 1 },
        settings: vec![
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", topic.retention_ms.to_string()),
            ("message.timestamp.type", timestamp_type(topic).to_owned()),
        ],
    }
}

/// Who stamps the topic's records.
#[must_use]
pub fn timestamp_type(topic: &Topic) -> &'static str {
    if topic.log_append_time {
        "LogAppendTime"
    } else {
        "CreateTime"
    }
}

async fn check_existing(connections: &Connections, topic: &Topic, spec: &TopicSpec) -> anyhow::Result<()> {
    let (brokers, name) = (connections.kafka_brokers.clone(), spec.name.clone());
    let found = task::thread("partition-count", move || {
        let reader = consumer::reader(&brokers, "holdfast-setup", "holdfast-setup")?;
        consumer::partition_count(&reader, &name)
    })
    .await??
    .with_context(|| format!("topic {} was there a moment ago and is not any more", spec.name))?;
    if i32::try_from(found) != Ok(spec.partitions) {
        if topic.laned {
            bail!(
                "topic {} exists with {found} partitions, not {}: the number of lanes is fixed when a topic is created, \
                 because a SKU's lane depends on it. Go on with `--lanes {found}`, or choose another HOLDFAST_TOPIC_PREFIX",
                spec.name,
                spec.partitions
            );
        }
        bail!(
            "topic {} exists with {found} partitions, not {}: delete it if it is empty, or choose another HOLDFAST_TOPIC_PREFIX",
            spec.name,
            spec.partitions
        );
    }
    let wanted = timestamp_type(topic);
    let setting = admin::topic_setting(&connections.kafka_brokers, &spec.name, "message.timestamp.type").await?;
    if topic.log_append_time && setting.as_deref() != Some(wanted) {
        bail!(
            "topic {} exists with message.timestamp.type={}, not {wanted}: the broker's time is the only clock of decisions. \
             If nothing was decided from it yet, set it: kafka-configs --alter --entity-type topics --entity-name {} \
             --add-config message.timestamp.type={wanted}",
            spec.name,
            setting.as_deref().unwrap_or("unknown"),
            spec.name
        );
    }
    Ok(())
}

/// Sets the registry's compatibility and registers both schemas; returns each subject with its schema's id.
///
/// # Errors
/// The registry does not answer within [`PATIENCE`], or refuses a schema as incompatible.
pub async fn schemas(connections: &Connections) -> anyhow::Result<Vec<(String, u32)>> {
    let registry = Registry::new(connections.registry_url.expose())?;
    let patiently = |error: RegistryError| match error {
        RegistryError::Refused(_) => Attempt::Final(error.into()),
        RegistryError::Unavailable(_) | RegistryError::NotRegistered(_) => Attempt::Again(error.into()),
    };
    let place = format!("the schema registry on {}", connections.registry_url);
    wait_for(&place, async || registry.set_compatibility().await.map_err(patiently)).await?;
    let mut ids = Vec::new();
    for topic in topics::ALL {
        let Some(schema) = topic.schema else { continue };
        let subject = topic.subject(&connections.topic_prefix);
        let id = wait_for(&place, async || {
            registry.register(&subject, schema).await.map_err(patiently)
        })
        .await
        .with_context(|| format!("the schema of {subject} was not registered"))?;
        ids.push((subject, id));
    }
    Ok(ids)
}

/// Applies the migrations that Postgres does not have yet.
///
/// # Errors
/// Postgres does not answer within [`PATIENCE`], or its tables are of a newer or another version.
pub async fn migrate(connections: &Connections) -> anyhow::Result<()> {
    let pool = plumbing::postgres::connect_lazy(&connections.postgres_url, "holdfast migrate", 1)?;
    let place = format!("Postgres on {}", connections.postgres_url);
    wait_for(&place, async || {
        sqlx::query("SELECT 1")
            .execute(&pool)
            .await
            .map(|_| ())
            .map_err(|error| {
                if plumbing::postgres::is_transient(&error) {
                    Attempt::Again(error.into())
                } else {
                    Attempt::Final(error.into())
                }
            })
    })
    .await?;
    let migrating = pool.clone();
    // A task of its own, so that nobody drops it half-way.
    task::spawn("migrate", async move { picture::migrate(&migrating).await })
        .await?
        .context("the tables could not be brought up to date")?;
    pool.close().await;
    Ok(())
}

enum Attempt {
    /// The engine is not there yet.
    Again(anyhow::Error),
    /// It will not get better by waiting.
    Final(anyhow::Error),
}

/// Tries until it works, the error is final, or [`PATIENCE`] runs out; says once what it waits for.
async fn wait_for<T>(place: &str, attempt: impl AsyncFn() -> Result<T, Attempt>) -> anyhow::Result<T> {
    let begun = Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let mut said = false;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(Attempt::Final(error)) => return Err(error.context(format!("{place} refused"))),
            Err(Attempt::Again(error)) if begun.elapsed() >= PATIENCE => {
                return Err(error.context(format!("{place} did not answer within {} s", PATIENCE.as_secs())));
            }
            Err(Attempt::Again(error)) => {
                tracing::debug!(error = %format!("{error:#}"), "waiting");
                if !said {
                    eprintln!("waiting for {place} (up to {} s)", PATIENCE.as_secs());
                    said = true;
                }
            }
        }
        backoff.sleep(&Stop::never()).await;
    }
}
