//! Rooms: who watches which SKU, and what they are told.
//!
//! ```text
//! tail -> changed (a flag, once per publication) -> publisher, every 100 ms per SKU at most -> room -> its viewers
//! ```
//!
//! A room holds one value, the SKU's newest counters, rendered once for all viewers. A viewer that is slow misses values
//! in between and never the last one; nothing is queued for anybody.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::extract::ws::Utf8Bytes;
use domain::{EventLine, Sku, SkuPolicy, Stock};
use plumbing::stop::Stop;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{bodies::StockBody, memory::Memory};

/// Shortest time between two updates of one SKU: at most ten a second.
pub const PACE: Duration = Duration::from_millis(100);
/// How long a viewer waits for what another ingress has told it already.
const BEHIND_MAX: Duration = Duration::from_secs(1);
/// The publisher's rest between two rounds, so that thousands of busy SKUs cost a bounded number of rounds.
const BREATH: Duration = Duration::from_millis(5);

/// A SKU's counters as viewers get them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The SKU's version: grows with every change.
    pub version: i64,
    /// `{"stock":...}` with the counters as `GET /v1/stock/{sku}` answers them: one text for all viewers.
    pub message: Utf8Bytes,
}

const BEFORE: &str = "{\"stock\":";
const AFTER: &str = "}";

impl Update {
    fn of(sku: &Sku, stock: Stock) -> Self {
        let body = StockBody::of(sku, stock, Some(stock.policy));
        let json = serde_json::to_string(&body).expect("texts and numbers are JSON");
        Self {
            version: stock.version,
            message: format!("{BEFORE}{json}{AFTER}").into(),
        }
    }

    /// The counters alone, as JSON.
    pub fn stock(&self) -> &str {
        &self.message[BEFORE.len()..self.message.len() - AFTER.len()]
    }
}

struct Room {
    sku: Sku,
    /// Changed since the last publication, and in the queue for the next.
    is_queued: AtomicBool,
    newest: watch::Sender<Option<Update>>,
    paced: Mutex<Paced>,
}

#[derive(Default)]
struct Paced {
    published_at: Option<Instant>,
    /// What a viewer's snapshot said, for events that do not tell the policy.
    policy: Option<SkuPolicy>,
}

impl Room {
    fn paced(&self) -> std::sync::MutexGuard<'_, Paced> {
        self.paced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it may be published next.
    fn due(&self) -> Option<Instant> {
        self.paced().published_at.map(|at| at + PACE)
    }

    fn publish(&self, memory: &Memory, now: Instant) {
        // From here on a change queues the room again; what came before is in the memory already.
        self.is_queued.store(false, Ordering::SeqCst);
        let Some(known) = memory.stock(&self.sku) else {
            return;
        };
        let mut paced = self.paced();
        if known.policy_known {
            paced.policy = Some(known.stock.policy);
        }
        // Without the policy nobody can say what is available: the first snapshot brings it, and asks again.
        let Some(policy) = paced.policy else { return };
        let told = self.newest.send_if_modified(|newest| {
            // The tail of an ingress that starts again reads old events again: nobody goes back.
            let is_newer = newest
                .as_ref()
                .is_none_or(|update| update.version < known.stock.version);
            if is_newer {
                *newest = Some(Update::of(&self.sku, Stock { policy, ..known.stock }));
            }
            is_newer
        });
        if told {
            paced.published_at = Some(now);
        }
    }
}

/// All rooms of one ingress.
#[derive(Default)]
pub struct Rooms {
    /// How many rooms there are: what the tail looks at first, and mostly last.
    open: AtomicUsize,
    rooms: RwLock<HashMap<Sku, Arc<Room>>>,
    queue: Mutex<Vec<Arc<Room>>>,
    queued: Notify,
}

impl std::fmt::Debug for Rooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rooms").finish_non_exhaustive()
    }
}

impl Rooms {
    /// The tail has taken an event into the memory. Costs one load when nobody watches anything.
    pub fn changed(&self, lines: &[EventLine]) {
        if self.open.load(Ordering::SeqCst) == 0 {
            return;
        }
        for line in lines {
            let room = self.read().get(&line.sku).map(Arc::clone);
            if let Some(room) = room {
                self.enqueue(room);
            }
        }
    }

    fn enqueue(&self, room: Arc<Room>) {
        if !room.is_queued.swap(true, Ordering::SeqCst) {
            self.queue().push(room);
            self.queued.notify_one();
        }
    }

    /// Sits down in a SKU's room. Take the snapshot afterwards: then no change falls between the two.
    pub fn join(self: &Arc<Self>, sku: &Sku) -> Seat {
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        let room = rooms.entry(sku.clone()).or_insert_with(|| {
            Arc::new(Room {
                sku: sku.clone(),
                is_queued: AtomicBool::new(false),
                newest: watch::Sender::new(None),
                paced: Mutex::default(),
            })
        });
        let seat = Seat {
            newest: Some(room.newest.subscribe()),
            room: Arc::clone(room),
            rooms: Arc::clone(self),
            told: -1,
        };
        self.count(&rooms);
        seat
    }

    fn leave(&self, room: &Arc<Room>) {
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        if room.newest.receiver_count() == 0 && rooms.get(&room.sku).is_some_and(|found| Arc::ptr_eq(found, room)) {
            rooms.remove(&room.sku);
        }
        self.count(&rooms);
    }

    fn count(&self, rooms: &HashMap<Sku, Arc<Room>>) {
        self.open.store(rooms.len(), Ordering::SeqCst);
        #[expect(clippy::cast_precision_loss, reason = "a gauge; exact below 2^53")]
        metrics::gauge!("holdfast_live_rooms").set(rooms.len() as f64);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Sku, Arc<Room>>> {
        self.rooms.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Room>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells rooms what has changed, each at its pace, until the stop.
    pub async fn publish(&self, memory: &Memory, stop: &Stop) {
        let mut waiting: Vec<Arc<Room>> = Vec::new();
        while !stop.is_requested() {
            waiting.append(&mut self.queue());
            let now = Instant::now();
            waiting.retain(|room| {
                let is_early = room.due().is_some_and(|due| due > now);
                if !is_early {
                    room.publish(memory, now);
                }
                is_early
            });
            let next = waiting.iter().filter_map(|room| room.due()).min();
            let rest = async {
                tokio::time::sleep(BREATH).await;
                match next {
                    Some(due) => drop(tokio::time::timeout_at(due, self.queued.notified()).await),
                    None => self.queued.notified().await,
                }
            };
            if stop.unless_requested(rest).await.is_none() {
                return;
            }
        }
    }
}

/// A viewer's place in a room; leaving is dropping it.
pub struct Seat {
    rooms: Arc<Rooms>,
    room: Arc<Room>,
    /// `None` only while it is dropped.
    newest: Option<watch::Receiver<Option<Update>>>,
    /// The newest version that the viewer has.
    told: i64,
}

impl Seat {
    /// The SKU of the room.
    #[must_use]
    pub fn sku(&self) -> &Sku {
        &self.room.sku
    }

    /// What the viewer is shown first: a snapshot that was taken after it sat down.
    pub fn snapshot(&mut self, stock: Stock) -> Update {
        let told_policy = self.room.paced().policy.replace(stock.policy);
        if told_policy.is_none() {
            // A change may have come by that could not be told without it.
            self.rooms.enqueue(Arc::clone(&self.room));
        }
        self.told = stock.version;
        Update::of(&self.room.sku, stock)
    }

    /// What is newest for a viewer who was told a version by another ingress, which this one may not have read yet. One that does not
    /// come within a second is of another life of the SKU: then the snapshot.
    pub async fn reach(&mut self, snapshot: Update, version: i64) -> Update {
        if version <= snapshot.version {
            return snapshot;
        }
        let told = std::mem::replace(&mut self.told, version - 1);
        match tokio::time::timeout(BEHIND_MAX, self.next()).await {
            Ok(update) => update,
            Err(_late) => {
                self.told = told;
                snapshot
            }
        }
    }

    /// The next update that is newer than what the viewer has. May be dropped half-way.
    pub async fn next(&mut self) -> Update {
        let told = self.told;
        let newest = self.newest.as_mut().expect("only drop takes it");
        let is_news = |update: &Option<Update>| update.as_ref().is_some_and(|update| update.version > told);
        let update = match newest.wait_for(is_news).await {
            Ok(update) => update.clone(),
            Err(_gone) => None,
        };
        match update {
            Some(update) => {
                self.told = update.version;
                update
            }
            // The seat keeps its room, and the room its sender.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        drop(self.newest.take());
        self.rooms.leave(&self.room);
    }
}
