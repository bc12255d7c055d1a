//! One lane in one Redis, and the scripts of `reserver/src/lua`, one function each: a call is one step of the search.
//!
//! A generation needs no name here: scripts reach only the one that the lane names, and `begin` leaves it blank.

use crate::{
    books::{Books, Command, Outcome, Outcomes, SILENT},
    bounds::Mutant,
};

/// The fence of a lane that is being rebuilt, as claim.lua reads it.
const NO_FENCE: i8 = -2;

/// What Redis holds of the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Redis {
    /// Whether the lane is there.
    pub there: bool,
    /// Whether it is half-written.
    pub building: bool,
    /// Whether all chunks of a rebuild are loaded.
    pub loaded: bool,
    /// Its owner.
    pub epoch: i8,
    /// The last command that it has decided.
    pub fence: i8,
    /// Stock and holds.
    pub books: Books,
    /// Outcomes that may still have to be published.
    pub journal: Outcomes,
}

/// What a claim came to.
pub enum Claimed {
    /// The lane is taken as it is.
    Taken,
    /// It must be rebuilt.
    Refused,
    /// A newer epoch has it.
    Newer,
}

/// What an apply came to.
pub enum Applied {
    /// The outcomes of the batch, at their commands' offsets.
    Outcomes(Outcomes),
    /// Fenced, a gap, damaged, or an error of the script: the turn is over.
    Over,
}

/// Where a script stops half-way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tear {
    /// Stock is written; holds, journal and fence are not.
    AfterStock,
    /// All but the fence is written.
    BeforeFence,
}

/// The arguments of apply.
pub struct Batch<'a> {
    /// The caller's epoch.
    pub epoch: i8,
    /// The offset of the first command.
    pub first: i8,
    /// The commands.
    pub commands: &'a [Command],
    /// Whether reserves are refused.
    pub busy: bool,
    /// Journal entries up to here have been read back.
    pub trim: i8,
    /// Where it stops.
    pub tear: Option<Tear>,
}

impl Redis {
    /// Before the first owner, or after everything is lost.
    pub const EMPTY: Self = Self {
        there: false,
        building: false,
        loaded: false,
        epoch: -1,
        fence: NO_FENCE,
        books: Books::BLANK,
        journal: SILENT,
    };

    /// claim.lua
    pub fn claim(&mut self, mutant: Mutant, epoch: i8, decided: i8, decided_in: i8) -> Claimed {
        if !self.there {
            return Claimed::Refused;
        }
        if self.is_newer(mutant, epoch) {
            return Claimed::Newer;
        }
        let behind = self.fence < decided && mutant != Mutant::ClaimForgetsFence;
        let other = self.epoch < decided_in && mutant != Mutant::ClaimForgetsLastDecider;
        if self.building || behind || other {
            return Claimed::Refused;
        }
        self.epoch = epoch;
        Claimed::Taken
    }

    /// begin.lua
    pub fn begin(&mut self, mutant: Mutant, epoch: i8) -> bool {
        if self.there && self.is_newer(mutant, epoch) {
            return false;
        }
        *self = Self {
            there: true,
            building: mutant != Mutant::NoBuildingMark,
            epoch,
            ..Self::EMPTY
        };
        true
    }

    /// load.lua, all chunks in one
    pub fn load(&mut self, mutant: Mutant, epoch: i8, books: Books) -> bool {
        if !self.is_rebuilt_by(mutant, epoch) {
            return false;
        }
        (self.books, self.loaded) = (books, true);
        true
    }

    /// finish.lua
    pub fn finish(&mut self, mutant: Mutant, epoch: i8, fence: i8) -> bool {
        let whole = self.loaded || mutant == Mutant::FinishForgetsChunks;
        if !self.is_rebuilt_by(mutant, epoch) || !whole {
            return false;
        }
        (self.fence, self.building, self.loaded) = (fence, false, false);
        true
    }

    /// Whether somebody has claimed the lane after this epoch began, or in it: an epoch claims once.
    fn is_newer(&self, mutant: Mutant, epoch: i8) -> bool {
        self.epoch > epoch || (self.epoch == epoch && mutant != Mutant::Reconnects)
    }

    fn is_rebuilt_by(&self, mutant: Mutant, epoch: i8) -> bool {
        self.epoch == epoch && (self.building || mutant == Mutant::NoBuildingMark)
    }

    /// apply
    pub fn apply(&mut self, mutant: Mutant, batch: &Batch<'_>) -> Applied {
        let fenced = self.epoch != batch.epoch && mutant != Mutant::ApplyForgetsEpoch;
        if !self.there || fenced || self.building {
            return Applied::Over;
        }
        // Read and decide.
        let (mut books, mut fence, mut outcomes) = (self.books, self.fence, SILENT);
        let (mut counted, mut journal) = (self.books, self.journal);
        for (offset, command) in (batch.first..).zip(batch.commands) {
            let at = offset as usize;
            if offset <= self.fence {
                outcomes[at] = self.journal[at];
                if outcomes[at] == Outcome::None {
                    self.building = mutant != Mutant::NoBuildingMark;
                    return Applied::Over;
                }
            } else if offset - 1 != fence && mutant != Mutant::ApplyForgetsPrevious {
                return Applied::Over;
            } else {
                outcomes[at] = books.decide(*command, batch.busy);
                books.book(at, *command, outcomes[at]);
                counted.count(outcomes[at]);
                journal[at] = outcomes[at];
                fence = offset;
            }
        }
        // Write.
        if let Some(tear) = batch.tear {
            self.building = mutant != Mutant::NoBuildingMark;
            match tear {
                Tear::AfterStock => self.books = counted,
                Tear::BeforeFence => (self.books, self.journal) = (books, journal),
            }
            return Applied::Over;
        }
        for trimmed in journal.iter_mut().take((batch.trim + 1) as usize) {
            *trimmed = Outcome::None;
        }
        (self.books, self.fence, self.journal) = (books, fence, journal);
        Applied::Outcomes(outcomes)
    }
}
