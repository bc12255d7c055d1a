//! Writing: whether and when a record is appended, and what its writer hears of it.

use std::{cell::OnceCell, rc::Rc};

use domain::{LaneState, Stamp, Verdict};
use plumbing::kafka::{
    KafkaError,
    producer::{Position, ProduceError},
};
use rdkafka::{
    error::RDKafkaErrorCode,
    message::{Header, Headers, OwnedHeaders},
};
use schemas::EventHeaders;

use super::{Append, MESSAGE_TIMEOUT, Record, Topic};
use crate::{
    mutants::Mutant,
    plot::{Step, Way},
    state::{Event, MS, Micros, SECOND, State},
};

fn unacknowledged() -> ProduceError {
    ProduceError::Unacknowledged(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut))
}

/// How a record fares.
enum Fate {
    Fine,
    /// It is appended, and nobody says so.
    Unanswered,
    Dropped,
    /// It is appended long after it was given up.
    Late,
    Twice,
}

impl State {
    /// Sends a record; its fate is drawn here, unless a plot has decided it.
    pub(crate) fn produce(&mut self, writer: usize, mut append: Append, way: Way) {
        let behind = append.topic == Topic::Events && self.plot.held_writers.contains(&writer);
        if way == Way::Held || behind {
            self.plot.held_writers.push(writer);
            self.plot.hold(Event::Append(Box::new(append)));
            return;
        }
        let fate = match way {
            Way::Lost => Fate::Dropped,
            Way::Free | Way::Held => self.fate(&append),
        };
        let latency = self.chance.latency();
        let free = self.now.max(self.kafka.down_until) + latency;
        let arrives = self.kafka.writers[writer].max(free);
        self.kafka.writers[writer] = arrives;
        let given_up = self.now + MESSAGE_TIMEOUT;
        let fate = match fate {
            // A broker that was away for too long: either it took the record before, or it never will.
            Fate::Fine | Fate::Twice if arrives > given_up => Fate::Late,
            fate => fate,
        };
        match fate {
            Fate::Fine => self.at(arrives, Event::Append(Box::new(append))),
            Fate::Unanswered => {
                self.give_up(given_up, &mut append);
                self.at(arrives, Event::Append(Box::new(append)));
            }
            Fate::Dropped => self.give_up(given_up, &mut append),
            Fate::Late => {
                self.give_up(given_up, &mut append);
                let late = self.chance.from(0, 10 * SECOND);
                self.at(arrives.max(given_up) + late, Event::Append(Box::new(append)));
            }
            Fate::Twice => {
                let later = self.chance.latency();
                let copy = Append {
                    key: append.key.clone(),
                    value: append.value.clone(),
                    headers: append.headers.clone(),
                    done: None,
                    topic: append.topic,
                    partition: append.partition,
                    task: append.task,
                };
                self.at(arrives, Event::Append(Box::new(append)));
                self.at(arrives + later, Event::Append(Box::new(copy)));
            }
        }
    }

    fn fate(&mut self, append: &Append) -> Fate {
        if append.topic == Topic::DeadLetters {
            return Fate::Fine;
        }
        let produce = self.weather.produce;
        let draw = self.chance.below(1_000);
        let mut limit = 0;
        for (permille, fate) in [
            (produce.unanswered, Fate::Unanswered),
            (produce.dropped, Fate::Dropped),
            (produce.late, Fate::Late),
            (produce.twice, Fate::Twice),
        ] {
            limit += permille;
            if draw < limit {
                return fate;
            }
        }
        Fate::Fine
    }

    fn give_up(&mut self, at: Micros, append: &mut Append) {
        if let Some(done) = append.done.take() {
            self.at(at, Event::Fate(done, Err(unacknowledged())));
        }
    }

    /// A record reaches its partition.
    pub(crate) fn append(&mut self, append: Append) {
        let Append {
            topic,
            partition,
            key,
            value,
            mut headers,
            task,
            done,
        } = append;
        let jitter = i64::try_from(self.chance.below(self.weather.clock_jitter_ms + 1)).expect("small");
        let timestamp = self.wall_ms() - jitter;
        let at = self.kafka.partition(topic, partition).end();
        let (mut stamp, mut verdict) = (None, Verdict::Void);
        if topic == Topic::Events {
            stamp = stamp_of(&headers);
            let fold = &mut self.kafka.events[partition].fold;
            if let Some(lie) = stamp.and_then(|stamp| lie(self.mutant, fold, stamp)) {
                stamp = Some(lie);
                headers = rewritten(&headers, lie);
            }
            verdict = stamp.map_or(Verdict::Void, |stamp| fold.fold(at, stamp));
            if let (Some(task), Verdict::Opened) = (task, verdict) {
                self.tasks[task].epoch = at;
            }
        }
        let digest = value
            .as_deref()
            .unwrap_or_default()
            .iter()
            .fold(u64::from(topic as u8), |digest, byte| {
                digest.wrapping_mul(31).wrapping_add(u64::from(*byte))
            });
        self.note(digest);
        tracing::debug!(target: "story", ms = self.now / MS, ?topic, partition, at, task, ?stamp, ?verdict, "append");
        let record = Rc::new(Record {
            key,
            value,
            headers,
            timestamp,
            stamp,
            verdict,
            event: OnceCell::new(),
        });
        self.appended(topic, partition, &record, at);
        let place = self.kafka.partition_mut(topic, partition);
        place.slots.push(Some(record));
        let waiting = std::mem::take(&mut place.waiting);
        for reader in waiting {
            let task = self.kafka.readers[reader].task;
            self.wake(task);
        }
        match (task, verdict) {
            (Some(task), Verdict::Opened) => _ = self.reach(Step::Opened, task),
            (Some(task), Verdict::Valid) => _ = self.reach(Step::Published, task),
            _ => {}
        }
        if let Some(done) = done {
            let position = Position {
                partition: i32::try_from(partition).expect("few lanes"),
                offset: at,
            };
            if let (Some(task), Some(Stamp::Decision { command, .. })) = (task, stamp) {
                self.tasks[task].acknowledged.push(command);
            }
            let latency = self.chance.latency();
            self.after(latency, Event::Fate(done, Ok(position)));
        }
    }

    /// What others do about a new record.
    fn appended(&mut self, topic: Topic, partition: usize, record: &Rc<Record>, at: i64) {
        match topic {
            Topic::Events => {
                if self.breaks(Mutant::AnswerOnAcknowledgement) && matches!(record.stamp, Some(Stamp::Decision { .. }))
                {
                    self.answer_of(partition, at, record);
                }
                let latency = self.chance.latency();
                self.after(latency, Event::Tail(partition));
            }
            Topic::Commands | Topic::DeadLetters => {}
        }
    }
}

fn stamp_of(headers: &OwnedHeaders) -> Option<Stamp> {
    EventHeaders::read(headers.iter().map(|header| (header.key, header.value))).map(|read| read.stamp)
}

/// A rule of the fold is left out: the record says what makes the rule say yes.
fn lie(mutant: Option<Mutant>, fold: &LaneState, stamp: Stamp) -> Option<Stamp> {
    let Stamp::Decision {
        epoch,
        command,
        previous,
        time,
    } = stamp
    else {
        return None;
    };
    match mutant? {
        Mutant::NoEpochInLog => Some(Stamp::Decision {
            epoch: fold.epoch,
            command,
            previous,
            time,
        }),
        Mutant::NoChain => Some(Stamp::Decision {
            epoch,
            command,
            previous: fold.last_command_offset,
            time,
        }),
        _ => None,
    }
}

fn rewritten(headers: &OwnedHeaders, stamp: Stamp) -> OwnedHeaders {
    let Stamp::Decision { epoch, previous, .. } = stamp else {
        return headers.clone();
    };
    let (epoch, previous) = (epoch.to_string(), previous.to_string());
    headers.iter().fold(OwnedHeaders::new(), |written, header| {
        written.insert(Header {
            key: header.key,
            value: match header.key {
                "epoch" => Some(epoch.as_bytes()),
                "previous" => Some(previous.as_bytes()),
                _ => header.value,
            },
        })
    })
}
