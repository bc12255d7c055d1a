//! Sends at once when nothing is on its way, and everything that has come meanwhile, in one request, when that is
//! acknowledged: no wait at rest, large requests under load.
//!
//! librdkafka cannot do both. With `linger.ms` it waits at rest, in whole milliseconds. Without it, it takes the first record
//! of many alone; and once five records of a partition are on their way an idempotent producer sends no more until they are
//! acknowledged, while its thread spins for as long as others wait longer than the linger (280,000 polls a second, a fifth of
//! the processor time of a busy process). So few records go by a client without linger, and many by one with: it has them
//! all when it wakes up. A partition has one flight at a time, so the two cannot change the order of things.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use super::{
    KafkaError,
    producer::{Prepared, ProduceError, Producer},
};
use crate::{config::Brokers, failpoint};

/// Records that may wait for a window of one partition.
const WAITING_MAX: usize = 100_000;
/// So many records go by the prompt client: fewer than librdkafka lets be on their way.
const FEW: usize = 4;

/// Two clients of one owner: one sends at once, the other gathers what is queued in one go.
#[derive(Debug, Clone)]
pub struct Clients {
    prompt: Producer,
    gathering: Producer,
}

impl Clients {
    /// Makes both; no connection is needed yet. `linger_ms`: how long the gathering one waits for more.
    ///
    /// # Errors
    /// [`KafkaError`] when librdkafka refuses the options.
    pub fn new(brokers: &Brokers, client_id: &str, linger_ms: &str) -> Result<Self, KafkaError> {
        Ok(Self {
            prompt: Producer::new(brokers, client_id, "0")?,
            gathering: Producer::new(brokers, client_id, linger_ms)?,
        })
    }

    /// The one that sends at once, for what is sent now and then.
    #[must_use]
    pub fn prompt(&self) -> &Producer {
        &self.prompt
    }

    /// Waits until every queued record has its fate, at most twice `timeout`. Blocks: only at shutdown.
    ///
    /// # Errors
    /// [`KafkaError`] when some have none yet.
    pub fn flush(&self, timeout: std::time::Duration) -> Result<(), KafkaError> {
        self.prompt.flush(timeout)?;
        self.gathering.flush(timeout)
    }
}

#[derive(Default)]
struct State {
    /// Records of the flight that have no fate yet.
    on_their_way: usize,
    /// Whether one of the flight was not acknowledged.
    has_failed: bool,
    waiting: VecDeque<Prepared>,
}

/// One partition: they wait for nothing of each other.
struct Window {
    clients: Clients,
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
    pub fn new(clients: &Clients, topic: &str, partitions: u16) -> Self {
        let window = |_| {
            Arc::new(Window {
                clients: clients.clone(),
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
        let taken = self.of(record.partition()).take([record].into());
        taken.map_err(|_refused| ProduceError::QueueFull)
    }

    /// Sends records of one partition, in order; each is told its fate.
    ///
    /// # Panics
    /// When the topic has no such partition.
    pub fn send_all(&self, records: Vec<Prepared>) {
        let Some(first) = records.first() else { return };
        if let Err(refused) = self.of(first.partition()).take(records.into()) {
            for record in refused {
                record.refuse(ProduceError::QueueFull);
            }
        }
    }

    fn of(&self, partition: i32) -> &Arc<Window> {
        let window = usize::try_from(partition)
            .ok()
            .and_then(|index| self.windows.get(index));
        window.expect("the caller knows the partitions")
    }
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Gives the records back when too many wait.
    fn take(self: &Arc<Self>, mut records: VecDeque<Prepared>) -> Result<(), VecDeque<Prepared>> {
        let mut state = self.lock();
        if state.on_their_way > 0 {
            if state.waiting.len() + records.len() > WAITING_MAX {
                return Err(records);
            }
            state.waiting.append(&mut records);
            return Ok(());
        }
        state.on_their_way = records.len();
        drop(state);
        self.send(records);
        Ok(())
    }

    /// Hands a flight to librdkafka; its records count as on their way already.
    fn send(self: &Arc<Self>, flight: VecDeque<Prepared>) {
        let Clients { prompt, gathering } = &self.clients;
        let client = if flight.len() <= FEW { prompt } else { gathering };
        for record in flight {
            let window = Arc::clone(self);
            let record = record.and_then(move |is_acknowledged| window.landed(is_acknowledged));
            client.send_prepared(&self.topic, record);
            failpoint::reach("producer.queued_one");
        }
    }

    /// One less is on its way. After the last one all that wait go; if one was not acknowledged, they are refused instead:
    /// no later record may overtake one that may come yet, and their senders hear it now and not after as long a wait of their own.
    fn landed(self: &Arc<Self>, is_acknowledged: bool) {
        let mut state = self.lock();
        state.on_their_way -= 1;
        state.has_failed |= !is_acknowledged;
        if state.on_their_way > 0 {
            return;
        }
        let has_failed = std::mem::take(&mut state.has_failed);
        let next = std::mem::take(&mut state.waiting);
        if has_failed || next.is_empty() {
            drop(state);
            for record in next {
                record.refuse(ProduceError::Behind);
            }
            return;
        }
        state.on_their_way = next.len();
        drop(state);
        self.send(next);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Nobody listens there: what is sent has no fate but the one that the test gives it.
    fn windows() -> Windows {
        let clients = Clients::new(&"127.0.0.1:1".into(), "test", "0.3").expect("legal options");
        Windows::new(&clients, "topic", 1)
    }

    fn send(windows: &Windows, name: &'static str, fates: &mpsc::Sender<(&'static str, String)>) {
        let fates = fates.clone();
        let record = Prepared::new(0, None, Vec::new(), &[], move |result| {
            let fate = result.map_or_else(|error| error.to_string(), |_| "acknowledged".to_owned());
            fates.send((name, fate)).expect("the test listens");
        });
        windows.send(record).expect("few wait");
    }

    fn counts(windows: &Windows) -> (usize, usize) {
        let state = windows.of(0).lock();
        (state.on_their_way, state.waiting.len())
    }

    #[test]
    fn all_that_waits_goes_in_one_flight_when_the_one_before_has_landed() {
        let (windows, (fates, _told)) = (windows(), mpsc::channel());
        for name in ["a", "b", "c"] {
            send(&windows, name, &fates);
        }
        assert_eq!(counts(&windows), (1, 2), "the first goes at once, alone");
        windows.of(0).landed(true);
        assert_eq!(counts(&windows), (2, 0));
    }

    #[test]
    fn what_waits_behind_a_lost_record_is_refused_and_what_comes_later_goes() {
        let (windows, (fates, told)) = (windows(), mpsc::channel());
        for name in ["a", "b", "c"] {
            send(&windows, name, &fates);
        }
        windows.of(0).landed(false);
        let refused = ProduceError::Behind.to_string();
        assert_eq!(
            told.try_iter().collect::<Vec<_>>(),
            [("b", refused.clone()), ("c", refused)]
        );
        assert_eq!(counts(&windows), (0, 0));
        send(&windows, "d", &fates);
        assert_eq!(counts(&windows), (1, 0));
    }
}
