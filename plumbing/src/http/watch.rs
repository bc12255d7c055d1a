//! What a client is doing, in a few atomics: enough to know when it has been silent, or has dawdled over a head, for too long.
//!
//! Nothing is armed per request. The connection looks when a deadline that it computed has come, and computes the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::Limits;

/// The doings of one client. One task writes it almost always; the order of the atomics among each other matters to nobody.
#[derive(Debug)]
pub struct Watch {
    begun: Instant,
    requests: AtomicU32,
    has_asked: AtomicBool,
    http2: AtomicBool,
    /// When the last response ended, in microseconds.
    quiet_since: AtomicU64,
    /// When the first byte after that came, in microseconds; 0 for none.
    head_since: AtomicU64,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            requests: AtomicU32::new(0),
            has_asked: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            quiet_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
        }
    }
}

/// A request in flight, from its head to the end of its response.
#[derive(Debug)]
pub struct Visit(Arc<Watch>);

impl Watch {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Bytes have come.
    pub fn heard(&self) {
        if self.requests.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.now().max(1), Relaxed);
        }
    }

    /// The client speaks HTTP/2: bytes outside a request are no head.
    pub fn speaks_http2(&self) {
        self.http2.store(true, Relaxed);
    }

    /// Whether it does.
    pub fn is_http2(&self) -> bool {
        self.http2.load(Relaxed)
    }

    /// A head is complete.
    pub fn visit(self: &Arc<Self>) -> Visit {
        self.requests.fetch_add(1, Relaxed);
        self.has_asked.store(true, Relaxed);
        self.head_since.store(0, Relaxed);
        Visit(Arc::clone(self))
    }

    /// When the client will have taken too long, if it goes on as it does; `None` while a request is in flight.
    pub fn deadline(&self, limits: &Limits) -> Option<Instant> {
        if self.requests.load(Relaxed) > 0 {
            return None;
        }
        let after = |since: u64, patience: Duration| self.begun + Duration::from_micros(since) + patience;
        let quiet_since = self.quiet_since.load(Relaxed);
        if !self.has_asked.load(Relaxed) {
            return Some(after(0, limits.head));
        }
        match self.head_since.load(Relaxed) {
            since if since > 0 && !self.is_http2() => Some(after(since, limits.head)),
            _ => Some(after(quiet_since, limits.idle)),
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // Before the count, so that nobody sees an idle connection of long ago.
        self.0.quiet_since.store(self.0.now(), Relaxed);
        self.0.head_since.store(0, Relaxed);
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_its_time_and_an_idle_connection_another() {
        let limits = Limits::default();
        let watch = Arc::new(Watch::default());
        let at = |micros: &AtomicU64| watch.begun + Duration::from_micros(micros.load(Relaxed));
        assert_eq!(
            watch.deadline(&limits),
            Some(watch.begun + limits.head),
            "nothing was asked"
        );
        std::thread::sleep(Duration::from_millis(1));
        watch.heard();
        assert_eq!(
            watch.deadline(&limits),
            Some(watch.begun + limits.head),
            "a byte wins no time"
        );
        let visits = [watch.visit(), watch.visit()];
        watch.heard();
        assert_eq!(watch.deadline(&limits), None, "it waits for us, not we for it");
        let [first, second] = visits;
        drop(first);
        assert_eq!(watch.deadline(&limits), None, "and still for the other answer");
        drop(second);
        assert_eq!(watch.deadline(&limits), Some(at(&watch.quiet_since) + limits.idle));
        watch.heard();
        let begun = at(&watch.head_since);
        assert!(begun >= at(&watch.quiet_since));
        std::thread::sleep(Duration::from_millis(1));
        watch.heard();
        assert_eq!(
            watch.deadline(&limits),
            Some(begun + limits.head),
            "more bytes win no time"
        );
        watch.speaks_http2();
        assert_eq!(
            watch.deadline(&limits),
            Some(at(&watch.quiet_since) + limits.idle),
            "a ping is no head"
        );
    }
}
