//! Carts over several lanes, as Postgres has them: the parts, and the JSON of their lines.

use domain::{
    Cart, CartLine, HoldId, Invalid, Lane, PartId, PartState, PartTerms, Sku, Tenant, UserId, ledger::LedgerPart,
};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use super::{Error, legal, read_lane};

const PARTS: &str = "hold_parts";

#[derive(Serialize, Deserialize)]
struct StoredCart {
    relay_until: i64,
    ttl_ms: i64,
    lines: Vec<(u16, String, i64)>,
}

/// A cart as the column of a hold has it.
#[must_use]
pub fn cart_json(cart: &Cart) -> String {
    let stored = StoredCart {
        relay_until: cart.relay_until,
        ttl_ms: cart.ttl_ms,
        lines: stored_lines(&cart.lines),
    };
    json(&stored)
}

/// Lines of several lanes as a column has them.
#[must_use]
pub fn cart_lines_json(lines: &[CartLine]) -> String {
    json(&stored_lines(lines))
}

/// Lines of one lane as a column has them.
#[must_use]
pub fn lines_json(lines: &[(Sku, i64)]) -> String {
    let lines: Vec<_> = lines.iter().map(|(sku, quantity)| (sku.as_str(), quantity)).collect();
    json(&lines)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers are JSON")
}

fn stored_lines(lines: &[CartLine]) -> Vec<(u16, String, i64)> {
    lines
        .iter()
        .map(|line| (line.lane.number(), line.sku.to_string(), line.quantity))
        .collect()
}

pub(super) fn read_cart(text: &str) -> Result<Cart, Invalid> {
    let stored: StoredCart = parse(text)?;
    Ok(Cart {
        relay_until: stored.relay_until,
        ttl_ms: stored.ttl_ms,
        lines: cart_lines(&stored.lines)?,
    })
}

pub(super) fn read_lines(text: &str) -> Result<Vec<(Sku, i64)>, Invalid> {
    let stored: Vec<(String, i64)> = parse(text)?;
    stored
        .iter()
        .map(|(sku, quantity)| Ok((Sku::parse(sku)?, *quantity)))
        .collect()
}

fn read_cart_lines(text: &str) -> Result<Vec<CartLine>, Invalid> {
    cart_lines(&parse::<Vec<(u16, String, i64)>>(text)?)
}

fn parse<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, Invalid> {
    serde_json::from_str(text).map_err(|error| Invalid::new("lines", error.to_string()))
}

fn cart_lines(stored: &[(u16, String, i64)]) -> Result<Vec<CartLine>, Invalid> {
    stored
        .iter()
        .map(|(lane, sku, quantity)| {
            Ok(CartLine {
                lane: Lane::new(i32::from(*lane)).ok_or_else(|| Invalid::new("lane", "must be from 0 to 4095"))?,
                sku: Sku::parse(sku)?,
                quantity: *quantity,
            })
        })
        .collect()
}

/// What the lanes keep of all attempts of a cart, by attempt and lane.
///
/// # Errors
/// [`Error`] when the database does not answer.
pub async fn find_parts(pool: &PgPool, hold_id: HoldId) -> Result<Vec<(Lane, PartId, LedgerPart)>, Error> {
    let query = "SELECT *, lines::text AS lines_json, cart::text AS cart_json FROM hold_parts \
                  WHERE hold_id = $1 ORDER BY attempt, lane";
    let rows = sqlx::query(query).bind(hold_id.uuid()).fetch_all(pool).await?;
    let read = |row: &PgRow| {
        let (id, part) = read_part(row)?;
        Ok((read_lane(row)?, id, part))
    };
    rows.iter().map(read).collect()
}

/// Reads a row of `SELECT *, lines::text AS lines_json, cart::text AS cart_json`.
pub(super) fn read_part(row: &PgRow) -> Result<(PartId, LedgerPart), Error> {
    let corrupt = |invalid: Invalid| Error::corrupt(PARTS, invalid.to_string());
    let uuid: Uuid = row.try_get("hold_id")?;
    let id = PartId {
        hold_id: HoldId::parse(&uuid.to_string()).map_err(corrupt)?,
        attempt: row.try_get("attempt")?,
    };
    let user_id: Option<&str> = row.try_get("user_id")?;
    let terms = PartTerms {
        attempt: id.attempt,
        state: legal(row, PARTS, "state", |name| {
            PartState::from_name(name)
                .ok_or_else(|| Invalid::new("state", format!("`{name}` is not known to this version")))
        })?,
        user_id: user_id.map(UserId::parse).transpose().map_err(corrupt)?,
        relay_until: row.try_get("relay_until")?,
        changed_at: row.try_get("changed_at")?,
        cart: legal(row, PARTS, "cart_json", read_cart_lines)?,
    };
    let part = LedgerPart {
        tenant: legal(row, PARTS, "tenant", Tenant::parse)?,
        terms,
        lines: legal(row, PARTS, "lines_json", read_lines)?,
    };
    Ok((id, part))
}
