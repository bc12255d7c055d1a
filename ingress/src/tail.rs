//! The event tail: reads every lane of the events topic, folds it, and lets what is valid be known.
//!
//! In     `inventory.events.v1`, all lanes, from a checkpoint on.
//! Out    the memory (reads), then the rooms (live stock) and the waiters (answers): a client that has its answer sees its own write.
//!        Last the windows of the commands, whose next flights wait for what came of the last.
//!
//! I2: an answer equals a valid event that was read back from the log; void records answer nobody. Lanes wait for
//! nothing of each other: one that cannot be read is paused, and health says why.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use domain::{Event, EventBody, HoldState, HoldTerms, Lane, LaneState, PartId, Reason, Stamp, Verdict};
use plumbing::{
    backoff::Backoff,
    failpoint,
    health::Component,
    kafka::{KafkaError, consumer, window::Windows},
    stop::Stop,
    task,
};
use rdkafka::{Message, TopicPartitionList, consumer::Consumer, error::RDKafkaErrorCode, message::BorrowedMessage};
use schemas::{Codec, DecodeError, EventHeaders, codec::Learned};
use tokio::{runtime::Handle, sync::watch};
use uuid::Uuid;

use crate::{
    live_stock::Rooms,
    memory::{Decided, Memory},
    meters,
    waiters::{Outcome, Waiters},
};

/// How long a poll may sleep when nothing comes: the latency of a stop, not of an event.
const POLL: Duration = Duration::from_millis(100);
/// How long the registry is asked for a schema id before the id counts as unknown (it may be a moment old).
const UNKNOWN_AFTER: Duration = Duration::from_secs(10);

/// What the tail works with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Full name of the events topic.
    pub topic: String,
    /// Hear what came of the commands.
    pub commands: Windows,
    /// Reads events.
    pub codec: Codec,
    /// What reads know.
    pub memory: Arc<Memory>,
    /// Who waits.
    pub waiters: Arc<Waiters>,
    /// Who watches.
    pub rooms: Arc<Rooms>,
    /// The tail's health.
    pub health: Component,
    /// For questions to the registry.
    pub runtime: Handle,
    /// Set once all lanes have been read to their end.
    pub caught_up: watch::Sender<bool>,
}

/// Why a tail ended.
#[derive(Debug)]
pub enum End {
    /// It was asked to.
    Stopped,
    /// Its place in the log is gone: start again from a checkpoint.
    Lost(String),
}

enum Stuck {
    /// Waits for the registry; then this record is next.
    Learning { offset: i64, stamp: Stamp, value: Vec<u8> },
    /// Cannot go on before somebody does what health says.
    Halted,
}

struct LaneTail {
    lane: Lane,
    state: LaneState,
    caught_up: bool,
    stuck: Option<(Stuck, String)>,
}

struct Tail {
    parts: Parts,
    /// Requests that were repeated while their cart is pending.
    replays: HashMap<PartId, Vec<u128>>,
    lanes: Vec<LaneTail>,
    learned: mpsc::Receiver<(usize, Result<(), String>)>,
    learning: mpsc::Sender<(usize, Result<(), String>)>,
    stop: Stop,
}

/// Where a lane's reading starts, with the fold's state there.
pub type Start = (Lane, i64, LaneState);

/// Reads until the stop, on the calling thread.
///
/// # Errors
/// [`KafkaError`] when librdkafka refuses the assignment.
pub fn follow(reader: &consumer::Reader, starts: &[Start], parts: Parts, stop: Stop) -> Result<End, KafkaError> {
    let from: Vec<_> = starts
        .iter()
        .map(|(lane, offset, _)| (parts.topic.as_str(), lane.partition(), *offset))
        .collect();
    consumer::assign(reader, &from)?;
    let (learning, learned) = mpsc::channel();
    let mut tail = Tail {
        lanes: starts
            .iter()
            .map(|(lane, offset, state)| {
                parts.memory.pass(*lane, state.last_command_offset, offset - 1);
                LaneTail {
                    lane: *lane,
                    state: *state,
                    caught_up: false,
                    stuck: None,
                }
            })
            .collect(),
        parts,
        replays: HashMap::new(),
        learned,
        learning,
        stop,
    };
    while !tail.stop.is_requested() {
        tail.take_learned(reader);
        match reader.poll(POLL) {
            Some(Ok(message)) => tail.take(reader, &message),
            Some(Err(KafkaError::PartitionEOF(partition))) => tail.reached_end(partition),
            Some(Err(KafkaError::MessageConsumption(code))) if is_lost(code) => {
                return Ok(End::Lost(format!("its place in the events log is gone ({code})")));
            }
            Some(Err(error)) => tracing::debug!(%error, "the tail goes on when the broker is back"),
            None => {}
        }
    }
    Ok(End::Stopped)
}

fn is_lost(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
    )
}

/// Whom an event answers.
enum Answers {
    /// Whoever sent its command.
    Request,
    /// Whoever sent its command, once the cart is decided.
    WhenDecided(PartId),
    /// Nobody: another event with the same request id is the answer.
    Nobody,
}

fn answers(event: &Event) -> Answers {
    let is_pending = |terms: &HoldTerms| terms.state == HoldState::Pending;
    match &event.body {
        // The copy in the right lane carries the same request id, as do the steps of a cart.
        EventBody::CommandForwarded { .. }
        | EventBody::HoldPending
        | EventBody::PartHeld
        | EventBody::PartRefused { .. }
        | EventBody::PartFollowed { .. }
        | EventBody::RelayIgnored
        // The second record of a request, or of a copy: what became of the first stands in an event of its own.
        | EventBody::CommandRefused {
            reason: Reason::AlreadyApplied,
            ..
        } => Answers::Nobody,
        EventBody::HoldReplayed if event.hold.as_ref().is_some_and(is_pending) => {
            part_of(event).map_or(Answers::Request, Answers::WhenDecided)
        }
        _ => Answers::Request,
    }
}

fn part_of(event: &Event) -> Option<PartId> {
    Some(PartId {
        hold_id: event.hold_id?,
        attempt: event.hold.as_ref()?.attempt,
    })
}

impl Tail {
    fn take(&mut self, reader: &consumer::Reader, message: &BorrowedMessage<'_>) {
        let Some(index) = self.index_of(message.partition()) else {
            return;
        };
        // What was fetched before a pause may still come once.
        if self.lanes[index].stuck.is_some() {
            return;
        }
        let offset = message.offset();
        match EventHeaders::read(consumer::headers(message)) {
            Some(headers) => self.fold(
                reader,
                index,
                offset,
                headers.stamp,
                message.payload().unwrap_or_default(),
            ),
            None => self.void(index, offset),
        }
    }

    fn index_of(&self, partition: i32) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.lane.partition() == partition)
    }

    fn void(&self, index: usize, offset: i64) {
        meters::void();
        self.parts.memory.pass(self.lanes[index].lane, -1, offset);
    }

    fn fold(&mut self, reader: &consumer::Reader, index: usize, offset: i64, stamp: Stamp, value: &[u8]) {
        let lane = &mut self.lanes[index];
        // The state moves on only when the record could be read: a paused lane stands before it.
        let mut next = lane.state;
        match next.fold(offset, stamp) {
            Verdict::Opened => {
                lane.state = next;
                self.parts.memory.pass(lane.lane, -1, offset);
            }
            Verdict::Void => self.void(index, offset),
            Verdict::Valid => match self.parts.codec.decode_event(value) {
                Ok(event) => {
                    lane.state = next;
                    self.know(index, offset, event);
                }
                Err(DecodeError::UnknownSchema(id)) => {
                    let stuck = Stuck::Learning {
                        offset,
                        stamp,
                        value: value.to_vec(),
                    };
                    let why = format!("lane {}: asks the registry for schema {id}", lane.lane);
                    self.pause(reader, index, stuck, why);
                    self.learn(index, id);
                }
                Err(error) => {
                    let why = format!(
                        "lane {}: the event at offset {offset} cannot be read: {error}",
                        lane.lane
                    );
                    self.pause(reader, index, Stuck::Halted, why);
                }
            },
        }
    }

    /// Memory first, then the answer.
    fn know(&mut self, index: usize, offset: i64, event: domain::Event) {
        let request_id = Uuid::try_parse(&event.request_id).ok().map(|uuid| uuid.as_u128());
        let (lane, command) = (self.lanes[index].lane, event.command_offset);
        let decided = self.parts.memory.take(lane, offset, event);
        self.parts.rooms.changed(&decided.event.lines);
        self.answer_replays(&decided);
        self.answer(request_id, decided);
        self.parts.commands.hear(lane.partition(), command);
    }

    fn answer(&mut self, request_id: Option<u128>, decided: Decided) {
        let Some(request_id) = request_id else { return };
        failpoint::reach("ingress.event_read");
        match answers(&decided.event) {
            Answers::Request => {
                self.parts
                    .waiters
                    .resolve(request_id, || Outcome::Decided(Box::new(decided)));
            }
            Answers::WhenDecided(part) => {
                if self.parts.waiters.is_waiting(request_id) {
                    self.replays.entry(part).or_default().push(request_id);
                }
            }
            Answers::Nobody => {}
        }
    }

    /// A cart that was pending is decided: whoever has repeated its request meanwhile gets the answer too.
    fn answer_replays(&mut self, decided: &Decided) {
        let event = &decided.event;
        let is_end = matches!(event.body, EventBody::HoldCreated | EventBody::HoldRejected { .. });
        let Some(part) = part_of(event).filter(|_| is_end) else {
            return;
        };
        for request_id in self.replays.remove(&part).unwrap_or_default() {
            let mut copy = decided.clone();
            if matches!(event.body, EventBody::HoldCreated) {
                copy.event.body = EventBody::HoldReplayed;
            }
            self.parts
                .waiters
                .resolve(request_id, || Outcome::Decided(Box::new(copy)));
        }
    }

    fn reached_end(&mut self, partition: i32) {
        let Some(index) = self.index_of(partition) else {
            return;
        };
        if !self.lanes[index].caught_up {
            self.lanes[index].caught_up = true;
            self.report();
        }
    }

    /// A lane that is stuck does not keep the others from answering.
    fn report(&self) {
        if let Some((_, why)) = self.lanes.iter().find_map(|lane| lane.stuck.as_ref()) {
            self.parts.health.down(why);
        } else if self.lanes.iter().all(|lane| lane.caught_up) {
            self.parts.health.up();
        }
        if self.lanes.iter().all(|lane| lane.caught_up || lane.stuck.is_some()) {
            self.parts
                .caught_up
                .send_if_modified(|caught_up| !std::mem::replace(caught_up, true));
        }
    }

    fn partition_of(&self, index: usize) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.parts.topic, self.lanes[index].lane.partition());
        list
    }

    fn pause(&mut self, reader: &consumer::Reader, index: usize, stuck: Stuck, why: String) {
        if let Err(error) = reader.pause(&self.partition_of(index)) {
            tracing::debug!(%error, "a lane could not be paused; its records are ignored");
        }
        self.lanes[index].stuck = Some((stuck, why));
        self.report();
    }

    fn learn(&self, index: usize, id: u32) {
        let (codec, stop, learning) = (self.parts.codec.clone(), self.stop.clone(), self.learning.clone());
        let _inside = self.parts.runtime.enter();
        // It answers through the channel; once the tail has ended nobody wants to know.
        drop(task::spawn("learn-schema", async move {
            learn(&codec, id, &stop, |news| drop(learning.send((index, news)))).await;
        }));
    }

    fn take_learned(&mut self, reader: &consumer::Reader) {
        let Ok((index, news)) = self.learned.try_recv() else {
            return;
        };
        let Some((Stuck::Learning { offset, stamp, value }, _)) = self.lanes[index].stuck.take() else {
            return;
        };
        if let Err(why) = news {
            self.lanes[index].stuck = Some((Stuck::Learning { offset, stamp, value }, why));
            return self.report();
        }
        self.fold(reader, index, offset, stamp, &value);
        if self.lanes[index].stuck.is_none() {
            if let Err(error) = reader.resume(&self.partition_of(index)) {
                tracing::warn!(%error, "a lane could not be resumed");
            }
            self.report();
        }
    }
}

/// Asks until the registry knows the schema, or the stop; tells that it does, and once that it does not. What a valid event was
/// written with was registered: a registry that has lost it is waited for, however long that takes.
async fn learn(codec: &Codec, id: u32, stop: &Stop, tell: impl Fn(Result<(), String>)) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let begun = Instant::now();
    let mut is_told = false;
    loop {
        match codec.learn(id).await {
            Ok(Learned::Schema) => return tell(Ok(())),
            Ok(Learned::NoSuchSchema) if !is_told && begun.elapsed() > UNKNOWN_AFTER => {
                is_told = true;
                tell(Err(format!(
                    "the registry does not know schema {id}, which valid events were written with: restore the registry's topic"
                )));
            }
            Ok(Learned::NoSuchSchema) => {}
            Err(error) => tracing::debug!(%error, schema = id, "the registry is asked again"),
        }
        if !backoff.sleep(stop).await {
            return;
        }
    }
}
