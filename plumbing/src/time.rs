//! The wall clock, and its only reader.
//!
//! Decisions never use it: their time is log time, which comes with the record. What is left for it are the edges: the
//! `issued_at` of a command, the age of a record on a dashboard, the search for deadlines that may be due.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z, by this machine's clock, which may step in both directions.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn now_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        // A clock before 1970 is wrong, but it is not ours to crash over it.
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}
