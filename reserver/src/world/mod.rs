//! The world outside of a lane: all that its thread asks of Kafka, Redis, Postgres, the clock and chance.
//!
//! A process lives in [`live::Live`]. Another world may decide by itself what goes wrong and when; the protocol is the same
//! code.

pub(crate) mod live;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use domain::{Lane, Ledger, Millis};
use plumbing::kafka::{
    KafkaError,
    producer::{Position, Prepared, ProduceError, Record},
};
use rdkafka::Message;
use redis::{ConnectionLike, RedisResult, Value};
use schemas::picture::{self, Checkpoint};
use tokio::sync::oneshot;
use uuid::Uuid;

/// The world of one process.
pub trait World {
    /// Reads Kafka's partitions.
    type Reader: LogReader;
    /// Writes to Kafka.
    type Writer: LogWriter;
    /// One TCP connection to Redis, which never connects again by itself (rule 3).
    type Redis: LaneConnection;

    /// A reader; it need not be connected yet.
    ///
    /// # Errors
    /// When Kafka's client refuses its options.
    fn reader(&self, client_id: &str) -> Result<Self::Reader, KafkaError>;

    /// A writer whose records arrive in order, each once or not at all; it need not be connected yet.
    ///
    /// # Errors
    /// When Kafka's client refuses its options.
    fn writer(&self, client_id: &str) -> Result<Self::Writer, KafkaError>;

    /// A new connection to whichever Redis answers now.
    ///
    /// # Errors
    /// When none does.
    fn redis(&self) -> RedisResult<Self::Redis>;

    /// Postgres' checkpoint of a lane; `None` where it has none. A Postgres that hangs is one that is away.
    ///
    /// # Errors
    /// When Postgres does not answer in time.
    fn checkpoint(&self, lane: Lane) -> Result<Option<Checkpoint>, picture::Error>;

    /// Postgres' picture of a lane at its checkpoint, both of one moment; tells as it goes on how many more rows were read.
    ///
    /// # Errors
    /// When Postgres does not answer.
    fn picture(
        &self,
        lane: Lane,
        remember_ms: i64,
        tell: impl FnMut(usize) + Send,
    ) -> Result<Option<(Checkpoint, Ledger)>, picture::Error>;

    /// Waits on the lane's thread for what other threads bring about.
    fn wait<F: Future>(&self, future: F) -> F::Output;

    /// The clock of waiting; no decision depends on it.
    fn now(&self) -> Instant;

    /// The wall clock, for what people read.
    fn now_ms(&self) -> Millis;

    /// Lets time pass.
    fn sleep(&self, delay: Duration);

    /// A number that nobody else has.
    fn nonce(&self) -> Uuid;
}

/// One connection to Redis, which may have requests on their way.
pub trait LaneConnection: ConnectionLike {
    /// Sends a request and does not wait for its reply.
    ///
    /// # Errors
    /// When the connection is broken.
    fn send(&mut self, packed: &[u8]) -> RedisResult<()>;

    /// The reply of the oldest request that was sent so.
    ///
    /// # Errors
    /// When the connection is broken, or the reply does not come in time.
    fn receive(&mut self) -> RedisResult<Value>;
}

/// A reader of assigned partitions.
pub trait LogReader {
    /// A record as it was read.
    type Record<'r>: Message
    where
        Self: 'r;

    /// Reads these partitions from these offsets on, and nothing else.
    ///
    /// # Errors
    /// When Kafka's client refuses.
    fn assign(&self, from: &[(&str, i32, i64)]) -> Result<(), KafkaError>;

    /// The next record of any of them, or what is wrong with one; `None` when nothing comes in time.
    fn poll(&self, wait: Duration) -> Option<Result<Self::Record<'_>, KafkaError>>;

    /// Reads a partition from elsewhere on; what was fetched of it is forgotten.
    ///
    /// # Errors
    /// When the broker does not answer in time.
    fn seek(&self, topic: &str, partition: i32, offset: i64) -> Result<(), KafkaError>;

    /// Gives nothing of a partition until it is resumed.
    ///
    /// # Errors
    /// When Kafka's client refuses.
    fn pause(&self, topic: &str, partition: i32) -> Result<(), KafkaError>;

    /// Ends a pause.
    ///
    /// # Errors
    /// When Kafka's client refuses.
    fn resume(&self, topic: &str, partition: i32) -> Result<(), KafkaError>;

    /// The first offset that the broker still has and the offset of the next record.
    ///
    /// # Errors
    /// When the broker does not answer in time.
    fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64), KafkaError>;

    /// The reader's group's committed positions, of those partitions that have one.
    ///
    /// # Errors
    /// When the broker does not answer in time.
    fn committed(&self, topic: &str, partitions: &[i32]) -> Result<Vec<Committed>, KafkaError>;

    /// Commits a position for the reader's group; `wait`: until the broker has it.
    ///
    /// # Errors
    /// When the broker does not take it.
    fn commit(&self, topic: &str, position: &Committed, wait: bool) -> Result<(), KafkaError>;
}

/// A committed position.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Partition.
    pub partition: i32,
    /// The next offset to read.
    pub next: i64,
    /// What was committed with it.
    pub metadata: String,
}

/// A writer of records.
pub trait LogWriter {
    /// Queues a record; `done` is called once with its fate, from any thread.
    ///
    /// # Errors
    /// When it could not even be queued; `done` is not called then.
    fn send_then(
        &self,
        record: Record<'_>,
        done: impl FnOnce(Result<Position, ProduceError>) + Send + Sync + 'static,
    ) -> Result<(), ProduceError>;

    /// Queues prepared events in order and in one go, so that they share a request.
    fn publish(&self, events: Vec<Prepared>);

    /// Queues a record and returns its fate to wait for.
    ///
    /// # Errors
    /// When it could not even be queued.
    fn send(
        &self,
        record: Record<'_>,
    ) -> Result<impl Future<Output = Result<Position, ProduceError>> + 'static, ProduceError> {
        let (done, fate) = oneshot::channel();
        self.send_then(record, move |result| {
            // Nobody waits any more: the record's fate stands in the log.
            let _gone = done.send(result);
        })?;
        Ok(async move {
            fate.await
                .unwrap_or(Err(ProduceError::Unacknowledged(KafkaError::Canceled)))
        })
    }
}
