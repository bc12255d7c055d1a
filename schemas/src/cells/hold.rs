//! A hold's value: one MessagePack array of what changes, its fingerprint, its lines, and its terms.
//!
//! `apply` (reserver/src/lua) reads and writes the scalars, compares the fingerprint and reads the lines; the terms pass
//! through it as they came.

use domain::{Cart, Fingerprint, HoldState, HoldTerms, Invalid, Key, Policy, Tenant, Text, UserId, ledger::LedgerHold};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{CartLineCell, cart_cells, cart_lines, corrupt, line_cells, lines, note};

/// A hold as Redis keeps it; the order of the fields is the order of the array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldCell {
    /// [`HoldState::name`].
    pub state: String,
    /// Offset of its Reserve.
    pub attempt: i64,
    /// Log time in milliseconds.
    pub created_at: i64,
    /// Deadline in milliseconds.
    pub expires_at: i64,
    /// Log time in milliseconds.
    pub changed_at: i64,
    /// In milliseconds; [`NOT_PAYING`]: none.
    pub remaining_ms: i64,
    /// How long a cart over several lanes is held once all of them hold, in milliseconds; 0 for other holds.
    pub cart_ttl_ms: i64,
    /// Empty: none.
    pub payment_ref: String,
    /// Empty: none.
    pub reason: String,
    /// Whose stock.
    pub tenant: String,
    /// Who buys.
    pub user_id: String,
    /// 32 bytes of MessagePack's binary type.
    #[serde(serialize_with = "write_fingerprint", deserialize_with = "fingerprint")]
    pub fingerprint: Fingerprint,
    /// SKU and units, ascending by SKU.
    pub lines: Vec<(String, i64)>,
    /// What its Reserve said besides.
    pub terms: TermsCell,
}

/// What never changes of a hold and is of no use to a decision; the order of the fields is the order of the array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermsCell {
    /// The key that names it.
    pub idempotency_key: String,
    /// [`Policy::name`]; empty: all or nothing.
    pub policy: String,
    /// Empty: none.
    pub external_ref: String,
    /// None, or one: what it is made of, where its lines live in several lanes.
    pub cart: Vec<CartCell>,
    /// SKU and units that were asked for, where the policy lets the lines be others.
    pub asked: Vec<(String, i64)>,
}

/// A hold over several lanes: how long after its creation the relay's deadline is, in milliseconds, and all lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CartCell(pub i64, pub Vec<CartLineCell>);

/// A cell's remaining time while no payment is made.
pub const NOT_PAYING: i64 = -1;

fn write_fingerprint<S: Serializer>(fingerprint: &Fingerprint, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(fingerprint.as_bytes())
}

fn fingerprint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = Fingerprint;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("32 bytes")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Fingerprint, E> {
            Fingerprint::from_bytes(bytes).ok_or_else(|| E::invalid_length(bytes.len(), &self))
        }
    }
    deserializer.deserialize_bytes(Visitor)
}

/// A policy as a cell has it: most holds are all or nothing, and there are many.
#[must_use]
pub fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::AllOrNothing => "",
        Policy::PerLine | Policy::UpTo => policy.name(),
    }
}

fn policy(name: &str) -> Result<Policy, Invalid> {
    if name.is_empty() {
        Ok(Policy::AllOrNothing)
    } else {
        Policy::parse(name)
    }
}

fn text(text: Option<&Text>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

impl From<&LedgerHold> for HoldCell {
    fn from(hold: &LedgerHold) -> Self {
        let terms = &hold.terms;
        let cart = terms.cart.as_ref();
        Self {
            state: terms.state.name().to_owned(),
            attempt: terms.attempt,
            created_at: terms.created_at,
            expires_at: terms.expires_at,
            changed_at: terms.changed_at,
            remaining_ms: terms.remaining_ms.unwrap_or(NOT_PAYING),
            cart_ttl_ms: cart.map_or(0, |cart| cart.ttl_ms),
            payment_ref: text(terms.payment_ref.as_ref()),
            reason: text(terms.reason.as_ref()),
            tenant: hold.tenant.to_string(),
            user_id: terms.user_id.to_string(),
            fingerprint: terms.fingerprint,
            lines: line_cells(&hold.lines),
            terms: TermsCell {
                idempotency_key: terms.idempotency_key.to_string(),
                policy: policy_name(terms.policy).to_owned(),
                external_ref: text(terms.external_ref.as_ref()),
                cart: cart
                    .map(|cart| CartCell(cart.relay_until - terms.created_at, cart_cells(&cart.lines)))
                    .into_iter()
                    .collect(),
                asked: line_cells(&terms.asked),
            },
        }
    }
}

impl TryFrom<HoldCell> for LedgerHold {
    type Error = Invalid;

    fn try_from(cell: HoldCell) -> Result<Self, Invalid> {
        let terms = cell.terms;
        let cart = terms.cart.first().map(|CartCell(relay_ms, lines)| {
            Ok::<_, Invalid>(Cart {
                relay_until: cell.created_at + relay_ms,
                ttl_ms: cell.cart_ttl_ms,
                lines: cart_lines(lines)?,
            })
        });
        Ok(Self {
            tenant: Tenant::parse(&cell.tenant)?,
            terms: HoldTerms {
                attempt: cell.attempt,
                state: HoldState::from_name(&cell.state).ok_or_else(|| corrupt(format!("state {}", cell.state)))?,
                user_id: UserId::parse(&cell.user_id)?,
                idempotency_key: Key::parse("idempotency_key", &terms.idempotency_key)?,
                fingerprint: cell.fingerprint,
                created_at: cell.created_at,
                expires_at: cell.expires_at,
                changed_at: cell.changed_at,
                policy: policy(&terms.policy)?,
                external_ref: note("external_ref", &terms.external_ref)?,
                payment_ref: note("payment_ref", &cell.payment_ref)?,
                reason: note("reason", &cell.reason)?,
                cart: cart.transpose()?,
                asked: lines(&terms.asked)?,
                remaining_ms: (cell.remaining_ms != NOT_PAYING).then_some(cell.remaining_ms),
            },
            lines: lines(&cell.lines)?,
        })
    }
}

/// Reads a hold's value.
///
/// # Errors
/// [`Invalid`] when it is not a hold.
pub fn read_hold(bytes: &[u8]) -> Result<LedgerHold, Invalid> {
    rmp_serde::from_slice::<HoldCell>(bytes).map_err(corrupt)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `apply` counts on it: eleven scalars, 34 bytes of fingerprint, then the lines.
    #[test]
    fn a_hold_is_read_as_it_was_written_and_its_fingerprint_stands_before_its_lines() {
        let cell = HoldCell {
            state: "held".to_owned(),
            attempt: 7,
            created_at: 1_000,
            expires_at: 2_000,
            changed_at: 1_000,
            remaining_ms: NOT_PAYING,
            cart_ttl_ms: 600,
            payment_ref: String::new(),
            reason: String::new(),
            tenant: "default".to_owned(),
            user_id: "ann".to_owned(),
            fingerprint: Fingerprint::from_bytes(&[0xa5; 32]).unwrap(),
            lines: vec![("mug".to_owned(), 2)],
            terms: TermsCell {
                idempotency_key: "order-1".to_owned(),
                policy: String::new(),
                external_ref: "theirs".to_owned(),
                cart: vec![CartCell(500, vec![(0, "mug".to_owned(), 2), (3, "pen".to_owned(), 1)])],
                asked: Vec::new(),
            },
        };
        let packed = super::super::pack(&cell);
        let hold = read_hold(&packed).unwrap();
        assert_eq!(HoldCell::from(&hold), cell);
        assert_eq!(hold.terms.policy, Policy::AllOrNothing);
        assert_eq!(hold.terms.cart.unwrap().relay_until, 1_500);
        let fingerprint = packed.windows(2).position(|bytes| bytes == [0xc4, 32]).unwrap();
        assert_eq!(packed[0], 0x9e);
        assert_eq!(packed[fingerprint - 4..fingerprint], *b"\xa3ann");
        assert_eq!(packed[fingerprint + 34..fingerprint + 40], *b"\x91\x92\xa3mug");
    }
}
