//! What may happen next, and what may go wrong with Redis. What an owner does is in `owner.rs`.

use crate::{
    bounds::{Bounds, Mutant},
    redis::{Redis, Tear},
    search,
    world::{Broken, Stage, World},
};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A turn begins: it connects to the current Redis and produces its `LaneOpened`.
    Begin,
    /// The turn at this place of the world does something, or something happens to a record of its.
    Turn(u8, Act),
    /// The current Redis restarts without its last scripts.
    Lose(u8),
    /// The current Redis becomes what it was before its last scripts, and its connections do not notice.
    Restore(u8),
    /// The current Redis is emptied, and its connections do not notice.
    Flush,
    /// Everybody who connects from now on reaches the other Redis, which lags so many scripts when it is first used.
    FailOver(u8),
}

/// A step of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// `LaneOpened` is written, and read if the turn still waits.
    WriteOpened,
    /// claim.lua
    Claim,
    /// begin.lua
    BeginRebuild,
    /// load.lua
    Load,
    /// finish.lua
    Finish,
    /// apply; the outcomes go on the wire.
    Apply { size: i8, busy: bool },
    /// apply stops half-way, and the turn is over.
    TornApply { size: i8, tear: Tear },
    /// The first record on the wire is written to the log.
    Write,
    /// The same, but the record stays on the wire.
    WriteAndRepeat,
    /// The first record on the wire is lost.
    Drop,
    /// The turn reads the log, and looks at its produces.
    ReadBack,
    /// A mutant's: a new connection in the same turn.
    Reconnect,
}

/// A protocol in a world of a certain size.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    pub bounds: Bounds,
    pub mutant: Mutant,
}

impl search::Model for Model {
    type World = World;
    type Step = Step;
    type Broken = Broken;

    fn start(&self) -> World {
        World::start(&self.bounds)
    }

    fn steps(&self, world: &World, mut visit: impl FnMut(Step)) {
        if world.born < self.bounds.turns {
            visit(Step::Begin);
        }
        for turn in 0..world.born {
            self.acts(world, turn, |act| visit(Step::Turn(turn, act)));
        }
        if world.faults.all > 0 {
            visit(Step::Flush);
            for scripts in 1..=2 {
                visit(Step::Lose(scripts));
                visit(Step::Restore(scripts));
            }
            for lag in 0..=2 {
                visit(Step::FailOver(lag));
            }
        }
    }

    fn after(&self, world: &World, step: Step) -> Option<World> {
        self.step(world, step)
    }

    fn broken(&self, world: &World) -> Option<Broken> {
        self.first_broken(world)
    }

    fn tell(&self, world: &World, step: Step) -> String {
        match step {
            Step::Turn(turn, act) => match world.turns[usize::from(turn)].epoch {
                -1 => format!("somebody: {act:?}"),
                epoch => format!("epoch {epoch}: {act:?}"),
            },
            Step::Begin | Step::Lose(_) | Step::Restore(_) | Step::Flush | Step::FailOver(_) => format!("{step:?}"),
        }
    }
}

impl Model {
    fn acts(&self, world: &World, turn: u8, mut visit: impl FnMut(Act)) {
        let own = &world.turns[usize::from(turn)];
        match own.stage {
            Stage::Unborn | Stage::Over => {}
            Stage::Opening => visit(Act::WriteOpened),
            Stage::Opened => visit(Act::Claim),
            Stage::Refused => visit(Act::BeginRebuild),
            Stage::Begun => visit(Act::Load),
            Stage::Loaded => visit(Act::Finish),
            Stage::Working => {
                visit(Act::ReadBack);
                for size in 1..=self.bounds.batch {
                    visit(Act::Apply { size, busy: false });
                    visit(Act::Apply { size, busy: true });
                    for tear in [Tear::AfterStock, Tear::BeforeFence] {
                        visit(Act::TornApply { size, tear });
                    }
                }
                if self.mutant == Mutant::Reconnects {
                    visit(Act::Reconnect);
                }
            }
        }
        if own.wire < own.next {
            visit(Act::Write);
            visit(Act::WriteAndRepeat);
            visit(Act::Drop);
        }
    }

    /// The world after a step; `None` where the step cannot be taken, or changes nothing.
    pub fn step(&self, world: &World, step: Step) -> Option<World> {
        let mut next = *world;
        if !self.spend(&mut next, step) {
            return None;
        }
        let taken = match step {
            Step::Begin => self.begin(&mut next),
            Step::Turn(turn, act) => self.act(&mut next, usize::from(turn), act),
            Step::Lose(scripts) => self.lose(&mut next, scripts),
            Step::Restore(scripts) => restore(&mut next, scripts),
            Step::Flush => flush(&mut next),
            Step::FailOver(lag) => fail_over(&mut next, lag),
        };
        if !taken || next == *world {
            return None;
        }
        next.sort();
        Some(next)
    }

    /// Takes a misfortune from what is left of its kind; false where nothing is.
    fn spend(&self, world: &mut World, step: Step) -> bool {
        let faults = &mut world.faults;
        match step {
            Step::Lose(_) => faults.spend(|left| &mut left.losses),
            Step::Restore(_) => faults.spend(|left| &mut left.restores),
            Step::Flush => faults.spend(|left| &mut left.flushes),
            Step::FailOver(_) => faults.spend(|left| &mut left.failovers),
            Step::Turn(_, Act::Apply { busy: true, .. }) => faults.spend(|left| &mut left.busies),
            Step::Turn(_, Act::TornApply { .. }) => faults.spend(|left| &mut left.tears),
            Step::Turn(_, Act::WriteAndRepeat) => faults.spend(|left| &mut left.repeats),
            Step::Turn(_, Act::Drop) => faults.spend(|left| &mut left.drops),
            Step::Begin | Step::Turn(..) => true,
        }
    }

    /// Rule 3: whoever was connected has no epoch any more.
    fn lose(&self, world: &mut World, scripts: u8) -> bool {
        if self.mutant != Mutant::Reconnects {
            for turn in &mut world.turns {
                if turn.connection == world.current {
                    turn.end();
                }
            }
        }
        restore(world, scripts)
    }
}

fn restore(world: &mut World, scripts: u8) -> bool {
    let older = world.older;
    world.redis[usize::from(world.current)] = older[usize::from(scripts) - 1];
    world.older = [older[1]; 2];
    world.forget_older();
    true
}

fn flush(world: &mut World) -> bool {
    world.redis[usize::from(world.current)] = Redis::EMPTY;
    world.older = [Redis::EMPTY; 2];
    true
}

fn fail_over(world: &mut World, lag: u8) -> bool {
    let other = 1 - world.current;
    if !world.copied {
        let past = [world.redis[usize::from(world.current)], world.older[0], world.older[1]];
        let lag = usize::from(lag);
        world.redis[usize::from(other)] = past[lag];
        world.older = [past[(lag + 1).min(2)], past[2]];
    } else if lag == 0 {
        world.older = [world.redis[usize::from(other)]; 2];
    } else {
        return false;
    }
    (world.copied, world.current) = (true, other);
    world.forget_older();
    true
}
