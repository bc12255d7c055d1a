//! Random ids, and their only source.
//!
//! Made at the edge where something is born (a request, an owner's nonce) and an argument everywhere else, so that a test
//! can play the same story twice.

use uuid::Uuid;

/// A new random id (UUIDv4, RFC 9562 section 5.4): 122 bits from the operating system.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that makes random ids")]
pub fn random() -> Uuid {
    Uuid::new_v4()
}
