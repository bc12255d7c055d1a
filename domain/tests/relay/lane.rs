//! What a lane decides of a record about a cart, as `apply` does. Which step leads where is asked of the real states
//! (`domain::HoldState`, `domain::PartState`), and what is sent of the real relay.

use domain::{HoldState, PartState, PartStep, hold::Step as HoldStep};

use crate::{
    forwards::{self, Forwards, Said},
    shop::{Mutant, Shop},
    world::{Broken, Message, Rival, World},
};

/// A deadline of a hold and the moment when it is due: the model has no clock, a hold expires when it likes.
const DUE: i64 = 0;

/// The relay in a shop of a certain size.
#[derive(Clone, Debug)]
pub struct Relay {
    pub shop: Shop,
    pub mutant: Mutant,
    pub forwards: Forwards,
}

impl Relay {
    pub fn new(shop: Shop, mutant: Mutant) -> Self {
        Self {
            forwards: Forwards::of(&shop, mutant),
            shop,
            mutant,
        }
    }

    /// The home lane of an attempt.
    pub fn home(&self, attempt: usize) -> u8 {
        let turned = self.mutant == Mutant::LanesOutOfOrder && attempt == 1;
        let lanes = self.shop.lanes;
        forwards::home(self.shop.tries[attempt].lanes, |lane| {
            if turned { lanes - 1 - lane } else { lane }
        })
    }

    /// Its other lanes.
    pub fn others(&self, attempt: usize) -> impl Iterator<Item = u8> {
        let home = self.home(attempt);
        let lanes = self.shop.tries[attempt].lanes.iter().copied();
        lanes.filter(move |lane| *lane != home)
    }

    /// Under which attempt a lane keeps the part of an attempt: its own.
    pub fn slot(&self, attempt: usize) -> usize {
        match self.mutant {
            Mutant::NoAttempt => self.same_key(attempt).next().unwrap_or(attempt),
            _ => attempt,
        }
    }

    fn same_key(&self, attempt: usize) -> impl Iterator<Item = usize> {
        let tries = self.shop.tries;
        (0..tries.len()).filter(move |other| tries[*other].key == tries[attempt].key)
    }

    /// Units of a lane's SKU that somebody keeps.
    pub fn kept(&self, world: &World, lane: u8) -> u8 {
        let attempts = 0..self.shop.tries.len();
        let kept = attempts.filter(|attempt| match self.home(*attempt) == lane {
            true => world.fates[*attempt].is_some_and(|fate| fate.is_live() || fate.is_sold()),
            false => world.parts[*attempt][usize::from(lane)].is_some_and(|part| !part.is_final()),
        });
        let rival = self.shop.rival == Some(lane) && world.rival == Rival::Holds;
        u8::try_from(kept.count()).expect("few attempts") + u8::from(rival)
    }

    pub fn is_free(&self, world: &World, lane: u8) -> bool {
        self.kept(world, lane) < self.shop.units
    }

    /// A Reserve, or the same key again once the attempt before is over.
    pub fn reserve(&self, world: &mut World, attempt: usize) {
        let mut earlier = self.same_key(attempt).take_while(|other| *other < attempt);
        let mut later = self.same_key(attempt).skip_while(|other| *other < attempt);
        if !earlier.all(|other| world.is_over(other)) || later.any(|other| world.fates[other].is_some()) {
            return;
        }
        let home = self.home(attempt);
        if self.is_free(world, home) {
            world.fates[attempt] = Some(HoldState::Pending);
            self.say(world, attempt, home, Said::Pending);
        } else {
            world.fates[attempt] = Some(HoldState::Rejected); // At once: it has asked nobody.
        }
    }

    /// A record arrives at its lane.
    pub fn arrive(&self, world: &mut World, attempt: usize, message: Message, refuses: bool) {
        if let Message::Undo(_) | Message::Settle(_) = message {
            world.arrived[attempt].add(message);
        }
        match message {
            Message::Relay(lane) => self.hold_part(world, attempt, lane, refuses),
            Message::Undo(lane) => self.follow(world, attempt, lane, PartStep::Undo),
            Message::Settle(lane) => self.follow(world, attempt, lane, PartStep::Settle),
            Message::Done => self.decide_current(world, attempt, HoldStep::Hold),
            Message::Failed => self.decide_current(world, attempt, HoldStep::Reject),
        }
    }

    fn hold_part(&self, world: &mut World, attempt: usize, lane: u8, refuses: bool) {
        let late = world.is_past(attempt, lane) && self.mutant != Mutant::HoldsTooLate;
        let free = self.is_free(world, lane);
        let part = &mut world.parts[self.slot(attempt)][usize::from(lane)];
        if part.is_some() {
            return; // It came again, or after its undo.
        }
        let said = if late || refuses || !free {
            Said::PartRefused
        } else {
            *part = Some(PartState::Held);
            Said::PartHeld
        };
        self.say(world, attempt, lane, said);
    }

    fn follow(&self, world: &mut World, attempt: usize, lane: u8, step: PartStep) {
        let late = world.is_past(attempt, lane);
        let part = &mut world.parts[self.slot(attempt)][usize::from(lane)];
        *part = match *part {
            Some(state) => match state.step(step) {
                Ok(Some(next)) => Some(next),
                Ok(None) | Err(_) => return,
            },
            None if step != PartStep::Undo || late || self.mutant == Mutant::NoMark => return,
            None => Some(PartState::Undone),
        };
        self.say(world, attempt, lane, Said::PartFollowed);
    }

    /// What a lane tells the home lane of an attempt, if that is the one that the hold is at.
    fn decide_current(&self, world: &mut World, attempt: usize, step: HoldStep) {
        let asked = self.same_key(attempt).filter(|other| world.fates[*other].is_some());
        let Some(current) = asked.last() else { return };
        if current == attempt || self.mutant == Mutant::NoAttempt {
            self.decide(world, current, step);
        }
    }

    /// The home lane decides, if its hold can take the step.
    pub fn decide(&self, world: &mut World, attempt: usize, step: HoldStep) {
        let Some(fate) = world.fates[attempt] else { return };
        let revived = self.mutant == Mutant::DoneRevives && step == HoldStep::Hold && fate == HoldState::Rejected;
        let next = match fate.step(step, DUE, DUE) {
            Ok(next) => next,
            Err(_) if revived => HoldState::Held,
            Err(_) => return,
        };
        if fate.is_final() {
            world.broken = Some(Broken::CameBack);
        }
        world.fates[attempt] = Some(next);
        self.say(world, attempt, self.home(attempt), Said::Decided(next));
    }

    /// An event is in the log: what it has other lanes do is on its way, however late it is sent and how often.
    fn say(&self, world: &mut World, attempt: usize, lane: u8, said: Said) {
        let mut messages = self.forwards.by(attempt, lane, said);
        if self.mutant == Mutant::UndoesOnlyHolders {
            for other in self.others(attempt) {
                if world.parts[attempt][usize::from(other)] != Some(PartState::Held) {
                    messages.remove(Message::Undo(other));
                }
            }
        }
        world.sent[attempt].add_all(messages);
    }
}
