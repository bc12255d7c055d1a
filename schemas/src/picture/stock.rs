//! Stock, as Postgres has it.

use domain::{Sku, SkuPolicy, Stock, Tenant};
use sqlx::{PgPool, Row, postgres::PgRow};

use super::{Error, legal};

/// The stock of some SKUs, ascending; a SKU that never had any is missing.
///
/// # Errors
/// [`Error`] when the database does not answer.
pub async fn find_stock(pool: &PgPool, tenant: &Tenant, skus: &[Sku]) -> Result<Vec<(Sku, Stock)>, Error> {
    let skus: Vec<&str> = skus.iter().map(Sku::as_str).collect();
    let query = "SELECT * FROM stock WHERE tenant = $1 AND sku = ANY($2) ORDER BY sku";
    let rows = sqlx::query(query)
        .bind(tenant.as_str())
        .bind(&skus)
        .fetch_all(pool)
        .await?;
    rows.iter().map(read_stock).collect()
}

/// One page of a tenant's stock, ascending by SKU, from the SKU behind `after`.
///
/// # Errors
/// [`Error`] when the database does not answer.
pub async fn list_stock(
    pool: &PgPool,
    tenant: &Tenant,
    after: Option<&Sku>,
    limit: u32,
) -> Result<Vec<(Sku, Stock)>, Error> {
    // No SKU is empty: every one is behind the empty text.
    let query = "SELECT * FROM stock WHERE tenant = $1 AND sku > $2 ORDER BY sku LIMIT $3";
    let rows = sqlx::query(query)
        .bind(tenant.as_str())
        .bind(after.map_or("", Sku::as_str))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    rows.iter().map(read_stock).collect()
}

pub(super) fn read_stock(row: &PgRow) -> Result<(Sku, Stock), Error> {
    let stock = Stock {
        on_hand: row.try_get("on_hand")?,
        held: row.try_get("held")?,
        allocated: row.try_get("allocated")?,
        version: row.try_get("version")?,
        policy: SkuPolicy {
            safety_stock: row.try_get("safety_stock")?,
            max_per_user: row.try_get("max_per_user")?,
        },
    };
    Ok((legal(row, "stock", "sku", Sku::parse)?, stock))
}
