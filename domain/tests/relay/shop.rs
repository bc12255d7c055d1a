//! How large a world is, and which rule of the relay it leaves out.

/// Most lanes of a world.
pub const LANES_MAX: usize = 3;
/// Most attempts of a world.
pub const TRIES_MAX: usize = 4;

/// One attempt of a cart: a Reserve that asks for one unit of each of its lanes.
#[derive(Clone, Copy, Debug)]
pub struct Try {
    /// Its idempotency key: attempts under one key are one cart, the later one begun when the one before is over.
    pub key: u8,
    /// Its lanes, ascending.
    pub lanes: &'static [u8],
}

/// The size of a world.
#[derive(Clone, Copy, Debug)]
pub struct Shop {
    /// How many lanes, each with one SKU.
    pub lanes: u8,
    /// Units of each.
    pub units: u8,
    /// Who asks for several of them.
    pub tries: &'static [Try],
    /// In which lane a buyer of that one SKU comes by, and maybe leaves again.
    pub rival: Option<u8>,
    /// What may happen beside the relay's own records.
    pub perils: Perils,
}

/// What may happen in a world. Records are always as late as can be, come in any order, again and again, or never.
#[derive(Clone, Copy, Debug)]
pub struct Perils {
    /// Every lane's log time passes the deadline of an attempt when it likes, whatever the others' say.
    pub deadlines: bool,
    /// A lane refuses a part for a reason of its own: it is nearly full, or the buyer has enough.
    pub refusals: bool,
    /// What is held is confirmed, cancelled, or expires.
    pub ends: bool,
}

impl Perils {
    /// All of them.
    pub const ALL: Self = Self {
        deadlines: true,
        refusals: true,
        ends: true,
    };
    /// Nothing but the race for the units.
    pub const NONE: Self = Self {
        deadlines: false,
        refusals: false,
        ends: false,
    };
}

impl Shop {
    /// Whether the carts have nobody to blame but each other.
    pub fn is_race(&self) -> bool {
        let Perils {
            deadlines,
            refusals,
            ends,
        } = self.perils;
        self.rival.is_none() && !(deadlines || refusals || ends)
    }
}

/// A rule to leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// None: the relay as it is.
    Nothing,
    /// An undo that finds nothing leaves nothing.
    NoMark,
    /// The home lane undoes only the parts that are held, and knows of them at once.
    UndoesOnlyHolders,
    /// A part whose relay's deadline is past gives its units back by itself.
    PartsTimeOut,
    /// The second attempt asks its lanes in descending order.
    LanesOutOfOrder,
    /// What an event has other lanes do is sent when it is decided, not when it is in the log.
    ForwardsEarly,
    /// A lane that dies does not send what it still owes: the cursor has passed it.
    CursorPassesUnsent,
    /// A `RelayDone` makes a hold of a cart that is already rejected.
    DoneRevives,
    /// Marks and ended parts are forgotten before the relay's deadline.
    ForgetsEarly,
    /// A part is held after the relay's deadline.
    HoldsTooLate,
    /// Records and parts are known by their hold alone.
    NoAttempt,
}
