//! The table `prices`: what a buyer pays, by SKU. The amount of a payment comes from here and from nowhere else.

use std::collections::HashMap;

use domain::{Tenant, ledger::LedgerHold};
use plumbing::time;
use sqlx::PgPool;

/// An amount in the currency's smallest coin, and the currency.
pub(crate) type Price = (i64, String);

/// What a hold costs: of every line its price, or none when a price is missing or currencies differ.
pub(crate) async fn of_hold(pool: &PgPool, hold: &LedgerHold) -> Result<Option<Price>, sqlx::Error> {
    let lines = hold.all_lines();
    let skus: Vec<&str> = lines.iter().map(|(sku, _)| sku.as_str()).collect();
    let query = "SELECT sku, amount, currency FROM prices WHERE tenant = $1 AND sku = ANY($2)";
    let prices: Vec<(String, i64, String)> = sqlx::query_as(query)
        .bind(hold.tenant.as_str())
        .bind(skus)
        .fetch_all(pool)
        .await?;
    let prices: HashMap<String, Price> = prices
        .into_iter()
        .map(|(sku, amount, of)| (sku, (amount, of)))
        .collect();
    Ok(sum(lines.iter().map(|(sku, quantity)| {
        let (amount, currency) = prices.get(sku.as_str())?;
        Some((amount.checked_mul(*quantity)?, currency.as_str()))
    })))
}

/// The sum in the lines' one currency.
fn sum<'a>(lines: impl Iterator<Item = Option<(i64, &'a str)>>) -> Option<Price> {
    let mut sum: Option<(i64, &str)> = None;
    for line in lines {
        let (amount, currency) = line?;
        sum = match sum {
            None => Some((amount, currency)),
            Some((before, same)) if same == currency => Some((before.checked_add(amount)?, same)),
            Some(_) => return None,
        };
    }
    sum.map(|(amount, currency)| (amount, currency.to_owned()))
}

pub(crate) async fn get(pool: &PgPool, tenant: &Tenant, sku: &str) -> Result<Option<Price>, sqlx::Error> {
    sqlx::query_as("SELECT amount, currency FROM prices WHERE tenant = $1 AND sku = $2")
        .bind(tenant.as_str())
        .bind(sku)
        .fetch_optional(pool)
        .await
}

/// Prices after a SKU, ascending by SKU.
pub(crate) async fn list(
    pool: &PgPool,
    tenant: &Tenant,
    after: &str,
    limit: i64,
) -> Result<Vec<(String, i64, String)>, sqlx::Error> {
    let query = "SELECT sku, amount, currency FROM prices WHERE tenant = $1 AND sku > $2 ORDER BY sku LIMIT $3";
    sqlx::query_as(query)
        .bind(tenant.as_str())
        .bind(after)
        .bind(limit)
        .fetch_all(pool)
        .await
}

pub(crate) async fn set(
    pool: &PgPool,
    tenant: &Tenant,
    sku: &str,
    amount: i64,
    currency: &str,
) -> Result<(), sqlx::Error> {
    let query = "INSERT INTO prices VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, sku) \
                 DO UPDATE SET amount = excluded.amount, currency = excluded.currency, changed_at = excluded.changed_at";
    sqlx::query(query)
        .bind(tenant.as_str())
        .bind(sku)
        .bind(amount)
        .bind(currency)
        .bind(time::now_ms())
        .execute(pool)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_has_a_price_only_when_every_line_has_one_in_one_currency() {
        let euros = |amount| Some((amount, "eur"));
        let of = |lines: &[Option<(i64, &'static str)>]| sum(lines.iter().copied());
        assert_eq!(of(&[euros(200), euros(50)]), Some((250, "eur".to_owned())));
        assert_eq!(of(&[euros(200), None]), None);
        assert_eq!(of(&[None, euros(200)]), None);
        assert_eq!(of(&[euros(200), Some((50, "usd"))]), None);
        assert_eq!(of(&[euros(i64::MAX), euros(1)]), None);
        assert_eq!(of(&[]), None);
    }
}
