//! Postgres against the log: the rows at a checkpoint are what the events before it add up to (I6), exactly.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context as _;
use domain::{HoldId, Lane, Ledger, Millis, Sku, ledger::LedgerHold, limits};
use schemas::picture::{self, Checkpoint};
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    books::Pages,
    report::{Differences, Place},
};

/// Load everything, however long ago: ten years in milliseconds.
pub const EVERYTHING_MS: i64 = 10 * 366 * 24 * 60 * 60 * 1_000;

/// What the rows of a lane say beside the picture itself.
#[derive(Debug)]
pub struct SideRows {
    /// Orders by hold and attempt.
    orders: HashMap<(Uuid, i64), OrderRow>,
    /// Refunds that are required, before the checkpoint.
    refunds: i64,
    /// Sums of the movements before the checkpoint: on hand, held, allocated.
    movements: BTreeMap<(String, String), (i64, i64, i64)>,
    /// First event offset in `processed_events`, and how many there are before the checkpoint.
    processed: (Option<i64>, i64),
}

#[derive(Debug)]
struct OrderRow {
    user_id: String,
    payment_ref: Option<String>,
    lines: String,
    command_offset: i64,
}

/// A lane's picture; `None` where the persister has not begun.
///
/// # Errors
/// Postgres does not answer or has not the tables of this version.
pub async fn load(pool: &PgPool, lane: Lane) -> anyhow::Result<Option<(Checkpoint, Ledger)>> {
    picture::load(pool, lane, EVERYTHING_MS)
        .await
        .context("the picture in Postgres cannot be read")
}

/// Orders, movements and processed events of a lane before a checkpoint that was loaded just now.
///
/// # Errors
/// Postgres does not answer.
pub async fn load_side_rows(pool: &PgPool, lane: Lane, checkpoint: &Checkpoint) -> anyhow::Result<SideRows> {
    let number = i16::try_from(lane.number()).expect("a lane has twelve bits");
    let orders: Vec<(Uuid, i64, String, Option<String>, String, Uuid)> = sqlx::query_as(
        "SELECT hold_id, attempt, user_id, payment_ref, \
                (SELECT string_agg((line->>'sku') || ' x ' || (line->>'quantity'), ', ' ORDER BY line->>'sku' COLLATE \"C\") \
                   FROM jsonb_array_elements(lines) AS line), event_id \
           FROM orders WHERE lane = $1",
    )
    .bind(number)
    .fetch_all(pool)
    .await?;
    let movements: Vec<(String, String, i64, i64, i64)> = sqlx::query_as(
        "SELECT tenant, sku, sum(on_hand_change)::bigint, sum(held_change)::bigint, sum(allocated_change)::bigint \
           FROM stock_movements WHERE lane = $1 AND event_offset < $2 GROUP BY tenant, sku",
    )
    .bind(number)
    .bind(checkpoint.next_event_offset)
    .fetch_all(pool)
    .await?;
    let processed: (Option<i64>, i64) = sqlx::query_as(
        "SELECT min(event_offset), count(*) FROM processed_events WHERE lane = $1 AND event_offset < $2",
    )
    .bind(number)
    .bind(checkpoint.next_event_offset)
    .fetch_one(pool)
    .await?;
    let refunds = sqlx::query_scalar("SELECT count(*) FROM required_refunds WHERE lane = $1 AND command_offset <= $2")
        .bind(number)
        .bind(checkpoint.state.last_command_offset)
        .fetch_one(pool)
        .await?;
    Ok(SideRows {
        refunds,
        orders: orders
            .into_iter()
            .map(|(hold_id, attempt, user_id, payment_ref, lines, event_id)| {
                let row = OrderRow {
                    user_id,
                    payment_ref,
                    lines,
                    command_offset: command_of(event_id),
                };
                ((hold_id, attempt), row)
            })
            .collect(),
        movements: movements
            .into_iter()
            .map(|(tenant, sku, on_hand, held, allocated)| ((tenant, sku), (on_hand, held, allocated)))
            .collect(),
        processed,
    })
}

/// The command offset in an event's id: its last 55 bits.
fn command_of(event_id: Uuid) -> i64 {
    i64::try_from(event_id.as_u128() & ((1 << 55) - 1)).expect("55 bits fit")
}

/// Compares a picture with the log read up to the same offset.
pub fn compare(
    checkpoint: &Checkpoint,
    picture: &Ledger,
    pages: &Pages,
    remember_ms: Millis,
    differences: &mut Differences,
) {
    let mut note = |what: String| differences.note(Place::Postgres, what);
    if checkpoint.state != pages.state {
        note(format!(
            "the lane's state at event {} is {:?} in Postgres, {:?} in the log",
            checkpoint.next_event_offset, checkpoint.state, pages.state
        ));
    }
    let log = &pages.ledger;
    let stock = (picture.stock.iter(), log.stock.keys());
    each_side(
        stock.0,
        stock.1,
        |key| log.stock.get(key),
        |key| format!("stock of {}/{}", key.0, key.1),
        &mut note,
    );
    each_side(
        picture.holds.iter(),
        log.holds.keys(),
        |id| log.holds.get(id),
        |id| format!("hold {id}"),
        &mut note,
    );
    each_side(
        picture.parts.iter(),
        log.parts.keys(),
        |id| log.parts.get(id),
        |id| format!("part {id}"),
        &mut note,
    );
    each_side(
        picture.counted.iter(),
        log.counted.keys(),
        |key| log.counted.get(key),
        |(tenant, sku, user)| format!("units of {tenant}/{sku} that {user} has"),
        &mut note,
    );
    // Pruned by the wall clock, after what is remembered by log time.
    let now = pages.state.log_time.max(plumbing::time::now_ms());
    let forgotten = |at: Millis| at.saturating_add(remember_ms) <= now;
    for (key, at) in &log.commands {
        match picture.commands.get(key) {
            Some(row) if row != at => note(format!("command {}/{}: {}", key.0, key.1, differ(row, at))),
            None if !forgotten(at.at) => note(format!("command {}/{} is not remembered in Postgres", key.0, key.1)),
            Some(_) | None => {}
        }
    }
    let remembered = |at: Millis| at + limits::REMEMBER_REQUEST_MS > now;
    for (mark, at) in log.requests.iter().filter(|(_, at)| remembered(**at)) {
        let row = picture.requests.get(mark);
        if row != Some(at) {
            note(format!(
                "request {mark} was refused at {row:?} in Postgres, at {at} in the log"
            ));
        }
    }
    for (source, at) in &log.sources {
        let row = picture.sources.get(source);
        if row.is_some_and(|row| row != at) || (row.is_none() && !forgotten(*at)) {
            note(format!(
                "source {source:?} was applied at {row:?} in Postgres, at {at} in the log"
            ));
        }
    }
}

/// Compares the side rows with the log read up to the same checkpoint.
pub fn compare_side_rows(side: &SideRows, pages: &Pages, whole: bool, differences: &mut Differences) {
    compare_orders(side, pages, differences);
    let refunds = pages.events.get("RefundRequired").copied().unwrap_or_default();
    if whole && u64::try_from(side.refunds) != Ok(refunds) {
        differences.note(
            Place::Postgres,
            format!("{} required refunds in Postgres, {refunds} in the log", side.refunds),
        );
    }
    for ((tenant, sku), stock) in &pages.ledger.stock {
        let counters = (stock.on_hand, stock.held, stock.allocated);
        let key = (tenant.to_string(), sku.to_string());
        let moved = side.movements.get(&key).copied().unwrap_or_default();
        if moved != counters {
            differences.note(
                Place::Postgres,
                format!(
                    "movements of {tenant}/{sku} add up to (on_hand, held, allocated) {moved:?}, its counters are {counters:?}"
                ),
            );
        }
    }
    if whole {
        // Rows are pruned behind the topic's retention, oldest first.
        let (first, rows) = side.processed;
        let from = first.unwrap_or(i64::MAX);
        let expected = pages.decided.iter().filter(|decided| decided.event >= from).count();
        let (valid, rows) = (pages.decided.len(), usize::try_from(rows).unwrap_or_default());
        if rows != expected || (valid > 0 && rows == 0) {
            differences.note(
                Place::Postgres,
                format!("{rows} processed events in Postgres since event {first:?}, {expected} valid ones in the log"),
            );
        }
    }
}

fn compare_orders(side: &SideRows, pages: &Pages, differences: &mut Differences) {
    let sold = |hold: &LedgerHold| hold.terms.state.is_sold();
    for (hold_id, hold) in pages.ledger.holds.iter().filter(|(_, hold)| sold(hold)) {
        let Some(order) = side.orders.get(&(hold_id.uuid(), hold.terms.attempt)) else {
            differences.note(
                Place::Postgres,
                format!("hold {hold_id} was confirmed and has no order"),
            );
            continue;
        };
        let payment_ref = hold.terms.payment_ref.as_ref().map(ToString::to_string);
        let lines = lines_text(&hold.all_lines());
        if order.user_id != hold.terms.user_id.as_str() || order.payment_ref != payment_ref || order.lines != lines {
            differences.note(
                Place::Postgres,
                format!("the order of hold {hold_id} says {order:?}, the log {hold:?}"),
            );
        }
    }
    // An order that came after the checkpoint belongs to a hold that was confirmed after it.
    let decided = pages.state.last_command_offset;
    for ((hold_id, attempt), _) in side.orders.iter().filter(|(_, order)| order.command_offset <= decided) {
        let known = HoldId::parse(&hold_id.to_string())
            .ok()
            .and_then(|id| pages.ledger.holds.get(&id));
        // A sale that is over may have been followed by another hold of its key.
        let was_confirmed =
            |hold: &LedgerHold| hold.terms.attempt > *attempt || (hold.terms.attempt == *attempt && sold(hold));
        if !known.is_some_and(was_confirmed) {
            differences.note(
                Place::Postgres,
                format!("there is an order of hold {hold_id}, which the log never confirmed"),
            );
        }
    }
}

fn lines_text(lines: &[(Sku, i64)]) -> String {
    let texts: Vec<String> = lines.iter().map(|(sku, units)| format!("{sku} x {units}")).collect();
    texts.join(", ")
}

fn differ(row: &impl std::fmt::Debug, log: &impl std::fmt::Debug) -> String {
    format!("{row:?} in Postgres, {log:?} in the log")
}

/// Compares the rows with the log, and finds what only the log has.
fn each_side<'a, K: Eq + std::hash::Hash + 'a, V: PartialEq + std::fmt::Debug + 'a>(
    rows: impl Iterator<Item = (&'a K, &'a V)> + Clone,
    log_keys: impl Iterator<Item = &'a K>,
    log: impl Fn(&K) -> Option<&'a V>,
    name: impl Fn(&K) -> String,
    note: &mut impl FnMut(String),
) {
    let mut seen = std::collections::HashSet::new();
    for (key, row) in rows {
        seen.insert(key);
        match log(key) {
            Some(value) if value != row => note(format!("{}: {}", name(key), differ(row, value))),
            None => note(format!("{}: {row:?} in Postgres, unknown to the log", name(key))),
            Some(_) => {}
        }
    }
    for key in log_keys.filter(|key| !seen.contains(key)) {
        note(format!("{}: not in Postgres, {:?} in the log", name(key), log(key)));
    }
}
