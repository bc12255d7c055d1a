//! Stock movements, as Postgres has them.

use domain::{Millis, Sku, Tenant};
use sqlx::{PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use super::Error;

/// One change of a SKU's counters: what, why, who, and what they are after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// The command that made it, in the SKU's lane: movements of a SKU are in its order.
    pub command_offset: i64,
    /// The event's name.
    pub kind: String,
    /// By how much on hand, held and allocated changed.
    pub change: [i64; 3],
    /// On hand, held and allocated after it.
    pub after: [i64; 3],
    /// The counters' version after it.
    pub version: i64,
    /// Why.
    pub reason: Option<String>,
    /// The document behind it: the caller's, the payment of a confirmation, the shipment.
    pub reference: Option<String>,
    /// Who.
    pub actor: Option<String>,
    /// The hold behind it.
    pub hold_id: Option<Uuid>,
    /// When, by the log's clock.
    pub decided_at: Millis,
}

/// One page of a SKU's movements, newest first, from the one behind `before`.
///
/// # Errors
/// [`Error`] when the database does not answer.
pub async fn list_movements(
    pool: &PgPool,
    tenant: &Tenant,
    sku: &Sku,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<Movement>, Error> {
    let query = "SELECT * FROM stock_movements WHERE tenant = $1 AND sku = $2 AND command_offset < $3 \
                 ORDER BY command_offset DESC LIMIT $4";
    let rows = sqlx::query(query)
        .bind(tenant.as_str())
        .bind(sku.as_str())
        .bind(before.unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

fn read(row: &PgRow) -> Result<Movement, sqlx::Error> {
    Ok(Movement {
        command_offset: row.try_get("command_offset")?,
        kind: row.try_get("kind")?,
        change: [
            row.try_get("on_hand_change")?,
            row.try_get("held_change")?,
            row.try_get("allocated_change")?,
        ],
        after: [row.try_get("on_hand")?, row.try_get("held")?, row.try_get("allocated")?],
        version: row.try_get("version")?,
        reason: row.try_get("reason")?,
        reference: row.try_get("reference")?,
        actor: row.try_get("actor")?,
        hold_id: row.try_get("hold_id")?,
        decided_at: row.try_get("decided_at")?,
    })
}
