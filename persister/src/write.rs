//! One batch, one transaction: the lane's offset, the ids of its events, and the rows that they make.
//!
//! The offset moves from where it was read, so each event comes once, and what it makes is new. Should some of it be there all the
//! same (somebody has set the offset back), the batch is rolled back and written beside it.

use std::time::Duration;

use domain::Lane;
use plumbing::{
    failpoint, postgres,
    telemetry::{self, TRACE},
};
use schemas::picture::{self, Checkpoint, lane_number};
use sqlx::{Connection as _, PgConnection, PgPool};

use crate::{
    lane::Fault,
    reader::{Batch, Decided},
    rows::Rows,
    sales,
    statements::{self, Manner},
};

/// A batch takes milliseconds. Whether one that takes so long was written is seen at the next try.
const BATCH_MAX: Duration = Duration::from_secs(60);

/// Where a lane stands; its row is made when it has none: nothing of the lane is in the picture yet.
pub(crate) async fn start(pool: &PgPool, lane: Lane) -> Result<Checkpoint, Fault> {
    if let Some(checkpoint) = picture::checkpoint(pool, lane).await? {
        return Ok(checkpoint);
    }
    sqlx::query("INSERT INTO lanes (lane) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(lane_number(lane))
        .execute(pool)
        .await?;
    Ok(picture::checkpoint(pool, lane).await?.unwrap_or_default())
}

/// Writes a batch, all of it or nothing, and says how many rows. Must not be dropped half-way.
pub(crate) async fn batch(pool: &PgPool, lane: Lane, batch: &Batch) -> Result<u64, Fault> {
    let _spans = spans(batch);
    match transaction(pool, lane, batch, Manner::New).await {
        Err(Fault::Postgres(sqlx::Error::Database(error))) if error.is_unique_violation() => {
            tracing::info!(%lane, first = batch.first, "some events of a batch are in the picture already: the others are written beside them");
            transaction(pool, lane, batch, Manner::Beside).await
        }
        written => written,
    }
}

async fn transaction(pool: &PgPool, lane: Lane, batch: &Batch, manner: Manner) -> Result<u64, Fault> {
    let writing = async |connection: &mut PgConnection| written(connection, lane_number(lane), batch, manner).await;
    postgres::within(BATCH_MAX, pool, writing).await
}

async fn written(connection: &mut PgConnection, lane: i16, batch: &Batch, manner: Manner) -> Result<u64, Fault> {
    let mut transaction = connection.begin().await?;
    move_offset(&mut transaction, lane, batch).await?;
    failpoint::reach("persister.offset_moved");
    let rows = if batch.decided.is_empty() {
        0
    } else {
        rows(&mut transaction, lane, batch, manner).await?
    };
    failpoint::reach("persister.rows_written");
    transaction.commit().await?;
    failpoint::reach("persister.committed");
    Ok(rows as u64)
}

async fn rows(connection: &mut PgConnection, lane: i16, batch: &Batch, manner: Manner) -> Result<usize, Fault> {
    let new = statements::write_events(connection, lane, &batch.decided, manner).await?;
    failpoint::reach("persister.events_noted");
    let is_new = |decided: &&Decided| new.contains(&decided.event.event_id.uuid());
    let rows = Rows::of(batch.decided.iter().filter(is_new));
    statements::write_stock(connection, lane, &rows).await?;
    statements::write_holds(connection, lane, &rows, manner).await?;
    failpoint::reach("persister.holds_written");
    statements::write_lines(connection, &rows, manner).await?;
    statements::write_movements(connection, lane, &rows, manner).await?;
    statements::write_requests(connection, lane, &rows).await?;
    statements::write_parts(connection, lane, &rows).await?;
    statements::write_counted(connection, lane, &rows).await?;
    statements::write_remembered(connection, lane, &rows).await?;
    sales::write_orders(connection, lane, &rows).await?;
    sales::write_refunds(connection, lane, &rows).await?;
    Ok(rows.count() + new.len())
}

/// One span an event, in its request's trace, from here to the commit.
fn spans(batch: &Batch) -> Vec<tracing::Span> {
    let traced = batch
        .decided
        .iter()
        .filter_map(|decided| Some((decided, decided.traceparent.as_ref()?)));
    traced
        .map(|(decided, traceparent)| {
            let event = &decided.event;
            let span = tracing::info_span!(
                target: TRACE,
                "persist",
                event = event.body.name(),
                event.id = %event.event_id,
                event.offset = decided.offset
            );
            telemetry::set_parent_from_traceparent(&span, traceparent);
            span
        })
        .collect()
}

async fn move_offset(connection: &mut PgConnection, lane: i16, batch: &Batch) -> Result<(), Fault> {
    let query = "UPDATE lanes SET next_event_offset = $3, epoch = $4, last_command_offset = $5, \
                 last_decision_epoch = $6, log_time = $7 WHERE lane = $1 AND next_event_offset = $2";
    let Checkpoint {
        next_event_offset,
        state,
    } = batch.checkpoint;
    let moved = sqlx::query(query)
        .bind(lane)
        .bind(batch.first)
        .bind(next_event_offset)
        .bind(state.epoch)
        .bind(state.last_command_offset)
        .bind(state.last_decision_epoch)
        .bind(state.log_time)
        .execute(connection)
        .await?
        .rows_affected();
    // Another persister has moved past us: stop before we write its past again.
    if moved == 1 { Ok(()) } else { Err(Fault::Moved) }
}
