//! Waiting between attempts: exponential, with jitter, and never past a stop.
//!
//! Everybody who lost the same broker would otherwise come back in step and knock it over again. Each delay is drawn
//! uniformly between the floor and a ceiling that doubles ("Exponential Backoff And Jitter", AWS Architecture Blog, full
//! jitter, with a floor so that no attempt follows at once).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::stop::Stop;

/// The delays of one thing that is attempted again and again.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    ceiling: Duration,
    random: SplitMix64,
}

impl Backoff {
    /// Delays from `min` to `max`, the first of them between `min` and twice `min`. Each instance has its own seed.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        // RandomState is seeded by the operating system and differs for each instance: good enough to spread a herd.
        Self::seeded(min, max, RandomState::new().hash_one(0_u64))
    }

    /// As [`Backoff::new`], but the same seed gives the same delays.
    #[must_use]
    pub fn seeded(min: Duration, max: Duration, seed: u64) -> Self {
        let max = max.max(min);
        Self {
            min,
            max,
            ceiling: min.saturating_mul(2).min(max),
            random: SplitMix64(seed),
        }
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self
            .min
            .saturating_add((self.ceiling - self.min).mul_f64(self.random.unit()));
        self.ceiling = self.ceiling.saturating_mul(2).min(self.max);
        delay
    }

    /// The attempt succeeded: the next delay is a first one again.
    pub fn reset(&mut self) {
        self.ceiling = self.min.saturating_mul(2).min(self.max);
    }

    /// Sleeps for the next delay. False if a stop was asked for, before or meanwhile: do not attempt again.
    pub async fn sleep(&mut self, stop: &Stop) -> bool {
        let delay = self.next_delay();
        stop.unless_requested(tokio::time::sleep(delay)).await.is_some()
    }
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014). Spreads load, keeps no secret.
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0.0..1.0, from the upper 53 bits.
    fn unit(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
        (self.next() >> 11) as f64 * STEP
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const MIN: Duration = Duration::from_millis(10);
    const MAX: Duration = Duration::from_millis(1_000);

    #[test]
    fn delays_stay_below_a_ceiling_that_doubles_up_to_the_maximum() {
        for seed in 0..500 {
            let mut backoff = Backoff::seeded(MIN, MAX, seed);
            for ceiling_ms in [20, 40, 80, 160, 320, 640, 1_000, 1_000] {
                let delay = backoff.next_delay();
                assert!(
                    delay >= MIN && delay <= Duration::from_millis(ceiling_ms),
                    "{delay:?} of seed {seed}"
                );
            }
        }
    }

    #[test]
    fn delays_are_spread_over_the_whole_range() {
        let mut backoff = Backoff::seeded(MIN, MAX, 1);
        let settled: Vec<_> = (0..2_000).map(|_| backoff.next_delay()).skip(10).collect();
        let low = settled.iter().filter(|delay| **delay < MAX / 4).count();
        let high = settled.iter().filter(|delay| **delay > MAX * 3 / 4).count();
        assert!(
            (400..600).contains(&low) && (400..600).contains(&high),
            "{low} low, {high} high"
        );
    }

    #[test]
    fn a_reset_starts_over_and_a_seed_repeats() {
        let mut backoff = Backoff::seeded(MIN, MAX, 9);
        let first: Vec<_> = (0..8).map(|_| backoff.next_delay()).collect();
        backoff.reset();
        assert!(backoff.next_delay() <= MIN * 2);
        let mut again = Backoff::seeded(MIN, MAX, 9);
        assert_eq!(first, (0..8).map(|_| again.next_delay()).collect::<Vec<_>>());
        assert_ne!(Backoff::new(MIN, MAX).next_delay(), Backoff::new(MIN, MAX).next_delay());
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut backoff = Backoff::seeded(Duration::ZERO, Duration::ZERO, 3);
        assert_eq!(backoff.next_delay(), Duration::ZERO);
        let mut upside_down = Backoff::seeded(MAX, MIN, 3);
        assert_eq!(upside_down.next_delay(), MAX);
        let mut endless = Backoff::seeded(Duration::from_secs(1), Duration::MAX, 3);
        for _ in 0..100 {
            endless.next_delay();
        }
    }

    #[tokio::test]
    async fn a_stop_ends_the_sleep() {
        let (stopper, stop) = crate::stop::pair();
        let mut backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(60));
        let started = Instant::now();
        let (slept, ()) = tokio::join!(backoff.sleep(&stop), async { stopper.stop() });
        assert!(!slept && started.elapsed() < Duration::from_secs(5));
        assert!(
            !Backoff::new(Duration::ZERO, Duration::ZERO).sleep(&stop).await,
            "stopped before"
        );
        assert!(Backoff::new(Duration::ZERO, Duration::ZERO).sleep(&Stop::never()).await);
    }
}
