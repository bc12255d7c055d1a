//! Outbox: what the lane produces. Outcomes in order under its epoch, copies of misrouted commands, and dead letters.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use domain::{
    Command, Event, Key, Lane, Millis, Source, Tenant,
    relay::{self, Forward},
};
use plumbing::{
    failpoint,
    kafka::producer::{Position, Prepared, ProduceError, Record},
    stop::Stop,
};
use rdkafka::Message;
use schemas::headers;
use tokio::sync::oneshot;

use crate::{
    Shared,
    end::End,
    intake::Poison,
    log,
    open::{Unforwarded, What},
    pack,
    world::{LogReader as _, LogWriter as _, World},
};

/// The first produce of this turn that failed; its result is unknown, so the turn is over.
type Failure = Arc<Mutex<Option<String>>>;

/// A command that is to be forwarded once its event is valid.
#[derive(Debug)]
struct Forwardable {
    command: Command,
    key: Option<Vec<u8>>,
    traceparent: Option<String>,
    log_time: i64,
}

/// What a decision has other lanes do, once its event is valid.
#[derive(Debug, Clone)]
pub(crate) struct Relayed {
    forwards: Vec<Forward>,
    tenant: Tenant,
    request_id: String,
    decided_at: Millis,
    traceparent: Option<String>,
}

impl Relayed {
    /// Of an event; `None` when it concerns no other lane.
    pub(crate) fn of(lane: Lane, event: &Event, traceparent: Option<String>) -> Option<Self> {
        let forwards = relay::forwards(lane, event);
        (!forwards.is_empty()).then(|| Self {
            forwards,
            tenant: event.tenant.clone(),
            request_id: event.request_id.clone(),
            decided_at: event.decided_at,
            traceparent,
        })
    }
}

/// A copy on its way; the cursor may not pass its event before it is acknowledged.
struct Sent {
    /// Command offset of the event that it was made of.
    command: i64,
    acknowledged: oneshot::Receiver<Result<Position, ProduceError>>,
}

/// What a lane produces in one turn.
pub(crate) struct Outbox<'a, W: World> {
    shared: &'a Shared<W>,
    lane: Lane,
    writer: W::Writer,
    failure: Failure,
    forwardable: HashMap<i64, Forwardable>,
    relayed: HashMap<i64, Relayed>,
    sent: VecDeque<Sent>,
    /// Whether an event was read whose copy could not be sent: the turn ends, and nothing may pass that event.
    owing: bool,
}

impl<'a, W: World> Outbox<'a, W> {
    pub(crate) fn new(shared: &'a Shared<W>, lane: Lane, writer: W::Writer) -> Self {
        Self {
            shared,
            lane,
            writer,
            failure: Failure::default(),
            forwardable: HashMap::new(),
            relayed: HashMap::new(),
            sent: VecDeque::new(),
            owing: false,
        }
    }

    /// Makes the record of a decision's event; its fate is learned from the log alone.
    pub(crate) fn prepare(&self, event: &Event, key: Option<&[u8]>, traceparent: Option<String>) -> Prepared {
        let mut headers = headers::of_event(event, crate::SOURCE);
        headers.extend(traceparent.map(|traceparent| (headers::TRACEPARENT, traceparent)));
        let failure = self.failure.clone();
        let value = self.shared.codec.encode_event(event);
        Prepared::new(self.lane.partition(), key, value, &headers, move |result| {
            if let Err(error) = result {
                failure
                    .lock()
                    .expect("no holder of this lock panics")
                    .get_or_insert_with(|| error.to_string());
            }
        })
    }

    /// Queues the events of a batch, in order and in one go, so that they share a request.
    pub(crate) fn publish(&self, batch: Vec<Prepared>) {
        self.writer.publish(batch);
    }

    /// The reason why the turn is over, if a produce failed.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().expect("no holder of this lock panics").clone()
    }

    /// Writes records that can never be read to the dead-letter topic, and waits until they are there.
    pub(crate) fn bury(&self, poison: &[Poison]) -> Result<(), End> {
        let mut acknowledgements = Vec::with_capacity(poison.len());
        for record in poison {
            let headers = [
                ("holdfast.error.topic", self.shared.topics.commands.clone()),
                ("holdfast.error.partition", self.lane.to_string()),
                ("holdfast.error.offset", record.offset.to_string()),
                ("holdfast.error.stage", "reserver".to_owned()),
                ("holdfast.error.message", record.message.clone()),
            ];
            acknowledgements.push(self.writer.send(Record {
                topic: &self.shared.topics.dead_letters,
                partition: Some(0),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            })?);
        }
        for (acknowledged, record) in acknowledgements.into_iter().zip(poison) {
            self.shared.world.wait(acknowledged)?;
            metrics::counter!("holdfast_dead_letters_total", "stage" => "reserver").increment(1);
            tracing::warn!(
                lane = self.lane.number(),
                offset = record.offset,
                message = record.message,
                "command.buried: see `holdfast dead-letters list`"
            );
        }
        Ok(())
    }

    /// Keeps a misrouted command until its event is valid.
    pub(crate) fn keep(
        &mut self,
        offset: i64,
        command: &Command,
        key: Option<Vec<u8>>,
        traceparent: Option<String>,
        log_time: i64,
    ) {
        self.forwardable.insert(
            offset,
            Forwardable {
                command: command.clone(),
                key,
                traceparent,
                log_time,
            },
        );
    }

    /// Keeps what a decision has other lanes do until its event is valid.
    pub(crate) fn keep_relayed(&mut self, command: i64, relayed: Relayed) {
        self.relayed.insert(command, relayed);
    }

    /// What a decision of this turn has other lanes do; its event is valid.
    pub(crate) fn take_relayed(&mut self, command: i64) -> Option<Unforwarded> {
        let relayed = self.relayed.remove(&command)?;
        Some(Unforwarded {
            command_offset: command,
            what: What::Relay(Box::new(relayed)),
        })
    }

    /// Sends what a valid event asks for.
    pub(crate) fn forward(&mut self, forward: Unforwarded, stop: &Stop) -> Result<(), End> {
        self.owing = true;
        match forward.what {
            What::Copy(to_lane) => self.send_copy(forward.command_offset, to_lane, stop)?,
            What::Relay(relayed) => self.send_relayed(forward.command_offset, *relayed)?,
        }
        self.owing = false;
        Ok(())
    }

    /// An event was read that may ask for something to be sent, but nobody could tell.
    pub(crate) fn owe(&mut self) {
        self.owing = true;
    }

    /// Sends what a decision has other lanes do. The names of these commands say what they are about, and nothing more:
    /// each lane knows (hold, attempt, kind), so one that comes twice changes nothing.
    fn send_relayed(&mut self, command: i64, relayed: Relayed) -> Result<(), End> {
        failpoint::reach("forwards.relay_read_back");
        for Forward { lane, body } in relayed.forwards {
            let subject = body.hold_id().map(|hold_id| hold_id.to_string()).unwrap_or_default();
            let id = format!("relay/{}/{}/{command}/{lane}", body.name(), self.lane);
            let command_id = Key::parse("command_id", &id).expect("short visible ASCII");
            let request_id = Key::parse("request_id", &relayed.request_id).unwrap_or_else(|_| command_id.clone());
            let record = Command {
                command_id,
                request_id,
                tenant: relayed.tenant.clone(),
                issued_at: relayed.decided_at,
                source: None,
                body,
            };
            self.send(
                command,
                lane,
                &record,
                Some(subject.as_bytes()),
                &subject,
                relayed.traceparent.clone(),
            )?;
        }
        failpoint::reach("forwards.relay_sent");
        Ok(())
    }

    /// Sends a copy of a misrouted command to its lane.
    fn send_copy(&mut self, offset: i64, to_lane: Lane, stop: &Stop) -> Result<(), End> {
        failpoint::reach("forwards.copy_read_back");
        let kept = match self.forwardable.remove(&offset) {
            Some(kept) => kept,
            None => self.read_again(offset, stop)?,
        };
        let copy = Command {
            source: Some(Source {
                topic: self.shared.topics.commands.clone(),
                partition: self.lane.partition(),
                offset,
                log_time: kept.log_time,
            }),
            ..kept.command
        };
        let subject = pack::subject(&copy, to_lane);
        self.send(offset, to_lane, &copy, kept.key.as_deref(), &subject, kept.traceparent)?;
        failpoint::reach("forwards.copy_sent");
        Ok(())
    }

    /// Sends a command to another lane; `decided`: the command of this lane whose event asks for it.
    fn send(
        &mut self,
        decided: i64,
        to_lane: Lane,
        command: &Command,
        key: Option<&[u8]>,
        subject: &str,
        traceparent: Option<String>,
    ) -> Result<(), End> {
        let name = command.body.name();
        let mut headers = headers::of_command(command.command_id.as_str(), crate::SOURCE, name, subject);
        headers.extend(traceparent.map(|traceparent| (headers::TRACEPARENT, traceparent)));
        if failpoint::fails("forwards.refused") {
            return Err(End::Lost(format!(
                "what follows from command {decided} could not be sent"
            )));
        }
        let (done, acknowledged) = oneshot::channel();
        let record = Record {
            topic: &self.shared.topics.commands,
            partition: Some(to_lane.partition()),
            key,
            value: Some(&self.shared.codec.encode_command(command)),
            headers: &headers,
        };
        self.writer.send_then(record, move |result| {
            if result.is_ok() {
                failpoint::reach("forwards.acknowledged");
            }
            // The turn may be over; then the cursor has not moved, and the next one sends it again.
            let _gone = done.send(result);
        })?;
        metrics::counter!("holdfast_forwards_total", "command" => name).increment(1);
        self.sent.push_back(Sent {
            command: decided,
            acknowledged,
        });
        Ok(())
    }

    /// Whether every copy is acknowledged, so that the cursor may pass all events read so far.
    pub(crate) fn settled(&mut self) -> Result<bool, End> {
        if self.owing {
            return Ok(false);
        }
        while let Some(sent) = self.sent.front_mut() {
            match sent.acknowledged.try_recv() {
                Ok(Ok(_)) => {
                    self.sent.pop_front();
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(oneshot::error::TryRecvError::Empty) => return Ok(false),
                Err(oneshot::error::TryRecvError::Closed) => {
                    let command = sent.command;
                    return Err(End::Lost(format!("what follows from command {command} has no fate")));
                }
            }
        }
        Ok(true)
    }

    /// A misrouted command that an earlier turn decided, read from the log again.
    fn read_again(&self, offset: i64, stop: &Stop) -> Result<Forwardable, End> {
        let reader = self.shared.world.reader("holdfast-reserver-forward")?;
        let mut found = None;
        let topic = &self.shared.topics.commands;
        let (first, _) = reader.bounds(topic, self.lane.partition())?;
        if offset < first {
            return Err(End::Halt(format!(
                "command {offset} of {topic}/{} must be sent to its own lane, but the topic begins at {first}: retention is shorter \
                 than the reserver was away. Its sender must send it again; then reset the group `{}` behind the event that decided it",
                self.lane, self.shared.forwards_group
            )));
        }
        let place = (topic.as_str(), self.lane.partition(), offset);
        log::read(&self.shared.world, &reader, place, stop, |message| {
            if message.offset() == offset
                && let Some(value) = message.payload()
                && let Ok(command) = self.shared.codec.decode_command(value)
            {
                found = Some(Forwardable {
                    command,
                    key: message.key().map(<[u8]>::to_vec),
                    traceparent: None,
                    log_time: message.timestamp().to_millis().unwrap_or_default(),
                });
            }
            Ok(true)
        })?;
        found.ok_or_else(|| {
            End::Halt(format!(
                "command {offset} must be forwarded but cannot be read from {topic}"
            ))
        })
    }
}
