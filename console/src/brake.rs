//! The brake on guessing passwords: so many failures for a name or from an address, then a pause.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Failures within [`WINDOW`] before nobody is let in under this name, or from this address.
const FAILURES_MAX: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// Names and addresses that are remembered; beyond, the oldest window is forgotten first.
const REMEMBERED_MAX: usize = 10_000;

/// Recent failures by name and by address.
#[derive(Debug, Default)]
pub struct Brake(Mutex<HashMap<String, Vec<Instant>>>);

impl Brake {
    /// Whether another attempt may be made now.
    pub fn lets_try(&self, who: &[String], now: Instant) -> bool {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |who: &String| {
            let of_who = failures.get(who).map_or(&[][..], Vec::as_slice);
            of_who.iter().filter(|at| now.duration_since(**at) < WINDOW).count()
        };
        who.iter().all(|who| recent(who) < FAILURES_MAX)
    }

    /// Counts an attempt before its outcome is known, so that many at once are no way around.
    pub fn count(&self, who: &[String], now: Instant) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() > REMEMBERED_MAX {
            failures.retain(|_, at| at.iter().any(|at| now.duration_since(*at) < WINDOW));
        }
        for who in who {
            let at = failures.entry(who.clone()).or_default();
            at.retain(|at| now.duration_since(*at) < WINDOW);
            at.push(now);
        }
    }

    /// It was the right password.
    pub fn forgive(&self, who: &[String]) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for who in who {
            failures.remove(who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_bring_a_pause_for_the_name_and_the_address() {
        let (brake, now) = (Brake::default(), Instant::now());
        let who = |name: &str, addr: &str| vec![name.to_owned(), addr.to_owned()];
        for _ in 0..5 {
            assert!(brake.lets_try(&who("ann", "a"), now));
            brake.count(&who("ann", "a"), now);
        }
        assert!(!brake.lets_try(&who("ann", "b"), now));
        assert!(!brake.lets_try(&who("ben", "a"), now));
        assert!(brake.lets_try(&who("ben", "b"), now));
        assert!(brake.lets_try(&who("ann", "a"), now + WINDOW));
        brake.forgive(&who("ann", "a"));
        assert!(brake.lets_try(&who("ann", "a"), now));
    }
}
