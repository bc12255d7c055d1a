//! The reading half of a lane, on a thread of its own: poll, fold, decode, batch.
//!
//! It runs ahead of the transactions by one batch, so that decoding and writing overlap, and batches grow by themselves
//! while Postgres is busy.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{Event, Lane, LaneState, Stamp, Verdict};
use plumbing::{
    health::Component,
    kafka::{KafkaError, consumer},
    stop::Stop,
    telemetry,
};
use rdkafka::{Message, error::RDKafkaErrorCode, message::BorrowedMessage};
use schemas::{DecodeError, EventHeaders, codec::Learned, headers::TRACEPARENT, picture::Checkpoint};
use tokio::sync::mpsc;

use crate::{Shared, lane::Fault, patience};

const POLL: Duration = Duration::from_millis(100);
/// A pace may be as many times as long as a batch has so many records ...
const MANY: usize = 25;
/// ... and at most so many times.
const PACES_MAX: u32 = 4;

/// A valid event and where it stands.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) event: Event,
    pub(crate) offset: i64,
    pub(crate) traceparent: Option<String>,
}

/// What one transaction writes: everything between two positions of a lane.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The position before it.
    pub(crate) first: i64,
    /// The position and the fold's state behind it.
    pub(crate) checkpoint: Checkpoint,
    /// Its valid decisions, in order.
    pub(crate) decided: Vec<Decided>,
    /// How many records count for nothing.
    pub(crate) void: u64,
}

/// Reads a lane from a checkpoint on.
pub(crate) struct Reader {
    pub(crate) lane: Lane,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stop: Stop,
    pub(crate) health: Component,
    pub(crate) batches: mpsc::Sender<Batch>,
    pub(crate) runtime: tokio::runtime::Handle,
}

/// A batch that still grows.
struct Growing {
    batch: Batch,
    records: usize,
    since: Instant,
    /// When the batch before it was handed over, and how many records it had.
    handed_over: Option<(Instant, usize)>,
}

/// How long after a batch of so many records the next one may go: who writes much has fewer transactions for it, and who writes
/// little is not kept waiting.
fn pace_after(records: usize, pace: Duration) -> Duration {
    let paces = u32::try_from(records / MANY).unwrap_or(PACES_MAX);
    pace * paces.clamp(1, PACES_MAX)
}

impl Growing {
    fn at(checkpoint: Checkpoint) -> Self {
        Self {
            batch: Batch {
                first: checkpoint.next_event_offset,
                checkpoint,
                decided: Vec::new(),
                void: 0,
            },
            records: 0,
            since: Instant::now(),
            handed_over: None,
        }
    }

    /// How long others may still join it: the linger after a quiet time, the pace while there is much to write, so that a
    /// transaction's own cost is shared by many.
    fn time_left(&self, shared: &Shared) -> Duration {
        let linger = shared.linger.saturating_sub(self.since.elapsed());
        let pace = self.handed_over.map_or(Duration::ZERO, |(at, records)| {
            pace_after(records, shared.pace).saturating_sub(at.elapsed())
        });
        linger.max(pace)
    }

    /// Takes the batch out, and leaves a new one behind it.
    fn take(&mut self) -> Batch {
        let mut next = Self::at(self.batch.checkpoint);
        next.handed_over = Some((Instant::now(), self.records));
        std::mem::replace(self, next).batch
    }
}

impl Reader {
    /// Reads until the stop, or until the other half is gone.
    pub(crate) fn read(&self, from: Checkpoint) -> Result<(), Fault> {
        let client_id = format!("holdfast-persister-{}", self.lane);
        let reader = consumer::background_reader(&self.shared.brokers, &client_id, &self.shared.group_id)
            .map_err(Fault::kafka)?;
        self.check_bounds(&reader, from.next_event_offset)?;
        let start = (
            self.shared.events.as_str(),
            self.lane.partition(),
            from.next_event_offset,
        );
        consumer::assign(&reader, &[start]).map_err(Fault::kafka)?;
        let mut growing = Growing::at(from);
        while !self.stop.is_requested() {
            let wait = match growing.records {
                0 => POLL,
                _ => consumer::whole_millis(growing.time_left(&self.shared)),
            };
            match reader.poll(wait) {
                Some(Ok(record)) => {
                    if let Err(fault) = self.take(&record, &mut growing) {
                        // What came before it is good.
                        self.hand_over(&mut growing);
                        return Err(fault);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.health.up(), // Nothing stands in the way.
                None => {}
                Some(Err(error)) => self.heed(error)?,
            }
            if !self.deliver(&mut growing) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A checkpoint that the topic does not reach is a contradiction that only people can solve.
    fn check_bounds(&self, reader: &consumer::Reader, next: i64) -> Result<(), Fault> {
        let events = &self.shared.events;
        let (start, end) = consumer::bounds(reader, events, self.lane.partition()).map_err(Fault::kafka)?;
        let lane = self.lane;
        if next < start {
            return Err(Fault::Halted(format!(
                "lane {lane}: the next event for Postgres is {next}, but {events} begins at {start}: events are gone that \
                 are not in the picture. Restore Postgres from a newer backup, or the topic"
            )));
        }
        if next > end {
            return Err(Fault::Halted(format!(
                "lane {lane}: the next event for Postgres is {next}, but {events} ends at {end}: the topic was cut or made \
                 anew. Restore the topic, or start with an empty database (`holdfast migrate`)"
            )));
        }
        Ok(())
    }

    /// Errors of librdkafka: most go away by themselves while polling goes on.
    fn heed(&self, error: KafkaError) -> Result<(), Fault> {
        match error.rdkafka_error_code() {
            // Begin again: the bounds tell why.
            Some(
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::Fatal,
            ) => Err(Fault::kafka(error)),
            _ => {
                self.shared.health.kafka.down(crate::kafka_says(&error));
                Ok(())
            }
        }
    }

    fn take(&self, record: &BorrowedMessage<'_>, growing: &mut Growing) -> Result<(), Fault> {
        if growing.records == 0 {
            growing.since = Instant::now();
        }
        let mut state = growing.batch.checkpoint.state;
        let offset = record.offset();
        let verdict = match EventHeaders::read(consumer::headers(record)) {
            Some(headers) => (state.fold(offset, headers.stamp), Some(headers.stamp)),
            None => (Verdict::Void, None),
        };
        match verdict {
            (Verdict::Valid, Some(stamp)) => {
                let event = self.decode(record)?;
                self.check_stamp(&event, stamp, offset)?;
                let traceparent = telemetry::tracing_enabled().then(|| traceparent(record)).flatten();
                growing.batch.decided.push(Decided {
                    event,
                    offset,
                    traceparent,
                });
            }
            (Verdict::Opened, _) => tracing::debug!(lane = %self.lane, epoch = offset, "a new owner's turn"),
            (Verdict::Valid | Verdict::Void, _) => growing.batch.void += 1,
        }
        self.advance(growing, offset + 1, state);
        Ok(())
    }

    fn advance(&self, growing: &mut Growing, next_event_offset: i64, state: LaneState) {
        growing.records += 1;
        growing.batch.checkpoint = Checkpoint {
            next_event_offset,
            state,
        };
    }

    /// A valid event is never skipped: what cannot be read now holds the lane until it can.
    fn decode(&self, record: &BorrowedMessage<'_>) -> Result<Event, Fault> {
        let bytes = record.payload().unwrap_or_default();
        let mut backoff = patience();
        let here = || format!("lane {}, event offset {}", self.lane, record.offset());
        loop {
            let id = match self.shared.codec.decode_event(bytes) {
                Ok(event) => return Ok(event),
                Err(DecodeError::UnknownSchema(id)) => id,
                Err(error @ DecodeError::NewerBody(_)) => return Err(Fault::Halted(format!("{}: {error}", here()))),
                Err(error @ (DecodeError::Malformed(_) | DecodeError::Illegal { .. })) => {
                    return Err(Fault::Halted(format!(
                        "{}: a valid event cannot be read: {error}. Upgrade this version if a newer one wrote it",
                        here()
                    )));
                }
            };
            match self.runtime.block_on(self.shared.codec.learn(id)) {
                Ok(Learned::Schema) => {
                    self.shared.health.registry.up();
                    continue;
                }
                Ok(Learned::NoSuchSchema) => {
                    return Err(Fault::Halted(format!(
                        "{}: the registry has no schema {id}, with which this event was written: restore the registry",
                        here()
                    )));
                }
                Err(error) => self.shared.health.registry.down(error),
            }
            if !self.runtime.block_on(backoff.sleep(&self.stop)) {
                return Err(Fault::Stopped);
            }
        }
    }

    fn check_stamp(&self, event: &Event, stamp: Stamp, offset: i64) -> Result<(), Fault> {
        let body = Stamp::Decision {
            epoch: event.epoch,
            command: event.command_offset,
            previous: event.previous_command_offset,
            time: event.decided_at,
        };
        if body == stamp {
            return Ok(());
        }
        Err(Fault::Halted(format!(
            "lane {}, event offset {offset}: headers and body disagree ({stamp:?}, {body:?}): whoever wrote it is no reserver",
            self.lane
        )))
    }

    /// Hands the batch over when it is full, or old enough and the other half is free. False: nobody takes it any more.
    fn deliver(&self, growing: &mut Growing) -> bool {
        if growing.records >= self.shared.batch {
            return self.hand_over(growing);
        }
        if growing.records == 0 || !growing.time_left(&self.shared).is_zero() {
            return true;
        }
        match self.batches.try_reserve() {
            Ok(place) => {
                place.send(growing.take());
                true
            }
            // It grows until the transaction before it has ended.
            Err(mpsc::error::TrySendError::Full(())) => {
                growing.since = Instant::now();
                true
            }
            Err(mpsc::error::TrySendError::Closed(())) => false,
        }
    }

    fn hand_over(&self, growing: &mut Growing) -> bool {
        if growing.records == 0 {
            return true;
        }
        self.batches.blocking_send(growing.take()).is_ok()
    }
}

fn traceparent(record: &BorrowedMessage<'_>) -> Option<String> {
    consumer::headers(record)
        .find(|(name, _)| *name == TRACEPARENT)
        .and_then(|(_, value)| String::from_utf8(value?.to_vec()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_much_waits_longer_for_the_next_transaction_and_who_writes_little_does_not() {
        let pace = Duration::from_millis(50);
        for (records, paces) in [(0, 1), (MANY, 1), (2 * MANY, 2), (4 * MANY, 4), (usize::MAX, 4)] {
            assert_eq!(pace_after(records, pace), pace * paces, "{records}");
        }
    }
}
