//! Requests that wait for their event, by request id.
//!
//! A waiter is registered before its command is produced, so that no event can come too early, and goes away with the
//! request's future, however that ends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use plumbing::kafka::producer::ProduceError;
use tokio::sync::oneshot;

use crate::memory::Decided;

/// What became of a command.
#[derive(Debug)]
pub enum Outcome {
    /// It has its valid event.
    Decided(Box<Decided>),
    /// Kafka has it, at this offset, and the request did not want to know more.
    Acknowledged(i64),
    /// Kafka does not have it, or nobody knows.
    Unacknowledged(ProduceError),
}

const SHARDS: usize = 16;

type Shard = Mutex<HashMap<u128, oneshot::Sender<Outcome>>>;

/// All waiting requests of one ingress.
pub struct Waiters {
    shards: [Shard; SHARDS],
    waiting: metrics::Gauge,
}

impl std::fmt::Debug for Waiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiters").finish_non_exhaustive()
    }
}

impl Default for Waiters {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Shard::default()),
            waiting: metrics::gauge!("holdfast_ingress_waiters"),
        }
    }
}

impl Waiters {
    /// Request ids are random: their low bits spread them evenly.
    fn shard(&self, request_id: u128) -> &Shard {
        &self.shards[(request_id % SHARDS as u128) as usize]
    }

    /// Waits for what becomes of a request.
    #[must_use]
    pub fn register(self: &Arc<Self>, request_id: u128) -> Waiter {
        let (sender, receiver) = oneshot::channel();
        self.shard(request_id)
            .lock()
            .expect("no holder of this lock panics")
            .insert(request_id, sender);
        self.waiting.increment(1);
        Waiter {
            request_id,
            receiver,
            waiters: Arc::clone(self),
        }
    }

    /// Whether somebody waits for this request.
    #[must_use]
    pub fn is_waiting(&self, request_id: u128) -> bool {
        self.shard(request_id)
            .lock()
            .expect("no holder of this lock panics")
            .contains_key(&request_id)
    }

    /// Tells whoever waits for this request; the first word counts. `false` when nobody does.
    pub fn resolve(&self, request_id: u128, outcome: impl FnOnce() -> Outcome) -> bool {
        let waiter = self
            .shard(request_id)
            .lock()
            .expect("no holder of this lock panics")
            .remove(&request_id);
        // The send fails when the client hung up a moment ago.
        waiter.is_some_and(|waiter| waiter.send(outcome()).is_ok())
    }
}

/// One waiting request. Dropping it ends the wait.
#[derive(Debug)]
pub struct Waiter {
    request_id: u128,
    receiver: oneshot::Receiver<Outcome>,
    waiters: Arc<Waiters>,
}

impl Waiter {
    /// What became of the command. May be dropped and called again.
    pub async fn outcome(&mut self) -> Outcome {
        match (&mut self.receiver).await {
            Ok(outcome) => outcome,
            // The sender goes away only with an outcome or with this waiter.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waiters
            .shard(self.request_id)
            .lock()
            .expect("no holder of this lock panics")
            .remove(&self.request_id);
        self.waiters.waiting.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_word_counts_and_a_hang_up_leaves_nothing() {
        let waiters = Arc::new(Waiters::default());
        let mut waiter = waiters.register(7);
        assert!(waiters.resolve(7, || Outcome::Acknowledged(1)));
        assert!(!waiters.resolve(7, || Outcome::Acknowledged(2)));
        assert!(matches!(waiter.outcome().await, Outcome::Acknowledged(1)));

        let gone = waiters.register(8);
        drop(gone);
        assert!(!waiters.resolve(8, || Outcome::Acknowledged(3)));
        assert!(waiters.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
