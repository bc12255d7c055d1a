//! Fingerprints: what an idempotency key or a command id stands for, so that the same key with another body is an error.
//!
//! SHA-256 over the body's fields, each as its length (8 bytes, big-endian) and its bytes, so that no two bodies run
//! together; an absent field is the length 2^64-1.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::{
    command::{Adjustment, Reserve},
    ids::HoldId,
    stock::SkuPolicy,
    values::{Millis, Quantity, Sku, Text},
};

/// The SHA-256 of what a key stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// A fingerprint read back from where it was stored; `None` unless it has 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Of a Reserve: user, summed lines by SKU, ttl, policy and external reference.
    #[must_use]
    pub fn of_reserve(reserve: &Reserve) -> Self {
        let mut fields = Fields::new("Reserve");
        fields.text(reserve.user_id.as_str());
        for line in &reserve.lines {
            fields.text(line.sku.as_str());
            fields.number(Some(line.quantity.units()));
        }
        fields.number(reserve.ttl_ms);
        fields.text(reserve.policy.name());
        fields.optional(reserve.external_ref.as_ref());
        fields.finish()
    }

    /// Of an Extend.
    #[must_use]
    pub fn of_extend(hold_id: HoldId, ttl_ms: Millis) -> Self {
        let mut fields = Fields::new("Extend");
        fields.bytes(hold_id.uuid().as_bytes());
        fields.number(Some(ttl_ms));
        fields.finish()
    }

    /// Of an AdjustStock.
    #[must_use]
    pub fn of_adjustment(
        sku: &Sku,
        adjustment: Adjustment,
        expected_on_hand: Option<i64>,
        reason: &Text,
        reference: Option<&Text>,
        actor: &Text,
    ) -> Self {
        let mut fields = Fields::new("AdjustStock");
        fields.text(sku.as_str());
        match adjustment {
            Adjustment::Change(units) => {
                fields.text("change");
                fields.number(Some(units));
            }
            Adjustment::Set(units) => {
                fields.text("set");
                fields.number(Some(units));
            }
        }
        fields.number(expected_on_hand);
        fields.text(reason.as_str());
        fields.optional(reference);
        fields.text(actor.as_str());
        fields.finish()
    }

    /// Of a ReturnStock.
    #[must_use]
    pub fn of_return(
        sku: &Sku,
        quantity: Quantity,
        hold_id: Option<HoldId>,
        reason: &Text,
        reference: Option<&Text>,
        actor: &Text,
    ) -> Self {
        let mut fields = Fields::new("ReturnStock");
        fields.text(sku.as_str());
        fields.number(Some(quantity.units()));
        match hold_id {
            Some(hold_id) => fields.bytes(hold_id.uuid().as_bytes()),
            None => fields.absent(),
        }
        fields.text(reason.as_str());
        fields.optional(reference);
        fields.text(actor.as_str());
        fields.finish()
    }

    /// Of a RequireRefund.
    #[must_use]
    pub fn of_refund(hold_id: HoldId, payment_ref: &Text, reason: &Text) -> Self {
        let mut fields = Fields::new("RequireRefund");
        fields.bytes(hold_id.uuid().as_bytes());
        fields.text(payment_ref.as_str());
        fields.text(reason.as_str());
        fields.finish()
    }

    /// Of a ConfigureSku.
    #[must_use]
    pub fn of_policy(sku: &Sku, policy: &SkuPolicy) -> Self {
        let mut fields = Fields::new("ConfigureSku");
        fields.text(sku.as_str());
        fields.number(Some(policy.safety_stock));
        fields.number(policy.max_per_user);
        fields.finish()
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

struct Fields(Sha256);

impl Fields {
    fn new(kind: &str) -> Self {
        let mut fields = Self(Sha256::new());
        fields.text(kind);
        fields
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn absent(&mut self) {
        self.0.update(u64::MAX.to_be_bytes());
    }

    fn optional(&mut self, text: Option<&Text>) {
        match text {
            Some(text) => self.text(text.as_str()),
            None => self.absent(),
        }
    }

    fn number(&mut self, number: Option<i64>) {
        match number {
            Some(number) => self.bytes(&number.to_be_bytes()),
            None => self.absent(),
        }
    }

    fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }
}
