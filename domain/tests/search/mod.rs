//! Breadth-first search: every state once, the nearest violation first. What both models of this folder are searched by.

use std::{
    collections::HashSet,
    fmt::Debug,
    hash::{BuildHasherDefault, Hash, Hasher},
};

/// A protocol in a small world.
pub trait Model {
    /// Everything at one moment. What it hashes must tell states apart, and each number in it must fit a byte.
    type World: Clone + Hash;
    /// What may happen next.
    type Step: Copy;
    /// A promise that does not hold.
    type Broken: Copy + Debug;

    /// Where it begins.
    fn start(&self) -> Self::World;

    /// Calls `visit` with every step that may be next, and some that may not.
    fn steps(&self, world: &Self::World, visit: impl FnMut(Self::Step));

    /// The world after a step; `None` where the step cannot be taken, or changes nothing.
    fn after(&self, world: &Self::World, step: Self::Step) -> Option<Self::World>;

    /// The first promise that a state breaks.
    fn broken(&self, world: &Self::World) -> Option<Self::Broken>;

    /// A step in words, taken from a state.
    fn tell(&self, world: &Self::World, step: Self::Step) -> String;
}

/// What a search came to.
pub struct Found<M: Model> {
    /// Distinct states that were seen.
    pub states: usize,
    /// Steps to the farthest of them, each on its shortest way.
    pub depth: usize,
    /// The nearest violation.
    pub violation: Option<Violation<M>>,
}

/// A promise that is broken, and the shortest way there.
pub struct Violation<M: Model> {
    pub broken: M::Broken,
    pub trace: Vec<M::Step>,
}

impl<M: Model> Violation<M> {
    /// The story of it, one step a line.
    pub fn tell(&self, model: &M) -> String {
        let mut story = format!("{:?} after {} steps", self.broken, self.trace.len());
        let mut world = model.start();
        for step in &self.trace {
            story.push_str("\n    ");
            story.push_str(&model.tell(&world, *step));
            world = model.after(&world, *step).expect("the search took this step");
        }
        story
    }
}

/// How a state was first reached; the first state by nothing.
struct Reached<S> {
    from: u32,
    by: Option<S>,
}

/// Searches every state of the model, or until a promise is broken that `counts`.
pub fn search<M: Model>(model: &M, counts: impl Fn(M::Broken) -> bool) -> Found<M> {
    let start = model.start();
    let mut seen: HashSet<u64, BuildHasherDefault<Known>> = HashSet::default();
    seen.insert(mark(&start));
    let mut reached = vec![Reached { from: 0, by: None }];
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
                reached.push(Reached {
                    from: *place,
                    by: Some(step),
                });
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
fn trace<S: Copy>(reached: &[Reached<S>]) -> Vec<S> {
    let mut steps = Vec::new();
    let mut place = reached.len() - 1;
    while let Some(step) = reached[place].by {
        steps.push(step);
        place = reached[place].from as usize;
    }
    steps.reverse();
    steps
}

/// A state is known by 64 bits: among ten million states, two share theirs with a chance below 1 in 300,000.
fn mark(world: &impl Hash) -> u64 {
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
