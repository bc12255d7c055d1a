//! What a person does to an order that has failed, or whose money is back.

use axum::{Json, extract::State, response::IntoResponse};
use domain::{OrderState, OrderStep};
use plumbing::{
    http::{Segment, json::JsonBody},
    problem::{BodyProblems, CallProblems},
};
use sqlx::PgPool;
use uuid::Uuid;

use super::{Answer, id_of, look::order, whole, why};
use crate::{
    bodies::{ActProblems, ActRequest, HoldInPath, NoOrder, OrderBody},
    problem::Problem,
    settle,
};

/// Try a failed order again, from the first try
#[utoipa::path(
    post, path = "/v1/admin/failed/{hold_id}/retry", tag = "orders", operation_id = "retry_failed",
    request_body = ActRequest,
    params(HoldInPath),
    responses((status = 200, description = "The order, on its way again", body = OrderBody), NoOrder, ActProblems, BodyProblems, CallProblems),
)]
pub(super) async fn retry(
    State(pool): State<PgPool>,
    Segment(hold_id): Segment,
    JsonBody(asked): JsonBody<ActRequest>,
) -> Answer {
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
    params(HoldInPath),
    responses((status = 200, description = "The order, cancelled", body = OrderBody), NoOrder, ActProblems, BodyProblems, CallProblems),
)]
pub(super) async fn cancel(
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
    params(HoldInPath),
    responses((status = 200, description = "The order, refunded", body = OrderBody), NoOrder, ActProblems, BodyProblems, CallProblems),
)]
pub(super) async fn refunded(
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
