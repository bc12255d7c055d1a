//! What the tail remembers: the newest state of holds and SKUs, and which hold a key stands for. All of it bounded.
//!
//! In     valid events, from the tail's one thread, lane by lane in log order.
//! Out    reads that see the client's own writes, and the refusal of a key that lives in another lane (I3).
//!
//! A convenience, never a truth: what is not remembered is read from Postgres, and what slips through is found later.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{Event, EventBody, HoldId, HoldState, HoldTerms, Lane, Millis, Sku, SkuPolicy, Stock, Tenant, limits};
use schemas::picture::{Rejection, StoredHold};

use crate::recent::Recent;

/// A key that was sent and never decided stands in the way of other lanes for so long.
const SENT_FOR: Duration = Duration::from_secs(60);
/// Keys that were sent and are not decided, at most.
const SENT_MAX: usize = 100_000;

/// A hold as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldView {
    /// Its id.
    pub hold_id: HoldId,
    /// What it is.
    pub terms: HoldTerms,
    /// SKU and units, ascending by SKU.
    pub lines: Box<[(Sku, i64)]>,
    /// Why it was rejected.
    pub rejection: Option<Rejection>,
}

impl HoldView {
    fn of(event: &Event) -> Option<Self> {
        let (hold_id, terms) = (event.hold_id?, event.hold.clone()?);
        let rejection = match &event.body {
            EventBody::HoldRejected { reason, shortages } => Some(Rejection {
                reason: *reason,
                shortages: shortages.clone(),
            }),
            _ => None,
        };
        let own: Vec<_> = event
            .lines
            .iter()
            .map(|line| (line.sku.clone(), line.quantity))
            .collect();
        Some(Self {
            hold_id,
            lines: terms.all_lines(&own).into(),
            terms,
            rejection,
        })
    }
}

impl From<StoredHold> for HoldView {
    fn from(stored: StoredHold) -> Self {
        Self {
            hold_id: stored.hold_id,
            lines: stored.hold.all_lines().into(),
            terms: stored.hold.terms,
            rejection: stored.rejection,
        }
    }
}

/// A valid event on its way to whoever waits for it.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The event.
    pub event: Event,
    /// Its lane.
    pub lane: Lane,
    /// The hold after it.
    pub hold: Option<Arc<HoldView>>,
    /// The policy of its only SKU, where the tail knows it.
    pub policy: Option<SkuPolicy>,
}

/// A SKU's counters as the tail knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownStock {
    /// The counters; the policy in it counts only if `policy_known`.
    pub stock: Stock,
    /// Whether an event since the tail's start has told the policy.
    pub policy_known: bool,
}

/// Another hold that a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTaken {
    /// That hold.
    pub hold_id: HoldId,
    /// Whether its event has been read; else it was sent from here and is not decided yet.
    pub decided: bool,
}

struct Place {
    lane: Lane,
    event_offset: i64,
}

struct Inner {
    holds: Recent<HoldId, (Arc<HoldView>, i64)>,
    stock: Recent<Sku, (KnownStock, Place)>,
    /// Accepted holds that are remembered, by the hash of their key.
    keys: HashMap<u128, HoldId>,
    /// Holds that were asked for from here and are not decided, by the hash of their key.
    sent: Recent<u128, (HoldId, Instant)>,
    /// The newest log time of any lane.
    log_time: Millis,
    /// Per lane: the newest event that was forgotten. Postgres must be beyond it to be asked instead.
    forgotten: Vec<i64>,
}

/// The memory of one tail.
pub struct Memory {
    tenant: Tenant,
    inner: Mutex<Inner>,
    positions: Box<[Position]>,
}

#[derive(Default)]
struct Position {
    command: AtomicI64,
    event: AtomicI64,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Memory {
    /// An empty memory of one tenant's holds and SKUs.
    #[must_use]
    pub fn new(tenant: Tenant, lanes: u16, holds: usize, skus: usize) -> Self {
        let positions: Box<[Position]> = Lane::all(lanes).map(|_| Position::default()).collect();
        let memory = Self {
            tenant,
            inner: Mutex::new(Inner {
                holds: Recent::new(holds),
                stock: Recent::new(skus),
                keys: HashMap::new(),
                sent: Recent::new(SENT_MAX),
                log_time: 0,
                forgotten: vec![-1; usize::from(lanes)],
            }),
            positions,
        };
        memory.clear();
        memory
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// Forgets everything: the tail starts again elsewhere in the log.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.holds.clear();
        inner.stock.clear();
        inner.keys.clear();
        inner.sent.clear();
        inner.forgotten.fill(-1);
        for position in &self.positions {
            position.command.store(-1, Ordering::Release);
            position.event.store(-1, Ordering::Release);
        }
    }

    /// Takes a valid event; afterwards reads know it.
    pub fn take(&self, lane: Lane, event_offset: i64, event: Event) -> Decided {
        let hold = HoldView::of(&event).map(Arc::new);
        let mut policy = None;
        if event.tenant == self.tenant {
            let mut inner = self.lock();
            inner.log_time = inner.log_time.max(event.decided_at);
            inner.settle_key(&event);
            if let Some(hold) = &hold {
                inner.take_hold(hold, event_offset);
            }
            policy = inner.take_stock(&event, lane, event_offset);
        }
        self.pass(lane, event.command_offset, event_offset);
        Decided {
            event,
            lane,
            hold,
            policy,
        }
    }

    /// The tail has read up to this command and this event, `-1` for no command.
    pub fn pass(&self, lane: Lane, command_offset: i64, event_offset: i64) {
        let position = &self.positions[usize::from(lane.number())];
        position.command.fetch_max(command_offset, Ordering::Release);
        position.event.store(event_offset, Ordering::Release);
    }

    /// The last command whose event the tail has read. Read it before the memory: what it covers is there then.
    #[must_use]
    pub fn last_command(&self, lane: Lane) -> i64 {
        self.positions[usize::from(lane.number())]
            .command
            .load(Ordering::Acquire)
    }

    /// The last event that the tail has read.
    #[must_use]
    pub fn last_event(&self, lane: Lane) -> i64 {
        self.positions[usize::from(lane.number())].event.load(Ordering::Acquire)
    }

    /// The newest event of a lane that was forgotten, -1 for none.
    #[must_use]
    pub fn forgotten(&self, lane: Lane) -> i64 {
        self.lock().forgotten[usize::from(lane.number())]
    }

    /// A hold that is remembered.
    #[must_use]
    pub fn hold(&self, hold_id: HoldId) -> Option<Arc<HoldView>> {
        self.lock().holds.get(&hold_id).map(|(view, _)| Arc::clone(view))
    }

    /// A SKU that is remembered.
    #[must_use]
    pub fn stock(&self, sku: &Sku) -> Option<KnownStock> {
        self.lock().stock.get(sku).map(|(known, _)| *known)
    }

    /// Completes a SKU by what Postgres says of it, and returns the newer of both. The policy in Postgres is the current
    /// one if the row is older than the counters here: a change since then would have come by.
    #[must_use]
    pub fn with_stored(&self, sku: &Sku, stored: Stock) -> Stock {
        let mut inner = self.lock();
        let Some((known, _)) = inner.stock.get_mut(sku) else {
            return stored;
        };
        if stored.version > known.stock.version {
            return stored;
        }
        if !known.policy_known {
            known.stock.policy = stored.policy;
            known.policy_known = true;
        }
        known.stock
    }

    /// Claims a key for a hold that is about to be asked for.
    ///
    /// # Errors
    /// [`KeyTaken`] when the same key stands for a hold of another lane.
    pub fn claim_key(&self, hold_id: HoldId) -> Result<(), KeyTaken> {
        let key = hold_id.key_bits();
        let mut inner = self.lock();
        if let Some(known) = inner.keys.get(&key).copied().filter(|known| *known != hold_id)
            && inner.is_remembered(known)
        {
            return Err(KeyTaken {
                hold_id: known,
                decided: true,
            });
        }
        if let Some((sent, at)) = inner.sent.get(&key)
            && *sent != hold_id
            && at.elapsed() < SENT_FOR
        {
            return Err(KeyTaken {
                hold_id: *sent,
                decided: false,
            });
        }
        inner.sent.insert(key, (hold_id, Instant::now()));
        Ok(())
    }

    /// Whether a key stands for this hold, or was sent for it and is not decided: it may have units already.
    #[must_use]
    pub fn knows_key(&self, hold_id: HoldId) -> bool {
        let key = hold_id.key_bits();
        let inner = self.lock();
        inner.keys.get(&key) == Some(&hold_id) || inner.sent.get(&key).is_some_and(|(sent, _)| *sent == hold_id)
    }

    /// Gives a claimed key back: nothing was sent.
    pub fn release_key(&self, hold_id: HoldId) {
        self.lock().settle(hold_id);
    }
}

impl Inner {
    fn settle(&mut self, hold_id: HoldId) {
        let key = hold_id.key_bits();
        if self.sent.get(&key).is_some_and(|(sent, _)| *sent == hold_id) {
            self.sent.remove(&key);
        }
    }

    /// A Reserve is decided: its key is no longer only sent.
    fn settle_key(&mut self, event: &Event) {
        let decides_reserve = matches!(
            event.body,
            EventBody::HoldPending
                | EventBody::HoldCreated
                | EventBody::HoldRejected { .. }
                | EventBody::HoldReplayed
                | EventBody::CommandRefused { .. }
        );
        if let (true, Some(hold_id)) = (decides_reserve, event.hold_id) {
            self.settle(hold_id);
        }
    }

    /// As the lanes remember: what can change always, what is final for a day of log time.
    fn is_remembered(&self, hold_id: HoldId) -> bool {
        self.holds.get(&hold_id).is_some_and(|(view, _)| {
            let terms = &view.terms;
            terms.state != HoldState::Rejected
                && (!terms.state.is_final() || terms.changed_at + limits::REMEMBER_MS_DEFAULT > self.log_time)
        })
    }

    fn take_hold(&mut self, view: &Arc<HoldView>, event_offset: i64) {
        let (hold_id, key) = (view.hold_id, view.hold_id.key_bits());
        if view.terms.state == HoldState::Rejected {
            self.forget_key(hold_id);
        } else if self
            .keys
            .get(&key)
            .is_none_or(|other| *other == hold_id || !self.is_remembered(*other))
        {
            self.keys.insert(key, hold_id);
        }
        if let Some((gone, (_, at))) = self.holds.insert(hold_id, (Arc::clone(view), event_offset)) {
            self.forget_key(gone);
            self.mark_forgotten(gone.lane(), at);
        }
    }

    fn forget_key(&mut self, hold_id: HoldId) {
        let key = hold_id.key_bits();
        if self.keys.get(&key) == Some(&hold_id) {
            self.keys.remove(&key);
        }
    }

    fn mark_forgotten(&mut self, lane: Lane, event_offset: i64) {
        if let Some(newest) = self.forgotten.get_mut(usize::from(lane.number())) {
            *newest = event_offset.max(*newest);
        }
    }

    /// Returns the policy of the event's only SKU.
    fn take_stock(&mut self, event: &Event, lane: Lane, event_offset: i64) -> Option<SkuPolicy> {
        let mut policy = None;
        // A SKU without a version does not exist.
        for line in event.lines.iter().filter(|line| line.sku_version > 0) {
            let told = match &event.body {
                EventBody::SkuConfigured { policy, .. } => Some(*policy),
                // The first event of a SKU: nobody has set a policy.
                EventBody::StockAdjusted { .. } if line.sku_version == 1 => Some(SkuPolicy::default()),
                _ => self
                    .stock
                    .get(&line.sku)
                    .filter(|(known, _)| known.policy_known)
                    .map(|(known, _)| known.stock.policy),
            };
            let known = KnownStock {
                stock: Stock {
                    on_hand: line.on_hand,
                    held: line.held,
                    allocated: line.allocated,
                    version: line.sku_version,
                    policy: told.unwrap_or_default(),
                },
                policy_known: told.is_some(),
            };
            let gone = self
                .stock
                .insert(line.sku.clone(), (known, Place { lane, event_offset }));
            if let Some((_, (_, place))) = gone {
                self.mark_forgotten(place.lane, place.event_offset);
            }
            policy = told;
        }
        policy.filter(|_| event.lines.len() == 1)
    }
}
