//! What must hold in every state.

use crate::{
    books::{Books, Outcome},
    steps::{Act, Model, Step},
    world::{Broken, NOWHERE, Stage, Turn, World},
};

/// A fair run from anywhere ends long before.
const FAIR_STEPS_MAX: usize = 64;
/// Turns that a fair run may open beyond the bounds: one that finds the lane damaged, and one that mends it.
const FAIR_TURNS: u8 = 2;

impl Model {
    /// The first promise that this state breaks.
    pub fn first_broken(&self, world: &World) -> Option<Broken> {
        let log = world.broken.or_else(|| self.broken_by_log(world));
        let log = log.or_else(|| self.broken_by_redis(world).then_some(Broken::RedisIsNotTheFold));
        log.or_else(|| self.is_stuck(world).then_some(Broken::Stuck))
    }

    /// Every valid decision is one that the valid decisions before it allow, and no answer differs from one.
    fn broken_by_log(&self, world: &World) -> Option<Broken> {
        let mut books = Books::START;
        for (offset, command) in self.bounds.commands.iter().enumerate() {
            let (said, told) = (world.log.said[offset], world.log.told[offset]);
            if said == Outcome::None {
                continue;
            }
            if told != Outcome::None && told != said {
                return Some(Broken::ToldOtherwise);
            }
            if !books.allow(*command, said) {
                let sold = said == Outcome::Held;
                return Some(if sold { Broken::Oversold } else { Broken::Untrue });
            }
            books.book(offset, *command, said);
        }
        None
    }

    /// The Redis that the log's current owner works on has every valid decision; what it has beyond them is in its
    /// journal; and its stock is what these two add up to.
    fn broken_by_redis(&self, world: &World) -> bool {
        let Some(turn) = owner(world).filter(|turn| turn.stage == Stage::Working) else {
            return false;
        };
        let redis = &world.redis[usize::from(turn.connection)];
        // What the owner's next script refuses is mended then.
        if redis.building || redis.epoch != turn.epoch || redis.fence < turn.next - 1 {
            return false;
        }
        let decided = world.log.decided;
        if redis.fence < decided {
            return true;
        }
        let mut books = world.log.books(&self.bounds, decided);
        for offset in decided + 1..=redis.fence {
            let at = offset as usize;
            if redis.journal[at] == Outcome::None {
                return true;
            }
            books.book(at, self.bounds.commands[at], redis.journal[at]);
        }
        books != redis.books
    }

    /// Whether a fair run from here, with no misfortune, leaves a command without a decision.
    ///
    /// Each state's fair step leads to another state of the search, which is asked in its turn, unless it opens a turn
    /// beyond the bounds: only then the run is followed here.
    fn is_stuck(&self, world: &World) -> bool {
        if world.is_done(&self.bounds) {
            return false;
        }
        match self.fair_step(world) {
            None => true,
            Some(Step::Begin) if world.born >= self.bounds.turns => !self.is_decided_in_the_end(*world),
            Some(step) => self.step(world, step).is_none(),
        }
    }

    fn is_decided_in_the_end(&self, mut world: World) -> bool {
        for _ in 0..FAIR_STEPS_MAX {
            if world.is_done(&self.bounds) {
                return true;
            }
            let next = self.fair_step(&world).and_then(|step| self.step(&world, step));
            let Some(next) = next else { return false };
            world = next;
        }
        false
    }

    /// What happens next when nothing goes wrong and nobody is slow: the lane's owner goes on, or somebody opens it.
    fn fair_step(&self, world: &World) -> Option<Step> {
        let place = |turn: u8| &world.turns[usize::from(turn)];
        if let Some(turn) = (0..world.born).find(|turn| is_owner(world, place(*turn))) {
            let act = self.fair_act(world, place(turn));
            return act.map(|act| Step::Turn(turn, act));
        }
        let opening = |turn: &u8| place(*turn).stage == Stage::Opening && place(*turn).connection != NOWHERE;
        match (0..world.born).find(opening) {
            Some(turn) => Some(Step::Turn(turn, Act::WriteOpened)),
            None => (world.born < self.bounds.turns + FAIR_TURNS).then_some(Step::Begin),
        }
    }

    fn fair_act(&self, world: &World, own: &Turn) -> Option<Act> {
        match own.stage {
            Stage::Opened => Some(Act::Claim),
            Stage::Refused => Some(Act::BeginRebuild),
            Stage::Begun => Some(Act::Load),
            Stage::Loaded => Some(Act::Finish),
            Stage::Working if own.failed => Some(Act::ReadBack),
            Stage::Working if own.wire < own.next => Some(Act::Write),
            Stage::Working if own.known < world.log.decided => Some(Act::ReadBack),
            Stage::Working if (own.next as usize) < self.bounds.commands.len() => {
                Some(Act::Apply { size: 1, busy: false })
            }
            Stage::Unborn | Stage::Opening | Stage::Over | Stage::Working => None,
        }
    }
}

/// The turn whose epoch is the log's, if it still goes on.
fn owner(world: &World) -> Option<&Turn> {
    world.turns.iter().find(|turn| is_owner(world, turn))
}

fn is_owner(world: &World, turn: &Turn) -> bool {
    let goes_on = !matches!(turn.stage, Stage::Unborn | Stage::Opening | Stage::Over);
    goes_on && turn.epoch == world.log.epoch
}
