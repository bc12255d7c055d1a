//! What only Postgres knows: movements of stock, prices, the steps of a payment, and what people did.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    response::IntoResponse,
};
use domain::{HoldId, Sku};
use plumbing::task;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    App,
    access::Person,
    problem::{Answer, Problem},
    users::Role,
};

/// Rows on a page.
const ROWS_MAX: i64 = 200;

#[derive(Deserialize)]
pub struct OfSku {
    sku: String,
}

#[derive(Serialize, sqlx::FromRow)]
struct Movement {
    decided_at: i64,
    kind: String,
    on_hand_change: i64,
    held_change: i64,
    allocated_change: i64,
    on_hand: i64,
    held: i64,
    allocated: i64,
    version: i64,
    reason: Option<String>,
    reference: Option<String>,
    actor: Option<String>,
    hold_id: Option<String>,
}

/// The last movements of a SKU, newest first.
pub async fn movements(State(app): State<App>, _person: Person, of: Result<Query<OfSku>, QueryRejection>) -> Answer {
    let Query(of) = of?;
    let sku = Sku::parse(&of.sku).map_err(|invalid| Problem::invalid(invalid.to_string()))?;
    let pool = app.pool.clone();
    let reading = task::spawn("console-movements", async move {
        sqlx::query_as::<_, Movement>(
            "SELECT decided_at, kind, on_hand_change, held_change, allocated_change, on_hand, held, allocated, version, \
                    reason, reference, actor, hold_id::text AS hold_id \
               FROM stock_movements WHERE tenant = 'default' AND sku = $1 ORDER BY command_offset DESC LIMIT $2",
        )
        .bind(sku.as_str().to_owned())
        .bind(ROWS_MAX)
        .fetch_all(&pool)
        .await
    });
    Ok(Json(reading.await??).into_response())
}

#[derive(Serialize, sqlx::FromRow)]
struct Price {
    sku: String,
    amount: i64,
    currency: String,
}

/// What things cost: the shop window shows it, checkout charges it.
pub async fn prices(State(app): State<App>, _person: Person) -> Answer {
    let pool = app.pool.clone();
    let reading = task::spawn("console-prices", async move {
        sqlx::query_as::<_, Price>("SELECT sku, amount, currency FROM prices WHERE tenant = 'default'")
            .fetch_all(&pool)
            .await
    });
    Ok(Json(reading.await??).into_response())
}

#[derive(Serialize, sqlx::FromRow)]
struct Step {
    at: i64,
    payment_ref: String,
    step: String,
    error: Option<String>,
    state: String,
    amount: i64,
    currency: String,
}

/// Every step of every payment of a hold, oldest first.
pub async fn payments(State(app): State<App>, _person: Person, Path(hold_id): Path<String>) -> Answer {
    let hold_id = HoldId::parse(&hold_id).map_err(|invalid| Problem::invalid(invalid.to_string()))?;
    let pool = app.pool.clone();
    let reading = task::spawn("console-payments", async move {
        sqlx::query_as::<_, Step>(
            "SELECT created_at AS at, payment_ref, 'Begin' AS step, NULL AS error, state, amount, currency \
               FROM payments WHERE hold_id = $1 \
             UNION ALL SELECT s.at, payment_ref, s.step, s.error, p.state, p.amount, p.currency \
               FROM payment_steps AS s JOIN payments AS p USING (payment_ref) WHERE p.hold_id = $1 ORDER BY at",
        )
        .bind(hold_id.uuid())
        .fetch_all(&pool)
        .await
    });
    Ok(Json(reading.await??).into_response())
}

#[derive(sqlx::FromRow)]
struct Entry {
    at: i64,
    actor: String,
    action: String,
    subject: String,
    detail: String,
    outcome: Option<String>,
}

/// The last actions, newest first.
pub async fn audit(State(app): State<App>, person: Person) -> Answer {
    person.must_be(Role::Operator)?;
    let pool = app.pool.clone();
    let reading = task::spawn("console-audit-read", async move {
        sqlx::query_as::<_, Entry>(
            "SELECT at, actor, action, subject, detail::text AS detail, outcome FROM audit_log ORDER BY id DESC LIMIT $1",
        )
        .bind(ROWS_MAX)
        .fetch_all(&pool)
        .await
    });
    let entries: Vec<Value> = reading
        .await??
        .into_iter()
        .map(|entry| {
            let detail: Value = serde_json::from_str(&entry.detail).unwrap_or_default();
            serde_json::json!({"at": entry.at, "actor": entry.actor, "action": entry.action, "subject": entry.subject,
                "detail": detail, "outcome": entry.outcome})
        })
        .collect();
    Ok(Json(entries).into_response())
}
