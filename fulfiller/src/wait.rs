//! Waiting for what the role needs before it can work, and watching Kafka while nothing is to be sent.

use std::{thread, time::Duration};

use anyhow::Context as _;
use plumbing::{
    health::Component,
    kafka::{KafkaError, consumer},
    stop::Stop,
    wait::{self, Attempt},
};
use schemas::{Codec, Registry};

const LOOK_EVERY: Duration = Duration::from_secs(2);
const NAP: Duration = Duration::from_millis(50);

/// The codec, once the registry has our schemas; `None` when asked to stop before.
pub(crate) async fn for_codec(
    registry: Registry,
    topic_prefix: &str,
    health: &Component,
    stop: &Stop,
) -> anyhow::Result<Option<Codec>> {
    let attempt = || async {
        let connected = Codec::connect(registry.clone(), topic_prefix).await;
        connected.map_err(|error| {
            if error.is_transient() {
                Attempt::again(error)
            } else {
                Attempt::Never(error.into())
            }
        })
    };
    wait::until(health, stop, attempt).await
}

/// How many lanes there are, once the topic is there; `None` when asked to stop before.
pub(crate) async fn for_lanes(
    brokers: &str,
    topic: &str,
    health: &Component,
    stop: &Stop,
) -> anyhow::Result<Option<u16>> {
    let counted = wait::until(health, stop, || async {
        consumer::wait_partition_count(brokers, topic).await
    })
    .await?;
    let lanes = counted.map(u16::try_from).transpose();
    lanes.with_context(|| format!("topic {topic} has more partitions than there may be lanes"))
}

/// Asks Kafka every two seconds whether it is there. A thread: the question blocks.
pub(crate) fn watch_kafka(brokers: &str, topic: &str, health: &Component, stop: &Stop) -> anyhow::Result<()> {
    let reader = consumer::reader(brokers, "holdfast-fulfiller", "holdfast.fulfiller")?;
    while !stop.is_requested() {
        match consumer::partition_count(&reader, topic) {
            Ok(Some(_)) => health.up(),
            Ok(None) => health.down(missing(topic)),
            Err(error) => health.down(silent(&error)),
        }
        let mut waited = Duration::ZERO;
        while waited < LOOK_EVERY && !stop.is_requested() {
            thread::sleep(NAP);
            waited += NAP;
        }
    }
    Ok(())
}

fn missing(topic: &str) -> String {
    format!("topic {topic} is not there yet: run `holdfast topics`")
}

fn silent(error: &KafkaError) -> String {
    format!("Kafka does not answer: {error}")
}
