//! The world of a process: librdkafka, one TCP connection to Redis, Postgres, the machine's clock.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use domain::{Lane, Ledger, Millis};
use plumbing::{
    config::Connections,
    kafka::{
        KafkaError,
        consumer::{self, Reader},
        producer::{Position, Prepared, ProduceError, Record},
        window::{Clients, Windows},
    },
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
    message::BorrowedMessage,
};
use redis::{RedisResult, Value};
use schemas::picture::{self, Checkpoint};
use sqlx::PgPool;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::{Committed, LaneConnection, LogReader, LogWriter, World};
use crate::scripts;

/// A Postgres that hangs is one that is away: lanes do not wait for it where the log alone is enough.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(2);

/// What one process's lanes work with.
pub(crate) struct Live {
    pub(crate) connections: Connections,
    /// The group whose committed offsets are the forward cursors.
    pub(crate) group: String,
    pub(crate) linger_ms: String,
    /// Full name of the events topic.
    pub(crate) events: String,
    pub(crate) lanes: u16,
    pub(crate) postgres: PgPool,
    pub(crate) runtime: Handle,
}

impl World for Live {
    type Reader = Reader;
    type Writer = Writer;
    type Redis = redis::Connection;

    fn reader(&self, client_id: &str) -> Result<Reader, KafkaError> {
        consumer::reader(&self.connections.kafka_brokers, client_id, &self.group)
    }

    fn writer(&self, client_id: &str) -> Result<Writer, KafkaError> {
        let clients = Clients::new(&self.connections.kafka_brokers, client_id, &self.linger_ms)?;
        Ok(Writer {
            events: Windows::new(&clients, &self.events, self.lanes),
            clients,
        })
    }

    fn redis(&self) -> RedisResult<redis::Connection> {
        scripts::connect(self.connections.redis_url.expose())
    }

    fn checkpoint(&self, lane: Lane) -> Result<Option<Checkpoint>, picture::Error> {
        let asked = self.wait(async {
            let asking = picture::checkpoint(&self.postgres, lane);
            tokio::time::timeout(CHECKPOINT_WITHIN, asking).await
        });
        asked.unwrap_or(Err(picture::Error::Database(sqlx::Error::PoolTimedOut)))
    }

    fn picture(
        &self,
        lane: Lane,
        remember_ms: i64,
        tell: impl FnMut(usize) + Send,
    ) -> Result<Option<(Checkpoint, Ledger)>, picture::Error> {
        self.wait(picture::load_telling(&self.postgres, lane, remember_ms, tell))
    }

    fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn now_ms(&self) -> Millis {
        plumbing::time::now_ms()
    }

    fn sleep(&self, delay: Duration) {
        std::thread::sleep(delay);
    }

    fn nonce(&self) -> Uuid {
        plumbing::id::random()
    }
}

impl LaneConnection for redis::Connection {
    fn send(&mut self, packed: &[u8]) -> RedisResult<()> {
        self.send_packed_command(packed)
    }

    fn receive(&mut self) -> RedisResult<Value> {
        self.recv_response()
    }
}

fn list(topic: &str, partition: i32) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    list
}

impl LogReader for Reader {
    type Record<'r> = BorrowedMessage<'r>;

    fn assign(&self, from: &[(&str, i32, i64)]) -> Result<(), KafkaError> {
        consumer::assign(self, from)
    }

    fn poll(&self, wait: Duration) -> Option<Result<BorrowedMessage<'_>, KafkaError>> {
        Self::poll(self, wait)
    }

    fn seek(&self, topic: &str, partition: i32, offset: i64) -> Result<(), KafkaError> {
        Consumer::seek(self, topic, partition, Offset::Offset(offset), consumer::ASK_TIMEOUT)
    }

    fn pause(&self, topic: &str, partition: i32) -> Result<(), KafkaError> {
        Consumer::pause(self, &list(topic, partition))
    }

    fn resume(&self, topic: &str, partition: i32) -> Result<(), KafkaError> {
        Consumer::resume(self, &list(topic, partition))
    }

    fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64), KafkaError> {
        consumer::bounds(self, topic, partition)
    }

    fn committed(&self, topic: &str, partitions: &[i32]) -> Result<Vec<Committed>, KafkaError> {
        let mut wanted = TopicPartitionList::new();
        for partition in partitions {
            wanted.add_partition(topic, *partition);
        }
        let found = self.committed_offsets(wanted, consumer::ASK_TIMEOUT)?;
        let positions = found.elements().into_iter().filter_map(|element| {
            let Offset::Offset(next) = element.offset() else {
                return None;
            };
            Some(Committed {
                partition: element.partition(),
                next,
                metadata: element.metadata().to_owned(),
            })
        });
        Ok(positions.collect())
    }

    fn commit(&self, topic: &str, position: &Committed, wait: bool) -> Result<(), KafkaError> {
        let mut cursor = TopicPartitionList::new();
        let mut element = cursor.add_partition(topic, position.partition);
        element.set_offset(Offset::Offset(position.next))?;
        element.set_metadata(&position.metadata);
        let mode = if wait { CommitMode::Sync } else { CommitMode::Async };
        Consumer::commit(self, &cursor, mode)
    }
}

/// Outcomes go through a window; what is sent now and then goes at once.
pub(crate) struct Writer {
    clients: Clients,
    events: Windows,
}

impl LogWriter for Writer {
    fn send_then(
        &self,
        record: Record<'_>,
        done: impl FnOnce(Result<Position, ProduceError>) + Send + Sync + 'static,
    ) -> Result<(), ProduceError> {
        self.clients.prompt().send_then(record, done)
    }

    fn publish(&self, events: Vec<Prepared>) {
        self.events.send_all(events);
    }
}
