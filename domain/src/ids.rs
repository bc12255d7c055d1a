//! Ids that name the same thing from everywhere: a hold by its idempotency key, an event by its place in the log.
//!
//! Both are UUIDv8 (RFC 9562, section 5.8): 122 free bits around the version and the variant. The layout and golden
//! examples are in `docs/ids.md`, so that an upstream service can compute a hold id by itself.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    lane::Lane,
    values::{Invalid, Key, Tenant},
};

/// Places 122 bits around version 8 and variant 10 of a UUID.
fn uuid_v8(bits: u128) -> Uuid {
    let high_48 = (bits >> 74) & ((1 << 48) - 1);
    let middle_12 = (bits >> 62) & 0xfff;
    let low_62 = bits & ((1 << 62) - 1);
    Uuid::from_u128((high_48 << 80) | (8 << 76) | (middle_12 << 64) | (0b10 << 62) | low_62)
}

/// The 122 free bits of a UUIDv8.
fn bits_of(uuid: Uuid) -> u128 {
    let raw = uuid.as_u128();
    ((raw >> 80) << 74) | (((raw >> 64) & 0xfff) << 62) | (raw & ((1 << 62) - 1))
}

/// A hold: 12 bits of its home lane, then 110 bits of SHA-256(tenant, 0x00, idempotency key).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldId(Uuid);

impl HoldId {
    /// The hold that a key names in a lane: the same from any ingress, and for every retry.
    #[must_use]
    pub fn of(lane: Lane, tenant: &Tenant, key: &Key) -> Self {
        let digest = Sha256::new()
            .chain_update(tenant.as_str())
            .chain_update([0])
            .chain_update(key.as_str())
            .finalize();
        let first_16 = u128::from_be_bytes(digest[..16].try_into().expect("a digest has 32 bytes"));
        Self(uuid_v8((u128::from(lane.number()) << 110) | (first_16 >> 18)))
    }

    /// Parses a hold id in its hyphenated form.
    ///
    /// # Errors
    /// [`Invalid`] when it is not a UUIDv8.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let uuid = Uuid::try_parse(text).map_err(|_| Invalid::new("hold_id", "must be a UUID"))?;
        if uuid.get_version_num() != 8 || text.len() != 36 {
            return Err(Invalid::new("hold_id", "is not an id of a hold (a UUID of version 8)"));
        }
        Ok(Self(uuid))
    }

    /// The hold whose [`HoldId::bytes`] these are.
    ///
    /// # Errors
    /// [`Invalid`] when they are no UUIDv8.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
        Uuid::from_slice(bytes)
            .ok()
            .filter(|uuid| uuid.get_version_num() == 8)
            .map(Self)
            .ok_or_else(|| Invalid::new("hold_id", "must be the 16 bytes of a UUID of version 8"))
    }

    /// Its 16 bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// The hold's home lane.
    #[must_use]
    pub fn lane(self) -> Lane {
        let number = (self.0.as_u128() >> 116) & 0xfff;
        Lane::new(i32::try_from(number).expect("twelve bits")).expect("twelve bits are a lane")
    }

    /// The 110 hash bits, the same for one key in every lane.
    #[must_use]
    pub fn key_bits(self) -> u128 {
        bits_of(self.0) & ((1 << 110) - 1)
    }

    /// As a UUID.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An event: lane (12 bits), epoch (55) and command offset (55), so a void twin never has a valid event's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventId(Uuid);

impl EventId {
    /// The id of the decision on one command in one epoch.
    #[must_use]
    pub fn of(lane: Lane, epoch: i64, command_offset: i64) -> Self {
        let offset_bits = |offset: i64| u128::from(offset.unsigned_abs()) & ((1 << 55) - 1);
        Self(uuid_v8(
            (u128::from(lane.number()) << 110) | (offset_bits(epoch) << 55) | offset_bits(command_offset),
        ))
    }

    /// An id read from a record; a `LaneOpened` has its nonce.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// As a UUID.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(lane: i32, tenant: &str, key: &str) -> HoldId {
        HoldId::of(
            Lane::new(lane).unwrap(),
            &Tenant::parse(tenant).unwrap(),
            &Key::parse("key", key).unwrap(),
        )
    }

    #[test]
    fn a_hold_id_gives_its_lane_back_and_repeats_its_hash_across_lanes() {
        for lane in [0, 1, 3, 4095] {
            let id = hold(lane, "default", "order-1");
            assert_eq!(id.lane().partition(), lane);
            assert_eq!(HoldId::parse(&id.to_string()).unwrap(), id);
            assert_eq!(id.key_bits(), hold(0, "default", "order-1").key_bits());
        }
        assert_ne!(hold(0, "default", "a").key_bits(), hold(0, "default", "b").key_bits());
        assert_ne!(hold(0, "x", "a").key_bits(), hold(0, "y", "a").key_bits());
    }

    /// Golden: `docs/ids.md` shows the same values.
    #[test]
    fn golden_hold_ids() {
        let golden = [
            (0, "default", "order-1", "0002a2d1-d62a-8541-b28a-5f5b0c7567e4"),
            (2, "default", "order-1", "0022a2d1-d62a-8541-b28a-5f5b0c7567e4"),
            (3, "acme", "2026-11-22/basket-7", "003d62be-8920-889b-8dca-f8a66b537c6f"),
            (4095, "default", "x", "fffa2774-9426-80a8-b1c5-ca7e69a1d0a8"),
        ];
        for (lane, tenant, key, id) in golden {
            assert_eq!(hold(lane, tenant, key).to_string(), id);
        }
    }

    #[test]
    fn event_ids_differ_by_epoch_and_offset() {
        let lane = Lane::new(3).unwrap();
        let id = EventId::of(lane, 7, 42);
        assert_eq!(id.uuid().get_version_num(), 8);
        assert_eq!(bits_of(id.uuid()), (3 << 110) | (7 << 55) | 42);
        assert_ne!(id, EventId::of(lane, 8, 42));
    }
}
