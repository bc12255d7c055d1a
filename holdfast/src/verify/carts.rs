//! Carts over several lanes: what each lane keeps of a cart must be what its home lane decided.
//!
//! Only at rest: lanes are read one after the other, and between two of them a decision is on its way.

use std::collections::HashMap;

use domain::{HoldState, Lane, Ledger, PartId, PartState};

use super::report::{Difference, Place};

/// A cart, as its home lane has it.
#[derive(Debug)]
struct Home {
    state: HoldState,
    others: Vec<Lane>,
}

/// The carts of all lanes.
#[derive(Debug, Default)]
pub struct Carts {
    homes: HashMap<PartId, Home>,
    parts: HashMap<(PartId, Lane), PartState>,
}

impl Carts {
    /// The carts and parts of one lane.
    #[must_use]
    pub fn of(lane: Lane, ledger: &Ledger) -> Self {
        let homes = ledger.holds.iter().filter_map(|(hold_id, hold)| {
            let cart = hold.terms.cart.as_ref()?;
            let mut others = domain::cart::lanes_of(&cart.lines);
            others.retain(|other| *other != lane);
            let id = PartId {
                hold_id: *hold_id,
                attempt: hold.terms.attempt,
            };
            let state = hold.terms.state;
            Some((id, Home { state, others }))
        });
        let parts = ledger.parts.iter().map(|(id, part)| ((*id, lane), part.terms.state));
        Self {
            homes: homes.collect(),
            parts: parts.collect(),
        }
    }

    /// Takes another lane's carts in.
    pub fn add(&mut self, other: Self) {
        self.homes.extend(other.homes);
        self.parts.extend(other.parts);
    }

    /// Every part that is not what its home lane decided.
    #[must_use]
    pub fn differences(&self) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut note = |lane: Lane, what: String| {
            found.push(Difference {
                lane: lane.number(),
                place: Place::Log,
                what,
            });
        };
        for (id, home) in &self.homes {
            let expected = PartState::under(home.state);
            for lane in &home.others {
                let part = self.parts.get(&(*id, *lane)).copied();
                // A part that was never held, or was forgotten, keeps as little as one that is undone.
                if part != expected && !(part.is_none() && expected == Some(PartState::Undone)) {
                    let (state, part) = (home.state.name(), part.map_or("not there", PartState::name));
                    note(
                        *lane,
                        format!("cart {id} is {state} in its home lane, but its part here is {part}"),
                    );
                }
            }
        }
        for ((id, lane), part) in &self.parts {
            if !part.is_final() && !self.homes.contains_key(id) {
                let part = part.name();
                note(
                    *lane,
                    format!("the part of cart {id} is {part}, but its home lane keeps no such cart"),
                );
            }
        }
        found.sort_by(|one, other| (one.lane, &one.what).cmp(&(other.lane, &other.what)));
        found
    }
}
