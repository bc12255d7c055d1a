//! Rows that nobody has written before, by COPY: it costs Postgres less than `INSERT ... ON CONFLICT`, which looks every key up
//! first. It takes no row twice: that one is there already is an error, and then the batch is written another way.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    copy::Copy,
    reader::Decided,
    rows::{Rows, shortages_json},
};
use schemas::picture::{self, lane_number};

/// Their ids: an event that is there already makes the whole batch fail.
pub(crate) async fn write_events(
    connection: &mut PgConnection,
    lane: i16,
    decided: &[Decided],
) -> Result<(), sqlx::Error> {
    let mut copy = Copy::new(4, decided.len());
    for Decided { event, offset, .. } in decided {
        copy.row()
            .uuid(event.event_id.uuid())
            .small(lane)
            .big(*offset)
            .big(event.decided_at);
    }
    let place = "processed_events (event_id, lane, event_offset, decided_at)";
    copy.into(connection, place).await
}

/// Holds that the batch makes, as it leaves them.
pub(crate) async fn write_holds(connection: &mut PgConnection, lane: i16, rows: &Rows<'_>) -> Result<(), sqlx::Error> {
    let mut copy = Copy::new(22, rows.holds.len());
    let mut is_empty = true;
    for ((hold_id, attempt), row) in rows.holds.iter().filter(|(_, row)| row.is_new) {
        let terms = row.terms;
        is_empty = false;
        copy.row()
            .uuid(hold_id.uuid())
            .big(*attempt)
            .small(lane)
            .text(row.tenant.as_str())
            .text(terms.state.name())
            .text(terms.user_id.as_str())
            .text(terms.idempotency_key.as_str())
            .uuid(Uuid::from_u128(hold_id.key_bits()))
            .octets(terms.fingerprint.as_bytes())
            .big(terms.created_at)
            .big(terms.expires_at)
            .big(terms.changed_at)
            .text(terms.policy.name())
            .some_text(terms.external_ref.as_ref().map(AsRef::as_ref))
            .some_text(terms.payment_ref.as_ref().map(AsRef::as_ref))
            .some_text(terms.reason.as_ref().map(AsRef::as_ref))
            .some_text(row.rejection.map(|(reason, _)| reason.code()))
            .some_json(row.rejection.map(|(_, shortages)| shortages_json(shortages)).as_deref())
            .big(row.command_offset)
            .some_big(terms.remaining_ms)
            .some_json(terms.cart.as_ref().map(picture::cart_json).as_deref())
            .some_json(
                (!terms.asked.is_empty())
                    .then(|| picture::lines_json(&terms.asked))
                    .as_deref(),
            );
    }
    if is_empty {
        return Ok(());
    }
    let place = "holds (hold_id, attempt, lane, tenant, state, user_id, idempotency_key, key_bits, fingerprint, \
                 created_at, expires_at, changed_at, policy, external_ref, payment_ref, reason, reject_reason, shortages, \
                 command_offset, remaining_ms, cart, asked)";
    copy.into(connection, place).await
}

/// Their lines.
pub(crate) async fn write_lines(connection: &mut PgConnection, rows: &Rows<'_>) -> Result<(), sqlx::Error> {
    if rows.lines.is_empty() {
        return Ok(());
    }
    let mut copy = Copy::new(7, rows.lines.len());
    for line in &rows.lines {
        copy.row()
            .uuid(line.hold_id.uuid())
            .big(line.terms.attempt)
            .text(line.sku.as_str())
            .big(line.quantity)
            .small(lane_number(line.lane))
            .text(line.tenant.as_str())
            .big(line.terms.created_at);
    }
    let place = "hold_lines (hold_id, attempt, sku, quantity, lane, tenant, created_at)";
    copy.into(connection, place).await
}

/// Every change of a counter.
pub(crate) async fn write_movements(
    connection: &mut PgConnection,
    lane: i16,
    rows: &Rows<'_>,
) -> Result<(), sqlx::Error> {
    if rows.movements.is_empty() {
        return Ok(());
    }
    let mut copy = Copy::new(19, rows.movements.len());
    for row in &rows.movements {
        let event = &row.decided.event;
        copy.row()
            .small(lane)
            .big(event.command_offset)
            .text(row.line.sku.as_str())
            .text(event.tenant.as_str())
            .uuid(event.event_id.uuid())
            .big(row.decided.offset)
            .text(event.body.name())
            .big(row.change.on_hand)
            .big(row.change.held)
            .big(row.change.allocated)
            .big(row.line.on_hand)
            .big(row.line.held)
            .big(row.line.allocated)
            .big(row.line.sku_version)
            .some_text(row.reason)
            .some_text(row.reference)
            .some_text(row.actor)
            .some_uuid(row.hold_id.map(|hold_id| hold_id.uuid()))
            .big(event.decided_at);
    }
    let place = "stock_movements (lane, command_offset, sku, tenant, event_id, event_offset, kind, on_hand_change, \
                 held_change, allocated_change, on_hand, held, allocated, version, reason, reference, actor, hold_id, decided_at)";
    copy.into(connection, place).await
}

/// Requests that were refused.
pub(crate) async fn write_requests(
    connection: &mut PgConnection,
    lane: i16,
    rows: &Rows<'_>,
) -> Result<(), sqlx::Error> {
    if rows.requests.is_empty() {
        return Ok(());
    }
    let mut copy = Copy::new(3, rows.requests.len());
    for (mark, at) in &rows.requests {
        copy.row().small(lane).big(mark.number()).big(*at);
    }
    copy.into(connection, "refused_requests (lane, mark, decided_at)").await
}
