//! Chance: everything that is not decided by the code under test comes from one seeded generator.

/// A generator (SplitMix64): small, and the same on every machine.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The chances of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut chance = Self(seed);
        // Seeds are counted from 0: neighbours must not look alike.
        Self(chance.draw().rotate_left(17) ^ chance.draw())
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is at least 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.draw() % n
    }

    /// An index of a list of `n`, which is at least 1.
    pub fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).expect("below a usize")
    }

    /// A number of a range, both ends included.
    pub fn from(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True so many times in a thousand.
    pub fn permille(&mut self, times: u64) -> bool {
        self.below(1_000) < times
    }

    /// One of a list that is not empty.
    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// How long a message travels, in microseconds: mostly little, now and then long enough to be overtaken.
    pub fn latency(&mut self) -> u64 {
        match self.below(100) {
            0..90 => self.from(100, 2_000),
            90..98 => self.from(2_000, 30_000),
            _ => self.from(30_000, 400_000),
        }
    }
}
