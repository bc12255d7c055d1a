//! Units of a shipped order that come back.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
};
use domain::{Key, Quantity, Sku};
use plumbing::{
    http::{Segment, json::JsonBody},
    problem::{BodyProblems, CallProblems},
};
use sqlx::{PgConnection, PgPool, Row};
use uuid::Uuid;

use super::{Answer, id_of, look::order, whole, why};
use crate::{
    bodies::{HoldInPath, NoOrder, OrderBody, ReturnLine, ReturnProblems, ReturnRequest},
    problem::Problem,
    settle,
};

/// Take units of a shipped order back
///
/// All that is left of it, or the lines that are named. The same key counts once.
#[utoipa::path(
    post, path = "/v1/orders/{hold_id}/returns", tag = "orders", operation_id = "return_order",
    request_body = ReturnRequest,
    params(
        HoldInPath,
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", pattern = "^[!-~]{1,255}$", example = "rma-1"),
    ),
    responses(
        (status = 202, description = "The order; its units are on their way into stock", body = OrderBody),
        NoOrder, ReturnProblems, BodyProblems, CallProblems,
    ),
)]
pub(super) async fn return_units(
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

fn units(lines: Vec<ReturnLine>) -> Result<Vec<(String, i64)>, Problem> {
    let lines = lines.into_iter().map(|line| {
        Quantity::parse(line.quantity)?;
        Ok((Sku::parse(&line.sku)?.as_str().to_owned(), line.quantity))
    });
    lines.collect()
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
