//! What may happen next.

use domain::{PartState, Payment, hold::Step as HoldStep};

use crate::{
    lane::Relay,
    search,
    shop::Mutant,
    world::{Broken, Message, Rival, World},
};

/// One step. Attempts and lanes by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A client asks, or asks again.
    Reserve(u8),
    /// A record that was ever sent arrives, for the first time or again; the lane may refuse it for a reason of its own.
    Arrives {
        attempt: u8,
        message: Message,
        refused: bool,
    },
    /// A lane decides a `Relay` and dies, with its Redis, before the event is in the log.
    DiesUnheard { attempt: u8, lane: u8 },
    /// A lane dies between an event and the acknowledgement of what it sends for it.
    DiesOwing { attempt: u8, message: Message },
    /// A lane's log time passes an attempt's deadline.
    Deadline { attempt: u8, lane: u8 },
    /// The expirer's command: the deadline is past in the home lane.
    Release(u8),
    /// The buyer pays.
    Confirm(u8),
    /// The buyer gives up.
    Cancel(u8),
    /// The hold's own deadline.
    Expire(u8),
    /// A lane forgets what it keeps of an attempt that is over.
    Forget { attempt: u8, lane: u8 },
    /// A mutant's: a part ends by itself.
    TimesOut { attempt: u8, lane: u8 },
    /// The buyer of one SKU comes, or goes again.
    Rival,
}

impl search::Model for Relay {
    type World = World;
    type Step = Step;
    type Broken = Broken;

    fn start(&self) -> World {
        World::START
    }

    fn steps(&self, world: &World, mut visit: impl FnMut(Step)) {
        if self.shop.rival.is_some() {
            visit(Step::Rival);
        }
        for (attempt, tried) in (0_u8..).zip(self.shop.tries) {
            if world.fates[usize::from(attempt)].is_none() {
                visit(Step::Reserve(attempt));
                continue;
            }
            self.arrivals(world, attempt, &mut visit);
            if self.shop.perils.deadlines {
                visit(Step::Release(attempt));
                for lane in tried.lanes.iter().copied() {
                    visit(Step::Deadline { attempt, lane });
                    visit(Step::Forget { attempt, lane });
                    visit(Step::TimesOut { attempt, lane });
                }
            }
            if self.shop.perils.ends {
                visit(Step::Confirm(attempt));
                visit(Step::Cancel(attempt));
                visit(Step::Expire(attempt));
            }
        }
    }

    fn after(&self, world: &World, step: Step) -> Option<World> {
        let mut next = *world;
        if !self.is_first(&mut next, step) {
            return None;
        }
        self.take(&mut next, step);
        (next != *world).then_some(next)
    }

    fn broken(&self, world: &World) -> Option<Broken> {
        self.first_broken(world)
    }

    fn tell(&self, _: &World, step: Step) -> String {
        format!("{step:?}")
    }
}

impl Relay {
    fn arrivals(&self, world: &World, attempt: u8, visit: &mut impl FnMut(Step)) {
        for message in world.sent[usize::from(attempt)].iter() {
            let arrives = |refused| Step::Arrives {
                attempt,
                message,
                refused,
            };
            visit(arrives(false));
            visit(Step::DiesOwing { attempt, message });
            if let Message::Relay(lane) = message {
                visit(Step::DiesUnheard { attempt, lane });
                if self.shop.perils.refusals {
                    visit(arrives(true));
                }
            }
        }
    }

    /// The order of a lane's commands is the log's: what was lost with Redis is decided again before anything else.
    fn is_first(&self, world: &mut World, step: Step) -> bool {
        for (lane, lost) in (0_u8..).zip(&mut world.lost) {
            let Some(attempt) = *lost else { continue };
            match step {
                Step::Arrives {
                    attempt: of, message, ..
                } if (of, message) == (attempt, Message::Relay(lane)) => {
                    *lost = None;
                }
                _ => return false,
            }
        }
        true
    }

    fn take(&self, world: &mut World, step: Step) {
        match step {
            Step::Reserve(attempt) => self.reserve(world, usize::from(attempt)),
            Step::Arrives {
                attempt,
                message,
                refused,
            } => self.arrive(world, usize::from(attempt), message, refused),
            Step::DiesUnheard { attempt, lane } => self.die_unheard(world, attempt, lane),
            Step::DiesOwing { attempt, message } => {
                // The cursor stands before the event, so the next owner sends it again.
                if self.mutant == Mutant::CursorPassesUnsent {
                    world.sent[usize::from(attempt)].remove(message);
                }
            }
            Step::Deadline { attempt, lane } => world.past[usize::from(attempt)] |= 1 << lane,
            Step::Release(attempt) => {
                let attempt = usize::from(attempt);
                if world.is_past(attempt, self.home(attempt)) {
                    self.decide(world, attempt, HoldStep::Reject);
                }
            }
            Step::Confirm(attempt) => self.decide(world, usize::from(attempt), HoldStep::Confirm(Payment::Other)),
            Step::Cancel(attempt) => self.decide(world, usize::from(attempt), HoldStep::Cancel),
            Step::Expire(attempt) => self.decide(world, usize::from(attempt), HoldStep::Expire),
            Step::Forget { attempt, lane } => {
                let over = world.is_past(usize::from(attempt), lane) || self.mutant == Mutant::ForgetsEarly;
                let part = &mut world.parts[usize::from(attempt)][usize::from(lane)];
                if over && part.is_some_and(PartState::is_final) {
                    *part = None;
                }
            }
            Step::TimesOut { attempt, lane } => {
                let over = world.is_past(usize::from(attempt), lane) && self.mutant == Mutant::PartsTimeOut;
                let part = &mut world.parts[usize::from(attempt)][usize::from(lane)];
                if over && *part == Some(PartState::Held) {
                    *part = Some(PartState::Undone);
                }
            }
            Step::Rival => {
                world.rival = match (world.rival, self.shop.rival) {
                    (Rival::Away, Some(lane)) if self.is_free(world, lane) => Rival::Holds,
                    (Rival::Holds, _) => Rival::Gone,
                    (other, _) => other,
                }
            }
        }
    }

    /// What is only in Redis goes with it. With the rule, nobody has heard of it.
    fn die_unheard(&self, world: &mut World, attempt: u8, lane: u8) {
        if self.mutant != Mutant::ForwardsEarly {
            return;
        }
        let mut decided = *world;
        self.arrive(&mut decided, usize::from(attempt), Message::Relay(lane), false);
        if decided != *world {
            world.sent = decided.sent;
            world.lost[usize::from(lane)] = Some(attempt);
        }
    }
}
