//! Looking: orders, and the failed queue.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::IntoResponse,
};
use domain::OrderState;
use plumbing::{http::Segment, problem::CallProblems, time};
use serde::Deserialize;
use sqlx::{PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use super::{Answer, id_of, whole};
use crate::{
    bodies::{EntryBody, HoldInPath, NoOrder, OrderBody, OrderListBody, Tries, TryBody},
    problem::Problem,
};

const PAGE: i64 = 100;
/// What a list is asked for; a bad query is a problem like any other.
pub(super) type Listing = Result<Query<Wanted>, QueryRejection>;

/// Orders as rows of one shape, those too that are not paid yet.
macro_rules! orders {
    ($rest:literal) => {
        concat!("SELECT o.*, o.lines::text AS lines_json FROM order_states AS o ", $rest)
    };
}

/// The newest order of a hold; of one whose money came late, that of the hold that took the units again.
pub(super) async fn order(pool: &PgPool, hold_id: Uuid) -> Result<OrderBody, Problem> {
    let query = orders!(
        "WHERE hold_id = coalesce((SELECT retaken_hold_id FROM payments WHERE hold_id = $1 AND state <> 'aborted' \
         ORDER BY attempt DESC LIMIT 1), $1) ORDER BY attempt DESC LIMIT 1"
    );
    let own = orders!("WHERE hold_id = $1 ORDER BY attempt DESC LIMIT 1");
    for query in [query, own] {
        if let Some(row) = sqlx::query(query).bind(hold_id).fetch_optional(pool).await? {
            return Ok(OrderBody::of(&row)?);
        }
    }
    Err(Problem::not_found())
}

/// Read an order
///
/// Of a hold whose money came late, it is the order of the hold that took the units again.
#[utoipa::path(
    get, path = "/v1/orders/{hold_id}", tag = "orders", operation_id = "get_order",
    params(HoldInPath),
    responses((status = 200, description = "The order", body = OrderBody), NoOrder, CallProblems),
)]
pub(super) async fn show(State(pool): State<PgPool>, Segment(hold_id): Segment) -> Answer {
    let hold_id = id_of(&hold_id)?;
    whole(async move { Ok(Json(order(&pool, hold_id).await?).into_response()) }).await
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    state: Option<String>,
    user_id: Option<String>,
    cursor: Option<String>,
}

/// List orders, newest first, page by page
#[utoipa::path(
    get, path = "/v1/orders", tag = "orders", operation_id = "list_orders",
    params(
        ("state" = Option<String>, Query, description = "Only in this state",
            pattern = "^(payment_pending|paid|fulfilling|fulfilled|failed|cancelled|refunded)$"),
        ("user_id" = Option<String>, Query, description = "Only of this buyer"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before", pattern = "^-?[0-9]+[.][0-9a-f-]{36}$"),
    ),
    responses((status = 200, description = "Up to 100 orders", body = OrderListBody), CallProblems),
)]
pub(super) async fn list(State(pool): State<PgPool>, listing: Listing) -> Answer {
    let Query(wanted) = listing?;
    if let Some(state) = &wanted.state
        && OrderState::from_name(state).is_none()
    {
        return Err(Problem::invalid(format!("state: {state} is not a state of an order")));
    }
    page(pool, wanted).await
}

/// List failed orders: those that no carrier took
#[utoipa::path(
    get, path = "/v1/admin/failed", tag = "orders", operation_id = "list_failed",
    params(
        ("user_id" = Option<String>, Query, description = "Only of this buyer"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before", pattern = "^-?[0-9]+[.][0-9a-f-]{36}$"),
    ),
    responses((status = 200, description = "Up to 100 orders, newest first", body = OrderListBody), CallProblems),
)]
pub(super) async fn failed(State(pool): State<PgPool>, listing: Listing) -> Answer {
    let Query(wanted) = listing?;
    if wanted.state.is_some() {
        return Err(Problem::invalid(
            "state: all of these are failed; `/v1/orders` takes a state",
        ));
    }
    let state = Some(OrderState::Failed.name().to_owned());
    page(pool, Wanted { state, ..wanted }).await
}

/// Newest first; a cursor is `ordered_at.hold_id`.
async fn page(pool: PgPool, wanted: Wanted) -> Answer {
    let (before, id) = match &wanted.cursor {
        None => (i64::MAX, Uuid::max()),
        Some(cursor) => {
            let parts = cursor.split_once('.');
            let parts = parts.and_then(|(at, id)| Some((at.parse().ok()?, Uuid::try_parse(id).ok()?)));
            parts.ok_or_else(|| Problem::invalid("cursor: is not one of this list"))?
        }
    };
    whole(async move {
        let query = orders!(
            "WHERE ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR user_id = $2) \
             AND (ordered_at, hold_id) < ($3, $4) ORDER BY ordered_at DESC, hold_id DESC LIMIT $5"
        );
        let rows = sqlx::query(query)
            .bind(wanted.state)
            .bind(wanted.user_id)
            .bind(before)
            .bind(id)
            .bind(PAGE)
            .fetch_all(&pool)
            .await?;
        let orders = rows.iter().map(OrderBody::of).collect::<Result<Vec<_>, _>>()?;
        let is_full = orders.len() == usize::try_from(PAGE).unwrap_or(usize::MAX);
        let place = |row: &PgRow| {
            let (at, id) = (row.try_get::<i64, _>("ordered_at")?, row.try_get::<Uuid, _>("hold_id")?);
            Ok::<_, sqlx::Error>(format!("{at}.{id}"))
        };
        let next_cursor = rows.last().filter(|_| is_full).map(place).transpose()?;
        Ok(Json(OrderListBody { orders, next_cursor }).into_response())
    })
    .await
}

/// Look at a failed order: each try with its error, and what people did
#[utoipa::path(
    get, path = "/v1/admin/failed/{hold_id}", tag = "orders", operation_id = "inspect_failed",
    params(HoldInPath),
    responses((status = 200, description = "The order, `tries` being each try, with its `timeline`", body = OrderBody), NoOrder, CallProblems),
)]
pub(super) async fn inspect(State(pool): State<PgPool>, Segment(hold_id): Segment) -> Answer {
    let hold_id = id_of(&hold_id)?;
    whole(async move {
        let mut order = order(&pool, hold_id).await?;
        let query = "SELECT carrier, payload::text, started_at, ended_at, reference, error \
             FROM fulfilment_tries WHERE hold_id = $1 ORDER BY id";
        type Try = (String, String, i64, i64, Option<String>, Option<String>);
        let tries: Vec<Try> = sqlx::query_as(query).bind(hold_id).fetch_all(&pool).await?;
        let tried = |(carrier, payload, started_at, ended_at, reference, error): Try| TryBody {
            carrier,
            payload: serde_json::from_str(&payload).unwrap_or_default(),
            started_at: time::text(started_at),
            ended_at: time::text(ended_at),
            reference,
            error,
        };
        order.tries = Some(Tries::Each(tries.into_iter().map(tried).collect()));
        let query = "SELECT at, actor, action, detail::text \
             FROM audit_log WHERE subject = $1::uuid::text AND action LIKE 'order.%' ORDER BY id";
        type Entry = (i64, String, String, String);
        let entries: Vec<Entry> = sqlx::query_as(query).bind(hold_id).fetch_all(&pool).await?;
        let done = |(at, actor, action, detail): Entry| EntryBody {
            at: time::text(at),
            actor,
            action,
            detail: serde_json::from_str(&detail).unwrap_or_default(),
        };
        order.timeline = Some(entries.into_iter().map(done).collect());
        Ok(Json(order).into_response())
    })
    .await
}
