//! The stop signal: asked for once, seen by everybody who holds a [`Stop`].
//!
//! A stop is a request. Whoever sees it stops its intake, drains what it has taken, and returns; nothing is torn away.
//! The deadline for that belongs to [`crate::service`].

use std::future::Future;

use tokio_util::sync::CancellationToken;

/// Asks for a stop. Clones ask for the same one; dropping one asks for nothing.
#[derive(Clone, Debug)]
pub struct Stopper(CancellationToken);

/// Sees whether a stop was asked for. Cheap to clone, and to look at from a polling thread.
#[derive(Clone, Debug)]
pub struct Stop(CancellationToken);

/// A stop signal: the end that asks and the end that sees.
#[must_use]
pub fn pair() -> (Stopper, Stop) {
    let token = CancellationToken::new();
    (Stopper(token.clone()), Stop(token))
}

impl Stopper {
    /// Asks everybody who holds the [`Stop`], or a child of it, to stop. Again: changes nothing.
    pub fn stop(&self) {
        self.0.cancel();
    }
}

impl Stop {
    /// A stop that nobody will ever ask for, for work that ends by itself.
    #[must_use]
    pub fn never() -> Self {
        Self(CancellationToken::new())
    }

    /// Returns when a stop was asked for; at once if it was already. Safe to drop in a `select!`.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// Was a stop asked for?
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// A stop for a part of the work: asked for with this one, or alone through its own [`Stopper`].
    #[must_use]
    pub fn child(&self) -> (Stopper, Stop) {
        let token = self.0.child_token();
        (Stopper(token.clone()), Stop(token))
    }

    /// The future's output, or `None` if a stop was asked for first. The future is then dropped half-way, so it must
    /// be one that may be: a sleep, a receive, never database work.
    pub async fn unless_requested<F: Future>(&self, future: F) -> Option<F::Output> {
        self.0.run_until_cancelled(future).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_stop_reaches_children_but_not_parents() {
        let (stopper, stop) = pair();
        let (child_stopper, child) = stop.child();
        let (_, sibling) = stop.child();

        child_stopper.stop();
        child.requested().await;
        assert!(!stop.is_requested() && !sibling.is_requested());

        stopper.stop();
        sibling.requested().await;
        assert!(stop.is_requested());
        let (_, born_late) = stop.child();
        assert!(born_late.is_requested());
    }

    #[tokio::test]
    async fn a_dropped_stopper_stops_nothing() {
        let (stopper, stop) = pair();
        drop(stopper);
        let waited = tokio::time::timeout(Duration::from_millis(20), stop.requested()).await;
        assert!(waited.is_err());
    }

    #[tokio::test]
    async fn work_ends_with_its_output_or_with_the_stop() {
        let (stopper, stop) = pair();
        assert_eq!(stop.unless_requested(async { 7 }).await, Some(7));
        stopper.stop();
        assert_eq!(stop.unless_requested(std::future::pending::<()>()).await, None);
    }
}
