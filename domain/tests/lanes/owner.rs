//! What an owner does in its turn: the rules of a lane, as `reserver/src/{open,rebuild,turn,outbox}.rs` follow them.

use domain::Verdict;

use crate::{
    books::Outcome,
    bounds::Mutant,
    redis::{Applied, Batch, Claimed, Tear},
    steps::{Act, Model},
    world::{Broken, NOWHERE, Stage, Turn, World},
};

impl Model {
    /// Rule 2: connect, and produce `LaneOpened`.
    pub fn begin(&self, world: &mut World) -> bool {
        let (base, base_in) = (world.log.decided, world.log.decided_in);
        let own = &mut world.turns[usize::from(world.born)];
        own.stage = Stage::Opening;
        own.connection = world.current;
        if self.mutant == Mutant::ReadsBeforeOwning {
            (own.base, own.base_in) = (base, base_in);
        }
        world.born += 1;
        true
    }

    /// Takes a step of one turn; false where it cannot be taken.
    pub fn act(&self, world: &mut World, turn: usize, act: Act) -> bool {
        match act {
            Act::WriteOpened => self.write_opened(world, turn),
            Act::Claim => self.claim(world, turn),
            Act::BeginRebuild => self.rebuild(world, turn, Stage::Refused, Stage::Begun),
            Act::Load => self.rebuild(world, turn, Stage::Begun, Stage::Loaded),
            Act::Finish => self.rebuild(world, turn, Stage::Loaded, Stage::Working),
            Act::Apply { size, busy } => self.apply(world, turn, size, busy, None),
            Act::TornApply { size, tear } => self.apply(world, turn, size, false, Some(tear)),
            Act::Write => self.write(world, turn, true),
            Act::WriteAndRepeat => self.write(world, turn, false),
            Act::Drop => drop_record(&mut world.turns[turn]),
            Act::ReadBack => read_back(world, turn),
            Act::Reconnect => reconnect(world, turn),
        }
    }

    /// Rule 2: its offset is the epoch; what the log says up to it is the same whenever it is read.
    fn write_opened(&self, world: &mut World, turn: usize) -> bool {
        let own = &mut world.turns[turn];
        if own.stage != Stage::Opening {
            return false;
        }
        own.epoch = world.log.open();
        own.stage = Stage::Opened;
        if self.mutant != Mutant::ReadsBeforeOwning {
            (own.base, own.base_in) = (world.log.decided, world.log.decided_in);
        }
        if own.connection == NOWHERE {
            own.end();
        }
        true
    }

    /// Rule 4.
    fn claim(&self, world: &mut World, turn: usize) -> bool {
        let own = &mut world.turns[turn];
        if own.stage != Stage::Opened {
            return false;
        }
        let (connection, mut redis) = (own.connection, world.redis[usize::from(own.connection)]);
        match redis.claim(self.mutant, own.epoch, own.base, own.base_in) {
            Claimed::Taken => own.work(),
            Claimed::Refused => own.stage = Stage::Refused,
            Claimed::Newer => own.end(),
        }
        world.write(connection, redis);
        true
    }

    /// Rule 4: the three scripts of a rebuild.
    fn rebuild(&self, world: &mut World, turn: usize, from: Stage, to: Stage) -> bool {
        let own = &mut world.turns[turn];
        if own.stage != from {
            return false;
        }
        let (connection, mut redis) = (own.connection, world.redis[usize::from(own.connection)]);
        let done = match from {
            Stage::Refused => redis.begin(self.mutant, own.epoch),
            Stage::Begun => redis.load(self.mutant, own.epoch, world.log.books(&self.bounds, own.base)),
            _ => redis.finish(self.mutant, own.epoch, own.base),
        };
        match (done, to) {
            (false, _) => own.end(),
            (true, Stage::Working) => own.work(),
            (true, _) => own.stage = to,
        }
        world.write(connection, redis);
        true
    }

    /// Rules 5 and 6. A reply that is lost is a turn that is not continued.
    fn apply(&self, world: &mut World, turn: usize, size: i8, busy: bool, tear: Option<Tear>) -> bool {
        let own = &mut world.turns[turn];
        let end = own.next + size;
        let is_full = end - 1 - own.known > self.bounds.unread;
        if own.stage != Stage::Working || end as usize > self.bounds.commands.len() || is_full {
            return false;
        }
        let decided = own.next as usize..end as usize;
        let batch = Batch {
            epoch: own.epoch,
            first: own.next,
            commands: &self.bounds.commands[decided.clone()],
            busy,
            trim: own.known,
            tear,
        };
        let (connection, mut redis) = (own.connection, world.redis[usize::from(own.connection)]);
        match redis.apply(self.mutant, &batch) {
            Applied::Over => own.end(),
            Applied::Outcomes(outcomes) => {
                own.said[decided.clone()].copy_from_slice(&outcomes[decided]);
                own.next = end;
            }
        }
        world.write(connection, redis);
        true
    }

    /// The first record on the wire is written, `last` for the last time. What is valid is answered (rule 7).
    fn write(&self, world: &mut World, turn: usize, last: bool) -> bool {
        let own = &mut world.turns[turn];
        if own.wire == own.next {
            return false;
        }
        let (command, at) = (own.wire, own.wire as usize);
        let outcome = own.said[at];
        let verdict = world.log.decide(self.mutant, own.epoch, command);
        if verdict == Verdict::Valid {
            if world.log.said[at] != Outcome::None {
                world.broken = Some(Broken::DecidedTwice);
            }
            world.log.said[at] = outcome;
        }
        let acknowledged = own.stage == Stage::Working;
        let is_answer = match self.mutant {
            Mutant::RepliesOnAcknowledgement => acknowledged,
            _ => verdict == Verdict::Valid,
        };
        if is_answer {
            if ![Outcome::None, outcome].contains(&world.log.told[at]) {
                world.broken = Some(Broken::ToldOtherwise);
            }
            world.log.told[at] = outcome;
        }
        if acknowledged {
            own.failed |= verdict != Verdict::Valid;
            if self.mutant == Mutant::TrimsOnAcknowledgement {
                own.known = own.known.max(command);
            }
        }
        if last {
            own.pop();
        }
        true
    }
}

impl Turn {
    /// The lane is this turn's: it goes on after the last valid decision.
    fn work(&mut self) {
        (self.stage, self.known) = (Stage::Working, self.base);
        (self.next, self.wire) = (self.base + 1, self.base + 1);
    }
}

/// What a turn that is over has produced may stay on its wire for ever: that is the other way to lose it.
fn drop_record(own: &mut Turn) -> bool {
    if own.wire == own.next || own.stage != Stage::Working {
        return false;
    }
    own.failed = true;
    own.pop();
    true
}

/// Rules 7 and 8. Reading a part of the log is reading all of it earlier.
fn read_back(world: &mut World, turn: usize) -> bool {
    let own = &mut world.turns[turn];
    if own.stage != Stage::Working {
        return false;
    }
    if own.failed || world.log.epoch != own.epoch {
        own.end();
    } else {
        own.known = own.known.max(world.log.decided);
    }
    true
}

fn reconnect(world: &mut World, turn: usize) -> bool {
    let own = &mut world.turns[turn];
    *own = Turn {
        stage: Stage::Opened,
        connection: world.current,
        epoch: own.epoch,
        base: own.base,
        base_in: own.base_in,
        ..Turn::UNBORN
    };
    true
}
