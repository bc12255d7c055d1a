//! Commands: records that ask. Each is legal by construction; what cannot be built is refused before it is decided.

use crate::{
    cart::{CartLine, PartId, PartStep},
    event::Shortage,
    ids::HoldId,
    lane::Lane,
    refusal::Reason,
    values::{Invalid, Key, Lines, Millis, Quantity, Sku, Tenant, Text, UserId},
};

/// What to do when not all lines can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Hold the whole cart or nothing.
    #[default]
    AllOrNothing,
    /// Hold the lines that are there, each whole or not at all.
    PerLine,
    /// Hold as many units of each line as there are.
    UpTo,
}

impl Policy {
    /// All policies.
    pub const ALL: [Self; 3] = [Self::AllOrNothing, Self::PerLine, Self::UpTo];

    /// The policy's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AllOrNothing => "all_or_nothing",
            Self::PerLine => "per_line",
            Self::UpTo => "up_to",
        }
    }

    /// Parses a policy's name.
    ///
    /// # Errors
    /// [`Invalid`] for a name that this version does not know.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.name() == name)
            .ok_or_else(|| Invalid::new("policy", "must be all_or_nothing, per_line or up_to"))
    }
}

/// Where a forwarded or resent command comes from: it is applied once per source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// Topic of the original record.
    pub topic: String,
    /// Partition of the original record.
    pub partition: i32,
    /// Offset of the original record.
    pub offset: i64,
    /// Log time of the original record, in milliseconds.
    pub log_time: Millis,
}

/// A request for units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserve {
    /// Names the hold together with the tenant.
    pub idempotency_key: Key,
    /// Who buys.
    pub user_id: UserId,
    /// What.
    pub lines: Lines,
    /// How long, in milliseconds; `None` for the default.
    pub ttl_ms: Option<Millis>,
    /// What to do when not all lines can be held.
    pub policy: Policy,
    /// The caller's own reference.
    pub external_ref: Option<Text>,
}

/// How stock on hand changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjustment {
    /// By so many units.
    Change(i64),
    /// To so many units.
    Set(i64),
}

/// What a command asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandBody {
    /// Hold units.
    Reserve(Reserve),
    /// The buyer has paid.
    Confirm {
        /// Which hold.
        hold_id: HoldId,
        /// The payment.
        payment_ref: Text,
    },
    /// Give the units back.
    Cancel {
        /// Which hold.
        hold_id: HoldId,
        /// Why.
        reason: Text,
    },
    /// Move the deadline to log time + ttl.
    Extend {
        /// Which hold.
        hold_id: HoldId,
        /// How long from now, in milliseconds.
        ttl_ms: Millis,
    },
    /// Give the units back if the deadline has passed.
    Release {
        /// Which hold.
        hold_id: HoldId,
        /// Only this attempt of it.
        attempt: Option<i64>,
    },
    /// Change stock on hand; makes the SKU when it is new.
    AdjustStock {
        /// Which SKU.
        sku: Sku,
        /// How.
        adjustment: Adjustment,
        /// Refuse unless this many units are on hand.
        expected_on_hand: Option<i64>,
        /// Why.
        reason: Text,
        /// The caller's document.
        reference: Option<Text>,
        /// Who.
        actor: Text,
    },
    /// A payment begins: the hold's clock stands still until the payment ends, or log time + cap.
    BeginPayment {
        /// Which hold.
        hold_id: HoldId,
        /// The payment.
        payment_ref: Text,
        /// How long it may take from now, in milliseconds.
        cap_ms: Millis,
    },
    /// The payment failed: the hold is held again, with the time that it had left when the payment began.
    AbortPayment {
        /// Which hold.
        hold_id: HoldId,
        /// The payment.
        payment_ref: Text,
        /// Why.
        reason: Text,
    },
    /// The units of a confirmed hold leave the warehouse.
    Ship {
        /// Which hold.
        hold_id: HoldId,
        /// The shipment.
        reference: Text,
    },
    /// A confirmed hold is given back before it is shipped.
    Unallocate {
        /// Which hold.
        hold_id: HoldId,
        /// Why.
        reason: Text,
        /// Who.
        actor: Text,
    },
    /// Units come back to the warehouse.
    ReturnStock {
        /// Which SKU.
        sku: Sku,
        /// How many units.
        quantity: Quantity,
        /// The hold that they were sold by.
        hold_id: Option<HoldId>,
        /// Why.
        reason: Text,
        /// The caller's document.
        reference: Option<Text>,
        /// Who.
        actor: Text,
    },
    /// A payment has to be given back: its hold is gone. A fact; it moves nothing.
    RequireRefund {
        /// Which hold it was for.
        hold_id: HoldId,
        /// The payment.
        payment_ref: Text,
        /// Why.
        reason: Text,
    },
    /// Hold this lane's lines of another lane's cart, all or nothing, and pass the cart on.
    Relay {
        /// Which cart.
        part: PartId,
        /// The lane that is asked.
        lane: Lane,
        /// Who buys.
        user_id: UserId,
        /// Not at or after this log time, in milliseconds.
        relay_until: Millis,
        /// All lines of the cart.
        cart: Vec<CartLine>,
    },
    /// To the home lane: all lanes hold.
    RelayDone {
        /// Which cart.
        part: PartId,
    },
    /// To the home lane: a lane cannot hold its lines.
    RelayFailed {
        /// Which cart.
        part: PartId,
        /// Why.
        reason: Reason,
        /// That lane's lines that could not be held.
        shortages: Vec<Shortage>,
    },
    /// From the home lane: what became of the cart.
    Follow {
        /// Which cart.
        part: PartId,
        /// The lane that is told.
        lane: Lane,
        /// Until when a relay of the cart may still hold, in log milliseconds.
        relay_until: Millis,
        /// What.
        step: PartStep,
    },
    /// Replace the SKU's policy; makes the SKU when it is new.
    ConfigureSku {
        /// Which SKU.
        sku: Sku,
        /// The new policy.
        policy: crate::stock::SkuPolicy,
    },
}

impl CommandBody {
    /// The body's name, as in the schema.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reserve(_) => "Reserve",
            Self::Confirm { .. } => "Confirm",
            Self::Cancel { .. } => "Cancel",
            Self::Extend { .. } => "Extend",
            Self::Release { .. } => "Release",
            Self::AdjustStock { .. } => "AdjustStock",
            Self::ConfigureSku { .. } => "ConfigureSku",
            Self::BeginPayment { .. } => "BeginPayment",
            Self::AbortPayment { .. } => "AbortPayment",
            Self::Ship { .. } => "Ship",
            Self::Unallocate { .. } => "Unallocate",
            Self::ReturnStock { .. } => "ReturnStock",
            Self::RequireRefund { .. } => "RequireRefund",
            Self::Relay { .. } => "Relay",
            Self::RelayDone { .. } => "RelayDone",
            Self::RelayFailed { .. } => "RelayFailed",
            Self::Follow { step, .. } => match step {
                PartStep::Settle => "Settle",
                PartStep::Undo => "Undo",
                PartStep::Ship => "ShipPart",
                PartStep::Unallocate => "UnallocatePart",
            },
        }
    }

    /// The hold that it is about; a Reserve names one only together with its lane, and a return is about its SKU.
    #[must_use]
    pub fn hold_id(&self) -> Option<HoldId> {
        match self {
            Self::Confirm { hold_id, .. }
            | Self::Cancel { hold_id, .. }
            | Self::Extend { hold_id, .. }
            | Self::Release { hold_id, .. }
            | Self::BeginPayment { hold_id, .. }
            | Self::AbortPayment { hold_id, .. }
            | Self::Ship { hold_id, .. }
            | Self::Unallocate { hold_id, .. }
            | Self::RequireRefund { hold_id, .. } => Some(*hold_id),
            Self::Relay { part, .. }
            | Self::RelayDone { part }
            | Self::RelayFailed { part, .. }
            | Self::Follow { part, .. } => Some(part.hold_id),
            Self::Reserve(_) | Self::AdjustStock { .. } | Self::ConfigureSku { .. } | Self::ReturnStock { .. } => None,
        }
    }
}

/// A record that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Unique per command; names AdjustStock, ConfigureSku, Extend, ReturnStock and RequireRefund for idempotency.
    pub command_id: Key,
    /// Unique per request; copied into the event, where the waiting client finds it.
    pub request_id: Key,
    /// Whose stock.
    pub tenant: Tenant,
    /// The producer's clock, in milliseconds; decides nothing.
    pub issued_at: Millis,
    /// Set on a copy that was forwarded or resent.
    pub source: Option<Source>,
    /// What it asks.
    pub body: CommandBody,
}
