//! The HTTP routes: orders, the failed queue, returns. They write rows; the worker does the rest.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use domain::{HoldId, Key, OrderState, OrderStep, Quantity, Sku, Text};
use plumbing::{config::Connections, postgres, problem::wanting_token, task};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{problem::Problem, settle};

const PAGE: i64 = 100;
/// Who acts when the call does not say.
const API: &str = "api";

type Answer = Result<Response, Problem>;
/// What a list is asked for; a bad query is a problem like any other.
type Listing = Result<Query<Wanted>, QueryRejection>;
/// Whether a call shows the service's token.
type LetIn = Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>;

/// The desk's routes, for the process that serves HTTP. `is_let_in` judges every call by its headers.
///
/// # Errors
/// The URL of Postgres is not one.
pub fn router(
    connections: &Connections,
    is_let_in: impl Fn(&HeaderMap) -> bool + Send + Sync + 'static,
) -> anyhow::Result<Router> {
    let pool = postgres::connect_lazy(&connections.postgres_url, "holdfast-desk", 4)?;
    let is_let_in: LetIn = Arc::new(is_let_in);
    Ok(Router::new()
        .route("/v1/orders", get(list))
        .route("/v1/orders/{hold_id}", get(show))
        .route("/v1/orders/{hold_id}/returns", post(return_units))
        .route("/v1/orders/{hold_id}/refunded", post(refunded))
        .route("/v1/admin/failed", get(failed))
        .route("/v1/admin/failed/{hold_id}", get(inspect))
        .route("/v1/admin/failed/{hold_id}/retry", post(retry))
        .route("/v1/admin/failed/{hold_id}/cancel", post(cancel))
        .route_layer(middleware::from_fn_with_state(is_let_in, gate))
        .with_state(pool))
}

async fn gate(State(is_let_in): State<LetIn>, request: Request, next: Next) -> Response {
    if is_let_in(request.headers()) {
        next.run(request).await
    } else {
        wanting_token(Problem::unauthorized().into_response())
    }
}

/// Database work that goes on when the client hangs up: a transaction must not be dropped half-way.
async fn whole<F>(work: F) -> Answer
where
    F: Future<Output = Answer> + Send + 'static,
{
    task::spawn("desk", work).await?
}

/// Orders as rows of one shape, those too that are not paid yet.
macro_rules! orders {
    ($rest:literal) => {
        concat!("SELECT o.*, o.lines::text AS lines_json FROM order_states AS o ", $rest)
    };
}

fn order_json(row: &PgRow) -> Result<Value, sqlx::Error> {
    let text = |name: &str| row.try_get::<Option<String>, _>(name);
    let number = |name: &str| row.try_get::<Option<i64>, _>(name);
    let time = |name: &str| Ok::<_, sqlx::Error>(number(name)?.map(plumbing::time::text));
    let lines: Value = serde_json::from_str(row.try_get("lines_json")?).unwrap_or_default();
    Ok(
        json!({"hold_id": row.try_get::<Uuid, _>("hold_id")?.to_string(), "attempt": number("attempt")?,
        "state": text("state")?, "user_id": text("user_id")?, "lines": lines, "payment_ref": text("payment_ref")?,
        "payment_state": text("payment_state")?, "external_ref": text("external_ref")?, "ordered_at": time("ordered_at")?,
        "tries": row.try_get::<Option<i32>, _>("tries")?, "next_try_at": time("next_try_at")?,
        "carrier_reference": text("carrier_reference")?, "failed_at": time("failed_at")?,
        "reason": text("reason")?}),
    )
}

/// The newest order of a hold; of one whose money came late, that of the hold that took the units again.
async fn order(pool: &PgPool, hold_id: Uuid) -> Result<Value, Problem> {
    let query = orders!(
        "WHERE hold_id = coalesce((SELECT retaken_hold_id FROM payments WHERE hold_id = $1 AND state <> 'aborted' \
         ORDER BY attempt DESC LIMIT 1), $1) ORDER BY attempt DESC LIMIT 1"
    );
    let own = orders!("WHERE hold_id = $1 ORDER BY attempt DESC LIMIT 1");
    for query in [query, own] {
        if let Some(row) = sqlx::query(query).bind(hold_id).fetch_optional(pool).await? {
            return Ok(order_json(&row)?);
        }
    }
    Err(Problem::not_found())
}

fn id_of(text: &str) -> Result<Uuid, Problem> {
    Ok(HoldId::parse(text)?.uuid())
}

async fn show(State(pool): State<PgPool>, Path(hold_id): Path<String>) -> Answer {
    let hold_id = id_of(&hold_id)?;
    whole(async move { Ok(Json(order(&pool, hold_id).await?).into_response()) }).await
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Wanted {
    state: Option<String>,
    user_id: Option<String>,
    cursor: Option<String>,
}

async fn list(State(pool): State<PgPool>, listing: Listing) -> Answer {
    let Query(wanted) = listing?;
    if let Some(state) = &wanted.state
        && OrderState::from_name(state).is_none()
    {
        return Err(Problem::invalid(format!("state: {state} is not a state of an order")));
    }
    page(pool, wanted).await
}

async fn failed(State(pool): State<PgPool>, listing: Listing) -> Answer {
    let Query(wanted) = listing?;
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
        let orders = rows.iter().map(order_json).collect::<Result<Vec<_>, _>>()?;
        let is_full = orders.len() == usize::try_from(PAGE).unwrap_or(usize::MAX);
        let place = |row: &PgRow| {
            let (at, id) = (row.try_get::<i64, _>("ordered_at")?, row.try_get::<Uuid, _>("hold_id")?);
            Ok::<_, sqlx::Error>(format!("{at}.{id}"))
        };
        let next = rows.last().filter(|_| is_full).map(place).transpose()?;
        Ok(Json(json!({"orders": orders, "next_cursor": next})).into_response())
    })
    .await
}

/// Points in time as text, in the place of milliseconds.
fn with_times(mut entry: Value) -> Value {
    for name in ["started_at", "ended_at", "at"] {
        if let Some(at) = entry[name].as_i64() {
            entry[name] = plumbing::time::text(at).into();
        }
    }
    entry
}

/// An order with its tries and what people did to it.
async fn inspect(State(pool): State<PgPool>, Path(hold_id): Path<String>) -> Answer {
    let hold_id = id_of(&hold_id)?;
    whole(async move {
        let mut order = order(&pool, hold_id).await?;
        let tries = "SELECT jsonb_build_object('carrier', carrier, 'payload', payload, 'started_at', started_at, \
             'ended_at', ended_at, 'reference', reference, 'error', error)::text \
             FROM fulfilment_tries WHERE hold_id = $1 ORDER BY id";
        let timeline = "SELECT jsonb_build_object('at', at, 'actor', actor, 'action', action, 'detail', detail)::text \
             FROM audit_log WHERE subject = $1::uuid::text AND action LIKE 'order.%' ORDER BY id";
        for (name, query) in [("tries", tries), ("timeline", timeline)] {
            let rows: Vec<String> = sqlx::query_scalar(query).bind(hold_id).fetch_all(&pool).await?;
            let parsed = rows
                .iter()
                .map(|row| with_times(serde_json::from_str(row).unwrap_or_default()));
            order[name] = Value::Array(parsed.collect());
        }
        Ok(Json(order).into_response())
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    reason: String,
    actor: Option<String>,
    lines: Option<Vec<AskedLine>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedLine {
    sku: String,
    quantity: i64,
}

/// Who asks, and why.
struct Why {
    actor: String,
    reason: String,
    lines: Option<Vec<(String, i64)>>,
}

fn why(headers: &HeaderMap, body: &Bytes) -> Result<Why, Problem> {
    // A page of another site cannot send this type without asking first.
    let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return Err(Problem::invalid("content-type: must be application/json"));
    }
    let asked: Asked = serde_json::from_slice(body).map_err(|error| Problem::invalid(format!("body: {error}")))?;
    let actor = asked.actor.unwrap_or_else(|| API.to_owned());
    let lines = asked.lines.map(|lines| {
        let lines = lines.into_iter().map(|line| {
            Quantity::parse(line.quantity)?;
            Ok((Sku::parse(&line.sku)?.as_str().to_owned(), line.quantity))
        });
        lines.collect::<Result<Vec<_>, Problem>>()
    });
    Ok(Why {
        actor: Text::parse("actor", &actor)?.as_str().to_owned(),
        reason: Text::parse("reason", &asked.reason)?.as_str().to_owned(),
        lines: lines.transpose()?,
    })
}

async fn retry(State(pool): State<PgPool>, Path(hold_id): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let (hold_id, why) = (id_of(&hold_id)?, why(&headers, &body)?);
    whole(async move {
        let mut transaction = pool.begin().await?;
        let locked = settle::locked(&mut transaction, hold_id).await?;
        let Some((attempt, state)) = locked else {
            return Err(not_begun(&pool, hold_id).await);
        };
        let next = state.step(OrderStep::Retry).ok_or_else(|| not_failed(state))?;
        let query = "UPDATE fulfilments SET state = $3, tries = 0, failed_at = NULL, next_try_at = clock_ms(), \
             changed_at = clock_ms() WHERE hold_id = $1 AND attempt = $2";
        let retrying = sqlx::query(query).bind(hold_id).bind(attempt).bind(next.name());
        retrying.execute(&mut *transaction).await?;
        settle::audit(&mut transaction, hold_id, &why.actor, "order.retry", &why.reason).await?;
        transaction.commit().await?;
        Ok(Json(order(&pool, hold_id).await?).into_response())
    })
    .await
}

async fn cancel(State(pool): State<PgPool>, Path(hold_id): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let (hold_id, why) = (id_of(&hold_id)?, why(&headers, &body)?);
    whole(async move {
        let mut transaction = pool.begin().await?;
        let locked = settle::locked(&mut transaction, hold_id).await?;
        let Some((_, state)) = locked else {
            return Err(not_begun(&pool, hold_id).await);
        };
        let cancelled = settle::cancel(&mut transaction, hold_id, &why.actor, &why.reason).await?;
        cancelled.ok_or_else(|| not_failed(state))?;
        transaction.commit().await?;
        Ok(Json(order(&pool, hold_id).await?).into_response())
    })
    .await
}

/// A person says that the money is back, where the payment is not checkout's.
async fn refunded(State(pool): State<PgPool>, Path(hold_id): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let (hold_id, why) = (id_of(&hold_id)?, why(&headers, &body)?);
    whole(async move {
        let mut transaction = pool.begin().await?;
        let query = "UPDATE refund_requests AS r SET done_at = clock_ms() WHERE hold_id = $1 AND done_at IS NULL \
             AND NOT EXISTS (SELECT FROM payments AS p WHERE p.payment_ref = r.payment_ref)";
        let done = sqlx::query(query).bind(hold_id).execute(&mut *transaction).await?;
        if done.rows_affected() == 0 {
            let order = order(&pool, hold_id).await?;
            let detail = match order["payment_state"].is_null() {
                true => "no money of this order has to go back",
                false => "its payment is checkout's, which gives it back and says so",
            };
            return Err(Problem::wrong_state(detail));
        }
        settle::audit(&mut transaction, hold_id, &why.actor, "order.refunded", &why.reason).await?;
        transaction.commit().await?;
        Ok(Json(order(&pool, hold_id).await?).into_response())
    })
    .await
}

/// Why nothing of an order can be tried again or given up: it is not there, or no carrier was asked.
async fn not_begun(pool: &PgPool, hold_id: Uuid) -> Problem {
    match order(pool, hold_id).await {
        Ok(_) => Problem::wrong_state("the order was not given to a carrier yet, so nothing of it has failed"),
        Err(problem) => problem,
    }
}

fn not_failed(state: OrderState) -> Problem {
    Problem::wrong_state(format!("the order is {}, not failed", state.name()))
}

/// Units of a shipped order come back: all that is left of it, or the lines that are named.
async fn return_units(
    State(pool): State<PgPool>,
    Path(hold_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let (hold_id, why) = (id_of(&hold_id)?, why(&headers, &body)?);
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let key = key.ok_or_else(|| {
        Problem::invalid("Idempotency-Key: a return needs one, so that a retry returns nothing twice")
    })?;
    let key = Key::parse("Idempotency-Key", key)?.as_str().to_owned();
    whole(async move {
        let mut transaction = pool.begin().await?;
        let query = "SELECT o.attempt, o.lines::text AS lines, h.state FROM orders AS o \
             LEFT JOIN holds AS h USING (hold_id, attempt) WHERE o.hold_id = $1 ORDER BY o.attempt DESC LIMIT 1 FOR UPDATE OF o";
        let row = sqlx::query(query).bind(hold_id).fetch_optional(&mut *transaction).await?;
        let row = row.ok_or_else(Problem::not_found)?;
        let (attempt, state): (i64, Option<String>) = (row.try_get("attempt")?, row.try_get("state")?);
        if state.as_deref() != Some("shipped") {
            return Err(Problem::wrong_state("only what was shipped can come back"));
        }
        let known: Vec<(String, i64)> = sqlx::query_as(
            "SELECT sku, quantity FROM order_returns WHERE hold_id = $1 AND attempt = $2 AND key = $3",
        )
        .bind(hold_id)
        .bind(attempt)
        .bind(&key)
        .fetch_all(&mut *transaction)
        .await?;
        if known.is_empty() {
            let left = left(&mut transaction, hold_id, attempt, row.try_get("lines")?).await?;
            for (sku, quantity) in returned(&left, why.lines.clone())? {
                let query = "INSERT INTO order_returns (hold_id, attempt, key, sku, quantity, reason, actor, requested_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, clock_ms())";
                sqlx::query(query)
                    .bind(hold_id)
                    .bind(attempt)
                    .bind(&key)
                    .bind(sku)
                    .bind(quantity)
                    .bind(&why.reason)
                    .bind(&why.actor)
                    .execute(&mut *transaction)
                    .await?;
            }
            settle::audit(&mut transaction, hold_id, &why.actor, "order.return", &why.reason).await?;
        } else if why.lines.is_some_and(|lines| sorted(lines) != sorted(known)) {
            return Err(Problem::key_reused());
        }
        transaction.commit().await?;
        Ok((StatusCode::ACCEPTED, Json(order(&pool, hold_id).await?)).into_response())
    })
    .await
}

/// What was shipped and has not come back: SKU and units.
async fn left(
    connection: &mut PgConnection,
    hold_id: Uuid,
    attempt: i64,
    lines: &str,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    let query = "SELECT line.sku, line.quantity - coalesce((SELECT sum(quantity)::bigint FROM order_returns AS r \
         WHERE r.hold_id = $1 AND r.attempt = $2 AND r.sku = line.sku), 0) \
         FROM jsonb_to_recordset($3::jsonb) AS line (sku text, quantity bigint)";
    let left = sqlx::query_as(query).bind(hold_id).bind(attempt).bind(lines);
    left.fetch_all(connection).await
}

/// Lines in an order that is always the same.
fn sorted(mut lines: Vec<(String, i64)>) -> Vec<(String, i64)> {
    lines.sort_unstable();
    lines
}

/// The units of a return, each SKU once and never more than is left.
fn returned(left: &[(String, i64)], lines: Option<Vec<(String, i64)>>) -> Result<Vec<(String, i64)>, Problem> {
    let wanted = lines.unwrap_or_else(|| left.iter().filter(|(_, units)| *units > 0).cloned().collect());
    if wanted.is_empty() {
        return Err(Problem::too_many_units("nothing is left that could come back"));
    }
    for (place, (sku, quantity)) in wanted.iter().enumerate() {
        if wanted.iter().take(place).any(|(other, _)| other == sku) {
            return Err(Problem::invalid(format!("lines: {sku} is named twice")));
        }
        let units = left
            .iter()
            .find(|(other, _)| other == sku)
            .map_or(0, |(_, units)| *units);
        if *quantity > units {
            let detail = format!("{quantity} of {sku} cannot come back: {units} were shipped and are not back");
            return Err(Problem::too_many_units(detail));
        }
    }
    Ok(wanted)
}
