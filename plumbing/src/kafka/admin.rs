//! Creating topics and checking them.

use std::time::Duration;

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::client;
use crate::config::Brokers;

/// A topic to create.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    /// Full name.
    pub name: String,
    /// Partitions.
    pub partitions: i32,
    /// Topic settings.
    pub settings: Vec<(&'static str, String)>,
}

/// What became of a topic that should exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    New,
    /// It was there already; nothing was changed.
    Existed,
}

fn admin(brokers: &Brokers) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
    client::admin(brokers, "holdfast-admin").create()
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(Duration::from_secs(10)))
        .operation_timeout(Some(Duration::from_secs(10)))
}

/// Creates a topic unless it exists.
///
/// # Errors
/// [`KafkaError`] when the broker does not answer or refuses.
pub async fn ensure_topic(brokers: &Brokers, spec: &TopicSpec, replication: i32) -> Result<Created, KafkaError> {
    let mut topic = NewTopic::new(&spec.name, spec.partitions, TopicReplication::Fixed(replication));
    for (key, value) in &spec.settings {
        topic = topic.set(key, value);
    }
    let results = admin(brokers)?.create_topics([&topic], &options()).await?;
    match results.into_iter().next() {
        Some(Ok(_)) => Ok(Created::New),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(Created::Existed),
        Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
        None => Err(KafkaError::AdminOp(RDKafkaErrorCode::Unknown)),
    }
}

/// Deletes topics; one that does not exist is fine.
///
/// # Errors
/// [`KafkaError`] when the broker does not answer or refuses.
pub async fn delete_topics(brokers: &Brokers, names: &[&str]) -> Result<(), KafkaError> {
    for result in admin(brokers)?.delete_topics(names, &options()).await? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code)),
        }
    }
    Ok(())
}

/// One setting of a topic, as the broker applies it.
///
/// # Errors
/// [`KafkaError`] when the broker does not answer.
pub async fn topic_setting(brokers: &Brokers, topic: &str, setting: &str) -> Result<Option<String>, KafkaError> {
    let described = admin(brokers)?
        .describe_configs(&[ResourceSpecifier::Topic(topic)], &options())
        .await?;
    Ok(described
        .into_iter()
        .filter_map(Result::ok)
        .find_map(|resource| resource.get(setting).and_then(|entry| entry.value.clone())))
}
