//! A state of the model: what the lanes' valid events add up to, and which records between them were ever sent.

use std::hash::Hash;

use domain::{HoldState, PartState};

use crate::shop::{LANES_MAX, TRIES_MAX};

/// A record from one lane to another about one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// To a lane: hold your line, and pass it on.
    Relay(u8),
    /// To a lane: it is over.
    Undo(u8),
    /// To a lane: it is paid.
    Settle(u8),
    /// To the home lane: all hold.
    Done,
    /// To the home lane: one cannot hold.
    Failed,
}

/// Records of one attempt: those that were ever sent. Each may arrive at any time, and again and again, or never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages(u16);

impl Message {
    const LANES: u8 = LANES_MAX as u8;

    /// All records that an attempt may send.
    pub fn all() -> impl Iterator<Item = Self> {
        let to_lanes = (0..Self::LANES).flat_map(|lane| [Self::Relay(lane), Self::Undo(lane), Self::Settle(lane)]);
        to_lanes.chain([Self::Done, Self::Failed])
    }

    fn bit(self) -> u16 {
        match self {
            Self::Relay(lane) => 1 << lane,
            Self::Undo(lane) => 1 << (Self::LANES + lane),
            Self::Settle(lane) => 1 << (2 * Self::LANES + lane),
            Self::Done => 1 << (3 * Self::LANES),
            Self::Failed => 2 << (3 * Self::LANES),
        }
    }
}

impl Messages {
    pub fn has(self, message: Message) -> bool {
        self.0 & message.bit() != 0
    }

    pub fn add(&mut self, message: Message) {
        self.0 |= message.bit();
    }

    pub fn add_all(&mut self, others: Self) {
        self.0 |= others.0;
    }

    pub fn remove(&mut self, message: Message) {
        self.0 &= !message.bit();
    }

    pub fn iter(self) -> impl Iterator<Item = Message> {
        Message::all().filter(move |message| self.has(*message))
    }
}

impl Hash for Messages {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_le_bytes().hash(state);
    }
}

/// The buyer of one SKU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rival {
    Away,
    Holds,
    Gone,
}

/// Everything at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// What the home lane has decided of each attempt; nothing before its Reserve.
    pub fates: [Option<HoldState>; TRIES_MAX],
    /// What each lane keeps of each attempt.
    pub parts: [[Option<PartState>; LANES_MAX]; TRIES_MAX],
    /// Which lanes' log time has passed the attempt's deadline, one bit each.
    pub past: [u8; TRIES_MAX],
    /// The records between the lanes.
    pub sent: [Messages; TRIES_MAX],
    /// The undos and settles among them that have arrived. Each arrives once at least; that it comes again is no promise.
    pub arrived: [Messages; TRIES_MAX],
    pub rival: Rival,
    /// A mutant's: the attempt whose `Relay` each lane has decided and lost with its Redis; it must decide it again before
    /// anything else.
    pub lost: [Option<u8>; LANES_MAX],
    /// A promise that was broken by a step, and not by a state.
    pub broken: Option<Broken>,
}

/// A promise that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// I1: more units are kept than there are.
    Oversold,
    /// A cart is held, but not wholly: a lane of it keeps nothing.
    HeldWithoutUnits,
    /// I4: a cart that was over is held again.
    CameBack,
    /// I5: all that was sent has arrived and all deadlines are past, but a part is not what its home lane decided.
    Stranded,
    /// Carts that fight for the same last units have all lost.
    NobodyWins,
}

impl World {
    /// Nobody has come yet.
    pub const START: Self = Self {
        fates: [None; TRIES_MAX],
        parts: [[None; LANES_MAX]; TRIES_MAX],
        past: [0; TRIES_MAX],
        sent: [Messages(0); TRIES_MAX],
        arrived: [Messages(0); TRIES_MAX],
        rival: Rival::Away,
        lost: [None; LANES_MAX],
        broken: None,
    };

    /// Whether a lane's log time has passed the deadline of an attempt.
    pub fn is_past(&self, attempt: usize, lane: u8) -> bool {
        self.past[attempt] & (1 << lane) != 0
    }

    /// Whether an attempt is over: nothing can make a hold of it.
    pub fn is_over(&self, attempt: usize) -> bool {
        self.fates[attempt].is_some_and(HoldState::is_final)
    }
}
