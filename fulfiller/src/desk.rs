//! The HTTP routes: orders, the failed queue, returns. They write rows; the worker does the rest.

use std::sync::Arc;

use axum::{
    Json,
    extract::{DefaultBodyLimit, Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use domain::{HoldId, Key, OrderState, OrderStep, Quantity, Sku, Text};
use plumbing::{
    config::Connections,
    http::{
        Segment,
        json::{BODY_MAX, JsonBody},
    },
    postgres,
    problem::wanting_token,
    task, time,
};
use serde::Deserialize;
use sqlx::{PgConnection, PgPool, Row, postgres::PgRow};
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    bodies::{
        ActProblems, ActRequest, Calls, EntryBody, NoOrder, OrderBody, OrderListBody, ReadProblems, ReturnLine,
        ReturnProblems, ReturnRequest, Tries, TryBody,
    },
    problem::Problem,
    settle,
};

const PAGE: i64 = 100;
/// Who acts when the call does not say.
const API: &str = "api";

type Answer = Result<Response, Problem>;
/// What a list is asked for; a bad query is a problem like any other.
type Listing = Result<Query<Wanted>, QueryRejection>;
/// Whether a call shows the service's token.
type LetIn = Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>;

/// The desk's calls with their description, for the process that serves HTTP. `is_let_in` judges every call by its headers.
///
/// # Errors
/// The URL of Postgres is not one.
pub fn router(
    connections: &Connections,
    is_let_in: impl Fn(&HeaderMap) -> bool + Send + Sync + 'static,
) -> anyhow::Result<OpenApiRouter> {
    let pool = postgres::connect_lazy(&connections.postgres_url, "holdfast-desk", 4)?;
    let is_let_in: LetIn = Arc::new(is_let_in);
    Ok(OpenApiRouter::with_openapi(Calls::openapi())
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(return_units))
        .routes(routes!(refunded))
        .routes(routes!(failed))
        .routes(routes!(inspect))
        .routes(routes!(retry))
        .routes(routes!(cancel))
        .route_layer(middleware::from_fn_with_state(is_let_in, gate))
        .layer(DefaultBodyLimit::max(BODY_MAX))
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

/// The newest order of a hold; of one whose money came late, that of the hold that took the units again.
async fn order(pool: &PgPool, hold_id: Uuid) -> Result<OrderBody, Problem> {
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

fn id_of(text: &str) -> Result<Uuid, Problem> {
    Ok(HoldId::parse(text)?.uuid())
}

/// Read an order
///
/// Of a hold whose money came late, it is the order of the hold that took the units again.
#[utoipa::path(
    get, path = "/v1/orders/{hold_id}", tag = "orders", operation_id = "get_order",
    params(
        ("hold_id" = String, Path, description = "The order's hold", pattern = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-8[0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$", example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab"),
    ),
    responses((status = 200, description = "The order", body = OrderBody), NoOrder, ReadProblems),
)]
async fn show(State(pool): State<PgPool>, Segment(hold_id): Segment) -> Answer {
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

/// List orders, newest first, page by page
#[utoipa::path(
    get, path = "/v1/orders", tag = "orders", operation_id = "list_orders",
    params(
        ("state" = Option<String>, Query, description = "Only in this state",
            pattern = "^(payment_pending|paid|fulfilling|fulfilled|failed|cancelled|refunded)$"),
        ("user_id" = Option<String>, Query, description = "Only of this buyer"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before", pattern = "^-?[0-9]+[.][0-9a-f-]{36}$"),
    ),
    responses((status = 200, description = "Up to 100 orders", body = OrderListBody), ReadProblems),
)]
async fn list(State(pool): State<PgPool>, listing: Listing) -> Answer {
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
    responses((status = 200, description = "Up to 100 orders, newest first", body = OrderListBody), ReadProblems),
)]
async fn failed(State(pool): State<PgPool>, listing: Listing) -> Answer {
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
    params(
        ("hold_id" = String, Path, description = "The order's hold", pattern = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-8[0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$", example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab"),
    ),
    responses((status = 200, description = "The order, `tries` being each try, with its `timeline`", body = OrderBody), NoOrder, ReadProblems),
)]
async fn inspect(State(pool): State<PgPool>, Segment(hold_id): Segment) -> Answer {
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

/// Who asks, and why.
struct Why {
    actor: String,
    reason: String,
}

fn why(actor: Option<String>, reason: &str) -> Result<Why, Problem> {
    let actor = actor.unwrap_or_else(|| API.to_owned());
    Ok(Why {
        actor: Text::parse("actor", &actor)?.as_str().to_owned(),
        reason: Text::parse("reason", reason)?.as_str().to_owned(),
    })
}

fn units(lines: Vec<ReturnLine>) -> Result<Vec<(String, i64)>, Problem> {
    let lines = lines.into_iter().map(|line| {
        Quantity::parse(line.quantity)?;
        Ok((Sku::parse(&line.sku)?.as_str().to_owned(), line.quantity))
    });
    lines.collect()
}

/// Try a failed order again, from the first try
#[utoipa::path(
    post, path = "/v1/admin/failed/{hold_id}/retry", tag = "orders", operation_id = "retry_failed",
    request_body = ActRequest,
    params(
        ("hold_id" = String, Path, description = "The order's hold", pattern = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-8[0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$", example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab"),
    ),
    responses((status = 200, description = "The order, on its way again", body = OrderBody), NoOrder, ActProblems, ReadProblems),
)]
async fn retry(State(pool): State<PgPool>, Segment(hold_id): Segment, JsonBody(asked): JsonBody<ActRequest>) -> Answer {
    let (hold_id, why) = (id_of(&hold_id)?, why(asked.actor, &asked.reason)?);
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

/// Give a failed order up
///
/// Its money goes back and its units return to stock, by a command in the log.
#[utoipa::path(
    post, path = "/v1/admin/failed/{hold_id}/cancel", tag = "orders", operation_id = "cancel_failed",
    request_body = ActRequest,
    params(
        ("hold_id" = String, Path, description = "The order's hold", pattern = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-8[0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$", example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab"),
    ),
    responses((status = 200, description = "The order, cancelled", body = OrderBody), NoOrder, ActProblems, ReadProblems),
)]
async fn cancel(
    State(pool): State<PgPool>,
    Segment(hold_id): Segment,
    JsonBody(asked): JsonBody<ActRequest>,
) -> Answer {
    let (hold_id, why) = (id_of(&hold_id)?, why(asked.actor, &asked.reason)?);
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

/// Say that the money of an order is back
///
/// Where the payment is not checkout's: whoever holds it has given it back.
#[utoipa::path(
    post, path = "/v1/orders/{hold_id}/refunded", tag = "orders", operation_id = "order_refunded",
    request_body = ActRequest,
    params(
        ("hold_id" = String, Path, description = "The order's hold", pattern = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-8[0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$", example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab"),
    ),
    responses((status = 200, description = "The order, refunded", body = OrderBody), NoOrder, ActProblems, ReadProblems),
)]
async fn refunded(
    State(pool): State<PgPool>,
    Segment(hold_id): Segment,
    JsonBody(asked): JsonBody<ActRequest>,
) -> Answer {
    let (hold_id, why) = (id_of(&hold_id)?, why(asked.actor, &asked.reason)?);
    whole(async move {
        let mut transaction = pool.begin().await?;
        let query = "UPDATE refund_requests AS r SET done_at = clock_ms() WHERE hold_id = $1 AND done_at IS NULL \
             AND NOT EXISTS (SELECT FROM payments AS p WHERE p.payment_ref = r.payment_ref)";
        let done = sqlx::query(query).bind(hold_id).execute(&mut *transaction).await?;
        if done.rows_affected() == 0 {
            let order = order(&pool, hold_id).await?;
            let detail = match order.is_paid_by_checkout() {
                true => "its payment is checkout's, which gives it back and says so",
                false => "no money of this order has to go back",
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

/// Take units of a shipped order back
///
/// All that is left of it, or the lines that are named. The same key counts once.
#[utoipa::path(
    post, path = "/v1/orders/{hold_id}/returns", tag = "orders", operation_id = "return_order",
    request_body = ReturnRequest,
    params(
        ("hold_id" = String, Path, description = "The order's hold", pattern = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-8[0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$", example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", pattern = "^[!-~]{1,255}$", example = "rma-1"),
    ),
    responses(
        (status = 202, description = "The order; its units are on their way into stock", body = OrderBody),
        NoOrder, ReturnProblems, ReadProblems,
    ),
)]
async fn return_units(
    State(pool): State<PgPool>,
    Segment(hold_id): Segment,
    headers: HeaderMap,
    JsonBody(asked): JsonBody<ReturnRequest>,
) -> Answer {
    let (hold_id, why) = (id_of(&hold_id)?, why(asked.actor, &asked.reason)?);
    let lines = asked.lines.map(units).transpose()?;
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
            for (sku, quantity) in returned(&left, lines.clone())? {
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
        } else if lines.is_some_and(|lines| sorted(lines) != sorted(known)) {
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
