//! How far the search goes, and which rule of the protocol it leaves out.

use crate::books::Command;

/// The size of a world. Whatever may happen at most so often may also not happen, at any point.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The commands log.
    pub commands: &'static [Command],
    /// Turns of owners. All of them may be at work at once: a turn that is never continued is a crash or a pause.
    pub turns: u8,
    /// Most commands in one script call.
    pub batch: i8,
    /// Most commands that may be decided but not read back: with batches of one, the batches in flight.
    pub unread: i8,
    /// What may go wrong.
    pub faults: Faults,
}

/// How often each kind of misfortune may (still) happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// Of any kind.
    pub all: u8,
    /// Redis restarts without its last script or its last two; every connection to it is gone.
    pub losses: u8,
    /// Redis goes back by a script or two while its connections live: an older copy is restored into it.
    pub restores: u8,
    /// Redis is emptied while its connections live.
    pub flushes: u8,
    /// New connections reach another Redis: the first time a copy that lags up to two scripts, then the old one again.
    /// Connections to the one before stay.
    pub failovers: u8,
    /// A script stops half-way.
    pub tears: u8,
    /// A decision is never written to the log, though later ones of the same owner may be.
    pub drops: u8,
    /// A decision is written to the log twice.
    pub repeats: u8,
    /// Redis is so full that a batch's reserves are refused, so that two attempts may decide differently.
    pub busies: u8,
}

impl Faults {
    /// At most so many in all: a failover and the way back, and of the other kinds each once.
    pub const fn any(all: u8) -> Self {
        Self {
            all,
            losses: 1,
            restores: 1,
            flushes: 1,
            failovers: 2,
            tears: 1,
            drops: 1,
            repeats: 1,
            busies: 1,
        }
    }

    /// Takes one misfortune of a kind, if one is left. When none is left of any kind, that is one state and not many.
    pub fn spend(&mut self, kind: impl Fn(&mut Self) -> &mut u8) -> bool {
        if self.all == 0 || *kind(self) == 0 {
            return false;
        }
        *kind(self) -= 1;
        self.all -= 1;
        if self.all == 0 {
            *self = Self::default();
        }
        true
    }
}

/// A rule to leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// None: the protocol as it is.
    Nothing,
    /// Claim does not ask whether Redis was last owned by who made the last valid decision, or later (rule 4).
    ClaimForgetsLastDecider,
    /// Claim does not ask whether Redis holds every valid decision (rule 4).
    ClaimForgetsFence,
    /// A turn whose connection is gone claims the lane again over a new one (rule 3).
    Reconnects,
    /// Epochs fence Redis, but readers of the log do not look at them (rule 1).
    EpochsOnlyInRedis,
    /// Readers of the log do not look at the previous offset (rule 1).
    NoChain,
    /// The last decision is read before one's own `LaneOpened` is written (rule 2).
    ReadsBeforeOwning,
    /// Apply does not compare epochs (rule 5).
    ApplyForgetsEpoch,
    /// Apply does not ask whether the batch follows its fence (rule 5).
    ApplyForgetsPrevious,
    /// A rebuild is finished without asking whether all that was loaded is still there (rule 4).
    FinishForgetsChunks,
    /// Scripts do not mark the lane as half-written (rules 4 and 5).
    NoBuildingMark,
    /// Clients are answered when the broker acknowledges a decision (rule 7).
    RepliesOnAcknowledgement,
    /// The journal is trimmed when the broker acknowledges a decision (rule 7).
    TrimsOnAcknowledgement,
}
