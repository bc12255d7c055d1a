//! A state of the model: one lane in the log, the Redis instances, the turns of its owners.

use std::hash::{Hash, Hasher};

use domain::{LaneState, Stamp, Verdict};

use crate::{
    books::{Books, COMMANDS_MAX, Outcome, Outcomes, SILENT},
    bounds::{Bounds, Faults, Mutant},
    redis::Redis,
};

/// Most turns of a world, with those that only the completing run opens.
pub const TURNS_MAX: usize = 6;
/// A connection that is gone.
pub const NOWHERE: u8 = u8::MAX;

/// What the events log says so far.
///
/// Of the log itself only what its readers make of it is kept: by the fold, a void record changes nothing for anybody,
/// and neither does its place. So offsets are counted without void records, and only `LaneOpened` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    /// How many `LaneOpened` there are: the next one's offset.
    pub next: i8,
    /// The current epoch.
    pub epoch: i8,
    /// The last command with a valid decision.
    pub decided: i8,
    /// The epoch of that decision.
    pub decided_in: i8,
    /// The valid outcomes.
    pub said: Outcomes,
    /// What clients were told.
    pub told: Outcomes,
}

/// How far a turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// No such turn yet.
    Unborn,
    /// Connected to Redis; `LaneOpened` is produced, its fate unknown.
    Opening,
    /// `LaneOpened` is acknowledged, and the log is read up to it.
    Opened,
    /// The claim was refused.
    Refused,
    /// A new generation is begun.
    Begun,
    /// It is loaded.
    Loaded,
    /// The lane is claimed or rebuilt.
    Working,
    /// Over; what it has produced may still arrive.
    Over,
}

/// One owner's turn: at most one claim, one rebuild, one connection, and one producer whose records keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Turn {
    pub epoch: i8,
    pub stage: Stage,
    /// The last decided command, as read when the lane was opened.
    pub base: i8,
    /// The epoch of that decision.
    pub base_in: i8,
    /// The last command whose decision was read back.
    pub known: i8,
    /// The next command to decide.
    pub next: i8,
    /// The first decided command whose record is on the wire; those up to `next` follow in order.
    pub wire: i8,
    /// The outcomes on the wire.
    pub said: Outcomes,
    /// Which Redis it is connected to.
    pub connection: u8,
    /// A produce of its has failed, or a record of its is void: it must end when it notices.
    pub failed: bool,
}

/// Everything at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    pub log: Log,
    pub turns: [Turn; TURNS_MAX],
    pub born: u8,
    pub redis: [Redis; 2],
    /// The Redis that new connections reach.
    pub current: u8,
    /// Whether the second Redis was made.
    pub copied: bool,
    /// The current Redis before its last script, and before its last two.
    pub older: [Redis; 2],
    pub faults: Faults,
    /// A promise that was broken by a step, and not by a state.
    pub broken: Option<Broken>,
}

/// A promise that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// I1: two valid decisions keep the same unit.
    Oversold,
    /// A valid decision refuses, or gives back, what the valid decisions before it contradict.
    Untrue,
    /// I2: a command has two valid decisions.
    DecidedTwice,
    /// I2: a client was told something else than the log says.
    ToldOtherwise,
    /// I8: the owner's Redis is not the fold of the log and of what its journal adds.
    RedisIsNotTheFold,
    /// No run without further faults decides every command.
    Stuck,
}

impl Turn {
    pub const UNBORN: Self = Self {
        stage: Stage::Unborn,
        epoch: -1,
        base: -1,
        base_in: -1,
        known: -1,
        next: 0,
        wire: 0,
        said: SILENT,
        connection: NOWHERE,
        failed: false,
    };

    /// Ends the turn: it is forgotten but for what is on its wire, and its `LaneOpened` where that is.
    pub fn end(&mut self) {
        self.connection = NOWHERE;
        if self.stage == Stage::Opening {
            return;
        }
        *self = Self {
            stage: Stage::Over,
            next: self.next,
            wire: self.wire,
            epoch: self.epoch,
            said: self.said,
            ..Self::UNBORN
        };
        if self.wire == self.next {
            (self.epoch, self.next, self.wire) = (-1, 0, 0);
        }
    }

    /// Takes the first record off the wire.
    pub fn pop(&mut self) {
        self.said[self.wire as usize] = Outcome::None;
        self.wire += 1;
        if self.stage == Stage::Over {
            self.end();
        }
    }
}

impl World {
    /// Nobody has opened the lane yet.
    pub fn start(bounds: &Bounds) -> Self {
        let log = Log {
            next: 0,
            epoch: -1,
            decided: -1,
            decided_in: -1,
            said: SILENT,
            told: SILENT,
        };
        assert!(bounds.commands.len() <= COMMANDS_MAX && usize::from(bounds.turns) + 2 <= TURNS_MAX);
        Self {
            log,
            turns: [Turn::UNBORN; TURNS_MAX],
            born: 0,
            redis: [Redis::EMPTY; 2],
            current: 0,
            copied: false,
            older: [Redis::EMPTY; 2],
            faults: bounds.faults,
            broken: None,
        }
    }

    /// Whether every command has a valid decision.
    pub fn is_done(&self, bounds: &Bounds) -> bool {
        self.log.said[..bounds.commands.len()]
            .iter()
            .all(|said| *said != Outcome::None)
    }

    /// Changes a Redis by a script, and remembers what it was before as long as it may become that again.
    pub fn write(&mut self, instance: u8, new: Redis) {
        let old = std::mem::replace(&mut self.redis[usize::from(instance)], new);
        if instance == self.current && old != new {
            self.older = [old, self.older[0]];
        }
        self.forget_older();
    }

    /// Turns have no names: the same turns in another order are the same world.
    pub fn sort(&mut self) {
        self.turns[..usize::from(self.born)].sort_unstable();
    }

    /// Older states that no misfortune can bring back are not part of the state.
    pub fn forget_older(&mut self) {
        let left = &self.faults;
        let may_return = left.losses + left.restores > 0 || (left.failovers > 0 && !self.copied);
        if left.all == 0 || !may_return {
            self.older = [Redis::EMPTY; 2];
        }
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.log, self.redis, self.current, self.copied, self.older).hash(state);
        (self.faults, self.broken, self.born).hash(state);
        for turn in &self.turns[..usize::from(self.born)] {
            turn.hash(state);
        }
    }
}

impl Log {
    /// The books up to and with `offset`, by the valid decisions.
    pub fn books(&self, bounds: &Bounds, offset: i8) -> Books {
        let mut books = Books::START;
        let decided = self.said.iter().zip(bounds.commands).enumerate();
        for (at, (said, command)) in decided.take((offset + 1) as usize) {
            books.book(at, *command, *said);
        }
        books
    }

    /// Appends a `LaneOpened`; its offset is the new epoch.
    pub fn open(&mut self) -> i8 {
        let epoch = self.next;
        self.fold(Stamp::Opened);
        self.next += 1;
        epoch
    }

    /// Appends a decision.
    pub fn decide(&mut self, mutant: Mutant, epoch: i8, command: i8) -> Verdict {
        let ignored = |is: Mutant, own: i8, fold: i8| i64::from(if mutant == is { fold } else { own });
        self.fold(Stamp::Decision {
            epoch: ignored(Mutant::EpochsOnlyInRedis, epoch, self.epoch),
            command: i64::from(command),
            previous: ignored(Mutant::NoChain, command - 1, self.decided),
            time: 0,
        })
    }

    /// Takes a record into the state by the fold that every role uses.
    fn fold(&mut self, stamp: Stamp) -> Verdict {
        let mut lane = LaneState {
            epoch: i64::from(self.epoch),
            last_command_offset: i64::from(self.decided),
            last_decision_epoch: i64::from(self.decided_in),
            log_time: 0,
        };
        let verdict = lane.fold(i64::from(self.next), stamp);
        let small = |number: i64| i8::try_from(number).expect("a small model has small offsets");
        self.epoch = small(lane.epoch);
        self.decided = small(lane.last_command_offset);
        self.decided_in = small(lane.last_decision_epoch);
        verdict
    }
}
