//! What was sent and may have to be sent again: pure bookkeeping, so that a hold is not asked for twice without need.
//!
//! The lane's fence in Redis tells whether a command has been decided. Until then, asking again would only add to a queue
//! that is already late; after that, a hold that is still due was refused as `not_due` (our clock is ahead of the broker's),
//! and is asked for again after a pause that grows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

const PENDING: i64 = -1;
const LOST: i64 = -2;

/// What became of a command that was sent.
#[derive(Debug, Clone)]
pub(crate) struct Fate(Arc<AtomicI64>);

impl Default for Fate {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(PENDING)))
    }
}

impl Fate {
    pub(crate) fn written(&self, offset: i64) {
        self.0.store(offset, Ordering::Relaxed);
    }

    /// Not written, or nobody knows: a double does no harm.
    pub(crate) fn lost(&self) {
        self.0.store(LOST, Ordering::Relaxed);
    }
}

/// One hold that was asked for.
#[derive(Debug)]
pub(crate) struct Sent {
    fate: Fate,
    at: Instant,
    pause: Duration,
}

impl Sent {
    /// The shortest and the longest pause between two releases of one hold that were decided, or lost.
    const PAUSE_MIN: Duration = Duration::from_millis(25);
    const PAUSE_MAX: Duration = Duration::from_secs(2);
    /// However the lane looks, a hold that is still due is asked for again after this.
    const FORGOTTEN: Duration = Duration::from_secs(60);

    pub(crate) fn first(fate: Fate, now: Instant) -> Self {
        Self {
            fate,
            at: now,
            pause: Self::PAUSE_MIN,
        }
    }

    /// Sent once more.
    pub(crate) fn again(&mut self, fate: Fate, now: Instant) {
        self.pause = (self.pause * 2).min(Self::PAUSE_MAX);
        self.at = now;
        self.fate = fate;
    }

    /// Whether it is time to send it again, in a lane that has decided the commands up to `fence`.
    pub(crate) fn is_due_again(&self, fence: i64, now: Instant) -> bool {
        let waited = now.saturating_duration_since(self.at);
        let is_over = match self.fate.0.load(Ordering::Relaxed) {
            PENDING => false,
            LOST => true,
            offset => offset <= fence,
        };
        (is_over && waited >= self.pause) || waited >= Self::FORGOTTEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_asked_for_again_only_when_its_release_was_decided_or_lost() {
        let start = Instant::now();
        let later = start + Duration::from_millis(30);
        let fate = Fate::default();
        let mut sent = Sent::first(fate.clone(), start);
        assert!(!sent.is_due_again(100, later), "not acknowledged yet");
        fate.written(7);
        assert!(!sent.is_due_again(6, later), "not decided yet");
        assert!(!sent.is_due_again(7, start), "too soon");
        assert!(sent.is_due_again(7, later));

        let fate = Fate::default();
        sent.again(fate.clone(), later);
        fate.lost();
        assert!(
            !sent.is_due_again(7, later + Duration::from_millis(30)),
            "the pause has grown"
        );
        assert!(sent.is_due_again(7, later + Duration::from_millis(60)));

        let forgotten = Sent::first(Fate::default(), start);
        assert!(forgotten.is_due_again(-1, start + Duration::from_secs(61)));
    }
}
