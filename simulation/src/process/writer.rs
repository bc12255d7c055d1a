//! Writing to Kafka, as a lane's thread does.

use plumbing::kafka::producer::{Position, Prepared, ProduceError, Record};
use rdkafka::message::{Header, OwnedHeaders};
use reserver::world::LogWriter;

use super::{Port, index, topic_of};
use crate::{
    kafka::{Append, Done, Topic},
    mutants::Mutant,
    plot::{Step, Way},
    state::{Event, MS},
};

/// A writer of one lane's thread.
pub(crate) struct Writer<'y> {
    pub(super) port: Port<'y>,
    pub(super) id: usize,
}

impl Writer<'_> {
    fn produce(&self, append: Append, way: Way) {
        let mut state = self.port.state.borrow_mut();
        state.produce(self.id, append, way);
    }

    fn reach(&self, step: Step) -> Way {
        self.port.state.borrow_mut().reach(step, self.port.task)
    }
}

impl LogWriter for Writer<'_> {
    fn send_then(
        &self,
        record: Record<'_>,
        done: impl FnOnce(Result<Position, ProduceError>) + Send + Sync + 'static,
    ) -> Result<(), ProduceError> {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(value.as_str()),
                })
            });
        let topic = topic_of(record.topic);
        let partition = index(record.partition.expect("lanes name the partition"));
        let mut done: Done = Box::new(done);
        {
            let mut state = self.port.state.borrow_mut();
            if topic == Topic::Events {
                let end = state.kafka.events[partition].end();
                state.tasks[self.port.task].end_when_opened = end;
                if state.breaks(Mutant::SameEpochAgain)
                    && state.tasks[self.port.task].epoch == state.kafka.events[partition].fold.epoch
                    && state.tasks[self.port.task].epoch >= 0
                {
                    let epoch = state.tasks[self.port.task].epoch;
                    let position = Position {
                        partition: record.partition.unwrap_or_default(),
                        offset: epoch,
                    };
                    state.after(MS, Event::Fate(done, Ok(position)));
                    return Ok(());
                }
            } else if topic == Topic::Commands && state.breaks(Mutant::CursorBeforeCopies) {
                let position = Position {
                    partition: record.partition.unwrap_or_default(),
                    offset: 0,
                };
                state.at(0, Event::Fate(done, Ok(position)));
                done = Box::new(|_| {});
            }
        }
        let append = Append {
            topic,
            partition,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers,
            task: Some(self.port.task),
            done: Some(done),
        };
        let way = match topic {
            Topic::Events => self.reach(Step::Opening),
            Topic::Commands | Topic::DeadLetters => Way::Free,
        };
        self.produce(append, way);
        Ok(())
    }

    fn publish(&self, events: Vec<Prepared>) {
        let deaf = self.port.state.borrow().breaks(Mutant::GoOnAfterUnknown)
            || self.port.state.borrow().breaks(Mutant::StayThoughVoid);
        let way = self.reach(Step::Publishing);
        for record in events {
            let parts = record.into_parts();
            let done: Done = if deaf {
                Box::new(move |result: Result<Position, ProduceError>| {
                    if result.is_ok() {
                        (parts.done)(result);
                    }
                })
            } else {
                parts.done
            };
            let append = Append {
                topic: Topic::Events,
                partition: index(parts.partition),
                key: parts.key,
                value: Some(parts.value),
                headers: parts.headers,
                task: Some(self.port.task),
                done: Some(done),
            };
            self.produce(append, way);
        }
    }
}
