//! Values of a lane's Redis keys: what the Lua scripts read and write, and what tools that look at Redis decode.
//!
//! Holds, remembered commands and the forget list are MessagePack arrays; an absent text is the empty string. Stock is a
//! hash, so that `redis-cli HGETALL` shows it.

mod hold;

use std::collections::HashMap;

use domain::{
    CartLine, Fingerprint, Invalid, Lane, PartState, PartTerms, Sku, SkuPolicy, Stock, Tenant, Text, UserId,
    ledger::{LedgerPart, Remembered},
};
pub use hold::{CartCell, HoldCell, NOT_PAYING, TermsCell, policy_name, read_hold};
use serde::{Deserialize, Serialize};

/// Lane, SKU and units.
pub type CartLineCell = (u16, String, i64);

/// A part of another lane's cart as Redis keeps it; the order of the fields is the order of the array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartCell {
    /// [`PartState::name`].
    pub state: String,
    /// Offset of the cart's Reserve.
    pub attempt: i64,
    /// Whose stock.
    pub tenant: String,
    /// Who buys; empty for a mark.
    pub user_id: String,
    /// Log time in milliseconds.
    pub relay_until: i64,
    /// Log time in milliseconds.
    pub changed_at: i64,
    /// This lane's own SKUs and units.
    pub lines: Vec<(String, i64)>,
    /// All lines of the cart.
    pub cart: Vec<CartLineCell>,
}

/// A remembered command id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandCell {
    /// Hexadecimal.
    pub fingerprint: String,
    /// Log time when it was applied, in milliseconds.
    pub at: i64,
}

/// Fields of a stock hash, in the order in which they are written. An absent limit is the empty string.
pub const STOCK_FIELDS: [&str; 6] = [
    "on_hand",
    "held",
    "allocated",
    "version",
    "safety_stock",
    "max_per_user",
];

fn corrupt(what: impl std::fmt::Display) -> Invalid {
    Invalid::new("redis", format!("cannot be read: {what}"))
}

/// MessagePack of a cell.
///
/// # Panics
/// Never: cells are plain texts and numbers.
#[must_use]
pub fn pack<T: Serialize>(cell: &T) -> Vec<u8> {
    rmp_serde::to_vec(cell).expect("cells are plain texts and numbers")
}

fn line_cells(lines: &[(Sku, i64)]) -> Vec<(String, i64)> {
    lines.iter().map(|(sku, units)| (sku.to_string(), *units)).collect()
}

fn lines(cells: &[(String, i64)]) -> Result<Vec<(Sku, i64)>, Invalid> {
    cells
        .iter()
        .map(|(sku, units)| Ok((Sku::parse(sku)?, *units)))
        .collect()
}

fn cart_cells(lines: &[CartLine]) -> Vec<CartLineCell> {
    lines
        .iter()
        .map(|line| (line.lane.number(), line.sku.to_string(), line.quantity))
        .collect()
}

fn cart_lines(cells: &[CartLineCell]) -> Result<Vec<CartLine>, Invalid> {
    cells
        .iter()
        .map(|(lane, sku, quantity)| {
            Ok(CartLine {
                lane: Lane::new(i32::from(*lane)).ok_or_else(|| corrupt(format!("lane {lane}")))?,
                sku: Sku::parse(sku)?,
                quantity: *quantity,
            })
        })
        .collect()
}

impl From<&LedgerPart> for PartCell {
    fn from(part: &LedgerPart) -> Self {
        let terms = &part.terms;
        Self {
            state: terms.state.name().to_owned(),
            attempt: terms.attempt,
            tenant: part.tenant.to_string(),
            user_id: terms.user_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            relay_until: terms.relay_until,
            changed_at: terms.changed_at,
            lines: line_cells(&part.lines),
            cart: cart_cells(&terms.cart),
        }
    }
}

impl TryFrom<PartCell> for LedgerPart {
    type Error = Invalid;

    fn try_from(cell: PartCell) -> Result<Self, Invalid> {
        let user_id = Some(cell.user_id.as_str()).filter(|user_id| !user_id.is_empty());
        Ok(Self {
            tenant: Tenant::parse(&cell.tenant)?,
            terms: PartTerms {
                attempt: cell.attempt,
                state: PartState::from_name(&cell.state).ok_or_else(|| corrupt(format!("state {}", cell.state)))?,
                user_id: user_id.map(UserId::parse).transpose()?,
                relay_until: cell.relay_until,
                changed_at: cell.changed_at,
                cart: cart_lines(&cell.cart)?,
            },
            lines: lines(&cell.lines)?,
        })
    }
}

/// Reads a part's value.
///
/// # Errors
/// [`Invalid`] when it is not a part.
pub fn read_part(bytes: &[u8]) -> Result<LedgerPart, Invalid> {
    rmp_serde::from_slice::<PartCell>(bytes).map_err(corrupt)?.try_into()
}

/// Reads a remembered command's value.
///
/// # Errors
/// [`Invalid`] when it is not one.
pub fn read_command(bytes: &[u8]) -> Result<Remembered, Invalid> {
    let cell: CommandCell = rmp_serde::from_slice(bytes).map_err(corrupt)?;
    Ok(Remembered {
        fingerprint: unhex(&cell.fingerprint)?,
        at: cell.at,
    })
}

/// The fields of a stock hash, in the order of [`STOCK_FIELDS`].
#[must_use]
pub fn stock_values(stock: &Stock) -> [String; 6] {
    [
        stock.on_hand.to_string(),
        stock.held.to_string(),
        stock.allocated.to_string(),
        stock.version.to_string(),
        stock.policy.safety_stock.to_string(),
        stock
            .policy
            .max_per_user
            .map(|units| units.to_string())
            .unwrap_or_default(),
    ]
}

/// Reads a stock hash.
///
/// # Errors
/// [`Invalid`] when a field is missing or not a number.
pub fn read_stock(fields: &HashMap<String, String>) -> Result<Stock, Invalid> {
    let text = |name: &str| fields.get(name).ok_or_else(|| corrupt(format!("stock has no {name}")));
    let number = |name: &str| {
        text(name)?
            .parse::<i64>()
            .map_err(|error| corrupt(format!("{name}: {error}")))
    };
    let max_per_user = match text("max_per_user")?.as_str() {
        "" => None,
        units => Some(
            units
                .parse()
                .map_err(|error| corrupt(format!("max_per_user: {error}")))?,
        ),
    };
    Ok(Stock {
        on_hand: number("on_hand")?,
        held: number("held")?,
        allocated: number("allocated")?,
        version: number("version")?,
        policy: SkuPolicy {
            safety_stock: number("safety_stock")?,
            max_per_user,
        },
    })
}

/// A fingerprint in hexadecimal.
#[must_use]
pub fn hex(fingerprint: &Fingerprint) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(64);
    for byte in fingerprint.as_bytes() {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// A fingerprint from hexadecimal.
///
/// # Errors
/// [`Invalid`] unless it is 64 hexadecimal digits.
pub fn unhex(text: &str) -> Result<Fingerprint, Invalid> {
    let bytes: Option<Vec<u8>> = (0..text.len() / 2)
        .map(|index| {
            text.get(2 * index..2 * index + 2)
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
        })
        .collect();
    bytes
        .and_then(|bytes| Fingerprint::from_bytes(&bytes))
        .ok_or_else(|| corrupt("a fingerprint is not 64 digits"))
}

fn note(field: &'static str, text: &str) -> Result<Option<Text>, Invalid> {
    if text.is_empty() {
        Ok(None)
    } else {
        Text::parse(field, text).map(Some)
    }
}
