//! A Kafka that loses acknowledgements, delays, duplicates, and now and then does not answer at all.
//!
//! What is appended is the log, in one order for everybody. What is uncertain is whether and when a record is appended,
//! what its writer hears of it, and when a reader sees it.

mod read;
mod write;

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashSet},
    rc::Rc,
};

use domain::{LaneState, Stamp, Verdict};
use plumbing::kafka::{
    KafkaError,
    producer::{Position, ProduceError},
};
use rdkafka::{error::RDKafkaErrorCode, message::OwnedHeaders};

use crate::state::{Micros, SECOND};

pub(crate) use read::Fetch;

/// How long librdkafka tries before it gives a record up.
pub(crate) const MESSAGE_TIMEOUT: Micros = 10 * SECOND;

/// Called once with a record's fate.
pub(crate) type Done = Box<dyn FnOnce(Result<Position, ProduceError>) + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    Commands,
    Events,
    DeadLetters,
}

/// A record in the log.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: OwnedHeaders,
    /// The broker's, in milliseconds.
    pub(crate) timestamp: i64,
    /// Of an event: what the fold reads, and what it makes of it.
    pub(crate) stamp: Option<Stamp>,
    pub(crate) verdict: Verdict,
    /// What it says, once somebody has decoded it.
    pub(crate) event: OnceCell<Rc<domain::Event>>,
}

/// One partition; an offset without a record is a transaction's marker or an aborted record.
#[derive(Default)]
pub(crate) struct Partition {
    pub(crate) low: i64,
    pub(crate) slots: Vec<Option<Rc<Record>>>,
    /// The fold of an events partition.
    pub(crate) fold: LaneState,
    /// What some reading has missed: no other misses it, too.
    missed: HashSet<i64>,
    /// Readers that wait for it.
    waiting: Vec<usize>,
}

impl Partition {
    pub(crate) fn end(&self) -> i64 {
        i64::try_from(self.slots.len()).expect("stories are short")
    }

    pub(crate) fn record(&self, offset: i64) -> Option<&Rc<Record>> {
        self.slots.get(usize::try_from(offset).ok()?)?.as_ref()
    }

    /// The offset of the last record.
    pub(crate) fn last(&self) -> i64 {
        self.slots
            .iter()
            .rposition(Option::is_some)
            .map_or(-1, |at| i64::try_from(at).expect("short"))
    }
}

/// A record on its way.
pub(crate) struct Append {
    pub(crate) topic: Topic,
    pub(crate) partition: usize,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: OwnedHeaders,
    /// Whose it is, if a lane's.
    pub(crate) task: Option<usize>,
    /// Whoever waits for the acknowledgement; none when that is lost, or this is the second copy.
    pub(crate) done: Option<Done>,
}

/// A position in one partition, of one reader.
#[derive(Debug)]
struct Cursor {
    topic: Topic,
    partition: usize,
    next: i64,
    /// What is fetched ends here.
    fetched: i64,
    /// When a fetch comes back, and where it ends.
    coming: Option<(Micros, i64)>,
    paused: bool,
    end_told: bool,
    /// The record that this reader has missed once.
    missed: Option<i64>,
}

/// A reader.
#[derive(Default)]
pub(crate) struct ReaderState {
    task: usize,
    cursors: Vec<Cursor>,
}

pub(crate) struct Kafka {
    pub(crate) commands: Vec<Partition>,
    pub(crate) events: Vec<Partition>,
    pub(crate) dead_letters: Partition,
    pub(crate) readers: Vec<ReaderState>,
    /// Forward cursors by lane.
    pub(crate) committed: BTreeMap<i32, (i64, String)>,
    /// When the last record of each writer arrives.
    writers: Vec<Micros>,
    /// Nothing answers until then.
    pub(crate) down_until: Micros,
}

impl Kafka {
    pub(crate) fn new(lanes: usize) -> Self {
        let partitions = || (0..lanes).map(|_| Partition::default()).collect();
        Self {
            commands: partitions(),
            events: partitions(),
            dead_letters: Partition::default(),
            readers: Vec::new(),
            committed: BTreeMap::new(),
            writers: Vec::new(),
            down_until: 0,
        }
    }

    pub(crate) fn partition(&self, topic: Topic, partition: usize) -> &Partition {
        match topic {
            Topic::Commands => &self.commands[partition],
            Topic::Events => &self.events[partition],
            Topic::DeadLetters => &self.dead_letters,
        }
    }

    fn partition_mut(&mut self, topic: Topic, partition: usize) -> &mut Partition {
        match topic {
            Topic::Commands => &mut self.commands[partition],
            Topic::Events => &mut self.events[partition],
            Topic::DeadLetters => &mut self.dead_letters,
        }
    }

    pub(crate) fn new_writer(&mut self) -> usize {
        self.writers.push(0);
        self.writers.len() - 1
    }

    pub(crate) fn new_reader(&mut self, task: usize) -> usize {
        self.readers.push(ReaderState {
            task,
            ..ReaderState::default()
        });
        self.readers.len() - 1
    }

    pub(crate) fn assign(&mut self, reader: usize, from: impl Iterator<Item = (Topic, usize, i64)>) {
        self.readers[reader].cursors = from
            .map(|(topic, partition, next)| Cursor {
                topic,
                partition,
                next,
                fetched: next,
                coming: None,
                paused: false,
                end_told: false,
                missed: None,
            })
            .collect();
    }

    fn cursor(&mut self, reader: usize, topic: Topic, partition: usize) -> Option<&mut Cursor> {
        let cursors = &mut self.readers[reader].cursors;
        cursors
            .iter_mut()
            .find(|cursor| (cursor.topic, cursor.partition) == (topic, partition))
    }

    pub(crate) fn seek(&mut self, reader: usize, topic: Topic, partition: usize, next: i64) {
        if let Some(cursor) = self.cursor(reader, topic, partition) {
            cursor.next = next;
            cursor.fetched = next;
            cursor.coming = None;
            cursor.end_told = false;
        }
    }

    /// Whether a lane's owner has read all of its events.
    pub(crate) fn has_read(&self, task: usize, lane: usize) -> bool {
        let own = self.readers.iter().rev().filter(|reader| reader.task == task);
        let mut cursors = own.flat_map(|reader| &reader.cursors);
        let of_lane = |cursor: &&Cursor| (cursor.topic, cursor.partition) == (Topic::Events, lane);
        cursors
            .find(of_lane)
            .is_some_and(|cursor| cursor.next >= self.events[lane].end())
    }

    /// Whether what a reader has missed is the last record there is.
    pub(crate) fn missed_last(&mut self, reader: usize, topic: Topic, partition: usize) -> bool {
        let last = self.partition(topic, partition).last();
        let cursor = self.cursor(reader, topic, partition);
        cursor.is_some_and(|cursor| cursor.missed == Some(last))
    }

    pub(crate) fn set_paused(&mut self, reader: usize, topic: Topic, partition: usize, paused: bool) {
        if let Some(cursor) = self.cursor(reader, topic, partition) {
            cursor.paused = paused;
        }
    }

    /// Notes that a reader waits for whatever comes.
    pub(crate) fn wait(&mut self, reader: usize) {
        let places: Vec<_> = self.readers[reader]
            .cursors
            .iter()
            .map(|c| (c.topic, c.partition))
            .collect();
        for (topic, partition) in places {
            let waiting = &mut self.partition_mut(topic, partition).waiting;
            if !waiting.contains(&reader) {
                waiting.push(reader);
            }
        }
    }
}

/// What reading of a deleted offset comes to.
pub(crate) fn out_of_range() -> KafkaError {
    KafkaError::MessageConsumption(RDKafkaErrorCode::OffsetOutOfRange)
}

/// What a broker that does not answer comes to.
pub(crate) fn no_answer() -> KafkaError {
    KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut)
}
