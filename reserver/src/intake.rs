//! Intake: the lane's commands in log order, without gaps that are not in the log, each turned into what is asked.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use domain::Lane;
use plumbing::kafka::consumer;
use rdkafka::{Message, Timestamp};
use schemas::{
    codec::{DecodeError, Learned},
    headers::TRACEPARENT,
};
use sha2::{Digest, Sha256};

use crate::{
    Shared,
    end::End,
    pack::{Asked, Entry},
    world::World,
};

/// Most lines in one script call.
const BATCH_LINES: usize = 1_000;
/// How long a schema id that the registry did not know is taken as unknown without asking again.
const POISON_FOR: Duration = Duration::from_secs(60);

/// A command record as it was read.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) offset: i64,
    pub(crate) previous: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) traceparent: Option<String>,
}

/// A record that can never be read, to be buried before its offset is decided.
#[derive(Debug)]
pub(crate) struct Poison {
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) message: String,
}

/// The next commands to decide.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry>,
    pub(crate) poison: Vec<Poison>,
}

/// The lane's commands between Kafka and the script.
pub(crate) struct Intake {
    queue: VecDeque<Raw>,
    /// The record read before the next one; -1 before the first.
    previous: i64,
    /// Offsets as the first reading beyond a hole showed them, ascending.
    first_reading: Vec<i64>,
    /// Whether a hole was met, and what follows is only being looked at.
    looking: bool,
    schemas: Schemas,
}

#[derive(Default)]
struct Schemas {
    asked_since: HashMap<u32, Instant>,
    poison_until: HashMap<u32, Instant>,
    ask_again: Option<Instant>,
}

enum Known {
    Yes,
    No,
    NotYet,
}

impl Intake {
    /// Commands after `decided`.
    pub(crate) fn after(decided: i64) -> Self {
        Self {
            queue: VecDeque::new(),
            previous: decided,
            first_reading: Vec::new(),
            looking: false,
            schemas: Schemas::default(),
        }
    }

    /// Commands that wait to be decided.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The offset after the last record that was taken.
    pub(crate) fn next(&self) -> i64 {
        self.previous + 1
    }

    /// Takes a record from the commands partition.
    pub(crate) fn take(&mut self, message: &impl Message) -> Result<(), End> {
        let offset = message.offset();
        if offset <= self.previous {
            return Ok(());
        }
        if self.looking || (offset > self.next() && !self.is_believed(offset)) {
            self.looking = true;
            self.first_reading.push(offset);
            return Ok(());
        }
        let Timestamp::LogAppendTime(timestamp) = message.timestamp() else {
            return Err(End::Halt(format!(
                "command {offset} has no LogAppendTime: set message.timestamp.type=LogAppendTime on {}",
                message.topic()
            )));
        };
        let traceparent = consumer::headers(message)
            .find(|(name, _)| *name == TRACEPARENT)
            .and_then(|(_, value)| Some(std::str::from_utf8(value?).ok()?.to_owned()));
        self.queue.push_back(Raw {
            offset,
            previous: self.previous,
            timestamp,
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            traceparent,
        });
        self.previous = offset;
        Ok(())
    }

    /// A hole is believed when a fresh reading from its start shows it as the first reading did.
    fn is_believed(&self, offset: i64) -> bool {
        self.first_reading.iter().find(|seen| **seen >= self.next()) == Some(&offset)
    }

    /// Where to read again, after a hole was met.
    pub(crate) fn read_again_from(&mut self) -> Option<i64> {
        if !std::mem::take(&mut self.looking) {
            return None;
        }
        let next = self.next();
        self.first_reading.retain(|offset| *offset >= next);
        self.first_reading.sort_unstable();
        Some(next)
    }

    /// Closes a hole at the end of a quiet lane: offsets up to `last` hold no record.
    pub(crate) fn skip_to(&mut self, last: i64, timestamp: i64) -> Entry {
        let entry = Entry {
            offset: last,
            previous: self.previous,
            timestamp,
            hash: 0,
            key: None,
            traceparent: None,
            asked: Asked::Skip,
        };
        self.previous = last;
        entry
    }

    /// The next batch; empty where nothing waits, or the next record has to wait for the registry or an upgrade.
    pub(crate) fn next_batch<W: World>(&mut self, shared: &Shared<W>, lane: Lane) -> Result<Batch, End> {
        let mut batch = Batch::default();
        let mut lines = 0;
        while batch.entries.len() < shared.batch() && lines < BATCH_LINES {
            let Some(raw) = self.queue.front() else { break };
            let asked = match self.schemas.read(shared, lane, raw) {
                Ok(Some(asked)) => asked,
                Ok(None) => break,
                // What came before it is decided first; then it stands at the front, and the lane halts before it.
                Err(_) if !batch.entries.is_empty() => break,
                Err(end) => return Err(end),
            };
            let raw = self.queue.pop_front().expect("it was just there");
            let hash = hash_of(&raw);
            let asked = match asked {
                Ok(asked) => asked,
                Err(message) => {
                    let refused = Asked::malformed(&message);
                    batch.poison.push(Poison {
                        offset: raw.offset,
                        key: raw.key.clone(),
                        value: raw.value.clone(),
                        message,
                    });
                    refused
                }
            };
            lines += lines_of(&asked);
            batch.entries.push(Entry {
                offset: raw.offset,
                previous: raw.previous,
                timestamp: raw.timestamp,
                hash,
                key: raw.key,
                traceparent: raw.traceparent,
                asked,
            });
        }
        Ok(batch)
    }
}

fn lines_of(asked: &Asked) -> usize {
    match asked {
        Asked::Command(command) => match &command.body {
            domain::CommandBody::Reserve(reserve) => reserve.lines.as_slice().len(),
            domain::CommandBody::Relay { cart, .. } => cart.len(),
            // A hold's lines are known only in Redis; most holds have few.
            _ => 1,
        },
        Asked::Misrouted(..) | Asked::Refused { .. } | Asked::Skip => 1,
    }
}

/// The first 52 bits of SHA-256 over the record's value.
fn hash_of(raw: &Raw) -> i64 {
    let digest = Sha256::digest(raw.value.as_deref().unwrap_or_default());
    let first: [u8; 8] = digest[..8].try_into().expect("a digest has 32 bytes");
    i64::try_from(u64::from_be_bytes(first) >> 12).expect("52 bits")
}

/// What is asked, or why the record is poison.
type Read = Result<Asked, String>;

impl Schemas {
    /// Reads a record; `None` when it has to wait.
    fn read<W: World>(&mut self, shared: &Shared<W>, lane: Lane, raw: &Raw) -> Result<Option<Read>, End> {
        let Some(value) = &raw.value else {
            return Ok(Some(Err("the value is null".to_owned())));
        };
        loop {
            match shared.codec.decode_command(value) {
                Ok(command) => return Ok(Some(Asked::of(command, lane, shared.lanes))),
                Err(DecodeError::Malformed(why)) => return Ok(Some(Err(why))),
                Err(DecodeError::Illegal {
                    command_id,
                    request_id,
                    invalid,
                }) => {
                    return Ok(Some(Ok(Asked::illegal(&command_id, &request_id, &invalid))));
                }
                Err(DecodeError::NewerBody(name)) => {
                    return Err(End::Halt(format!(
                        "command {} has the body `{name}`, which this version does not know: upgrade the reserver; \
                         nothing is lost meanwhile",
                        raw.offset
                    )));
                }
                Err(DecodeError::UnknownSchema(id)) => match self.ask(shared, lane, id) {
                    Known::Yes => {}
                    Known::No => return Ok(Some(Err(format!("schema id {id} is not in the registry")))),
                    Known::NotYet => return Ok(None),
                },
            }
        }
    }

    fn ask<W: World>(&mut self, shared: &Shared<W>, lane: Lane, id: u32) -> Known {
        let now = shared.world.now();
        if self.poison_until.get(&id).is_some_and(|until| now < *until) {
            return Known::No;
        }
        if self.ask_again.is_some_and(|again| now < again) {
            return Known::NotYet;
        }
        match shared.world.wait(shared.codec.learn(id)) {
            Ok(Learned::Schema) => return Known::Yes,
            Ok(Learned::NoSuchSchema) => {
                let since = *self.asked_since.entry(id).or_insert(now);
                if now - since >= Duration::from_secs(shared.options.unknown_schema_seconds) {
                    self.asked_since.remove(&id);
                    self.poison_until.insert(id, now + POISON_FOR);
                    return Known::No;
                }
                tracing::debug!(
                    lane = lane.number(),
                    id,
                    "lane.waiting for a schema id that the registry does not know"
                );
            }
            Err(error) => {
                // A registry that does not answer says nothing about the record.
                self.asked_since.remove(&id);
                tracing::warn!(lane = lane.number(), id, %error, "lane.waiting for the schema registry");
            }
        }
        self.ask_again = Some(shared.world.now() + Duration::from_millis(500));
        Known::NotYet
    }
}
