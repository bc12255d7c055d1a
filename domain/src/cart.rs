//! Carts over several lanes: what the home lane knows of the others, and what each of the others keeps for it.
//!
//! The lowest lane of a cart's lines is its home lane: it decides alone. Every other lane keeps a *part*, its own lines,
//! until the home lane says what becomes of them (docs/ARCHITECTURE.md, "Carts over several lanes").

use crate::{
    hold::HoldState,
    ids::HoldId,
    lane::Lane,
    refusal::Reason,
    values::{Millis, Sku, UserId},
};

/// One line of a cart, and the lane where its SKU lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CartLine {
    /// Where.
    pub lane: Lane,
    /// What.
    pub sku: Sku,
    /// How many units.
    pub quantity: i64,
}

/// What a hold over several lanes is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cart {
    /// Until when its lanes may hold, in log milliseconds: the relay's deadline.
    pub relay_until: Millis,
    /// How long it is held once all lanes hold, in milliseconds.
    pub ttl_ms: Millis,
    /// All lines, also the home lane's own; by lane, then by SKU.
    pub lines: Vec<CartLine>,
}

/// The lanes of some lines, ascending.
#[must_use]
pub fn lanes_of(lines: &[CartLine]) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = lines.iter().map(|line| line.lane).collect();
    lanes.sort_unstable();
    lanes.dedup();
    lanes
}

/// One attempt of a cart, as the records between its lanes name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartId {
    /// Which hold.
    pub hold_id: HoldId,
    /// The offset of its Reserve: a rejected cart may be tried again under its key.
    pub attempt: i64,
}

impl std::fmt::Display for PartId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.hold_id, self.attempt)
    }
}

/// Where a part stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartState {
    /// Its units are kept, for as long as the home lane says nothing else.
    Held,
    /// Paid: its units wait to be shipped.
    Settled,
    /// Its units have left the warehouse.
    Shipped,
    /// Paid, and given back before it was shipped.
    Unallocated,
    /// Given back; or, without lines, the mark that a relay that comes late finds nothing to hold.
    Undone,
}

/// What the home lane makes of a cart's parts, once its own decision is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartStep {
    /// It is paid.
    Settle,
    /// It is over.
    Undo,
    /// It is shipped.
    Ship,
    /// It is given back after it was paid.
    Unallocate,
}

impl PartStep {
    /// All steps.
    pub const ALL: [Self; 4] = [Self::Settle, Self::Undo, Self::Ship, Self::Unallocate];
}

impl PartState {
    /// All states.
    pub const ALL: [Self; 5] = [
        Self::Held,
        Self::Settled,
        Self::Shipped,
        Self::Unallocated,
        Self::Undone,
    ];

    /// The state's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Settled => "settled",
            Self::Shipped => "shipped",
            Self::Unallocated => "unallocated",
            Self::Undone => "undone",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing can change it any more; only such a part is forgotten, once the relay's deadline is past.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Held | Self::Settled => false,
            Self::Shipped | Self::Unallocated | Self::Undone => true,
        }
    }

    /// What the parts of a cart are at rest, when all that its home lane decided has arrived; `None`: not there.
    #[must_use]
    pub fn under(home: HoldState) -> Option<Self> {
        match home {
            // Its relay's deadline ends a pending cart, whatever its lanes do: at rest there is none.
            HoldState::Pending => None,
            HoldState::Held | HoldState::Paying => Some(Self::Held),
            HoldState::Confirmed => Some(Self::Settled),
            HoldState::Shipped => Some(Self::Shipped),
            HoldState::Unallocated => Some(Self::Unallocated),
            HoldState::Cancelled | HoldState::Expired | HoldState::Rejected => Some(Self::Undone),
        }
    }

    /// The state after a step; `None` where the step was taken before.
    ///
    /// # Errors
    /// A step that the home lane cannot have decided.
    pub fn step(self, step: PartStep) -> Result<Option<Self>, Reason> {
        use PartStep::{Settle, Ship, Unallocate, Undo};
        match (self, step) {
            (Self::Held, Settle) => Ok(Some(Self::Settled)),
            (Self::Held, Undo) => Ok(Some(Self::Undone)),
            (Self::Held, Ship | Unallocate) => Err(Reason::NotConfirmed),
            (Self::Settled, Ship) => Ok(Some(Self::Shipped)),
            (Self::Settled, Unallocate) => Ok(Some(Self::Unallocated)),
            (Self::Settled | Self::Shipped | Self::Unallocated, Settle)
            | (Self::Shipped, Ship)
            | (Self::Unallocated, Unallocate)
            | (Self::Undone, Undo) => Ok(None),
            (Self::Settled | Self::Shipped | Self::Unallocated, Undo) => Err(Reason::AlreadyConfirmed),
            (Self::Shipped, Unallocate) => Err(Reason::AlreadyShipped),
            (Self::Unallocated, Ship) => Err(Reason::AlreadyUnallocated),
            (Self::Undone, Settle | Ship | Unallocate) => Err(Reason::AlreadyCancelled),
        }
    }
}

/// What a lane keeps of another lane's cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartTerms {
    /// The offset of the cart's Reserve in its home lane.
    pub attempt: i64,
    /// Its state after the decision.
    pub state: PartState,
    /// Who buys; nobody for a mark without lines.
    pub user_id: Option<UserId>,
    /// Until when its lane may hold, in log milliseconds.
    pub relay_until: Millis,
    /// Log time of its last change, in milliseconds.
    pub changed_at: Millis,
    /// All lines of the cart; none for a mark.
    pub cart: Vec<CartLine>,
}
