//! Requests that have had their outcome: a record that a producer wrote twice must not get another one later.
//!
//! A producer whose broker dies before it answers may write a record twice, ours too: librdkafka begins a new sequence once any
//! of its records has timed out, and what it writes again then is new to the broker. What the state of a hold, a stock or a
//! command id shows to have been done is done once whatever comes again. A refusal leaves no such trace: so that what was
//! refused is not accepted a moment later, unseen, its request is remembered for as long as a producer may still send it.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::{
    event::{Event, EventBody},
    refusal::Reason,
    relay,
    values::{Invalid, Tenant},
};

/// What a request is remembered by: 64 bits of SHA-256 over its tenant and id. In a sale most requests are refused, so each may
/// cost no more than that; two of a million that are remembered are the same with a chance of 3 in 10^8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestMark(u64);

impl RequestMark {
    /// The mark of a request; `None` for a record that names none.
    #[must_use]
    pub fn of(tenant: &Tenant, request_id: &str) -> Option<Self> {
        if request_id.is_empty() {
            return None;
        }
        let digest = Sha256::new()
            .chain_update(tenant.as_str())
            .chain_update([0])
            .chain_update(request_id)
            .finalize();
        let first: [u8; 8] = digest[..8].try_into().expect("a digest has 32 bytes");
        Some(Self(u64::from_be_bytes(first)))
    }

    /// The request that a valid event ends in a way that its lane must remember.
    #[must_use]
    pub fn ended_by(event: &Event) -> Option<Self> {
        let ends = match &event.body {
            EventBody::CommandRefused { reason, .. } => is_lasting(*reason),
            // A pending cart's request was remembered when it became pending.
            EventBody::HoldRejected { reason, .. } => is_lasting(*reason) && !relay::decides_pending(event),
            // The hold may be as before a moment later, by another command: then the record would do it again.
            EventBody::HoldPending | EventBody::PaymentBegun | EventBody::PaymentAborted { .. } => true,
            EventBody::LaneOpened { .. }
            | EventBody::HoldCreated
            | EventBody::HoldConfirmed
            | EventBody::HoldCancelled
            | EventBody::HoldExpired
            | EventBody::HoldExtended { .. }
            | EventBody::HoldReplayed
            | EventBody::HoldShipped { .. }
            | EventBody::HoldUnallocated { .. }
            | EventBody::StockAdjusted { .. }
            | EventBody::StockReturned { .. }
            | EventBody::StockReplayed
            | EventBody::SkuConfigured { .. }
            | EventBody::RefundRequired { .. }
            | EventBody::PartHeld
            | EventBody::PartRefused { .. }
            | EventBody::PartFollowed { .. }
            | EventBody::RelayIgnored
            | EventBody::CommandForwarded { .. }
            | EventBody::OffsetsSkipped => false,
        };
        ends.then(|| Self::of(&event.tenant, &event.request_id)).flatten()
    }

    /// The mark that was stored as a number.
    #[must_use]
    pub fn from_number(number: i64) -> Self {
        Self(u64::from_be_bytes(number.to_be_bytes()))
    }

    /// The mark as a number to store.
    #[must_use]
    pub fn number(self) -> i64 {
        i64::from_be_bytes(self.0.to_be_bytes())
    }

    /// The mark whose [`RequestMark::bytes`] these are.
    ///
    /// # Errors
    /// [`Invalid`] unless there are 8.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
        let bytes = bytes.try_into();
        bytes
            .map(|bytes| Self(u64::from_be_bytes(bytes)))
            .map_err(|_| Invalid::new("request mark", "must be 8 bytes"))
    }

    /// Its 8 bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for RequestMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Whether a refusal is the request's outcome: a lane that is short of memory says "later" (503 over HTTP), and has none to spare.
fn is_lasting(reason: Reason) -> bool {
    !matches!(reason, Reason::Busy | Reason::Stale | Reason::AlreadyApplied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_its_tenants_and_survives_being_stored() {
        let (tenant, other) = (Tenant::parse("a").unwrap(), Tenant::parse("b").unwrap());
        let mark = RequestMark::of(&tenant, "request").unwrap();
        assert_ne!(Some(mark), RequestMark::of(&other, "request"));
        assert_ne!(Some(mark), RequestMark::of(&tenant, "request2"));
        assert_eq!(RequestMark::of(&tenant, ""), None);
        assert_eq!(RequestMark::from_number(mark.number()), mark);
        assert_eq!(RequestMark::from_bytes(&mark.bytes()), Ok(mark));
        for wrong in [&b""[..], b"1234567", b"123456789"] {
            assert!(RequestMark::from_bytes(wrong).is_err(), "{wrong:?}");
        }
    }
}
