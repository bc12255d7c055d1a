//! Logs that lose what they had acknowledged (rule 9): the lane must halt, and stay so.

use domain::LaneState;

use super::Play;
use crate::{
    chance::Chance,
    faults::Fault,
    judge,
    mutants::Mutant,
    state::{Event, Micros, SECOND, State},
};

/// What was lost.
#[derive(Debug, Clone, Copy)]
pub(super) enum Loss {
    /// Of this lane's commands; its events ended here.
    Commands { lane: usize, end: i64 },
    /// The last of this lane's events; so much had been told by then.
    Events { lane: usize, told: usize },
}

/// Whether a story ends so.
pub(super) fn loss_of(chance: &mut Chance, mutant: Option<Mutant>) -> Option<Fault> {
    let draw = chance.below(100);
    let often = match mutant {
        Some(Mutant::GoOnWithCutCommands | Mutant::GoOnWithOtherCommands) => Some(Fault::CutCommands),
        Some(Mutant::GoOnWithLostCommands) => Some(Fault::LoseCommands),
        Some(Mutant::GoOnWithLostEvents) => Some(Fault::LoseEvents),
        _ => None,
    };
    match draw {
        0..50 if often.is_some() => often,
        0..3 => Some(Fault::CutCommands),
        3..6 => Some(Fault::LoseCommands),
        6..10 => Some(Fault::LoseEvents),
        _ => None,
    }
}

impl Loss {
    /// How long it is watched.
    pub(super) fn length(self) -> Micros {
        match self {
            Self::Commands { .. } => 35 * SECOND,
            Self::Events { .. } => 100 * SECOND,
        }
    }

    pub(super) fn judge(self, state: &State) -> Result<(), String> {
        match self {
            Self::Commands { lane, end } => judge::has_halted(state, lane, end),
            Self::Events { lane, told } => judge::has_not_gone_back(state, lane, told),
        }
    }
}

impl Play<'_> {
    /// Everybody dies, and a partition is not what it was.
    pub(super) fn lose(&mut self, fault: Fault) {
        let everybody = 0..self.state.borrow().processes.len();
        for process in everybody {
            if self.state.borrow().processes[process].alive {
                self.kill(process);
            }
        }
        let mut state = self.state.borrow_mut();
        state.heal();
        let lanes = state.lanes;
        let lane = state.chance.index(lanes);
        self.loss = state.lose(fault, lane);
        if self.loss.is_some() {
            state.freeze();
        }
        if matches!(self.loss, Some(Loss::Commands { .. })) && state.chance.permille(500) {
            // The topic grows past what was decided: that must not hide what is gone.
            state.after(3 * SECOND, Event::Fault(Fault::Nudge));
        }
        state.after(SECOND, Event::Start);
        state.after(2 * SECOND, Event::Fault(Fault::Heal));
    }
}

impl State {
    fn lose(&mut self, fault: Fault, lane: usize) -> Option<Loss> {
        let decided = self.kafka.events[lane].fold.last_command_offset;
        let end = self.kafka.events[lane].end();
        let commands = &mut self.kafka.commands[lane];
        match fault {
            Fault::CutCommands if decided >= 0 => {
                commands.slots.truncate(usize::try_from(decided).expect("an offset"));
                commands.low = commands.low.min(decided);
                Some(Loss::Commands { lane, end })
            }
            Fault::LoseCommands if commands.last() > decided + 1 => {
                commands.low = commands.end();
                Some(Loss::Commands { lane, end })
            }
            // Where Redis has lost the same, nothing is left that shows it.
            Fault::LoseEvents if !self.redis.has_lost => {
                let lost = 1 + self.chance.index(6);
                let events = &mut self.kafka.events[lane];
                let kept = events.slots.len().checked_sub(lost)?;
                events.slots.truncate(kept);
                events.low = events.low.min(events.end());
                let mut fold = LaneState::default();
                for (offset, slot) in (0..).zip(&events.slots) {
                    if let Some(stamp) = slot.as_ref().and_then(|record| record.stamp) {
                        fold.fold(offset, stamp);
                    }
                }
                events.fold = fold;
                let told = self.clients.told.len();
                Some(Loss::Events { lane, told })
            }
            _ => None,
        }
    }
}
