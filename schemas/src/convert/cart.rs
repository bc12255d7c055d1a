//! What carts over several lanes add to commands and events <-> their records.

use domain::{Cart, CartLine, HoldId, Invalid, Lane, PartId, PartState, PartTerms, Reason, Shortage, Sku, UserId};

use crate::records;

impl From<&CartLine> for records::CartLine {
    fn from(line: &CartLine) -> Self {
        Self {
            lane: line.lane.partition(),
            sku: line.sku.to_string(),
            quantity: line.quantity,
        }
    }
}

impl TryFrom<records::CartLine> for CartLine {
    type Error = Invalid;

    fn try_from(line: records::CartLine) -> Result<Self, Invalid> {
        Ok(Self {
            lane: lane(line.lane)?,
            sku: Sku::parse(&line.sku)?,
            quantity: line.quantity,
        })
    }
}

impl From<&Cart> for records::Cart {
    fn from(cart: &Cart) -> Self {
        Self {
            relay_until: cart.relay_until,
            ttl_ms: cart.ttl_ms,
            lines: cart.lines.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<records::Cart> for Cart {
    type Error = Invalid;

    fn try_from(cart: records::Cart) -> Result<Self, Invalid> {
        Ok(Self {
            relay_until: cart.relay_until,
            ttl_ms: cart.ttl_ms,
            lines: lines(cart.lines)?,
        })
    }
}

impl From<&PartTerms> for records::PartTerms {
    fn from(terms: &PartTerms) -> Self {
        Self {
            attempt: terms.attempt,
            state: terms.state.name().to_owned(),
            user_id: terms.user_id.as_ref().map(ToString::to_string),
            relay_until: terms.relay_until,
            changed_at: terms.changed_at,
            cart: terms.cart.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<records::PartTerms> for PartTerms {
    type Error = Invalid;

    fn try_from(terms: records::PartTerms) -> Result<Self, Invalid> {
        Ok(Self {
            attempt: terms.attempt,
            state: PartState::from_name(&terms.state)
                .ok_or_else(|| Invalid::new("state", format!("`{}` is not known to this version", terms.state)))?,
            user_id: terms.user_id.as_deref().map(UserId::parse).transpose()?,
            relay_until: terms.relay_until,
            changed_at: terms.changed_at,
            cart: lines(terms.cart)?,
        })
    }
}

impl From<&Shortage> for records::Shortage {
    fn from(short: &Shortage) -> Self {
        Self {
            sku: short.sku.to_string(),
            requested: short.requested,
            available: short.available,
            retry: short.retry,
        }
    }
}

impl TryFrom<records::Shortage> for Shortage {
    type Error = Invalid;

    fn try_from(short: records::Shortage) -> Result<Self, Invalid> {
        Ok(Self {
            sku: Sku::parse(&short.sku)?,
            requested: short.requested,
            available: short.available,
            retry: short.retry,
        })
    }
}

pub(super) fn lines(lines: Vec<records::CartLine>) -> Result<Vec<CartLine>, Invalid> {
    lines.into_iter().map(TryInto::try_into).collect()
}

pub(super) fn lane(partition: i32) -> Result<Lane, Invalid> {
    Lane::new(partition).ok_or_else(|| Invalid::new("lane", "must be from 0 to 4095"))
}

pub(super) fn part(hold_id: &str, attempt: i64) -> Result<PartId, Invalid> {
    Ok(PartId {
        hold_id: HoldId::parse(hold_id)?,
        attempt,
    })
}

pub(super) fn reason(code: &str) -> Result<Reason, Invalid> {
    Reason::from_code(code).ok_or_else(|| Invalid::new("reason", format!("`{code}` is not known to this version")))
}

pub(super) fn shortages(shortages: Vec<records::Shortage>) -> Result<Vec<Shortage>, Invalid> {
    shortages.into_iter().map(TryInto::try_into).collect()
}
