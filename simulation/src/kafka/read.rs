//! Reading: when a reader sees what is there, and what a reading misses.

use domain::{Stamp, Verdict};
use rdkafka::{Timestamp, message::OwnedMessage};

use super::{Record, Topic};
use crate::{
    mutants::Mutant,
    state::{MS, Micros, State},
};

/// What a reader finds.
pub(crate) enum Fetch {
    Record(Box<OwnedMessage>),
    End(i32),
    /// The record to read is deleted.
    Gone,
    Coming(Micros),
    Nothing,
}

impl State {
    /// What a reader finds now.
    pub(crate) fn fetch(&mut self, reader: usize) -> Fetch {
        let task = self.kafka.readers[reader].task;
        let count = self.kafka.readers[reader].cursors.len();
        let first = if count > 1 { self.chance.index(count) } else { 0 };
        let mut soonest: Option<Micros> = None;
        for turn in 0..count {
            let at = (first + turn) % count;
            match self.fetch_of(reader, at, task) {
                Fetch::Nothing => {}
                Fetch::Coming(when) => soonest = Some(soonest.map_or(when, |soonest| soonest.min(when))),
                found => return found,
            }
        }
        soonest.map_or(Fetch::Nothing, Fetch::Coming)
    }

    fn fetch_of(&mut self, reader: usize, at: usize, task: usize) -> Fetch {
        let cursor = &mut self.kafka.readers[reader].cursors[at];
        if cursor.paused {
            return Fetch::Nothing;
        }
        let (topic, partition) = (cursor.topic, cursor.partition);
        let end = self.kafka.partition(topic, partition).end();
        loop {
            let low = self.kafka.partition(topic, partition).low;
            let resets = self.breaks(Mutant::GoOnWithLostCommands);
            let cursor = &mut self.kafka.readers[reader].cursors[at];
            if cursor.next < low || cursor.next > end {
                if !resets || cursor.next > end {
                    return Fetch::Gone;
                }
                cursor.next = low;
            }
            if let Some((when, until)) = cursor.coming
                && when <= self.now
            {
                cursor.fetched = until;
                cursor.coming = None;
                cursor.end_told = false;
            }
            if cursor.next < cursor.fetched {
                let offset = cursor.next;
                cursor.next += 1;
                if let Some(message) = self.read(reader, at, task, offset) {
                    return Fetch::Record(Box::new(message));
                }
                continue;
            }
            if let Some((when, _)) = cursor.coming {
                return Fetch::Coming(when);
            }
            if cursor.next < end {
                let when = self.now.max(self.kafka.down_until) + self.chance.latency() * self.weather.reader_lag;
                self.kafka.readers[reader].cursors[at].coming = Some((when, end));
                return Fetch::Coming(when);
            }
            if !cursor.end_told && self.kafka.down_until <= self.now {
                cursor.end_told = true;
                return Fetch::End(i32::try_from(partition).expect("few lanes"));
            }
            return Fetch::Nothing;
        }
    }

    /// A record as a reader sees it; none where there is none, or this reading misses it.
    fn read(&mut self, reader: usize, at: usize, task: usize, offset: i64) -> Option<OwnedMessage> {
        let cursor = &self.kafka.readers[reader].cursors[at];
        let (topic, partition, missed) = (cursor.topic, cursor.partition, cursor.missed);
        let record = self.kafka.partition(topic, partition).record(offset)?.clone();
        if topic == Topic::Commands && self.breaks(Mutant::GoOnWithOtherCommands) {
            let fold = &self.kafka.events[partition].fold;
            if offset == fold.last_command_offset && record.timestamp > fold.log_time {
                return None;
            }
        }
        if self.hides(task, topic, offset, &record) {
            return None;
        }
        if missed == Some(offset) && self.breaks(Mutant::HolesAtOnce) {
            return None;
        }
        let may_miss = missed.is_none() && !self.kafka.partition(topic, partition).missed.contains(&offset);
        if topic == Topic::Commands && may_miss && self.chance.permille(self.weather.misses) {
            self.kafka.commands[partition].missed.insert(offset);
            self.kafka.readers[reader].cursors[at].missed = Some(offset);
            tracing::debug!(target: "story", ms = self.now / MS, task, offset, "a reading misses a command");
            return None;
        }
        let name = match topic {
            Topic::Commands => &schemas::topics::COMMANDS,
            Topic::Events => &schemas::topics::EVENTS,
            Topic::DeadLetters => &schemas::topics::DEAD_LETTERS,
        };
        Some(OwnedMessage::new(
            record.value.clone(),
            record.key.clone(),
            name.name.to_owned(),
            Timestamp::LogAppendTime(record.timestamp),
            i32::try_from(partition).expect("few lanes"),
            offset,
            Some(record.headers.clone()),
        ))
    }

    /// What a lane does not see because a rule is left out: see `mutants`.
    fn hides(&self, task: usize, topic: Topic, offset: i64, record: &Record) -> bool {
        let (Some(mutant), Topic::Events) = (self.mutant, topic) else {
            return false;
        };
        let task = &self.tasks[task];
        match mutant {
            Mutant::DecidedBeforeOwned => (task.end_when_opened..task.epoch).contains(&offset),
            Mutant::StayThoughReplaced => record.stamp == Some(Stamp::Opened) && offset > task.epoch,
            Mutant::StayThoughVoid => {
                record.verdict == Verdict::Void
                    && matches!(record.stamp, Some(Stamp::Decision { epoch, .. }) if epoch == task.epoch)
            }
            _ => false,
        }
    }
}
