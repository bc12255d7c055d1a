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
    pace::Pace,
    producer::{Prepared, ProduceError, Producer},
};
use crate::{config::Brokers, failpoint, stop::Stop};

/// Records that may wait for a window of one partition.
const WAITING_MAX: usize = 100_000;
/// So many records go by the prompt client, and alone: fewer than librdkafka lets be on their way.
pub(super) const FEW: usize = 4;

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
    /// Offset of the flight's last record, of those that are acknowledged.
    offset: i64,
    /// How many records the last flight had.
    size: usize,
    /// Whether somebody keeps a pace, and whether it holds the next flight back.
    is_paced: bool,
    is_held: bool,
    waiting: VecDeque<Prepared>,
}

impl State {
    fn must_wait(&self) -> bool {
        self.on_their_way > 0 || self.is_held
    }
}

/// One partition: they wait for nothing of each other.
struct Window {
    clients: Clients,
    topic: String,
    state: Mutex<State>,
    pace: Option<Pace>,
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
    /// Windows for the first `partitions` partitions of a topic. A flight goes when the one before is acknowledged.
    #[must_use]
    pub fn new(clients: &Clients, topic: &str, partitions: u16) -> Self {
        Self::with(clients, topic, partitions, || None)
    }

    /// As [`Self::new`], but a flight goes when the one before has come all the way round ([`Self::hear`]), or takes too long
    /// for it. Nothing waits before [`Self::keep_pace`] runs.
    #[must_use]
    pub fn paced(clients: &Clients, topic: &str, partitions: u16) -> Self {
        Self::with(clients, topic, partitions, || Some(Pace::new()))
    }

    fn with(clients: &Clients, topic: &str, partitions: u16, pace: impl Fn() -> Option<Pace>) -> Self {
        let window = |_| {
            Arc::new(Window {
                clients: clients.clone(),
                topic: topic.to_owned(),
                state: Mutex::default(),
                pace: pace(),
            })
        };
        Self {
            windows: (0..partitions).map(window).collect(),
        }
    }

    /// What came of a record, and of all before it, is known to those who asked.
    ///
    /// # Panics
    /// When the topic has no such partition.
    pub fn hear(&self, partition: i32, offset: i64) {
        if let Some(pace) = &self.of(partition).pace {
            pace.hear(offset);
        }
    }

    /// Keeps the pace of a partition's flights until the stop; then they go as those of [`Self::new`].
    ///
    /// # Panics
    /// When the topic has no such partition.
    pub async fn keep_pace(&self, partition: i32, stop: &Stop) {
        let window = self.of(partition);
        let Some(pace) = &window.pace else { return };
        window.set_paced(true);
        stop.unless_requested(async {
            loop {
                pace.next(|| window.lock().waiting.len()).await;
                window.go_on(window.lock());
            }
        })
        .await;
        window.set_paced(false);
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
        if state.must_wait() {
            if state.waiting.len() + records.len() > WAITING_MAX {
                return Err(records);
            }
            state.waiting.append(&mut records);
            if let Some(pace) = self.pace.as_ref().filter(|_| state.is_held) {
                pace.join();
            }
            return Ok(());
        }
        state.waiting = records;
        self.go_on(state);
        Ok(())
    }

    /// Hands a flight to librdkafka; its records count as on their way already.
    fn send(self: &Arc<Self>, flight: VecDeque<Prepared>) {
        let Clients { prompt, gathering } = &self.clients;
        let client = if flight.len() <= FEW { prompt } else { gathering };
        for record in flight {
            let window = Arc::clone(self);
            let record = record.and_then(move |offset| window.landed(offset));
            client.send_prepared(&self.topic, record);
            failpoint::reach("producer.queued_one");
        }
    }

    /// One less is on its way. After the last one all that wait go, or wait on for their pace; if one was not acknowledged, they
    /// are refused instead: no later record may overtake one that may come yet, and their senders hear it now and not after
    /// as long a wait of their own.
    fn landed(self: &Arc<Self>, offset: Option<i64>) {
        let mut state = self.lock();
        state.on_their_way -= 1;
        state.has_failed |= offset.is_none();
        state.offset = state.offset.max(offset.unwrap_or(-1));
        if state.on_their_way > 0 {
            return;
        }
        if std::mem::take(&mut state.has_failed) {
            let refused = std::mem::take(&mut state.waiting);
            drop(state);
            for record in refused {
                record.refuse(ProduceError::Behind);
            }
            return;
        }
        match self.pace.as_ref().filter(|_| state.is_paced) {
            Some(pace) => {
                state.is_held = true;
                pace.land(state.size, state.offset);
            }
            None => self.go_on(state),
        }
    }

    /// Sends what waits, as one flight.
    fn go_on(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        state.is_held = false;
        let flight = std::mem::take(&mut state.waiting);
        if flight.is_empty() {
            return;
        }
        debug_assert_eq!(state.on_their_way, 0, "one flight at a time");
        (state.on_their_way, state.size, state.offset) = (flight.len(), flight.len(), -1);
        drop(state);
        self.send(flight);
    }

    fn set_paced(self: &Arc<Self>, is_paced: bool) {
        let mut state = self.lock();
        state.is_paced = is_paced;
        if state.is_held {
            self.go_on(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::mpsc,
        task::{Context, Waker},
    };

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
        windows.of(0).landed(Some(0));
        assert_eq!(counts(&windows), (2, 0));
    }

    #[test]
    fn what_waits_behind_a_lost_record_is_refused_and_what_comes_later_goes() {
        let (windows, (fates, told)) = (windows(), mpsc::channel());
        for name in ["a", "b", "c"] {
            send(&windows, name, &fates);
        }
        windows.of(0).landed(None);
        let refused = ProduceError::Behind.to_string();
        assert_eq!(
            told.try_iter().collect::<Vec<_>>(),
            [("b", refused.clone()), ("c", refused)]
        );
        assert_eq!(counts(&windows), (0, 0));
        send(&windows, "d", &fates);
        assert_eq!(counts(&windows), (1, 0));
    }

    async fn until_counts_are(windows: &Windows, expected: (usize, usize)) {
        let reached = async {
            while counts(windows) != expected {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(10), reached).await;
        assert!(waited.is_ok(), "{:?} in place of {expected:?}", counts(windows));
    }

    #[tokio::test]
    async fn a_paced_flight_waits_for_the_echo_of_the_last_and_not_for_ever() {
        let clients = Clients::new(&"127.0.0.1:1".into(), "test", "0.3").expect("legal options");
        let (windows, (fates, _told)) = (Windows::paced(&clients, "topic", 1), mpsc::channel());
        let (stopper, stop) = crate::stop::pair();
        let pace = crate::task::spawn("pace", {
            let windows = windows.clone();
            async move { windows.keep_pace(0, &stop).await }
        });
        while !windows.of(0).lock().is_paced {
            tokio::task::yield_now().await;
        }
        send(&windows, "a", &fates);
        send(&windows, "b", &fates);
        assert_eq!(counts(&windows), (1, 1), "nobody waits at rest");
        windows.of(0).landed(Some(7));
        assert_eq!(
            counts(&windows),
            (0, 1),
            "acknowledged, but nobody knows what came of it"
        );
        windows.hear(0, 7);
        until_counts_are(&windows, (1, 0)).await;

        windows.of(0).landed(Some(8));
        send(&windows, "c", &fates);
        assert_eq!(counts(&windows), (0, 1), "who comes now waits too");
        windows.hear(0, 8);
        until_counts_are(&windows, (1, 0)).await;

        windows.hear(0, 9); // The echo may be faster than the acknowledgement.
        windows.of(0).landed(Some(9));
        while windows.of(0).lock().is_held {
            tokio::task::yield_now().await;
        }
        send(&windows, "d", &fates);
        assert_eq!(counts(&windows), (1, 0));

        send(&windows, "e", &fates);
        windows.of(0).landed(Some(10));
        until_counts_are(&windows, (1, 0)).await; // Nobody has heard of d.

        windows.of(0).landed(Some(11));
        send(&windows, "f", &fates);
        assert_eq!(counts(&windows), (0, 1));
        stopper.stop();
        pace.await.expect("it does not panic");
        assert_eq!(counts(&windows), (1, 0), "the stop holds nothing back");
        windows.of(0).landed(Some(12));
        send(&windows, "g", &fates);
        assert_eq!(counts(&windows), (1, 0));
    }

    #[tokio::test]
    async fn a_paced_flight_with_company_enough_waits_for_no_echo() {
        let clients = Clients::new(&"127.0.0.1:1".into(), "test", "0.3").expect("legal options");
        let (windows, (fates, _told)) = (Windows::paced(&clients, "topic", 1), mpsc::channel());
        let window = Arc::clone(windows.of(0));
        window.set_paced(true);
        send(&windows, "a", &fates);
        for _ in 1..super::super::pace::ENOUGH {
            send(&windows, "b", &fates);
        }
        window.landed(Some(7));
        let pace = window.pace.as_ref().expect("it is paced");
        let mut next = pin!(pace.next(|| window.lock().waiting.len()));
        let mut look = || next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!look(), "one is missing");
        send(&windows, "c", &fates);
        assert!(look(), "nobody else is waited for");
    }
}
