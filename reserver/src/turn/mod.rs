//! A turn: one owner at work on one lane, from its `LaneOpened` until somebody else's, a fault, or the end of the process.
//!
//! Commands are decided in batches by one script call each; several batches may be in flight. What counts is only what
//! is read back from the log (rule 7): it ends a batch, trims the journal and moves the forward cursor.

mod chores;
mod reading;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use domain::Lane;
use plumbing::{
    failpoint,
    kafka::{KafkaError, producer::Prepared},
    stop::Stop,
};
use rdkafka::Message;

use crate::{
    Shared,
    end::End,
    intake::{Batch, Intake},
    open::Unforwarded,
    outbox::{Outbox, Relayed},
    pack::{self, Asked, Entry, Origin},
    scripts::{Applied, LaneRedis},
    tail::Tail,
    world::{LogReader as _, World},
};
use reading::Reading;

/// Batches that may be decided but not read back: beyond, the lane pauses.
const IN_FLIGHT_MAX: usize = 8;
/// While so many are in flight, only a full batch joins them: the next one grows meanwhile, and a call of Redis and a
/// request to Kafka are shared by more.
const IN_FLIGHT_SMALL: usize = 1;
/// Commands that may wait in memory; beyond, the partition is paused.
const WAITING_MAX: usize = 4_096;
/// How long an idle lane waits for a record before it looks around.
const IDLE: Duration = Duration::from_millis(50);
/// How often a lane does what needs no haste.
const CHORES: Duration = Duration::from_secs(1);
/// How long a lane that must go waits for what it has published.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a turn that must go waits for its reader to begin.
const BEGIN: Duration = Duration::from_secs(1);
/// How many records are taken in one go.
const TAKE_MAX: usize = 1_024;

/// What opening a lane came to.
pub(crate) struct TurnParts<'a, W: World> {
    pub(crate) shared: &'a Shared<W>,
    pub(crate) lane: Lane,
    pub(crate) epoch: i64,
    pub(crate) reader: W::Reader,
    pub(crate) writer: W::Writer,
    pub(crate) redis: LaneRedis<W::Redis>,
    pub(crate) tail: Tail,
    pub(crate) forwards: Vec<Unforwarded>,
    pub(crate) trim: Vec<i64>,
}

/// One owner's turn on a lane.
pub(crate) struct Turn<'a, W: World> {
    shared: &'a Shared<W>,
    lane: Lane,
    epoch: i64,
    reader: W::Reader,
    redis: LaneRedis<W::Redis>,
    tail: Tail,
    intake: Intake,
    outbox: Outbox<'a, W>,
    /// Last command offset of each batch that is not read back, and when it was decided.
    in_flight: VecDeque<(i64, Instant)>,
    trim: Vec<i64>,
    forwards: VecDeque<Unforwarded>,
    busy: bool,
    paused: bool,
    committed: i64,
    chores_at: Instant,
    end_seen_at: Instant,
    /// The end of the commands beyond the last record that could be read, and since when it has not changed.
    hole_at_end: Option<(i64, Instant)>,
    /// Cursor of the removal of older generations; `None` when there is nothing left to remove.
    cleanup: Option<u64>,
    /// Partitions whose reading may not have begun: each says so by a record, or by its end.
    unbegun: u8,
}

impl<'a, W: World> Turn<'a, W> {
    /// Starts to read commands after the last valid decision, and events after our own `LaneOpened`.
    pub(crate) fn start(parts: TurnParts<'a, W>) -> Result<Self, End> {
        let TurnParts {
            shared,
            lane,
            epoch,
            reader,
            writer,
            redis,
            tail,
            forwards,
            trim,
        } = parts;
        let decided = tail.state.last_command_offset;
        let topics = &shared.topics;
        reader.assign(&[
            (&topics.commands, lane.partition(), decided + 1),
            (&topics.events, lane.partition(), tail.next),
        ])?;
        let now = shared.world.now();
        Ok(Self {
            shared,
            lane,
            epoch,
            reader,
            redis,
            tail,
            intake: Intake::after(decided),
            outbox: Outbox::new(shared, lane, writer),
            in_flight: VecDeque::new(),
            trim,
            forwards: forwards.into(),
            busy: false,
            paused: false,
            committed: -1,
            chores_at: now,
            end_seen_at: now,
            hole_at_end: None,
            cleanup: Some(0),
            unbegun: 2,
        })
    }

    /// Where the fold stands, for the next turn of this process. Events whose forwards are not acknowledged must be
    /// read again, so it is the committed cursor's place that lasts, not this one.
    pub(crate) fn into_tail(mut self) -> Option<Tail> {
        self.let_begin();
        match self.outbox.settled() {
            Ok(true) if self.forwards.is_empty() => Some(self.tail),
            _ => None,
        }
    }

    fn now(&self) -> Instant {
        self.shared.world.now()
    }

    /// Lets the reader begin with what it was assigned. librdkafka aborts the process when a partition is let go that was
    /// assigned again and has not begun (its assertion `rktp_started`): a turn may end before it has read anything.
    fn let_begin(&mut self) {
        let until = self.now() + BEGIN;
        while self.unbegun > 0 && self.now() < until {
            if let Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) = self.reader.poll(IDLE) {
                self.unbegun -= 1;
            }
        }
    }

    /// Works until the turn is over, and says why it is. That the group gave the lane to somebody else does not end it:
    /// the next owner's `LaneOpened` does, so that nobody waits meanwhile.
    pub(crate) fn run(&mut self, stop: &Stop) -> End {
        // One by one: what is left when one fails is still to be sent, by the next turn.
        while let Some(forward) = self.forwards.front().cloned() {
            if let Err(end) = self.outbox.forward(forward, stop) {
                return end;
            }
            self.forwards.pop_front();
        }
        while !stop.is_requested() {
            if let Err(end) = self.step(stop) {
                return end;
            }
        }
        if let Err(fault) = self.drain() {
            tracing::debug!(lane = self.lane.number(), %fault, "lane.drain");
        }
        End::Stopped
    }

    /// Takes what there is, decides a batch, publishes its outcomes.
    fn step(&mut self, stop: &Stop) -> Result<(), End> {
        let wait = if self.may_decide() && self.intake.len() > 0 {
            Duration::ZERO
        } else {
            IDLE
        };
        self.take(wait, stop)?;
        if self.may_decide() {
            let batch = self.intake.next_batch(self.shared, self.lane)?;
            if batch.entries.is_empty() && self.intake.len() > 0 {
                // The next record waits for the registry; meanwhile the tail goes on.
                self.take(IDLE, stop)?;
            } else {
                self.decide(batch)?;
            }
        }
        if self.now() - self.chores_at >= CHORES {
            self.chores(stop)?;
        }
        Ok(())
    }

    fn may_decide(&self) -> bool {
        let in_flight = self.in_flight.len();
        in_flight < IN_FLIGHT_SMALL || (in_flight < IN_FLIGHT_MAX && self.intake.len() >= self.shared.batch())
    }

    /// Takes records of both partitions: waits for the first, then whatever is there already.
    fn take(&mut self, wait: Duration, stop: &Stop) -> Result<(), End> {
        let mut wait = wait;
        for _ in 0..TAKE_MAX {
            // The message borrows the reader; the rest of the turn is borrowed apart from it.
            let Some(message) = self.reader.poll(wait) else { break };
            wait = Duration::ZERO;
            match message {
                Ok(message) if message.topic() == self.shared.topics.commands => {
                    self.intake.take(&message)?;
                }
                Ok(message) => {
                    let mut reading = Reading {
                        shared: self.shared,
                        lane: self.lane,
                        epoch: self.epoch,
                        tail: &mut self.tail,
                        outbox: &mut self.outbox,
                        in_flight: &mut self.in_flight,
                        trim: &mut self.trim,
                    };
                    reading.event(&message, stop)?;
                }
                Err(KafkaError::PartitionEOF(_)) => self.unbegun = self.unbegun.saturating_sub(1),
                Err(KafkaError::MessageConsumption(code)) if is_lasting(code) => {
                    return Err(End::Halt(format!("lane {} cannot be read: {code}", self.lane)));
                }
                Err(error) => tracing::debug!(lane = self.lane.number(), %error, "lane.read"),
            }
        }
        if let Some(from) = self.intake.read_again_from() {
            let topic = &self.shared.topics.commands;
            self.reader.seek(topic, self.lane.partition(), from)?;
        }
        if let Some(failure) = self.outbox.failure() {
            return Err(End::Lost(format!("an event's fate is unknown: {failure}")));
        }
        self.regulate()
    }

    /// Pauses the commands while many wait, so that memory stays bounded.
    fn regulate(&mut self) -> Result<(), End> {
        let (pause, resume) = (self.intake.len() >= WAITING_MAX, self.intake.len() < WAITING_MAX / 4);
        let (topic, partition) = (&self.shared.topics.commands, self.lane.partition());
        if !self.paused && pause {
            self.reader.pause(topic, partition)?;
            self.paused = true;
        } else if self.paused && resume {
            self.reader.resume(topic, partition)?;
            self.paused = false;
        }
        Ok(())
    }

    /// One script call for a batch, then its events in order.
    fn decide(&mut self, batch: Batch) -> Result<(), End> {
        let Some(last) = batch.entries.last().map(|entry| entry.offset) else {
            return Ok(());
        };
        self.outbox.bury(&batch.poison)?;
        if !batch.poison.is_empty() {
            failpoint::reach("reserver.buried");
        }
        let started = self.now();
        let packed = pack::batch(self.lane, &batch.entries, &self.trim, self.busy, self.shared.rules());
        let outcomes = match self.redis.apply(self.epoch, &packed)? {
            Applied::Outcomes(outcomes) => outcomes,
            Applied::Fenced(newer) => {
                return Err(End::Lost(format!(
                    "Redis is owned by epoch {newer}, not {}",
                    self.epoch
                )));
            }
            Applied::Gap(fence) => {
                return Err(End::Lost(format!(
                    "Redis has decided up to {fence}, which is not where we are"
                )));
            }
            Applied::Damaged(what) => return Err(End::Lost(format!("the lane in Redis contradicts itself: {what}"))),
        };
        failpoint::reach("reserver.applied");
        if outcomes.len() != batch.entries.len() {
            return Err(End::Lost(format!(
                "{} outcomes for {} commands",
                outcomes.len(),
                batch.entries.len()
            )));
        }
        let elapsed = self.now() - started;
        metrics::histogram!("holdfast_reserver_apply_seconds").record(elapsed.as_secs_f64());
        metrics::histogram!("holdfast_reserver_batch_size").record(batch.entries.len() as f64);
        self.trim.clear();
        self.in_flight.push_back((last, self.now()));
        let mut events = Vec::with_capacity(outcomes.len());
        for (entry, outcome) in batch.entries.into_iter().zip(outcomes) {
            events.push(self.event(entry, &outcome)?);
        }
        self.outbox.publish(events);
        failpoint::reach("reserver.published");
        Ok(())
    }

    /// The event's record of a decision.
    fn event(&mut self, entry: Entry, outcome: &[u8]) -> Result<Prepared, End> {
        let origin = Origin {
            lane: self.lane,
            epoch: self.epoch,
        };
        let event = pack::event(origin, &entry, outcome).map_err(|mismatch| {
            End::Halt(format!(
                "{mismatch}: the commands topic was made anew, or this Redis belongs to another log. Delete the lane's \
                 keys in Redis to rebuild them from the log"
            ))
        })?;
        let relayed = Relayed::of(self.lane, &event, entry.traceparent.clone());
        if event.part.is_some() || event.hold.as_ref().is_some_and(|hold| hold.cart.is_some()) {
            failpoint::reach("forwards.relay_decided");
        }
        let span = plumbing::telemetry::tracing_enabled().then(|| {
            let span = tracing::info_span!(target: plumbing::telemetry::TRACE, "decide", outcome = event.body.name());
            if let Some(parent) = &entry.traceparent {
                plumbing::telemetry::set_parent_from_traceparent(&span, parent);
            }
            span
        });
        let entered = span.as_ref().map(tracing::Span::enter);
        let traceparent = plumbing::telemetry::current_traceparent().or_else(|| entry.traceparent.clone());
        let record = self.outbox.prepare(&event, entry.key.as_deref(), traceparent);
        drop(entered);
        metrics::counter!("holdfast_reserver_decisions_total", "outcome" => event.body.name()).increment(1);
        if let Some(relayed) = relayed {
            self.outbox.keep_relayed(entry.offset, relayed);
        }
        if let Asked::Misrouted(command, _) = &entry.asked {
            failpoint::reach("forwards.copy_decided");
            self.outbox
                .keep(entry.offset, command, entry.key, entry.traceparent, event.decided_at);
        }
        Ok(record)
    }

    /// Waits a little for what was published to be read back, so that the next owner finds all decided.
    fn drain(&mut self) -> Result<(), End> {
        let until = self.now() + DRAIN;
        let never = Stop::never();
        while self.now() < until && (!self.in_flight.is_empty() || !self.outbox.settled()?) {
            self.take(IDLE, &never)?;
        }
        failpoint::reach("reserver.drained");
        self.commit_cursor(true)
    }
}

/// Errors of a partition that time does not mend.
fn is_lasting(code: rdkafka::error::RDKafkaErrorCode) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::OffsetOutOfRange | Code::AutoOffsetReset | Code::UnknownTopicOrPartition | Code::UnknownPartition
    )
}
