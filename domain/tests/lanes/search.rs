//! Breadth-first search: every state once, the nearest violation first.

use std::{
    collections::HashSet,
    hash::{BuildHasherDefault, Hash, Hasher},
};

use crate::{
    steps::{Model, Step},
    world::{Broken, World},
};

/// What a search came to.
#[derive(Debug)]
pub struct Found {
    /// Distinct states that were seen.
    pub states: usize,
    /// Steps to the farthest of them, each on its shortest way.
    pub depth: usize,
    /// The nearest violation.
    pub violation: Option<Violation>,
}

/// A promise that is broken, and the shortest way there.
#[derive(Debug)]
pub struct Violation {
    pub broken: Broken,
    pub trace: Vec<Step>,
}

impl Violation {
    /// The story of it, one step a line.
    pub fn tell(&self, model: &Model) -> String {
        let mut story = format!("{:?} after {} steps", self.broken, self.trace.len());
        let mut world = World::start(&model.bounds);
        for step in &self.trace {
            let line = match step {
                Step::Turn(turn, act) => match world.turns[usize::from(*turn)].epoch {
                    -1 => format!("somebody: {act:?}"),
                    epoch => format!("epoch {epoch}: {act:?}"),
                },
                step => format!("{step:?}"),
            };
            story.push_str("\n    ");
            story.push_str(&line);
            world = model.after(&world, *step).expect("the search took this step");
        }
        story
    }
}

/// How a state was first reached.
struct Reached {
    from: u32,
    by: Step,
}

/// Searches every state of the model, or until a promise is broken that `counts`.
pub fn search(model: &Model, counts: impl Fn(Broken) -> bool) -> Found {
    let start = World::start(&model.bounds);
    let mut seen: HashSet<u64, BuildHasherDefault<Known>> = HashSet::default();
    seen.insert(mark(&start));
    let mut reached = vec![Reached {
        from: 0,
        by: Step::Begin,
    }];
    let (mut level, mut depth) = (vec![(start, 0_u32)], 0);
    loop {
        let (mut next_level, mut violation) = (Vec::new(), None);
        for (world, place) in &level {
            model.steps(world, |step| {
                let Some(next) = model.after(world, step).filter(|_| violation.is_none()) else {
                    return;
                };
                if !seen.insert(mark(&next)) {
                    return;
                }
                let next_place = u32::try_from(reached.len()).expect("memory ends before four billion states");
                reached.push(Reached { from: *place, by: step });
                violation = model.broken(&next).filter(|broken| counts(*broken));
                next_level.push((next, next_place));
            });
        }
        let found = violation.map(|broken| Violation {
            broken,
            trace: trace(&reached),
        });
        if found.is_some() || next_level.is_empty() {
            return Found {
                states: reached.len(),
                depth: depth + usize::from(found.is_some()),
                violation: found,
            };
        }
        (level, depth) = (next_level, depth + 1);
    }
}

/// The way to the state that was reached last.
fn trace(reached: &[Reached]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut place = reached.len() - 1;
    while place != 0 {
        steps.push(reached[place].by);
        place = reached[place].from as usize;
    }
    steps.reverse();
    steps
}

/// A state is known by 64 bits: among ten million states, two share theirs with a chance below 1 in 300,000.
fn mark(world: &World) -> u64 {
    let mut mix = Mix::default();
    world.hash(&mut mix);
    mix.finish()
}

/// A quick hash of a few dozen numbers, each of which fits a byte: std's own takes most of the search's time.
#[derive(Default)]
struct Mix {
    mixed: u64,
    word: u64,
    bytes: u32,
}

impl Mix {
    fn take(&mut self, byte: u8) {
        self.word = self.word << 8 | u64::from(byte);
        self.bytes += 1;
        if self.bytes.is_multiple_of(8) {
            self.stir();
        }
    }

    fn stir(&mut self) {
        let wide = u128::from(self.mixed ^ self.word ^ 0x9e37_79b9_7f4a_7c15) * 0xa076_1d64_78bd_642f;
        self.mixed = (wide >> 64) as u64 ^ wide as u64;
        self.word = 0;
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        let mut last = Self { ..*self };
        last.stir();
        last.mixed = last.mixed.wrapping_add(u64::from(self.bytes));
        last.stir();
        last.mixed
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.take(*byte));
    }

    fn write_u8(&mut self, number: u8) {
        self.take(number);
    }

    fn write_isize(&mut self, variant: isize) {
        self.take(variant as u8);
    }

    fn write_usize(&mut self, length: usize) {
        self.take(length as u8);
    }
}

/// A set's hash of what is a hash already.
#[derive(Default)]
struct Known(u64);

impl Hasher for Known {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only marks are kept");
    }

    fn write_u64(&mut self, mark: u64) {
        self.0 = mark;
    }
}
