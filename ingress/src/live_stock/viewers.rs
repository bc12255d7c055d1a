//! How many viewers there may be, and what they were sent.

use std::{sync::Arc, time::Duration};

use metrics::{Counter, Gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::{Code, Problem};

/// The seats of the house.
#[derive(Debug)]
pub struct Viewers {
    seats: Arc<Semaphore>,
    max: u32,
}

impl Viewers {
    /// Room for so many connections.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self {
            seats: Arc::new(Semaphore::new(max as usize)),
            max,
        }
    }

    /// Lets one in.
    ///
    /// # Errors
    /// 429 when all seats are taken.
    pub fn admit(&self, kind: &'static str) -> Result<Viewer, Problem> {
        let seat = Arc::clone(&self.seats).try_acquire_owned().map_err(|_| {
            let detail = format!("{} viewers watch live stock already", self.max);
            Problem::new(Code::TooManyRequests, detail)
        })?;
        let here = metrics::gauge!("holdfast_live_viewers", "kind" => kind);
        here.increment(1.0);
        Ok(Viewer {
            here,
            messages: metrics::counter!("holdfast_live_messages_total", "kind" => kind),
            bytes: metrics::counter!("holdfast_live_bytes_total", "kind" => kind),
            _seat: seat,
        })
    }

    /// Waits until all have left, at most so long.
    pub async fn gone(&self, patience: Duration) {
        // Late ones are cut off with the process.
        drop(tokio::time::timeout(patience, self.seats.acquire_many(self.max)).await);
    }
}

/// One connection that watches.
#[derive(Debug)]
pub struct Viewer {
    here: Gauge,
    messages: Counter,
    bytes: Counter,
    _seat: OwnedSemaphorePermit,
}

impl Viewer {
    /// Counts a message to it.
    pub fn sent(&self, bytes: usize) {
        self.messages.increment(1);
        self.bytes.increment(bytes as u64);
    }

    /// Counts a viewer that was dropped: it took nothing, or said nothing, for too long.
    pub fn dropped(&self) {
        metrics::counter!("holdfast_live_dropped_total").increment(1);
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.here.decrement(1.0);
    }
}
