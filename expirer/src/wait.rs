//! Waiting for what the role needs before it can work, and watching Kafka while nothing is to be sent.

use std::{sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use plumbing::{
    backoff::Backoff,
    health::Component,
    kafka::{KafkaError, consumer},
    stop::Stop,
    task,
};
use schemas::{Codec, Registry};

const LOOK_EVERY: Duration = Duration::from_secs(2);
const NAP: Duration = Duration::from_millis(50);

fn patience() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(3))
}

/// The codec, once the registry has our schemas; `None` when asked to stop before.
pub(crate) async fn for_codec(
    registry: Registry,
    topic_prefix: &str,
    health: &Component,
    stop: &Stop,
) -> anyhow::Result<Option<Codec>> {
    let mut backoff = patience();
    loop {
        match Codec::connect(registry.clone(), topic_prefix).await {
            Ok(codec) => {
                health.up();
                return Ok(Some(codec));
            }
            Err(error) if error.is_transient() => health.down(error),
            Err(error) => return Err(error.into()),
        }
        if !backoff.sleep(stop).await {
            return Ok(None);
        }
    }
}

/// How many lanes there are, once the topic is there; `None` when asked to stop before.
pub(crate) async fn for_lanes(
    brokers: &str,
    topic: &str,
    health: &Component,
    stop: &Stop,
) -> anyhow::Result<Option<u16>> {
    let reader = Arc::new(consumer::reader(brokers, "holdfast-expirer", "holdfast.expirer")?);
    let mut backoff = patience();
    loop {
        let (asked, name) = (reader.clone(), topic.to_owned());
        let asking = task::thread("topic", move || consumer::partition_count(&asked, &name));
        match asking.await? {
            Ok(Some(lanes)) => {
                health.up();
                let lanes = u16::try_from(lanes).with_context(|| format!("topic {topic} has {lanes} partitions"))?;
                return Ok(Some(lanes));
            }
            Ok(None) => health.down(missing(topic)),
            Err(error) => health.down(silent(&error)),
        }
        if !backoff.sleep(stop).await {
            return Ok(None);
        }
    }
}

/// Asks Kafka every two seconds whether it is there. A thread: the question blocks.
pub(crate) fn watch_kafka(brokers: &str, topic: &str, health: &Component, stop: &Stop) -> anyhow::Result<()> {
    let reader = consumer::reader(brokers, "holdfast-expirer", "holdfast.expirer")?;
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
