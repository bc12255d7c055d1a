//! Outbox: what the lane produces. Outcomes in order under its epoch, copies of misrouted commands, and dead letters.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use domain::{Command, Event, Lane, Source};
use plumbing::{
    kafka::{
        consumer,
        producer::{Position, ProduceError, Producer, Record},
    },
    stop::Stop,
};
use rdkafka::Message;
use schemas::headers;
use tokio::sync::oneshot;

use crate::{Shared, end::End, intake::Poison, log, open::Unforwarded, pack};

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

/// A copy on its way; the cursor may not pass its event before it is acknowledged.
struct Sent {
    forward: Unforwarded,
    acknowledged: oneshot::Receiver<Result<Position, ProduceError>>,
}

/// What a lane produces in one turn.
pub(crate) struct Outbox<'a> {
    shared: &'a Shared,
    lane: Lane,
    producer: Producer,
    failure: Failure,
    forwardable: HashMap<i64, Forwardable>,
    sent: VecDeque<Sent>,
    /// Whether an event was read whose copy could not be sent: the turn ends, and nothing may pass that event.
    owing: bool,
}

impl<'a> Outbox<'a> {
    pub(crate) fn new(shared: &'a Shared, lane: Lane, producer: Producer) -> Self {
        let (forwardable, sent) = (HashMap::new(), VecDeque::new());
        Self {
            shared,
            lane,
            producer,
            failure: Failure::default(),
            forwardable,
            sent,
            owing: false,
        }
    }

    /// Queues the event of a decision; its fate is learned from the log alone.
    pub(crate) fn publish(&self, event: &Event, key: Option<&[u8]>, traceparent: Option<String>) -> Result<(), End> {
        let mut headers = headers::of_event(event, crate::SOURCE);
        headers.extend(traceparent.map(|traceparent| (headers::TRACEPARENT, traceparent)));
        let failure = self.failure.clone();
        let record = Record {
            topic: &self.shared.topics.events,
            partition: Some(self.lane.partition()),
            key,
            value: Some(&self.shared.codec.encode_event(event)),
            headers: &headers,
        };
        self.producer.send_then(record, move |result| {
            if let Err(error) = result {
                failure
                    .lock()
                    .expect("no holder of this lock panics")
                    .get_or_insert_with(|| error.to_string());
            }
        })?;
        Ok(())
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
            acknowledgements.push(self.producer.send(Record {
                topic: &self.shared.topics.dead_letters,
                partition: Some(0),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            })?);
        }
        for (acknowledged, record) in acknowledgements.into_iter().zip(poison) {
            self.shared.runtime.block_on(acknowledged)?;
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

    /// Sends a copy of a misrouted command to its lane; its event is valid.
    pub(crate) fn forward(&mut self, forward: Unforwarded, stop: &Stop) -> Result<(), End> {
        self.owing = true;
        self.send_copy(forward, stop)?;
        self.owing = false;
        Ok(())
    }

    /// An event was read that may ask for a copy, but nobody could tell.
    pub(crate) fn owe(&mut self) {
        self.owing = true;
    }

    fn send_copy(&mut self, forward: Unforwarded, stop: &Stop) -> Result<(), End> {
        let kept = match self.forwardable.remove(&forward.command_offset) {
            Some(kept) => kept,
            None => self.read_again(forward.command_offset, stop)?,
        };
        let copy = Command {
            source: Some(Source {
                topic: self.shared.topics.commands.clone(),
                partition: self.lane.partition(),
                offset: forward.command_offset,
                log_time: kept.log_time,
            }),
            ..kept.command
        };
        let subject = pack::subject(&copy, forward.to_lane);
        let mut headers = headers::of_command(copy.command_id.as_str(), crate::SOURCE, copy.body.name(), &subject);
        headers.extend(kept.traceparent.map(|traceparent| (headers::TRACEPARENT, traceparent)));
        let (done, acknowledged) = oneshot::channel();
        let record = Record {
            topic: &self.shared.topics.commands,
            partition: Some(forward.to_lane.partition()),
            key: kept.key.as_deref(),
            value: Some(&self.shared.codec.encode_command(&copy)),
            headers: &headers,
        };
        self.producer.send_then(record, move |result| {
            // The turn may be over; then the cursor has not moved, and the next one sends it again.
            let _gone = done.send(result);
        })?;
        metrics::counter!("holdfast_forwards_total").increment(1);
        self.sent.push_back(Sent { forward, acknowledged });
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
                    let offset = sent.forward.event_offset;
                    return Err(End::Lost(format!("the copy for the event at {offset} has no fate")));
                }
            }
        }
        Ok(true)
    }

    /// A misrouted command that an earlier turn decided, read from the log again.
    fn read_again(&self, offset: i64, stop: &Stop) -> Result<Forwardable, End> {
        let reader = consumer::reader(
            &self.shared.connections.kafka_brokers,
            "holdfast-reserver-forward",
            &self.shared.forwards_group(),
        )?;
        let mut found = None;
        let topic = &self.shared.topics.commands;
        log::read(&reader, topic, self.lane.partition(), offset, stop, |message| {
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
