//! Holds, as Postgres has them.

use std::fmt;

use domain::{
    Fingerprint, HoldId, HoldState, HoldTerms, Invalid, Key, Millis, Policy, Reason, Shortage, Sku, Tenant, UserId,
    ledger::LedgerHold,
};
use serde::Deserialize;
use sqlx::{PgPool, Postgres, QueryBuilder, Row, postgres::PgRow};
use uuid::Uuid;

use super::{Error, carts, legal, legal_note};

/// A hold with its lines: `h` is its row.
macro_rules! hold_with_lines {
    () => {
        "h.*, h.shortages::text AS shortages_json, h.cart::text AS cart_json, h.asked::text AS asked_json, lines.skus, lines.quantities \
         FROM holds AS h \
         CROSS JOIN LATERAL (SELECT array_agg(line.sku ORDER BY line.sku) AS skus, \
                                    array_agg(line.quantity ORDER BY line.sku) AS quantities \
                               FROM hold_lines AS line \
                              WHERE line.hold_id = h.hold_id AND line.attempt = h.attempt AND line.lane = h.lane) AS lines "
    };
}
pub(super) use hold_with_lines;

/// States that a lane never forgets, as SQL lists them: what [`HoldState::is_final`] denies.
macro_rules! unforgotten {
    () => {
        "('pending', 'held', 'paying', 'confirmed')"
    };
}
pub(super) use unforgotten;

/// What became of one Reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredHold {
    /// Which hold.
    pub hold_id: HoldId,
    /// The hold, or what was asked for.
    pub hold: LedgerHold,
    /// Why there is no hold.
    pub rejection: Option<Rejection>,
    /// The command of the last decision that changed it: a later one, seen elsewhere, is newer than this row.
    pub command_offset: i64,
}

/// Why nothing is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The refusal.
    pub reason: Reason,
    /// Every line that could not be held.
    pub shortages: Vec<Shortage>,
}

impl StoredHold {
    /// Where a list goes on behind this hold.
    #[must_use]
    pub fn cursor(&self) -> HoldCursor {
        HoldCursor {
            created_at: self.hold.terms.created_at,
            hold_id: self.hold_id,
            attempt: self.hold.terms.attempt,
        }
    }
}

/// Which holds to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldFilter {
    /// Whose.
    pub tenant: Tenant,
    /// Only this buyer's.
    pub user_id: Option<UserId>,
    /// Only those with a line of this SKU.
    pub sku: Option<Sku>,
    /// Only those in this state.
    pub state: Option<HoldState>,
}

/// A place in a list of holds, newest first. As a text: `<created_at>.<attempt>.<hold_id>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldCursor {
    /// Log time of the Reserve, in milliseconds.
    pub created_at: Millis,
    /// Which hold.
    pub hold_id: HoldId,
    /// Which attempt of it.
    pub attempt: i64,
}

impl fmt::Display for HoldCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.created_at, self.attempt, self.hold_id)
    }
}

impl HoldCursor {
    /// Parses what a list gave out.
    ///
    /// # Errors
    /// [`Invalid`] for anything else.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let mut parts = text.splitn(3, '.');
        let read = (|| {
            Some(Self {
                created_at: parts.next()?.parse().ok()?,
                attempt: parts.next()?.parse().ok()?,
                hold_id: HoldId::parse(parts.next()?).ok()?,
            })
        })();
        read.ok_or_else(|| Invalid::new("cursor", "is not one that a list gave out"))
    }
}

/// The hold of an id: the one that is alive, else the newest attempt.
///
/// # Errors
/// [`Error`] when the database does not answer.
pub async fn find_hold(pool: &PgPool, hold_id: HoldId) -> Result<Option<StoredHold>, Error> {
    let query = concat!(
        "SELECT ",
        hold_with_lines!(),
        "WHERE h.hold_id = $1 ORDER BY h.state IN ",
        unforgotten!(),
        " DESC, h.attempt DESC LIMIT 1"
    );
    let row = sqlx::query(query).bind(hold_id.uuid()).fetch_optional(pool).await?;
    row.as_ref().map(read_hold).transpose()
}

/// One page of holds, newest first, from the one behind `after`.
///
/// # Errors
/// [`Error`] when the database does not answer.
pub async fn list_holds(
    pool: &PgPool,
    filter: &HoldFilter,
    after: Option<&HoldCursor>,
    limit: u32,
) -> Result<Vec<StoredHold>, Error> {
    let mut query = QueryBuilder::<Postgres>::new(concat!("SELECT ", hold_with_lines!()));
    // The place in the list is read from the table whose index is walked.
    let walked = match &filter.sku {
        Some(sku) => {
            query.push("JOIN hold_lines AS by_sku ON by_sku.hold_id = h.hold_id AND by_sku.attempt = h.attempt ");
            query.push("WHERE by_sku.sku = ").push_bind(sku.as_str()).push(" AND ");
            "by_sku"
        }
        None => {
            query.push("WHERE ");
            "h"
        }
    };
    query
        .push(format_args!("{walked}.tenant = "))
        .push_bind(filter.tenant.as_str());
    if let Some(user_id) = &filter.user_id {
        query.push(" AND h.user_id = ").push_bind(user_id.as_str());
    }
    if let Some(state) = filter.state {
        query.push(" AND h.state = ").push_bind(state.name());
    }
    if let Some(after) = after {
        query.push(format_args!(
            " AND ({walked}.created_at, {walked}.hold_id, {walked}.attempt) < ("
        ));
        let mut place = query.separated(", ");
        place
            .push_bind(after.created_at)
            .push_bind(after.hold_id.uuid())
            .push_bind(after.attempt);
        query.push(")");
    }
    query.push(format_args!(
        " ORDER BY {walked}.created_at DESC, {walked}.hold_id DESC, {walked}.attempt DESC LIMIT "
    ));
    query.push_bind(i64::from(limit));
    let rows = query.build().fetch_all(pool).await?;
    rows.iter().map(read_hold).collect()
}

pub(super) fn read_hold(row: &PgRow) -> Result<StoredHold, Error> {
    let corrupt = |problem: String| Error::corrupt("holds", problem);
    let uuid: Uuid = row.try_get("hold_id")?;
    let hold_id = HoldId::parse(&uuid.to_string()).map_err(|invalid| corrupt(invalid.to_string()))?;
    let state = legal(row, "holds", "state", |name| {
        HoldState::from_name(name)
            .ok_or_else(|| Invalid::new("state", format!("`{name}` is not known to this version")))
    })?;
    let fingerprint: &[u8] = row.try_get("fingerprint")?;
    let terms = HoldTerms {
        attempt: row.try_get("attempt")?,
        state,
        user_id: legal(row, "holds", "user_id", UserId::parse)?,
        idempotency_key: legal(row, "holds", "idempotency_key", |text| {
            Key::parse("idempotency_key", text)
        })?,
        fingerprint: Fingerprint::from_bytes(fingerprint)
            .ok_or_else(|| corrupt("a fingerprint has not 32 bytes".to_owned()))?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        changed_at: row.try_get("changed_at")?,
        policy: legal(row, "holds", "policy", Policy::parse)?,
        external_ref: legal_note(row, "external_ref")?,
        payment_ref: legal_note(row, "payment_ref")?,
        reason: legal_note(row, "reason")?,
        remaining_ms: row.try_get("remaining_ms")?,
        cart: optional(row, "cart_json", carts::read_cart)?,
        asked: optional(row, "asked_json", carts::read_lines)?.unwrap_or_default(),
    };
    Ok(StoredHold {
        hold_id,
        hold: LedgerHold {
            tenant: legal(row, "holds", "tenant", Tenant::parse)?,
            terms,
            lines: read_lines(row)?,
        },
        rejection: read_rejection(row)?,
        command_offset: row.try_get("command_offset")?,
    })
}

fn optional<T>(
    row: &PgRow,
    column: &'static str,
    parse: impl FnOnce(&str) -> Result<T, Invalid>,
) -> Result<Option<T>, Error> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(parse)
        .transpose()
        .map_err(|invalid| Error::corrupt("holds", invalid.to_string()))
}

fn read_lines(row: &PgRow) -> Result<Vec<(Sku, i64)>, Error> {
    let skus: Vec<String> = row.try_get::<Option<_>, _>("skus")?.unwrap_or_default();
    let quantities: Vec<i64> = row.try_get::<Option<_>, _>("quantities")?.unwrap_or_default();
    skus.iter()
        .zip(quantities)
        .map(|(sku, quantity)| Ok((Sku::parse(sku)?, quantity)))
        .collect::<Result<_, Invalid>>()
        .map_err(|invalid| Error::corrupt("hold_lines", invalid.to_string()))
}

#[derive(Deserialize)]
struct StoredShortage {
    sku: String,
    requested: i64,
    available: i64,
    #[serde(default)]
    retry: bool,
}

fn read_rejection(row: &PgRow) -> Result<Option<Rejection>, Error> {
    let Some(code) = row.try_get::<Option<&str>, _>("reject_reason")? else {
        return Ok(None);
    };
    let corrupt = |problem: String| Error::corrupt("holds", problem);
    let reason = Reason::from_code(code).ok_or_else(|| corrupt(format!("reason `{code}` is not known")))?;
    let json: Option<&str> = row.try_get("shortages_json")?;
    let stored: Vec<StoredShortage> =
        serde_json::from_str(json.unwrap_or("[]")).map_err(|error| corrupt(error.to_string()))?;
    let shortages = stored
        .into_iter()
        .map(|short| {
            Ok(Shortage {
                sku: Sku::parse(&short.sku)?,
                requested: short.requested,
                available: short.available,
                retry: short.retry,
            })
        })
        .collect::<Result<_, Invalid>>()
        .map_err(|invalid| corrupt(invalid.to_string()))?;
    Ok(Some(Rejection { reason, shortages }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_and_the_domain_agree_on_what_is_never_forgotten() {
        let names = HoldState::ALL
            .into_iter()
            .filter(|state| !state.is_final())
            .map(|state| format!("'{}'", state.name()));
        assert_eq!(unforgotten!(), format!("({})", names.collect::<Vec<_>>().join(", ")));
    }

    #[test]
    fn a_cursor_reads_back_and_nothing_else_does() {
        let cursor = HoldCursor {
            created_at: 1_700_000_000_123,
            hold_id: HoldId::parse("000e2be4-9d35-8aa6-a571-1a9ffd9d8aab").unwrap(),
            attempt: 42,
        };
        assert_eq!(HoldCursor::parse(&cursor.to_string()).unwrap(), cursor);
        for bad in [
            "",
            "1",
            "1.2",
            "1.2.x",
            "x.2.000e2be4-9d35-8aa6-a571-1a9ffd9d8aab",
            "1.2.3.4",
        ] {
            assert!(HoldCursor::parse(bad).is_err(), "{bad}");
        }
    }
}
