//! Rows about sales: the order of each confirmed hold, and money that has to go back.

use sqlx::PgConnection;

use crate::{rows::Rows, statements::column};

/// One order a confirmation.
pub(crate) async fn write_orders(connection: &mut PgConnection, lane: i16, rows: &Rows<'_>) -> Result<(), sqlx::Error> {
    if rows.orders.is_empty() {
        return Ok(());
    }
    let query = "INSERT INTO orders (hold_id, attempt, lane, tenant, user_id, lines, payment_ref, external_ref, event_id, ordered_at) \
         SELECT hold_id, attempt, $1, tenant, user_id, lines::jsonb, payment_ref, external_ref, event_id, ordered_at \
         FROM UNNEST($2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::uuid[], \
         $10::bigint[]) AS new (hold_id, attempt, tenant, user_id, lines, payment_ref, external_ref, event_id, ordered_at) \
         ON CONFLICT DO NOTHING";
    let orders = || rows.orders.iter();
    sqlx::query(query)
        .bind(lane)
        .bind(column(orders(), |row| row.hold_id.uuid()))
        .bind(column(orders(), |row| row.terms.attempt))
        .bind(column(orders(), |row| row.event.tenant.as_str()))
        .bind(column(orders(), |row| row.terms.user_id.as_str()))
        .bind(column(orders(), |row| row.lines.as_str()))
        .bind(column(orders(), |row| {
            row.terms.payment_ref.as_ref().map(AsRef::<str>::as_ref)
        }))
        .bind(column(orders(), |row| {
            row.terms.external_ref.as_ref().map(AsRef::<str>::as_ref)
        }))
        .bind(column(orders(), |row| row.event.event_id.uuid()))
        .bind(column(orders(), |row| row.event.decided_at))
        .execute(connection)
        .await?;
    Ok(())
}

/// One row a payment that has to be given back.
pub(crate) async fn write_refunds(
    connection: &mut PgConnection,
    lane: i16,
    rows: &Rows<'_>,
) -> Result<(), sqlx::Error> {
    if rows.refunds.is_empty() {
        return Ok(());
    }
    let query = "INSERT INTO required_refunds (lane, command_offset, tenant, hold_id, payment_ref, reason, command_id, \
         event_id, decided_at) \
         SELECT $1, new.* FROM UNNEST($2::bigint[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[], \
         $8::uuid[], $9::bigint[]) AS new ON CONFLICT DO NOTHING";
    let refunds = || rows.refunds.iter();
    sqlx::query(query)
        .bind(lane)
        .bind(column(refunds(), |row| row.event.command_offset))
        .bind(column(refunds(), |row| row.event.tenant.as_str()))
        .bind(column(refunds(), |row| row.hold_id.uuid()))
        .bind(column(refunds(), |row| row.payment_ref))
        .bind(column(refunds(), |row| row.reason))
        .bind(column(refunds(), |row| row.event.command_id.as_str()))
        .bind(column(refunds(), |row| row.event.event_id.uuid()))
        .bind(column(refunds(), |row| row.event.decided_at))
        .execute(connection)
        .await?;
    Ok(())
}
