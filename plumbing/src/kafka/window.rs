//! A producer that sends at once when nothing is on its way, and everything that has come meanwhile when it is
//! acknowledged: no wait at rest, large requests under load.
//!
//! librdkafka's own ways cost more: `linger.ms` waits at rest, in whole milliseconds; without it each record is a request,
//! and once five are in flight its thread spins until one is answered (55 of 110 us of processor time per reservation).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use super::producer::{Prepared, ProduceError, Producer};

/// Records that may wait for a window of one partition.
const WAITING_MAX: usize = 100_000;

#[derive(Default)]
struct State {
    /// Records that are not acknowledged.
    on_their_way: usize,
    waiting: VecDeque<Prepared>,
}

/// One partition: they wait for nothing of each other.
struct Window {
    producer: Producer,
    topic: String,
    state: Mutex<State>,
}

/// A producer for one topic with a window per partition.
#[derive(Clone)]
pub struct Windows {
    windows: Arc<[Arc<Window>]>,
}

impl std::fmt::Debug for Windows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Windows").finish_non_exhaustive()
    }
}

impl Windows {
    /// Windows for the first `partitions` partitions of a topic.
    #[must_use]
    pub fn new(producer: &Producer, topic: &str, partitions: u16) -> Self {
        let window = |_| {
            Arc::new(Window {
                producer: producer.clone(),
                topic: topic.to_owned(),
                state: Mutex::default(),
            })
        };
        Self {
            windows: (0..partitions).map(window).collect(),
        }
    }

    /// Sends a record, in the order of the calls.
    ///
    /// # Errors
    /// [`ProduceError::QueueFull`] when too many wait; nobody is told then.
    ///
    /// # Panics
    /// When the topic has no such partition.
    pub fn send(&self, record: Prepared) -> Result<(), ProduceError> {
        let window = usize::try_from(record.partition())
            .ok()
            .and_then(|index| self.windows.get(index));
        window.expect("the caller knows the partitions").take(record)
    }
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn take(self: &Arc<Self>, record: Prepared) -> Result<(), ProduceError> {
        let window = Arc::clone(self);
        let record = record.and_then(move || window.acknowledged());
        let mut state = self.lock();
        if state.on_their_way > 0 {
            if state.waiting.len() >= WAITING_MAX {
                return Err(ProduceError::QueueFull);
            }
            state.waiting.push_back(record);
            return Ok(());
        }
        state.on_their_way = 1;
        drop(state);
        self.send(record);
        Ok(())
    }

    /// Hands a record to librdkafka; it counts as on its way already.
    fn send(self: &Arc<Self>, record: Prepared) {
        self.producer.send_prepared(&self.topic, record);
    }

    /// One less is on its way; after the last one all that wait go.
    fn acknowledged(self: &Arc<Self>) {
        let mut state = self.lock();
        state.on_their_way -= 1;
        if state.on_their_way > 0 || state.waiting.is_empty() {
            return;
        }
        let next = std::mem::take(&mut state.waiting);
        state.on_their_way = next.len();
        drop(state);
        for record in next {
            self.send(record);
        }
    }
}
