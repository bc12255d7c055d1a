//! The stock of the model: one unit, a few commands that compete for it, and what may be said of each.

/// Most commands in a model.
pub const COMMANDS_MAX: usize = 3;

/// A record of the commands log; its place there is its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Asks for the one unit.
    Reserve,
    /// Gives the unit back that the reserve at this offset got.
    Cancel(u8),
}

/// What is said of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Nothing yet.
    None,
    /// The unit is kept for this reserve.
    Held,
    /// There is no unit left.
    SoldOut,
    /// Redis is nearly full, so a reserve is refused: an outcome that another attempt may not repeat.
    Busy,
    /// The unit is back on sale.
    Released,
    /// The reserve that the cancel names holds nothing.
    NotHeld,
}

/// One outcome per command.
pub type Outcomes = [Outcome; COMMANDS_MAX];

/// Nothing is said of any command.
pub const SILENT: Outcomes = [Outcome::None; COMMANDS_MAX];

/// Counter and holds, as Redis keeps them and as the valid events add up to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Books {
    /// Units on sale.
    pub units: u8,
    /// One bit per command whose hold lives.
    pub holds: u8,
}

impl Books {
    /// Before the first command.
    pub const START: Self = Self { units: 1, holds: 0 };
    /// A generation of keys in which nothing is written yet.
    pub const BLANK: Self = Self { units: 0, holds: 0 };

    /// What the books say to a command.
    pub fn decide(self, command: Command, busy: bool) -> Outcome {
        match command {
            Command::Reserve if busy => Outcome::Busy,
            Command::Reserve if self.units > 0 => Outcome::Held,
            Command::Reserve => Outcome::SoldOut,
            Command::Cancel(of) if self.holds & (1 << of) != 0 => Outcome::Released,
            Command::Cancel(_) => Outcome::NotHeld,
        }
    }

    /// Whether the outcome is one that these books could have given. `Busy` is no statement on stock.
    pub fn allow(self, command: Command, outcome: Outcome) -> bool {
        outcome == Outcome::Busy || outcome == self.decide(command, false)
    }

    /// Takes the outcome of the command at `offset` into the counter.
    pub fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Held => self.units = self.units.saturating_sub(1),
            Outcome::Released => self.units += 1,
            Outcome::None | Outcome::SoldOut | Outcome::Busy | Outcome::NotHeld => {}
        }
    }

    /// Takes the outcome of the command at `offset` into the holds.
    pub fn keep(&mut self, offset: usize, command: Command, outcome: Outcome) {
        match (outcome, command) {
            (Outcome::Held, _) => self.holds |= 1 << offset,
            (Outcome::Released, Command::Cancel(of)) => self.holds &= !(1 << of),
            _ => {}
        }
    }

    /// Takes the outcome of the command at `offset` into the books.
    pub fn book(&mut self, offset: usize, command: Command, outcome: Outcome) {
        self.count(outcome);
        self.keep(offset, command, outcome);
    }
}
