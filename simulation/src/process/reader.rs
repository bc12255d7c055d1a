//! Reading Kafka, as a lane's thread does.

use std::time::Duration;

use plumbing::kafka::KafkaError;
use rdkafka::message::OwnedMessage;
use reserver::world::{Committed, LogReader};

use super::{Port, index, micros, topic_of};
use crate::{
    kafka::{self, Fetch, Topic},
    mutants::Mutant,
};

/// A reader of one lane's thread.
pub(crate) struct Reader<'y> {
    pub(super) port: Port<'y>,
    pub(super) id: usize,
}

impl LogReader for Reader<'_> {
    type Record<'r>
        = OwnedMessage
    where
        Self: 'r;

    fn assign(&self, from: &[(&str, i32, i64)]) -> Result<(), KafkaError> {
        let places = from
            .iter()
            .map(|(topic, partition, offset)| (topic_of(topic), index(*partition), *offset));
        self.port.state.borrow_mut().kafka.assign(self.id, places);
        Ok(())
    }

    fn poll(&self, wait: Duration) -> Option<Result<OwnedMessage, KafkaError>> {
        let deadline = self.port.micros() + micros(wait);
        loop {
            let fetched = self.port.state.borrow_mut().fetch(self.id);
            let now = self.port.micros();
            match fetched {
                Fetch::Record(message) => return Some(Ok(*message)),
                Fetch::Gone => {
                    // As a client that asks again and again.
                    self.port.travel();
                    return Some(Err(kafka::out_of_range()));
                }
                Fetch::End(partition) => return Some(Err(KafkaError::PartitionEOF(partition))),
                Fetch::Coming(_) | Fetch::Nothing if now >= deadline => return None,
                Fetch::Coming(at) => self.port.suspend_until(at.min(deadline)),
                Fetch::Nothing => {
                    self.port.state.borrow_mut().kafka.wait(self.id);
                    self.port.suspend_until(deadline);
                }
            }
        }
    }

    fn seek(&self, topic: &str, partition: i32, offset: i64) -> Result<(), KafkaError> {
        self.port.ask()?;
        let mut state = self.port.state.borrow_mut();
        if state.breaks(Mutant::MissedAtEnd) && state.kafka.missed_last(self.id, topic_of(topic), index(partition)) {
            return Ok(());
        }
        state.kafka.seek(self.id, topic_of(topic), index(partition), offset);
        Ok(())
    }

    fn pause(&self, topic: &str, partition: i32) -> Result<(), KafkaError> {
        let mut state = self.port.state.borrow_mut();
        state.kafka.set_paused(self.id, topic_of(topic), index(partition), true);
        Ok(())
    }

    fn resume(&self, topic: &str, partition: i32) -> Result<(), KafkaError> {
        let mut state = self.port.state.borrow_mut();
        state
            .kafka
            .set_paused(self.id, topic_of(topic), index(partition), false);
        Ok(())
    }

    fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64), KafkaError> {
        self.port.ask()?;
        let state = self.port.state.borrow();
        let topic = topic_of(topic);
        let place = state.kafka.partition(topic, index(partition));
        Ok(match (state.mutant, topic) {
            (Some(Mutant::GoOnWithCutCommands), Topic::Commands) => {
                let decided = state.kafka.events[index(partition)].fold.last_command_offset;
                (place.low, place.end().max(decided + 1))
            }
            (Some(Mutant::GoOnWithLostCommands), Topic::Commands) => (0, place.end()),
            _ => (place.low, place.end()),
        })
    }

    fn committed(&self, _topic: &str, partitions: &[i32]) -> Result<Vec<Committed>, KafkaError> {
        self.port.ask()?;
        let state = self.port.state.borrow();
        let found = partitions.iter().filter_map(|partition| {
            let (next, metadata) = state.kafka.committed.get(partition)?.clone();
            Some(Committed {
                partition: *partition,
                next,
                metadata,
            })
        });
        Ok(found.collect())
    }

    fn commit(&self, _topic: &str, position: &Committed, wait: bool) -> Result<(), KafkaError> {
        if wait {
            self.port.ask()?;
        }
        let mut state = self.port.state.borrow_mut();
        let lost = state.kafka.down_until > state.now || state.chance.permille(50);
        // Retention is a matter of weeks, and of hours whoever may still commit an earlier position.
        let older = position.next < state.kafka.events[index(position.partition)].low;
        if !older && (wait || !lost) {
            let cursor = (position.next, position.metadata.clone());
            state.kafka.committed.insert(position.partition, cursor);
        }
        Ok(())
    }
}
