//! `/v1/stock/{sku}/movements`: every change of a SKU's counters, as the database has them.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use plumbing::time;
use schemas::picture::Movement;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::{App, tenant, unknown_sku},
    bodies,
    openapi::{ReadProblems, SkuInPath},
    problem::Answer,
    request::{Params, SkuPath},
};

/// Movements on a page where the client does not say.
const PAGE_DEFAULT: i64 = 100;
/// Movements on a page, at most.
const PAGE_MAX: i64 = 1_000;

/// The three counters: units, or by how many units they changed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MovementUnits)]
pub struct UnitsBody {
    /// On hand.
    #[schema(example = 0)]
    on_hand: i64,
    /// Held.
    #[schema(example = -1)]
    held: i64,
    /// Allocated.
    #[schema(example = 1)]
    allocated: i64,
}

impl From<[i64; 3]> for UnitsBody {
    fn from([on_hand, held, allocated]: [i64; 3]) -> Self {
        Self {
            on_hand,
            held,
            allocated,
        }
    }
}

/// One change of a SKU's counters.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Movement)]
pub struct MovementBody {
    /// The offset of its command in the SKU's lane.
    #[schema(example = 4711)]
    command: i64,
    /// The event's name.
    #[schema(example = "HoldConfirmed")]
    kind: String,
    /// What changed.
    change: UnitsBody,
    /// The counters after it.
    after: UnitsBody,
    /// Their version after it.
    #[schema(example = 12)]
    version: i64,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The document behind it: the caller's, the payment of a confirmation, the shipment.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    /// Who did it; a hold says who buys.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    /// The hold behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_id: Option<String>,
    /// When it was decided, by the log's clock (RFC 3339).
    #[schema(format = DateTime, example = "2026-11-22T08:05:00.123Z")]
    decided_at: String,
}

impl From<Movement> for MovementBody {
    fn from(movement: Movement) -> Self {
        Self {
            command: movement.command_offset,
            kind: movement.kind,
            change: movement.change.into(),
            after: movement.after.into(),
            version: movement.version,
            reason: movement.reason,
            reference: movement.reference,
            actor: movement.actor,
            hold_id: movement.hold_id.map(|id| id.to_string()),
            decided_at: time::text(movement.decided_at),
        }
    }
}

/// A page of movements.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MovementList)]
pub struct MovementListBody {
    /// Newest first.
    movements: Vec<MovementBody>,
    /// `cursor` of the next page; null at the end.
    next_cursor: Option<String>,
}

/// Read a SKU's movements, newest first
///
/// They are the database's, which follows the log by some milliseconds: the newest may not be there yet.
#[utoipa::path(
    get, path = "/v1/stock/{sku}/movements", tag = "stock", operation_id = "list_movements",
    params(
        SkuInPath,
        ("limit" = Option<u32>, Query, description = "Movements on a page; 100 when absent", minimum = 1, maximum = 1_000),
        ("cursor" = Option<i64>, Query, description = "`next_cursor` of the page before", minimum = 0),
    ),
    responses((status = 200, description = "The movements", body = MovementListBody), ReadProblems),
)]
pub async fn list_movements(State(app): State<Arc<App>>, SkuPath(sku): SkuPath, params: Params) -> Answer {
    params.only(&["limit", "cursor"])?;
    let before = params.number("cursor", 0..=i64::MAX)?;
    let limit = params.number("limit", 1..=PAGE_MAX)?.unwrap_or(PAGE_DEFAULT);
    let limit = u32::try_from(limit).expect("at most 1000");
    let live = app.live()?;
    let mut found = live.reads.movements(tenant(), sku.clone(), before, limit + 1).await?;
    if found.is_empty() && before.is_none() {
        let wanted = vec![(live.lane_of(&sku), sku.clone())];
        if live.reads.stock(&live.memory, tenant(), wanted).await?.is_empty() {
            return Err(unknown_sku(&sku));
        }
    }
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let last = found.last().filter(|_| has_more);
    let body = MovementListBody {
        next_cursor: last.map(|movement| movement.command_offset.to_string()),
        movements: found.into_iter().map(MovementBody::from).collect(),
    };
    Ok(bodies::json(StatusCode::OK, &body))
}
