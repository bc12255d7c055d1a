//! Reading one partition of the log in order, as every command-line tool does.
//!
//! A reader of the tools is in no hurry and commits nothing; it waits for a broker that is away, but not for ever.
//! Everything here blocks: it belongs on a thread of its own ([`plumbing::task::thread`]).

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use domain::{LaneState, Verdict};
use plumbing::{
    config::{Brokers, Connections},
    kafka::{KafkaError, consumer},
};
use rdkafka::{Message, error::RDKafkaErrorCode};
use schemas::{Codec, DecodeError, EventHeaders, Registry, codec::Learned};

/// How long a broker may say nothing at all before a tool gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(100);

/// One record, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// The broker's or the producer's timestamp in milliseconds.
    pub timestamp_ms: Option<i64>,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Value.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// A header as text, the first of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    /// The CloudEvents type without `holdfast.`: the name of the body.
    #[must_use]
    pub fn type_name(&self) -> Option<&str> {
        self.header("ce_type")?.strip_prefix("holdfast.")
    }

    /// The fold's numbers; `None` when they are missing or wrong, which makes the record void.
    #[must_use]
    pub fn stamp(&self) -> Option<domain::Stamp> {
        EventHeaders::read(
            self.headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_deref())),
        )
        .map(|headers| headers.stamp)
    }

    /// What the record counts for in the lane's fold.
    pub fn verdict(&self, state: &mut LaneState) -> Verdict {
        match self.stamp() {
            Some(stamp) => state.fold(self.offset, stamp),
            None => Verdict::Void,
        }
    }
}

/// What one look at the partition gave.
#[derive(Debug)]
pub enum Step {
    /// The next record.
    Record(Record),
    /// Nothing after the last record, as the broker said just now.
    End,
    /// Nothing came within a tenth of a second.
    Nothing,
}

/// A reader of one partition.
pub struct LogReader {
    reader: consumer::Reader,
    topic: String,
    partition: i32,
    next: i64,
    /// Assigned at `next`. Never again before something came of it: librdkafka aborts the process when a partition is
    /// assigned a third time while the second has not begun (its assertion `rktp_started`).
    assigned: bool,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogReader({} {} @ {})", self.topic, self.partition, self.next)
    }
}

impl LogReader {
    /// A reader of one partition from an offset on.
    ///
    /// # Errors
    /// The client's options are wrong (the brokers' address, mostly).
    pub fn open(brokers: &Brokers, topic: &str, partition: i32, from: i64) -> anyhow::Result<Self> {
        let reader = consumer::reader(brokers, "holdfast-cli", "holdfast-cli")?;
        Ok(Self {
            reader,
            topic: topic.to_owned(),
            partition,
            next: from,
            assigned: false,
        })
    }

    /// The offset after the last record that was read.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.next
    }

    /// The first offset that the broker still has, and the offset of the next record.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn bounds(&self) -> anyhow::Result<(i64, i64)> {
        consumer::bounds(&self.reader, &self.topic, self.partition)
            .with_context(|| format!("Kafka does not say where {}[{}] ends", self.topic, self.partition))
    }

    /// Goes on from another offset at the next read.
    pub fn seek(&mut self, to: i64) {
        self.next = to;
        self.assigned = false;
    }

    /// One look at the partition.
    ///
    /// # Errors
    /// The topic or the offset is not there (any more).
    pub fn step(&mut self) -> anyhow::Result<Step> {
        if !self.assigned {
            consumer::assign(&self.reader, &[(&self.topic, self.partition, self.next)])?;
            self.assigned = true;
        }
        let polled = poll(&self.reader).with_context(|| {
            let (topic, partition, next) = (&self.topic, self.partition, self.next);
            format!("{topic}[{partition}] cannot be read from offset {next} on")
        })?;
        Ok(match polled {
            Polled::Record(record) => {
                self.next = record.offset + 1;
                Step::Record(record)
            }
            Polled::End(_) => Step::End,
            Polled::Nothing => Step::Nothing,
        })
    }

    /// Hands over every record up to the end that the log has now. Records of open transactions are not at an end:
    /// nothing behind them is readable yet.
    ///
    /// # Errors
    /// The broker does not answer within [`PATIENCE`], the offset is gone, or `take` failed.
    pub fn read_to_end(&mut self, mut take: impl FnMut(Record) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.read_while(|record| take(record).map(|()| true))
    }

    /// As [`LogReader::read_to_end`], but `take` may say that it has enough.
    ///
    /// # Errors
    /// As [`LogReader::read_to_end`].
    pub fn read_while(&mut self, mut take: impl FnMut(Record) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let (_, end) = self.bounds()?;
        if self.next >= end {
            return Ok(());
        }
        // Assigned anew, so that the next end is one of now: the client reports each end only once.
        self.assigned = false;
        let mut heard = Instant::now();
        loop {
            match self.step()? {
                Step::Record(record) => {
                    heard = Instant::now();
                    if !take(record)? || self.next >= end {
                        return Ok(());
                    }
                }
                Step::End => return Ok(()),
                Step::Nothing if heard.elapsed() > PATIENCE => bail!(
                    "Kafka does not answer: {}[{}] gave neither a record nor its end for {} s",
                    self.topic,
                    self.partition,
                    PATIENCE.as_secs()
                ),
                Step::Nothing => {}
            }
        }
    }
}

/// What one look at all assigned partitions gave.
#[derive(Debug)]
pub enum Polled {
    /// The next record of some partition.
    Record(Record),
    /// Nothing after the last record of this partition, as the broker said just now.
    End(i32),
    /// Nothing came within a tenth of a second.
    Nothing,
}

/// One look at what is assigned to a reader.
///
/// # Errors
/// The topic or the offset is not there (any more).
pub fn poll(reader: &consumer::Reader) -> anyhow::Result<Polled> {
    use RDKafkaErrorCode::{
        AutoOffsetReset, OffsetOutOfRange, TopicAuthorizationFailed, UnknownPartition, UnknownTopic,
        UnknownTopicOrPartition,
    };
    match reader.poll(POLL) {
        None => Ok(Polled::Nothing),
        Some(Ok(message)) => Ok(Polled::Record(owned(&message))),
        Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Polled::End(partition)),
        Some(Err(KafkaError::MessageConsumption(UnknownTopicOrPartition | UnknownTopic | UnknownPartition))) => {
            bail!("there is no such topic or partition: run `holdfast topics`")
        }
        Some(Err(KafkaError::MessageConsumption(AutoOffsetReset | OffsetOutOfRange))) => {
            bail!("the log has no such offset (any more)")
        }
        Some(Err(KafkaError::MessageConsumption(TopicAuthorizationFailed))) => bail!("it may not be read"),
        Some(Err(error)) => {
            tracing::debug!(%error, "the log cannot be read at the moment");
            Ok(Polled::Nothing)
        }
    }
}

fn owned(message: &rdkafka::message::BorrowedMessage<'_>) -> Record {
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        headers: consumer::headers(message)
            .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
            .collect(),
        value: message.payload().map(<[u8]>::to_vec),
    }
}

/// The number of lanes: partitions that commands and events have in common.
///
/// # Errors
/// Kafka does not answer, a topic is missing, or the two differ.
pub fn lanes(connections: &Connections) -> anyhow::Result<u16> {
    let topics = schemas::Topics::with_prefix(&connections.topic_prefix);
    let reader = consumer::reader(&connections.kafka_brokers, "holdfast-cli", "holdfast-cli")?;
    let count = |topic: &str| {
        consumer::partition_count(&reader, topic)
            .with_context(|| format!("Kafka does not answer on {}", connections.kafka_brokers))?
            .with_context(|| format!("there is no topic {topic}: run `holdfast topics`"))
    };
    let (commands, events) = (count(&topics.commands)?, count(&topics.events)?);
    if commands != events {
        bail!(
            "{} has {commands} partitions but {} has {events}: they must be co-partitioned",
            topics.commands,
            topics.events
        );
    }
    u16::try_from(commands).context("more lanes than a hold id can name")
}

/// Decodes with whatever schema the registry knows, asking it for ids that are new. Blocks: the runtime's handle is for the
/// registry's answers.
#[derive(Debug, Clone)]
pub struct Decoder {
    codec: Codec,
    runtime: tokio::runtime::Handle,
}

impl Decoder {
    /// Finds our schemas in the registry.
    ///
    /// # Errors
    /// The registry does not answer or has no schemas yet.
    pub async fn connect(connections: &Connections) -> anyhow::Result<Self> {
        let registry = Registry::new(connections.registry_url.expose())?;
        Ok(Self {
            codec: Codec::connect(registry, &connections.topic_prefix).await?,
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// The codec underneath.
    #[must_use]
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Decodes an event.
    ///
    /// # Errors
    /// The outer error: the registry does not answer. The inner one: what is wrong with the record.
    pub fn event(&self, value: Option<&[u8]>) -> anyhow::Result<Result<domain::Event, DecodeError>> {
        self.with_schema(value, |bytes| self.codec.decode_event(bytes))
    }

    /// Decodes a command.
    ///
    /// # Errors
    /// As [`Decoder::event`].
    pub fn command(&self, value: Option<&[u8]>) -> anyhow::Result<Result<domain::Command, DecodeError>> {
        self.with_schema(value, |bytes| self.codec.decode_command(bytes))
    }

    fn with_schema<T>(
        &self,
        value: Option<&[u8]>,
        decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
    ) -> anyhow::Result<Result<T, DecodeError>> {
        let bytes = value.unwrap_or_default();
        match decode(bytes) {
            Err(DecodeError::UnknownSchema(id)) => match self.runtime.block_on(self.codec.learn(id))? {
                Learned::Schema => Ok(decode(bytes)),
                Learned::NoSuchSchema => Ok(Err(DecodeError::Malformed(format!(
                    "the registry knows no schema {id}"
                )))),
            },
            decided => Ok(decided),
        }
    }
}
