//! Readers of assigned partitions.

use std::time::Duration;

use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    message::Headers,
};

use super::client;
use crate::config::Brokers;
use crate::{task, wait::Attempt};

/// A context that keeps librdkafka's chatter at debug level: roles log what it means to them.
#[derive(Debug)]
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for Quiet {}

/// A consumer of assigned partitions.
pub type Reader = BaseConsumer<Quiet>;

/// How long one question to a broker may take.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes a reader; no connection is needed yet.
///
/// # Errors
/// [`KafkaError`] when librdkafka refuses the options.
pub fn reader(brokers: &Brokers, client_id: &str, group_id: &str) -> Result<Reader, KafkaError> {
    client::reader(brokers, client_id, group_id).create_with_context(Quiet)
}

/// Makes a reader for work in the background: see [`client::background_reader`].
///
/// # Errors
/// [`KafkaError`] when librdkafka refuses the options.
pub fn background_reader(brokers: &Brokers, client_id: &str, group_id: &str) -> Result<Reader, KafkaError> {
    client::background_reader(brokers, client_id, group_id).create_with_context(Quiet)
}

/// A wait that a poll sleeps through: at least one, and whole milliseconds. librdkafka knows no shorter ones, and rdkafka spins
/// through what is left of them.
#[must_use]
pub fn whole_millis(wait: Duration) -> Duration {
    let millis = wait.as_micros().div_ceil(1_000).max(1);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// Reads these partitions from these offsets on, and nothing else.
///
/// # Errors
/// [`KafkaError`] when librdkafka refuses the assignment.
pub fn assign(reader: &Reader, from: &[(&str, i32, i64)]) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in from {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    reader.assign(&list)
}

/// The first offset that the broker still has and the offset of the next record.
///
/// # Errors
/// [`KafkaError`] when the broker does not answer in time.
pub fn bounds(reader: &Reader, topic: &str, partition: i32) -> Result<(i64, i64), KafkaError> {
    reader.fetch_watermarks(topic, partition, ASK_TIMEOUT)
}

/// How many partitions a topic has; `None` when there is no such topic.
///
/// # Errors
/// [`KafkaError`] when no broker answers in time.
pub fn partition_count(reader: &Reader, topic: &str) -> Result<Option<usize>, KafkaError> {
    let metadata = reader.fetch_metadata(Some(topic), ASK_TIMEOUT)?;
    Ok(metadata
        .topics()
        .iter()
        .find(|found| found.name() == topic && found.error().is_none())
        .map(|found| found.partitions().len())
        .filter(|count| *count > 0))
}

/// How many partitions a topic has, asked on a thread of its own: for roles that wait for their topics at start.
///
/// # Errors
/// [`Attempt::Again`] when no broker answers, or the topic is not there yet.
pub async fn wait_partition_count(brokers: &Brokers, topic: &str) -> Result<usize, Attempt> {
    let (asked, name) = (brokers.clone(), topic.to_owned());
    let asking = task::thread("partition-count", move || {
        partition_count(&reader(&asked, "holdfast-start", "holdfast.start")?, &name)
    });
    match asking.await.map_err(|panicked| Attempt::Never(panicked.into()))? {
        Ok(Some(count)) => Ok(count),
        Ok(None) => Err(Attempt::Again(format!(
            "topic {topic} is not there yet: run `holdfast topics`"
        ))),
        Err(error) => Err(Attempt::Again(format!("Kafka at {brokers} does not answer: {error}"))),
    }
}

/// A record's headers, in order.
pub fn headers<M: Message>(message: &M) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter().map(|header| (header.key, header.value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_on_a_whole_millisecond_and_is_never_none() {
        for (wait, polled) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (49_700, 50)] {
            assert_eq!(
                whole_millis(Duration::from_micros(wait)),
                Duration::from_millis(polled),
                "{wait} µs"
            );
        }
    }
}
