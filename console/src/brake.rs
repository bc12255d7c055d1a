//! The brake on guessing passwords: so many attempts, then a pause.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(60);
/// Attempts within [`WINDOW`] on one name from one address: few, and nobody else is kept out by them.
const OF_BOTH_MAX: usize = 5;
/// From one address: an office behind one router still gets in.
const OF_ADDRESS_MAX: usize = 30;
/// On one name, from wherever: many machines guess together.
const OF_NAME_MAX: usize = 60;
/// Names and addresses that are remembered before the old ones are forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// Recent attempts.
#[derive(Debug, Default)]
pub struct Brake(Mutex<HashMap<String, Vec<Instant>>>);

impl Brake {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an attempt may be made now. It is counted at once, so that many at the same time are no way around.
    pub fn lets_try(&self, name: &str, from: IpAddr, now: Instant) -> bool {
        let mut attempts = self.lock();
        if attempts.len() > REMEMBERED_MAX {
            attempts.retain(|_, at| at.iter().any(|at| now.duration_since(*at) < WINDOW));
        }
        let keys = keys(name, from);
        for (key, max) in &keys {
            let at = attempts.entry(key.clone()).or_default();
            at.retain(|at| now.duration_since(*at) < WINDOW);
            if at.len() >= *max {
                return false;
            }
        }
        for (key, _) in keys {
            attempts.entry(key).or_default().push(now);
        }
        true
    }

    /// It was the right password.
    pub fn forgive(&self, name: &str, from: IpAddr) {
        let mut attempts = self.lock();
        for (key, _) in keys(name, from) {
            attempts.remove(&key);
        }
    }
}

fn keys(name: &str, from: IpAddr) -> [(String, usize); 3] {
    [
        (format!("{name} from {from}"), OF_BOTH_MAX),
        (format!("from {from}"), OF_ADDRESS_MAX),
        (format!("{name} from anywhere"), OF_NAME_MAX),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_wrong_passwords_bring_a_pause_for_who_guesses_and_nobody_else() {
        let (brake, now) = (Brake::default(), Instant::now());
        let addr = |last| IpAddr::from([127, 0, 0, last]);
        for _ in 0..OF_BOTH_MAX {
            assert!(brake.lets_try("ann", addr(1), now));
        }
        assert!(!brake.lets_try("ann", addr(1), now));
        assert!(brake.lets_try("ann", addr(2), now) && brake.lets_try("ben", addr(1), now));
        assert!(brake.lets_try("ann", addr(1), now + WINDOW));
        brake.forgive("ann", addr(1));
        assert!(brake.lets_try("ann", addr(1), now));
    }

    #[test]
    fn many_names_from_one_address_and_one_name_from_many_are_braked_too() {
        let (brake, now) = (Brake::default(), Instant::now());
        let tries = |name: &dyn Fn(u8) -> String, last: &dyn Fn(u8) -> u8| {
            (0..100)
                .filter(|try_| brake.lets_try(&name(*try_), IpAddr::from([127, 0, 0, last(*try_)]), now))
                .count()
        };
        assert_eq!(tries(&|number| format!("user-{number}"), &|_| 200), OF_ADDRESS_MAX);
        assert_eq!(tries(&|_| "ann".to_owned(), &|number| number), OF_NAME_MAX);
    }
}
