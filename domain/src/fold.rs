//! The fold that says which decisions of a lane's log count. Everybody who reads the log uses this one function.
//!
//! A `LaneOpened` at log offset o starts epoch o. A decision is valid iff its epoch is the current one and its previous
//! command offset is that of the last valid decision. Everything else is void, for everybody, for ever.

use crate::values::Millis;

/// Before the first command of a lane.
pub const NO_COMMAND: i64 = -1;
/// Before the first owner of a lane.
pub const NO_EPOCH: i64 = -1;

/// What the log has said so far of one lane. Whoever stores a position in the log stores this with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneState {
    /// The current owner's epoch: the log offset of the last `LaneOpened`.
    pub epoch: i64,
    /// The command offset of the last valid decision.
    pub last_command_offset: i64,
    /// The epoch that made the last valid decision.
    pub last_decision_epoch: i64,
    /// The log time of the last valid decision, in milliseconds.
    pub log_time: Millis,
}

impl Default for LaneState {
    fn default() -> Self {
        Self {
            epoch: NO_EPOCH,
            last_command_offset: NO_COMMAND,
            last_decision_epoch: NO_EPOCH,
            log_time: 0,
        }
    }
}

/// What the fold needs of a record: its headers have it, so that no reader must decode a body to fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// A `LaneOpened`.
    Opened,
    /// A decision on one command.
    Decision {
        /// The epoch under which it was made.
        epoch: i64,
        /// The command that it decides.
        command: i64,
        /// The command decided before.
        previous: i64,
        /// Log time of the decision, in milliseconds.
        time: Millis,
    },
}

/// What a record counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A new owner's turn begins.
    Opened,
    /// It happened.
    Valid,
    /// It never happened.
    Void,
}

impl LaneState {
    /// Takes the record at `offset` of the events log into the state and says what it counts for.
    pub fn fold(&mut self, offset: i64, stamp: Stamp) -> Verdict {
        match stamp {
            Stamp::Opened => {
                self.epoch = offset;
                Verdict::Opened
            }
            Stamp::Decision {
                epoch,
                command,
                previous,
                time,
            } => {
                // Nobody decides before the first LaneOpened, whatever number stands in the header.
                if epoch == NO_EPOCH
                    || epoch != self.epoch
                    || previous != self.last_command_offset
                    || command <= previous
                {
                    return Verdict::Void;
                }
                self.last_command_offset = command;
                self.last_decision_epoch = epoch;
                self.log_time = self.log_time.max(time);
                Verdict::Valid
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(epoch: i64, command: i64, previous: i64) -> Stamp {
        Stamp::Decision {
            epoch,
            command,
            previous,
            time: 0,
        }
    }

    #[test]
    fn a_decision_before_any_owner_is_void() {
        for epoch in [0, NO_EPOCH, 7] {
            let mut lane = LaneState::default();
            assert_eq!(lane.fold(0, decision(epoch, 0, -1)), Verdict::Void, "{epoch}");
            assert_eq!(lane, LaneState::default());
        }
    }

    #[test]
    fn a_zombie_that_writes_after_a_new_owner_opened_is_void() {
        let mut lane = LaneState::default();
        assert_eq!(lane.fold(0, Stamp::Opened), Verdict::Opened);
        assert_eq!(lane.fold(1, decision(0, 0, -1)), Verdict::Valid);
        assert_eq!(lane.fold(2, Stamp::Opened), Verdict::Opened);
        assert_eq!(lane.fold(3, decision(0, 1, 0)), Verdict::Void);
        assert_eq!(lane.fold(4, decision(2, 1, 0)), Verdict::Valid);
        assert_eq!(lane.fold(5, decision(0, 2, 1)), Verdict::Void);
        assert_eq!(
            lane,
            LaneState {
                epoch: 2,
                last_command_offset: 1,
                last_decision_epoch: 2,
                log_time: 0
            }
        );
    }

    #[test]
    fn a_gap_in_the_chain_voids_all_that_follows_it() {
        let mut lane = LaneState::default();
        lane.fold(0, Stamp::Opened);
        assert_eq!(lane.fold(1, decision(0, 0, -1)), Verdict::Valid);
        assert_eq!(lane.fold(2, decision(0, 2, 1)), Verdict::Void);
        assert_eq!(lane.fold(3, decision(0, 3, 2)), Verdict::Void);
        assert_eq!(
            lane.fold(4, decision(0, 0, -1)),
            Verdict::Void,
            "a command decided twice counts once"
        );
        assert_eq!(
            lane.fold(5, decision(0, 3, 0)),
            Verdict::Valid,
            "a believed hole: offset 1 and 2 hold no record"
        );
    }
}
