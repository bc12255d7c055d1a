//! What clients did and were told: one JSON object a line, in any order.

use serde::{Deserialize, Serialize};

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Hold units, under the key.
    Reserve,
    /// Pay for the hold of the key.
    Confirm,
    /// Give the hold of the key back.
    Cancel,
    /// Change stock on hand, once per key.
    Adjust,
    /// A command produced to Kafka with the key as its command id.
    Send,
}

/// What the client was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub enum Reply {
    /// It is as asked.
    Done {
        /// The hold, where there is one.
        hold_id: Option<String>,
        /// Whether the answer says that it was so before.
        replayed: bool,
    },
    /// A decided "no".
    Refused {
        /// Its stable code.
        code: String,
        /// Whether it was given before the log, and says so.
        early: bool,
    },
    /// Taken, or perhaps taken, and not decided: 202, 503, no answer at all.
    Unknown,
}

/// One request and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// What was asked.
    pub call: Call,
    /// The idempotency key, of the hold that is meant.
    pub key: String,
    /// Of what.
    pub sku: String,
    /// How many.
    pub quantity: i64,
    /// For whom.
    pub user: String,
    /// When it was asked, in microseconds of the client's monotonic clock.
    pub invoked_us: i64,
    /// When the answer came, or the client gave up.
    pub returned_us: i64,
    /// What the client was told.
    #[serde(flatten)]
    pub reply: Reply,
}
