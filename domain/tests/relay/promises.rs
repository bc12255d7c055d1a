//! What must hold in every state.

use domain::{HoldState, PartState};

use crate::{
    lane::Relay,
    world::{Broken, Message, World},
};

impl Relay {
    /// The first promise that this state breaks.
    pub fn first_broken(&self, world: &World) -> Option<Broken> {
        let attempts = 0..self.shop.tries.len();
        if world.broken.is_some() {
            return world.broken;
        }
        if (0..self.shop.lanes).any(|lane| self.kept(world, lane) > self.shop.units) {
            return Some(Broken::Oversold);
        }
        if attempts.clone().any(|attempt| !self.is_whole(world, attempt)) {
            return Some(Broken::HeldWithoutUnits);
        }
        if self.shop.is_race() && attempts.clone().all(|attempt| world.is_over(attempt)) {
            return Some(Broken::NobodyWins);
        }
        let stranded = self.is_at_rest(world) && attempts.clone().any(|attempt| self.is_stranded(world, attempt));
        stranded.then_some(Broken::Stranded)
    }

    /// What the home lane has promised to the buyer, every lane keeps, at every instant.
    fn is_whole(&self, world: &World, attempt: usize) -> bool {
        if !matches!(world.fates[attempt], Some(HoldState::Held | HoldState::Confirmed)) {
            return true;
        }
        self.others(attempt).all(|lane| {
            let part = world.parts[self.slot(attempt)][usize::from(lane)];
            matches!(part, Some(PartState::Held | PartState::Settled))
        })
    }

    /// All deadlines are past, no cart is pending, and what its home lane decided has arrived.
    fn is_at_rest(&self, world: &World) -> bool {
        (0..self.shop.tries.len()).all(|attempt| {
            let Some(fate) = world.fates[attempt] else { return true };
            let lanes = self.shop.tries[attempt].lanes;
            let (sent, arrived) = (world.sent[attempt], world.arrived[attempt]);
            fate != HoldState::Pending
                && lanes.iter().all(|lane| world.is_past(attempt, *lane))
                && sent.iter().all(|message| !must_arrive(message) || arrived.has(message))
        })
    }

    /// Whether a part is not what its home lane decided; the whole system is asked the same by `holdfast verify`.
    fn is_stranded(&self, world: &World, attempt: usize) -> bool {
        let Some(fate) = world.fates[attempt] else { return false };
        let expected = PartState::under(fate);
        self.others(attempt).any(|lane| {
            let part = world.parts[self.slot(attempt)][usize::from(lane)];
            part != expected && !(part.is_none() && expected == Some(PartState::Undone))
        })
    }
}

/// The rest may be lost: the deadline covers it.
fn must_arrive(message: Message) -> bool {
    matches!(message, Message::Undo(_) | Message::Settle(_))
}
