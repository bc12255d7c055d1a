//! When the next flight of a window may go, where somebody hears what comes of the last: after its echo, and with company.
//!
//! A flight costs the same with one record as with a hundred: two requests to Kafka, a call of Redis, four readers that wake
//! up. A window alone sends as soon as its last flight is acknowledged, so a busy lane works on three small flights at a
//! time, one at each station of its road. Here the next one waits until the last has come all the way round; who comes
//! meanwhile goes with it. Nobody waits at rest, and nobody for long where no echo comes.

use std::{
    sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::window::FEW;

/// An echo that takes longer is not waited for: the lane is behind, or has no owner, and its commands may queue in Kafka.
const ECHO_MAX: Duration = Duration::from_millis(100);
/// How long answered clients are waited for, who ask again: without it the first of them would go alone.
const COMPANY_MAX: Duration = Duration::from_millis(2);

/// So many are company enough: they go without the echo. With more, one hot SKU waits while processors rest; with
/// fewer, flights cost more than they win (docs/PERFORMANCE.md).
pub(super) const ENOUGH: usize = 32;

/// What one window waits for.
#[derive(Debug)]
pub(super) struct Pace {
    /// The last offset whose echo was heard.
    heard: AtomicI64,
    /// The offset whose echo is waited for.
    awaited: AtomicI64,
    /// How many records the last flight had.
    size: AtomicUsize,
    echo: Notify,
    landed: Notify,
    joined: Notify,
}

/// How many the next flight waits for, when the last had `size` and so many wait: most of those who were answered ask again,
/// and go with those who could not go with them, or two halves would take turns for ever. Few are no company.
fn company_of(size: usize, waiting: usize) -> usize {
    if size > FEW {
        ENOUGH.min((size + waiting) * 3 / 4)
    } else {
        0
    }
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            heard: AtomicI64::new(-1),
            awaited: AtomicI64::new(-1),
            size: AtomicUsize::new(0),
            echo: Notify::new(),
            landed: Notify::new(),
            joined: Notify::new(),
        }
    }

    /// What came of the record at this offset, and of all before it, is known.
    pub(super) fn hear(&self, offset: i64) {
        // In this order on both sides, so that one of the two sees the other's store.
        self.heard.fetch_max(offset, SeqCst);
        if offset >= self.awaited.load(SeqCst) {
            self.echo.notify_one();
        }
    }

    /// A flight of so many was acknowledged; this is the offset of its last record.
    pub(super) fn land(&self, size: usize, offset: i64) {
        self.size.store(size, SeqCst);
        self.awaited.store(offset, SeqCst);
        self.landed.notify_one();
    }

    /// A record waits for the next flight.
    pub(super) fn join(&self) {
        self.joined.notify_one();
    }

    /// Waits until a flight has landed and the next one may go; `waiting`: of how many.
    pub(super) async fn next(&self, waiting: impl Fn() -> usize) {
        self.landed.notified().await;
        let (awaited, size) = (self.awaited.load(SeqCst), self.size.load(SeqCst));
        let wanted = company_of(size, waiting());
        let echo = async {
            while self.heard.load(SeqCst) < awaited && waiting() < ENOUGH {
                tokio::select! {
                    () = self.echo.notified() => {}
                    () = self.joined.notified() => {}
                }
            }
        };
        let company = async {
            while waiting() < wanted {
                self.joined.notified().await;
            }
        };
        // Late is as good as there: it goes now.
        let _echo = timeout(ECHO_MAX, echo).await;
        let _company = timeout(COMPANY_MAX, company).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_were_answered_go_with_those_who_waited() {
        assert_eq!(company_of(FEW, 3), 0, "few wait for nobody");
        assert_eq!(company_of(8, 0), 6);
        assert_eq!(company_of(8, 8), 12, "two halves become one");
        assert_eq!(company_of(100, 100), ENOUGH);
    }
}
