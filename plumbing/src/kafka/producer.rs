//! A producer that never blocks: acknowledgements come back by callback or as a future.

use std::{future::Future, sync::Arc, time::Duration};

use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};
use tokio::sync::oneshot;

use super::client;
use crate::{config::Brokers, task};

/// How long the polling thread sleeps when nothing is delivered: only its end waits for it. (rdkafka's own thread polls for
/// 100 ms at a time, and spins through the last millisecond of each: 1 % of a processor per idle producer.)
const POLL: Duration = Duration::from_secs(1);

/// One record to produce.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Full topic name.
    pub topic: &'a str,
    /// Explicit partition; `None` lets the key decide as the Java client does.
    pub partition: Option<i32>,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub value: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: &'a [(&'static str, String)],
}

/// A record that is ready to be queued at once: many of them, queued in one go, share a request.
pub struct Prepared {
    partition: i32,
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    headers: OwnedHeaders,
    done: Callback,
}

/// A prepared record taken apart, for a writer that is not librdkafka.
pub struct Parts {
    /// Partition.
    pub partition: i32,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Vec<u8>,
    /// Headers, in order.
    pub headers: OwnedHeaders,
    /// To be called once with the record's fate.
    pub done: Callback,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared")
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

impl Prepared {
    /// A record for a partition; `done` is called once with its fate.
    #[must_use]
    pub fn new(
        partition: i32,
        key: Option<&[u8]>,
        value: Vec<u8>,
        headers: &[(&'static str, String)],
        done: impl FnOnce(Result<Position, ProduceError>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            partition,
            key: key.map(<[u8]>::to_vec),
            value,
            headers: owned(headers),
            done: Box::new(done),
        }
    }

    /// Takes it apart.
    #[must_use]
    pub fn into_parts(self) -> Parts {
        let Self {
            partition,
            key,
            value,
            headers,
            done,
        } = self;
        Parts {
            partition,
            key,
            value,
            headers,
            done,
        }
    }

    /// Where it goes.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Calls `after` when the record has its fate and whoever waits for it was told, with its offset if it was acknowledged.
    #[must_use]
    pub fn and_then(self, after: impl FnOnce(Option<i64>) + Send + Sync + 'static) -> Self {
        let done = self.done;
        let both = move |result: Result<Position, ProduceError>| {
            let offset = result.as_ref().ok().map(|position| position.offset);
            done(result);
            after(offset);
        };
        Self {
            done: Box::new(both),
            ..self
        }
    }

    /// Tells whoever waits for it that it is not sent.
    pub fn refuse(self, why: ProduceError) {
        (self.done)(Err(why));
    }
}

fn owned(headers: &[(&'static str, String)]) -> OwnedHeaders {
    headers
        .iter()
        .fold(OwnedHeaders::new_with_capacity(headers.len()), |owned, (key, value)| {
            owned.insert(Header {
                key,
                value: Some(value.as_str()),
            })
        })
}

fn refusal(error: KafkaError) -> ProduceError {
    match error {
        KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => ProduceError::QueueFull,
        other => ProduceError::Unacknowledged(other),
    }
}

/// Where an acknowledged record stands: every in-sync replica has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// Why there is no acknowledgement.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProduceError {
    /// The record was never sent.
    #[error("the producer's queue is full")]
    QueueFull,
    /// The record was never sent, because one before it in its partition was not acknowledged.
    #[error("the broker did not acknowledge what was sent before")]
    Behind,
    /// The record was not written, or nobody knows.
    #[error("the broker did not acknowledge: {0}")]
    Unacknowledged(KafkaError),
}

impl ProduceError {
    /// Whether the record may be in the log all the same.
    #[must_use]
    pub fn maybe_sent(&self) -> bool {
        match self {
            Self::QueueFull | Self::Behind => false,
            Self::Unacknowledged(_) => true,
        }
    }
}

/// Called once with a record's fate.
pub type Callback = Box<dyn FnOnce(Result<Position, ProduceError>) + Send + Sync>;

struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Callback>;

    fn delivery(&self, result: &DeliveryResult<'_>, callback: Box<Callback>) {
        callback(match result {
            Ok(message) => Ok(Position {
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((error, _)) => Err(ProduceError::Unacknowledged(error.clone())),
        });
    }
}

/// An idempotent producer with a thread that polls it. Clones share one client.
#[derive(Clone)]
pub struct Producer {
    client: Arc<BaseProducer<Deliveries>>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl Producer {
    /// Makes a producer; no connection is needed yet.
    ///
    /// # Errors
    /// [`KafkaError`] when librdkafka refuses the options.
    pub fn new(brokers: &Brokers, client_id: &str, linger_ms: &str) -> Result<Self, KafkaError> {
        let client: BaseProducer<Deliveries> =
            client::producer(brokers, client_id, linger_ms).create_with_context(Deliveries)?;
        let client = Arc::new(client);
        let polled = Arc::clone(&client);
        drop(task::thread("producer-poll", move || {
            // Then this thread has the last of it and drops it: librdkafka's drop polls in steps of 100 ms, never on a
            // caller's thread.
            while Arc::strong_count(&polled) > 1 {
                polled.poll(POLL);
            }
        }));
        Ok(Self { client })
    }

    /// Queues a prepared record of a topic; what it was prepared with is called once with its fate, whatever that is.
    pub fn send_prepared(&self, topic: &str, prepared: Prepared) {
        let Prepared {
            partition,
            key,
            value,
            headers,
            done,
        } = prepared;
        let mut queued: BaseRecord<'_, [u8], [u8], Box<Callback>> =
            BaseRecord::with_opaque_to(topic, Box::new(done)).headers(headers);
        queued.partition = Some(partition);
        queued.key = key.as_deref();
        queued.payload = Some(&value);
        if let Err((error, refused)) = self.client.send(queued) {
            (refused.delivery_opaque)(Err(refusal(error)));
        }
    }

    /// Queues a record; `done` is called once, from librdkafka's thread, with its fate.
    ///
    /// # Errors
    /// [`ProduceError`] when it could not even be queued; `done` is not called then.
    pub fn send_then(
        &self,
        record: Record<'_>,
        done: impl FnOnce(Result<Position, ProduceError>) + Send + Sync + 'static,
    ) -> Result<(), ProduceError> {
        let callback: Callback = Box::new(done);
        let headers = owned(record.headers);
        let mut queued: BaseRecord<'_, [u8], [u8], Box<Callback>> =
            BaseRecord::with_opaque_to(record.topic, Box::new(callback)).headers(headers);
        queued.partition = record.partition;
        queued.key = record.key;
        queued.payload = record.value;
        self.client.send(queued).map_err(|(error, _)| refusal(error))
    }

    /// Queues a record and returns its acknowledgement to wait for. Dropping the future does not take the record back.
    ///
    /// # Errors
    /// [`ProduceError`] when it could not even be queued.
    pub fn send(
        &self,
        record: Record<'_>,
    ) -> Result<impl Future<Output = Result<Position, ProduceError>> + Send + use<>, ProduceError> {
        let (done, acknowledged) = oneshot::channel();
        self.send_then(record, move |result| {
            // Nobody waits any more: the record's fate stands in the log.
            let _gone = done.send(result);
        })?;
        Ok(async move {
            acknowledged
                .await
                .unwrap_or(Err(ProduceError::Unacknowledged(KafkaError::Canceled)))
        })
    }

    /// Records that are queued or in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.client.in_flight_count()).unwrap_or(0)
    }

    /// Waits until every queued record has its fate, at most `timeout`. Blocks: only at shutdown.
    ///
    /// # Errors
    /// [`KafkaError`] when some have none yet.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        self.client.flush(timeout)
    }
}
