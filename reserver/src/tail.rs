//! The lane's fold so far: what the reserver has read back from its events, and where.

use domain::{LaneState, Stamp, Verdict};
use plumbing::kafka::consumer;
use rdkafka::Message;
use schemas::EventHeaders;

/// A position in the lane's events, with the fold's state there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The next event offset to read.
    pub(crate) next: i64,
    /// The fold of all before it.
    pub(crate) state: LaneState,
}

impl Tail {
    /// The beginning of the log.
    pub(crate) fn start() -> Self {
        Self {
            next: 0,
            state: LaneState::default(),
        }
    }

    /// Takes the next record into the fold. A record without the fold's headers was not written by a reserver: void.
    pub(crate) fn read(&mut self, message: &impl Message) -> (Option<Stamp>, Verdict) {
        let stamp = EventHeaders::read(consumer::headers(message)).map(|headers| headers.stamp);
        let verdict = stamp.map_or(Verdict::Void, |stamp| self.state.fold(message.offset(), stamp));
        self.next = message.offset() + 1;
        (stamp, verdict)
    }

    /// The state as committed metadata of the forward cursor, with the number of lanes: a SKU's lane depends on it.
    pub(crate) fn metadata(&self, lanes: u16) -> String {
        let state = &self.state;
        format!(
            "v1 {lanes} {} {} {} {}",
            state.epoch, state.last_command_offset, state.last_decision_epoch, state.log_time
        )
    }

    /// A committed cursor and the number of lanes when it was committed; `None` when its metadata is not ours.
    pub(crate) fn from_metadata(next: i64, metadata: &str) -> Option<(Self, i64)> {
        let numbers: Vec<i64> = metadata
            .strip_prefix("v1 ")?
            .split(' ')
            .map_while(|text| text.parse().ok())
            .collect();
        let [lanes, epoch, last_command_offset, last_decision_epoch, log_time] = numbers.try_into().ok()?;
        let state = LaneState {
            epoch,
            last_command_offset,
            last_decision_epoch,
            log_time,
        };
        Some((Self { next, state }, lanes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_keeps_the_fold_in_its_metadata() {
        let state = LaneState {
            epoch: 5,
            last_command_offset: 17,
            last_decision_epoch: 3,
            log_time: 1_700_000_000_000,
        };
        let tail = Tail { next: 23, state };
        assert_eq!(Tail::from_metadata(23, &tail.metadata(4)), Some((tail, 4)));
        assert_eq!(Tail::from_metadata(23, ""), None);
        assert_eq!(Tail::from_metadata(23, "v1 1 2 3 4"), None);
    }
}
