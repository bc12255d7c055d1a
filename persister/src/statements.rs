//! The rows of a batch: one set-based statement for each table.
//!
//! What a batch makes is new, and `ON CONFLICT` costs Postgres a look-up of every key; so it is left out where [`Manner`] allows.

use std::collections::HashSet;

use schemas::picture::{self, lane_number};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::{
    reader::Decided,
    rows::{HoldRow, Rows, shortages_json},
};

/// How a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Nothing that it makes is there; else the statements fail.
    New,
    /// Some of it may be, and stays.
    Beside,
}

impl Manner {
    fn on_conflict(self) -> &'static str {
        match self {
            Self::New => "",
            Self::Beside => "ON CONFLICT DO NOTHING",
        }
    }
}

/// A column of a set-based statement.
pub(crate) fn column<R, T>(rows: impl Iterator<Item = R>, value: impl FnMut(R) -> T) -> Vec<T> {
    rows.map(value).collect()
}

/// The ids of the events; returns those that no transaction before it had.
pub(crate) async fn write_events(
    connection: &mut PgConnection,
    lane: i16,
    decided: &[Decided],
    manner: Manner,
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let query = format!(
        "INSERT INTO processed_events (event_id, lane, event_offset, decided_at) \
         SELECT event_id, $1, event_offset, decided_at \
         FROM UNNEST($2::uuid[], $3::bigint[], $4::bigint[]) AS new (event_id, event_offset, decided_at) {}",
        manner.on_conflict()
    );
    let ids = column(decided.iter(), |decided| decided.event.event_id.uuid());
    let offsets = column(decided.iter(), |decided| decided.offset);
    let times = column(decided.iter(), |decided| decided.event.decided_at);
    match manner {
        Manner::New => {
            let query = sqlx::query(AssertSqlSafe(query))
                .bind(lane)
                .bind(&ids)
                .bind(offsets)
                .bind(times);
            query.execute(connection).await?;
            Ok(ids.into_iter().collect())
        }
        Manner::Beside => {
            let query = sqlx::query_scalar(AssertSqlSafe(query + " RETURNING event_id"));
            let query = query.bind(lane).bind(ids).bind(offsets).bind(times);
            Ok(query.fetch_all(connection).await?.into_iter().collect())
        }
    }
}

/// Counters and policies.
pub(crate) async fn write_stock(connection: &mut PgConnection, lane: i16, rows: &Rows<'_>) -> Result<(), sqlx::Error> {
    if !rows.stock.is_empty() {
        let query = "INSERT INTO stock (tenant, sku, lane, on_hand, held, allocated, version, changed_at) \
             SELECT tenant, sku, $1, on_hand, held, allocated, version, changed_at \
             FROM UNNEST($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[]) \
             AS new (tenant, sku, on_hand, held, allocated, version, changed_at) \
             ON CONFLICT (tenant, sku) DO UPDATE SET on_hand = EXCLUDED.on_hand, held = EXCLUDED.held, \
             allocated = EXCLUDED.allocated, version = EXCLUDED.version, changed_at = EXCLUDED.changed_at";
        let stock = || rows.stock.iter();
        sqlx::query(query)
            .bind(lane)
            .bind(column(stock(), |((tenant, _), _)| tenant.as_str()))
            .bind(column(stock(), |((_, sku), _)| sku.as_str()))
            .bind(column(stock(), |(_, row)| row.line.on_hand))
            .bind(column(stock(), |(_, row)| row.line.held))
            .bind(column(stock(), |(_, row)| row.line.allocated))
            .bind(column(stock(), |(_, row)| row.line.sku_version))
            .bind(column(stock(), |(_, row)| row.changed_at))
            .execute(&mut *connection)
            .await?;
    }
    if !rows.policies.is_empty() {
        let query = "UPDATE stock SET safety_stock = new.safety_stock, max_per_user = new.max_per_user \
             FROM UNNEST($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS new (tenant, sku, safety_stock, max_per_user) \
             WHERE stock.tenant = new.tenant AND stock.sku = new.sku";
        let policies = || rows.policies.iter();
        sqlx::query(query)
            .bind(column(policies(), |((tenant, _), _)| tenant.as_str()))
            .bind(column(policies(), |((_, sku), _)| sku.as_str()))
            .bind(column(policies(), |(_, policy)| policy.safety_stock))
            .bind(column(policies(), |(_, policy)| policy.max_per_user))
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Holds as the batch leaves them: those that it makes, and those that it changes.
pub(crate) async fn write_holds(
    connection: &mut PgConnection,
    lane: i16,
    rows: &Rows<'_>,
    manner: Manner,
) -> Result<(), sqlx::Error> {
    match manner {
        Manner::New => {
            insert_holds(connection, lane, rows, |hold| hold.is_new, "").await?;
            insert_holds(connection, lane, rows, |hold| !hold.is_new, UPDATE_HOLD).await
        }
        Manner::Beside => insert_holds(connection, lane, rows, |_| true, UPDATE_HOLD).await,
    }
}

const UPDATE_HOLD: &str = "ON CONFLICT (hold_id, attempt) DO UPDATE SET state = EXCLUDED.state, expires_at = EXCLUDED.expires_at, \
     changed_at = EXCLUDED.changed_at, payment_ref = EXCLUDED.payment_ref, reason = EXCLUDED.reason, \
     reject_reason = EXCLUDED.reject_reason, \
     shortages = EXCLUDED.shortages, command_offset = EXCLUDED.command_offset, remaining_ms = EXCLUDED.remaining_ms";

async fn insert_holds(
    connection: &mut PgConnection,
    lane: i16,
    rows: &Rows<'_>,
    which: fn(&HoldRow<'_>) -> bool,
    on_conflict: &str,
) -> Result<(), sqlx::Error> {
    let holds = || rows.holds.iter().filter(|(_, row)| which(row));
    if holds().next().is_none() {
        return Ok(());
    }
    let query = format!(
        "INSERT INTO holds (hold_id, attempt, lane, tenant, state, user_id, idempotency_key, key_bits, \
         fingerprint, created_at, expires_at, changed_at, policy, external_ref, payment_ref, reason, reject_reason, \
         shortages, command_offset, remaining_ms, cart, asked) \
         SELECT hold_id, attempt, $1, tenant, state, user_id, idempotency_key, key_bits, fingerprint, created_at, \
         expires_at, changed_at, policy, external_ref, payment_ref, reason, reject_reason, shortages::jsonb, command_offset, \
         remaining_ms, cart::jsonb, asked::jsonb \
         FROM UNNEST($2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[], $9::bytea[], \
         $10::bigint[], $11::bigint[], $12::bigint[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], \
         $18::text[], $19::bigint[], $20::bigint[], $21::text[], $22::text[]) AS new (hold_id, attempt, tenant, state, user_id, idempotency_key, key_bits, \
         fingerprint, created_at, expires_at, changed_at, policy, external_ref, payment_ref, reason, reject_reason, \
         shortages, command_offset, remaining_ms, cart, asked) {on_conflict}"
    );
    let terms = || holds().map(|(_, row)| row.terms);
    sqlx::query(AssertSqlSafe(query))
        .bind(lane)
        .bind(column(holds(), |((hold_id, _), _)| hold_id.uuid()))
        .bind(column(holds(), |((_, attempt), _)| *attempt))
        .bind(column(holds(), |(_, row)| row.tenant.as_str()))
        .bind(column(terms(), |terms| terms.state.name()))
        .bind(column(terms(), |terms| terms.user_id.as_str()))
        .bind(column(terms(), |terms| terms.idempotency_key.as_str()))
        .bind(column(holds(), |((hold_id, _), _)| Uuid::from_u128(hold_id.key_bits())))
        .bind(column(terms(), |terms| terms.fingerprint.as_bytes().as_slice()))
        .bind(column(terms(), |terms| terms.created_at))
        .bind(column(terms(), |terms| terms.expires_at))
        .bind(column(terms(), |terms| terms.changed_at))
        .bind(column(terms(), |terms| terms.policy.name()))
        .bind(column(terms(), |terms| {
            terms.external_ref.as_ref().map(AsRef::<str>::as_ref)
        }))
        .bind(column(terms(), |terms| {
            terms.payment_ref.as_ref().map(AsRef::<str>::as_ref)
        }))
        .bind(column(terms(), |terms| terms.reason.as_ref().map(AsRef::<str>::as_ref)))
        .bind(column(holds(), |(_, row)| {
            row.rejection.map(|(reason, _)| reason.code())
        }))
        .bind(column(holds(), |(_, row)| {
            row.rejection.map(|(_, shortages)| shortages_json(shortages))
        }))
        .bind(column(holds(), |(_, row)| row.command_offset))
        .bind(column(terms(), |terms| terms.remaining_ms))
        .bind(column(terms(), |terms| terms.cart.as_ref().map(picture::cart_json)))
        .bind(column(terms(), |terms| {
            (!terms.asked.is_empty()).then(|| picture::lines_json(&terms.asked))
        }))
        .execute(connection)
        .await?;
    Ok(())
}

/// Parts of other lanes' carts.
pub(crate) async fn write_parts(connection: &mut PgConnection, lane: i16, rows: &Rows<'_>) -> Result<(), sqlx::Error> {
    if rows.parts.is_empty() {
        return Ok(());
    }
    let query = "INSERT INTO hold_parts (hold_id, attempt, lane, tenant, state, user_id, relay_until, changed_at, lines, cart) \
         SELECT hold_id, attempt, $1, tenant, state, user_id, relay_until, changed_at, lines::jsonb, cart::jsonb \
         FROM UNNEST($2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::text[], \
         $10::text[]) AS new (hold_id, attempt, tenant, state, user_id, relay_until, changed_at, lines, cart) \
         ON CONFLICT (hold_id, attempt, lane) DO UPDATE SET state = EXCLUDED.state, user_id = EXCLUDED.user_id, \
         changed_at = EXCLUDED.changed_at, lines = EXCLUDED.lines, cart = EXCLUDED.cart";
    let parts = || rows.parts.iter();
    sqlx::query(query)
        .bind(lane)
        .bind(column(parts(), |(id, _)| id.hold_id.uuid()))
        .bind(column(parts(), |(id, _)| id.attempt))
        .bind(column(parts(), |(_, row)| row.tenant.as_str()))
        .bind(column(parts(), |(_, row)| row.terms.state.name()))
        .bind(column(parts(), |(_, row)| {
            row.terms.user_id.as_ref().map(AsRef::<str>::as_ref)
        }))
        .bind(column(parts(), |(_, row)| row.terms.relay_until))
        .bind(column(parts(), |(_, row)| row.terms.changed_at))
        .bind(column(parts(), |(_, row)| picture::lines_json(&row.own_lines())))
        .bind(column(parts(), |(_, row)| picture::cart_lines_json(&row.terms.cart)))
        .execute(connection)
        .await?;
    Ok(())
}

/// Lines of new holds.
pub(crate) async fn write_lines(
    connection: &mut PgConnection,
    rows: &Rows<'_>,
    manner: Manner,
) -> Result<(), sqlx::Error> {
    if rows.lines.is_empty() {
        return Ok(());
    }
    let query = format!(
        "INSERT INTO hold_lines (hold_id, attempt, sku, quantity, lane, tenant, created_at) \
         SELECT hold_id, attempt, sku, quantity, lane, tenant, created_at \
         FROM UNNEST($1::smallint[], $2::uuid[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::bigint[]) \
         AS new (lane, hold_id, attempt, sku, quantity, tenant, created_at) {}",
        manner.on_conflict()
    );
    let lines = || rows.lines.iter();
    sqlx::query(AssertSqlSafe(query))
        .bind(column(lines(), |row| lane_number(row.lane)))
        .bind(column(lines(), |row| row.hold_id.uuid()))
        .bind(column(lines(), |row| row.terms.attempt))
        .bind(column(lines(), |row| row.sku.as_str()))
        .bind(column(lines(), |row| row.quantity))
        .bind(column(lines(), |row| row.tenant.as_str()))
        .bind(column(lines(), |row| row.terms.created_at))
        .execute(connection)
        .await?;
    Ok(())
}

/// What each user holds or has bought, where it is not zero.
pub(crate) async fn write_counted(
    connection: &mut PgConnection,
    lane: i16,
    rows: &Rows<'_>,
) -> Result<(), sqlx::Error> {
    let (gone, there): (Vec<_>, Vec<_>) = rows.counted.iter().partition(|(_, counted)| **counted == 0);
    if !there.is_empty() {
        let query = "INSERT INTO user_limits (tenant, sku, user_id, lane, counted) \
             SELECT tenant, sku, user_id, $1, counted \
             FROM UNNEST($2::text[], $3::text[], $4::text[], $5::bigint[]) AS new (tenant, sku, user_id, counted) \
             ON CONFLICT (tenant, sku, user_id) DO UPDATE SET counted = EXCLUDED.counted";
        sqlx::query(query)
            .bind(lane)
            .bind(column(there.iter(), |((tenant, _, _), _)| tenant.as_str()))
            .bind(column(there.iter(), |((_, sku, _), _)| sku.as_str()))
            .bind(column(there.iter(), |((_, _, user_id), _)| user_id.as_str()))
            .bind(column(there.iter(), |(_, counted)| **counted))
            .execute(&mut *connection)
            .await?;
    }
    if !gone.is_empty() {
        let query = "DELETE FROM user_limits AS old \
             USING UNNEST($1::text[], $2::text[], $3::text[]) AS gone (tenant, sku, user_id) \
             WHERE old.tenant = gone.tenant AND old.sku = gone.sku AND old.user_id = gone.user_id";
        sqlx::query(query)
            .bind(column(gone.iter(), |((tenant, _, _), _)| tenant.as_str()))
            .bind(column(gone.iter(), |((_, sku, _), _)| sku.as_str()))
            .bind(column(gone.iter(), |((_, _, user_id), _)| user_id.as_str()))
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Command ids and sources that were applied.
pub(crate) async fn write_remembered(
    connection: &mut PgConnection,
    lane: i16,
    rows: &Rows<'_>,
) -> Result<(), sqlx::Error> {
    if !rows.commands.is_empty() {
        let query = "INSERT INTO remembered_commands (lane, tenant, command_id, fingerprint, applied_at) \
             SELECT $1, tenant, command_id, fingerprint, applied_at \
             FROM UNNEST($2::text[], $3::text[], $4::bytea[], $5::bigint[]) AS new (tenant, command_id, fingerprint, applied_at) \
             ON CONFLICT (lane, tenant, command_id) \
             DO UPDATE SET fingerprint = EXCLUDED.fingerprint, applied_at = EXCLUDED.applied_at";
        let commands = || rows.commands.iter();
        sqlx::query(query)
            .bind(lane)
            .bind(column(commands(), |((tenant, _), _)| tenant.as_str()))
            .bind(column(commands(), |((_, command_id), _)| *command_id))
            .bind(column(commands(), |(_, (fingerprint, _))| {
                fingerprint.as_bytes().as_slice()
            }))
            .bind(column(commands(), |(_, (_, at))| *at))
            .execute(&mut *connection)
            .await?;
    }
    if !rows.sources.is_empty() {
        let query = "INSERT INTO remembered_sources (lane, topic, source_partition, source_offset, log_time, applied_at) \
             SELECT $1, topic, source_partition, source_offset, log_time, applied_at \
             FROM UNNEST($2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::bigint[]) \
             AS new (topic, source_partition, source_offset, log_time, applied_at) \
             ON CONFLICT (lane, topic, source_partition, source_offset) \
             DO UPDATE SET log_time = EXCLUDED.log_time, applied_at = EXCLUDED.applied_at";
        let sources = || rows.sources.iter();
        sqlx::query(query)
            .bind(lane)
            .bind(column(sources(), |(source, _)| source.topic.as_str()))
            .bind(column(sources(), |(source, _)| source.partition))
            .bind(column(sources(), |(source, _)| source.offset))
            .bind(column(sources(), |(source, _)| source.log_time))
            .bind(column(sources(), |(_, at)| *at))
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Every change of a counter.
pub(crate) async fn write_movements(
    connection: &mut PgConnection,
    lane: i16,
    rows: &Rows<'_>,
    manner: Manner,
) -> Result<(), sqlx::Error> {
    if rows.movements.is_empty() {
        return Ok(());
    }
    let query = format!(
        "INSERT INTO stock_movements (lane, command_offset, sku, tenant, event_id, event_offset, kind, \
         on_hand_change, held_change, allocated_change, on_hand, held, allocated, version, reason, reference, actor, \
         hold_id, decided_at) \
         SELECT $1, new.* FROM UNNEST($2::bigint[], $3::text[], $4::text[], $5::uuid[], $6::bigint[], $7::text[], \
         $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], \
         $15::text[], $16::text[], $17::text[], $18::uuid[], $19::bigint[]) AS new {}",
        manner.on_conflict()
    );
    let movements = || rows.movements.iter();
    let events = || rows.movements.iter().map(|row| &row.decided.event);
    sqlx::query(AssertSqlSafe(query))
        .bind(lane)
        .bind(column(events(), |event| event.command_offset))
        .bind(column(movements(), |row| row.line.sku.as_str()))
        .bind(column(events(), |event| event.tenant.as_str()))
        .bind(column(events(), |event| event.event_id.uuid()))
        .bind(column(movements(), |row| row.decided.offset))
        .bind(column(events(), |event| event.body.name()))
        .bind(column(movements(), |row| row.change.on_hand))
        .bind(column(movements(), |row| row.change.held))
        .bind(column(movements(), |row| row.change.allocated))
        .bind(column(movements(), |row| row.line.on_hand))
        .bind(column(movements(), |row| row.line.held))
        .bind(column(movements(), |row| row.line.allocated))
        .bind(column(movements(), |row| row.line.sku_version))
        .bind(column(movements(), |row| row.reason))
        .bind(column(movements(), |row| row.reference))
        .bind(column(movements(), |row| row.actor))
        .bind(column(movements(), |row| row.hold_id.map(|hold_id| hold_id.uuid())))
        .bind(column(events(), |event| event.decided_at))
        .execute(connection)
        .await?;
    Ok(())
}

/// Requests that were refused. Rows are only appended: one that is there twice is forgotten twice.
pub(crate) async fn write_requests(
    connection: &mut PgConnection,
    lane: i16,
    rows: &Rows<'_>,
) -> Result<(), sqlx::Error> {
    if rows.requests.is_empty() {
        return Ok(());
    }
    let query = "INSERT INTO refused_requests (lane, mark, decided_at) \
         SELECT $1, mark, decided_at FROM UNNEST($2::bigint[], $3::bigint[]) AS new (mark, decided_at)";
    sqlx::query(query)
        .bind(lane)
        .bind(column(rows.requests.iter(), |(mark, _)| mark.number()))
        .bind(column(rows.requests.iter(), |(_, at)| *at))
        .execute(connection)
        .await?;
    Ok(())
}
