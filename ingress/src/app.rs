//! What every handler shares: the options from the first moment on, the rest once the tail has caught up.

use std::sync::{Arc, OnceLock};

use domain::{HoldId, Lane, Lines, Policy, Reason, Sku, Tenant};
use plumbing::stop::Stop;
use tokio::sync::{Semaphore, watch};

use crate::{
    commands::Commander,
    live_stock::{Rooms, Viewers},
    memory::Memory,
    options::Options,
    problem::{AsOfBody, Problem},
    reads::Reads,
    sold_out::SoldOut,
};

/// Whose stock HTTP clients see.
#[must_use]
pub fn tenant() -> Tenant {
    Tenant::parse("default").expect("a legal tenant")
}

/// The state of the HTTP server.
#[derive(Debug)]
pub struct App {
    /// The ingress's options.
    pub options: Options,
    /// One permit per call in flight.
    pub in_flight: Arc<Semaphore>,
    /// Who watches live stock.
    pub viewers: Viewers,
    /// Ends what would never end by itself.
    pub stop: Stop,
    live: OnceLock<Live>,
}

/// What answers calls.
#[derive(Debug)]
pub struct Live {
    /// How many lanes there are.
    pub lanes: u16,
    /// Sends commands and waits for their events.
    pub commands: Commander,
    /// What the tail has seen.
    pub memory: Arc<Memory>,
    /// What Postgres has.
    pub reads: Reads,
    /// Who watches which SKU.
    pub rooms: Arc<Rooms>,
    /// What is refused while a lane is behind.
    pub sold_out: SoldOut,
    /// Whether the tail has read all lanes to their end. It starts again where its place in the log is gone.
    pub is_caught_up: watch::Receiver<bool>,
}

impl App {
    /// The server before anything else is up.
    #[must_use]
    pub fn new(options: Options, stop: Stop) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(options.in_flight_max.min(Semaphore::MAX_PERMITS))),
            viewers: Viewers::new(options.live_viewers_max),
            options,
            stop,
            live: OnceLock::new(),
        }
    }

    /// From now on calls are answered.
    pub fn open(&self, live: Live) {
        assert!(self.live.set(live).is_ok(), "an ingress starts once");
    }

    /// What answers calls.
    ///
    /// # Errors
    /// 503 until the tail has caught up with the log: what it knows before that is of the past.
    pub fn live(&self) -> Result<&Live, Problem> {
        match self.live.get() {
            Some(live) if *live.is_caught_up.borrow() => Ok(live),
            Some(_) => Err(Problem::unavailable(
                "the service reads the log again; /readyz says why",
            )),
            None => Err(Problem::unavailable(
                "the service is starting; /readyz says what it waits for",
            )),
        }
    }
}

impl Live {
    /// The lane of a SKU.
    #[must_use]
    pub fn lane_of(&self, sku: &Sku) -> Lane {
        Lane::of_sku(sku, self.lanes)
    }

    /// The home lane of a hold's lines: the lowest, which decides on it.
    ///
    /// # Errors
    /// 422 `several_lanes` where the policy needs the lines in one lane.
    pub fn home_lane(&self, lines: &Lines, policy: Policy) -> Result<Lane, Problem> {
        let first = &lines.as_slice()[0].sku;
        let (mut home, mut other) = (self.lane_of(first), None);
        for line in lines {
            let lane = self.lane_of(&line.sku);
            if lane != self.lane_of(first) {
                other.get_or_insert(&line.sku);
            }
            home = home.min(lane);
        }
        match other.filter(|_| policy != Policy::AllOrNothing) {
            None => Ok(home),
            Some(other) => Err(Problem::refused(
                Reason::SeveralLanes,
                format!(
                    "{first} and {other} live in different lanes and can only be held all or nothing: leave the policy \
                     {} away, or reserve them one by one",
                    policy.name()
                ),
            )),
        }
    }

    /// The lane of a hold.
    ///
    /// # Errors
    /// 404 `hold_not_found` for a lane that does not exist.
    pub fn lane_of_hold(&self, hold_id: HoldId) -> Result<Lane, Problem> {
        Some(hold_id.lane())
            .filter(|lane| lane.number() < self.lanes)
            .ok_or_else(|| hold_not_found(hold_id))
    }

    /// Claims a key for a hold.
    ///
    /// # Errors
    /// 422 `idempotency_key_reused` when it stands for a hold of another lane.
    pub fn claim_key(&self, hold_id: HoldId) -> Result<(), Problem> {
        self.memory.claim_key(hold_id).map_err(|taken| {
            let lane = taken.hold_id.lane();
            let how = if taken.decided {
                "stands for another hold"
            } else {
                "was sent with another SKU a moment ago and is not decided yet"
            };
            Problem::refused(
                Reason::IdempotencyKeyReused,
                format!("the key {how}: {}", taken.hold_id),
            )
            .hold_id(taken.hold_id)
            .read_to(AsOfBody {
                lane: lane.number(),
                event_offset: self.memory.last_event(lane),
            })
        })
    }
}

/// 404 `hold_not_found`.
#[must_use]
pub fn hold_not_found(hold_id: HoldId) -> Problem {
    Problem::refused(
        Reason::HoldNotFound,
        format!("there is no hold {hold_id}, or it is forgotten"),
    )
    .hold_id(hold_id)
}

/// 404 `unknown_sku`.
#[must_use]
pub fn unknown_sku(sku: &Sku) -> Problem {
    Problem::refused(Reason::UnknownSku, format!("SKU {sku} has never had stock or a policy"))
}
