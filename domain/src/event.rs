//! Events: records that say what was decided, and carry all that a rebuild needs.

use uuid::Uuid;

use crate::{
    cart::{Cart, PartStep, PartTerms},
    command::{Policy, Source},
    fingerprint::Fingerprint,
    hold::HoldState,
    ids::{EventId, HoldId},
    refusal::Reason,
    stock::SkuPolicy,
    values::{Key, Millis, Sku, Tenant, Text, UserId},
};

/// One SKU of a decision, with its counters after the decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLine {
    /// Which SKU.
    pub sku: Sku,
    /// Units that the hold has or asked for; 0 for stock commands.
    pub quantity: i64,
    /// Units of this SKU that the hold's user holds or has bought, after the decision.
    pub counted: i64,
    /// Units on hand.
    pub on_hand: i64,
    /// Units held.
    pub held: i64,
    /// Units allocated.
    pub allocated: i64,
    /// The SKU's version; 0 when it does not exist.
    pub sku_version: i64,
}

/// A line that could not be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// Which SKU.
    pub sku: Sku,
    /// Units asked for.
    pub requested: i64,
    /// Units that were available (for a purchase limit: that the user may still have).
    pub available: i64,
    /// Whether units that would do are in carts that are not decided yet: they may come back within seconds.
    pub retry: bool,
}

/// What a hold is, after the decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldTerms {
    /// The offset of its Reserve: a key may be used again after a rejection.
    pub attempt: i64,
    /// Its state after the decision.
    pub state: HoldState,
    /// Who buys.
    pub user_id: UserId,
    /// The key that names it.
    pub idempotency_key: Key,
    /// What the key stands for.
    pub fingerprint: Fingerprint,
    /// Log time of its Reserve, in milliseconds.
    pub created_at: Millis,
    /// Its deadline, in milliseconds; while it is paying, the payment's.
    pub expires_at: Millis,
    /// Log time of its last change of state or deadline, in milliseconds.
    pub changed_at: Millis,
    /// What was to be done when not all lines could be held.
    pub policy: Policy,
    /// The caller's own reference.
    pub external_ref: Option<Text>,
    /// The payment that is being made or was tried last; once it is confirmed, the one that paid.
    pub payment_ref: Option<Text>,
    /// Why it was cancelled, or given back after it was paid.
    pub reason: Option<Text>,
    /// While it is paying: the time that it had left when the payment began, in milliseconds.
    pub remaining_ms: Option<Millis>,
    /// What it is made of, where its lines live in several lanes.
    pub cart: Option<Cart>,
    /// SKU and units that were asked for, ascending by SKU, where the policy lets the lines be others.
    pub asked: Vec<(Sku, i64)>,
}

impl HoldTerms {
    /// All lines of a hold that has `own` in its home lane, ascending by SKU.
    #[must_use]
    pub fn all_lines(&self, own: &[(Sku, i64)]) -> Vec<(Sku, i64)> {
        let Some(cart) = &self.cart else {
            return own.to_vec();
        };
        let lines = cart.lines.iter();
        let mut all: Vec<_> = lines.map(|line| (line.sku.clone(), line.quantity)).collect();
        all.sort();
        all
    }
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventBody {
    /// A new owner's turn begins.
    LaneOpened {
        /// The owner's own mark.
        nonce: Uuid,
        /// Host and process, for people.
        owner: Text,
    },
    /// This lane holds its lines of a cart over several lanes; the others are asked one after the other.
    HoldPending,
    /// Units are held, in all lanes.
    HoldCreated,
    /// Nothing is held.
    HoldRejected {
        /// Why.
        reason: Reason,
        /// Every line that could not be held.
        shortages: Vec<Shortage>,
    },
    /// Held units are allocated.
    HoldConfirmed,
    /// Held units are back on sale.
    HoldCancelled,
    /// Held units are back on sale by the deadline.
    HoldExpired,
    /// The deadline moved.
    HoldExtended {
        /// What the command id stands for.
        fingerprint: Fingerprint,
    },
    /// The command was a repetition; the hold is as it says.
    HoldReplayed,
    /// Stock on hand changed.
    StockAdjusted {
        /// By so many units.
        change: i64,
        /// Why.
        reason: Text,
        /// The caller's document.
        reference: Option<Text>,
        /// Who.
        actor: Text,
        /// What the command id stands for.
        fingerprint: Fingerprint,
    },
    /// The adjustment or policy was applied before; the stock is as it says.
    StockReplayed,
    /// The SKU's policy was replaced.
    SkuConfigured {
        /// The policy from now on.
        policy: SkuPolicy,
        /// What the command id stands for.
        fingerprint: Fingerprint,
    },
    /// A payment has begun: the hold's clock stands still until the payment's cap.
    PaymentBegun,
    /// The payment failed: the hold's clock goes on.
    PaymentAborted {
        /// Why.
        reason: Text,
    },
    /// Allocated units have left the warehouse.
    HoldShipped {
        /// The shipment.
        reference: Text,
    },
    /// Allocated units are back on sale.
    HoldUnallocated {
        /// Why.
        reason: Text,
        /// Who.
        actor: Text,
    },
    /// Units came back to the warehouse.
    StockReturned {
        /// How many.
        quantity: i64,
        /// The hold that they were sold by.
        hold_id: Option<HoldId>,
        /// Why.
        reason: Text,
        /// The caller's document.
        reference: Option<Text>,
        /// Who.
        actor: Text,
        /// What the command id stands for.
        fingerprint: Fingerprint,
    },
    /// A payment has to be given back; nothing moved.
    RefundRequired {
        /// The payment.
        payment_ref: Text,
        /// Why.
        reason: Text,
        /// What the command id stands for.
        fingerprint: Fingerprint,
    },
    /// This lane holds its lines of another lane's cart.
    PartHeld,
    /// This lane cannot hold its lines of another lane's cart.
    PartRefused {
        /// Why.
        reason: Reason,
        /// Every line that could not be held.
        shortages: Vec<Shortage>,
    },
    /// The part of another lane's cart went where that lane's decision sends it.
    PartFollowed {
        /// Where.
        step: PartStep,
    },
    /// A record between the lanes of a cart that changes nothing here: it came again, or too late.
    RelayIgnored,
    /// The command was in the wrong lane; a copy goes to its own.
    CommandForwarded {
        /// The lane where it belongs.
        to_lane: i32,
    },
    /// Offsets up to the command offset hold no record.
    OffsetsSkipped,
    /// A decided "no" that concerns no new hold.
    CommandRefused {
        /// Why.
        reason: Reason,
        /// A sentence for whoever sent it.
        message: Text,
    },
}

impl EventBody {
    /// The body's name, as in the schema and in the `ce_type` header.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::LaneOpened { .. } => "LaneOpened",
            Self::HoldPending => "HoldPending",
            Self::HoldCreated => "HoldCreated",
            Self::HoldRejected { .. } => "HoldRejected",
            Self::HoldConfirmed => "HoldConfirmed",
            Self::HoldCancelled => "HoldCancelled",
            Self::HoldExpired => "HoldExpired",
            Self::HoldExtended { .. } => "HoldExtended",
            Self::HoldReplayed => "HoldReplayed",
            Self::StockAdjusted { .. } => "StockAdjusted",
            Self::StockReplayed => "StockReplayed",
            Self::SkuConfigured { .. } => "SkuConfigured",
            Self::PartHeld => "PartHeld",
            Self::PartRefused { .. } => "PartRefused",
            Self::PartFollowed { step } => match step {
                PartStep::Settle => "PartSettled",
                PartStep::Undo => "PartUndone",
                PartStep::Ship => "PartShipped",
                PartStep::Unallocate => "PartUnallocated",
            },
            Self::RelayIgnored => "RelayIgnored",
            Self::CommandForwarded { .. } => "CommandForwarded",
            Self::OffsetsSkipped => "OffsetsSkipped",
            Self::CommandRefused { .. } => "CommandRefused",
            Self::PaymentBegun => "PaymentBegun",
            Self::PaymentAborted { .. } => "PaymentAborted",
            Self::HoldShipped { .. } => "HoldShipped",
            Self::HoldUnallocated { .. } => "HoldUnallocated",
            Self::StockReturned { .. } => "StockReturned",
            Self::RefundRequired { .. } => "RefundRequired",
        }
    }
}

/// A record that says what was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Deterministic; a `LaneOpened` has its nonce.
    pub event_id: EventId,
    /// Copied from the command; empty for a `LaneOpened`, a skip and a malformed record.
    pub request_id: String,
    /// The owner's turn that decided; -1 in a `LaneOpened`.
    pub epoch: i64,
    /// The command decided; -1 in a `LaneOpened`.
    pub command_offset: i64,
    /// The command decided before; -1 in a `LaneOpened`.
    pub previous_command_offset: i64,
    /// Copied from the command; empty as `request_id`.
    pub command_id: String,
    /// Whose stock.
    pub tenant: Tenant,
    /// The hold that it is about.
    pub hold_id: Option<HoldId>,
    /// Log time, in milliseconds.
    pub decided_at: Millis,
    /// Copied from a forwarded command that was applied here.
    pub source: Option<Source>,
    /// The hold after the decision.
    pub hold: Option<HoldTerms>,
    /// This lane's part of another lane's cart, after the decision.
    pub part: Option<PartTerms>,
    /// The SKUs after the decision, ascending.
    pub lines: Vec<EventLine>,
    /// What was decided.
    pub body: EventBody,
}
