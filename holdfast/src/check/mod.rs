//! The checker: what clients saw, laid beside the log, in linear time.
//!
//! In     the clients' history (`history`), both topics (`dump`), when the last fault was healed.
//! Out    every violation of I1 to I5 and of the bounds, in a sentence each.
//!
//! What the engines keep of the log (I5, I6) is [`crate::verify`]'s to compare; this page needs only the log and the
//! clients' word. It knows nothing of faults: whatever was done to the system, the same must hold.

mod dump;
pub mod history;
mod lane;
pub mod payments;
mod replies;

pub use dump::{LaneLog, Log, SeenCommand, SeenEvent, dump};
use serde::Serialize;

use history::Op;

/// How long after the last fault was healed every command must be decided, in milliseconds.
pub const DECIDED_WITHIN_MS: i64 = 60_000;
/// How long after its deadline (or the healing) a held unit must be back on sale, in milliseconds.
pub const RELEASED_WITHIN_MS: i64 = 60_000;

/// What was promised and did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// I1: never oversold, and counters that follow from each other.
    Books,
    /// I2: one valid event per command, which answers it.
    OneDecision,
    /// I2: every decided reply equals a valid event.
    Reply,
    /// I3: one key, one outcome.
    OneOutcome,
    /// I4: one end per hold.
    OneEnd,
    /// What returned before another was asked for is decided before it, per lane.
    Order,
    /// I5: nothing made or lost.
    Conservation,
    /// I7: paid means served or refunded, and neither twice ([`payments`]).
    Paid,
    /// Log time does not run backwards.
    Time,
    /// Decided in time after healing.
    Decided,
    /// Released in time after the deadline.
    Released,
}

/// One violation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// What was promised.
    pub promise: Promise,
    /// A sentence that names the lane, offset, hold or key.
    pub what: String,
}

/// When things must be done by, in milliseconds of the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// When the last fault was healed.
    pub healed_ms: i64,
    /// When the log was read.
    pub read_ms: i64,
}

/// Decides whether everything that was promised held.
#[must_use]
pub fn check(ops: &[Op], log: &Log, bounds: Bounds) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut index = lane::Index::default();
    for lane in &log.lanes {
        lane::check(lane, bounds, &mut index, &mut violations);
    }
    replies::check(ops, log.count, &index, &mut violations);
    violations
}
