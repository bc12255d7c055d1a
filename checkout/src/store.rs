//! The role's tables, and its view of the picture.

use domain::{
    HoldId, HoldState, Millis,
    payment::{PaymentState, Served},
};
use plumbing::time;
use schemas::picture;
use sqlx::{PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use crate::stripe;

/// One payment.
#[derive(Debug, Clone)]
pub(crate) struct Payment {
    pub(crate) payment_ref: String,
    pub(crate) hold_id: HoldId,
    pub(crate) hold_attempt: i64,
    pub(crate) state: PaymentState,
    pub(crate) intent_id: Option<String>,
    pub(crate) client_secret: Option<String>,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) capture_method: String,
    pub(crate) retaken: Option<HoldId>,
    pub(crate) created_at: Millis,
    pub(crate) news: i64,
    pub(crate) tries: i32,
}

/// The reference of a hold's payment, which says both.
pub(crate) fn reference_of(hold_id: HoldId, attempt: i32) -> String {
    format!("pay-{hold_id}-{attempt}")
}

/// What a reference says; none: it is not one of ours.
pub(crate) fn said_by(reference: &str) -> Option<(HoldId, i32)> {
    let (hold_id, attempt) = reference.strip_prefix("pay-")?.rsplit_once('-')?;
    let said = (HoldId::parse(hold_id).ok()?, attempt.parse().ok()?);
    (reference_of(said.0, said.1) == reference).then_some(said)
}

impl Payment {
    fn read(row: &PgRow) -> anyhow::Result<Self> {
        let state: &str = row.try_get("state")?;
        let hold = |id: Uuid| HoldId::parse(&id.to_string());
        Ok(Self {
            payment_ref: row.try_get("payment_ref")?,
            hold_id: hold(row.try_get("hold_id")?)?,
            hold_attempt: row.try_get("hold_attempt")?,
            state: PaymentState::from_name(state).ok_or_else(|| anyhow::anyhow!("a payment in state {state}"))?,
            intent_id: row.try_get("intent_id")?,
            client_secret: row.try_get("client_secret")?,
            amount: row.try_get("amount")?,
            currency: row.try_get("currency")?,
            capture_method: row.try_get("capture_method")?,
            retaken: row
                .try_get::<Option<Uuid>, _>("retaken_hold_id")?
                .map(hold)
                .transpose()?,
            created_at: row.try_get("created_at")?,
            news: row.try_get("news")?,
            tries: row.try_get("tries")?,
        })
    }
}

/// The newest payment of a hold id.
pub(crate) async fn newest(pool: &PgPool, hold_id: HoldId) -> anyhow::Result<Option<Payment>> {
    let query = "SELECT * FROM payments WHERE hold_id = $1 ORDER BY attempt DESC LIMIT 1";
    let row = sqlx::query(query).bind(hold_id.uuid()).fetch_optional(pool).await?;
    row.as_ref().map(Payment::read).transpose()
}

/// Writes a new payment down. False: it is there, or another one of this hold is open.
pub(crate) async fn insert(
    pool: &PgPool,
    payment: &Payment,
    attempt: i32,
    its_maker_has: Millis,
) -> Result<bool, sqlx::Error> {
    let now = payment.created_at;
    let query = "INSERT INTO payments (payment_ref, hold_id, hold_attempt, attempt, state, intent_id, client_secret, amount, \
                 currency, capture_method, created_at, updated_at, next_at) \
                 VALUES ($1, $2, $3, $4, $10, $11, $12, $5, $6, $7, $8, $8, $9) ON CONFLICT DO NOTHING";
    let done = sqlx::query(query)
        .bind(&payment.payment_ref)
        .bind(payment.hold_id.uuid())
        .bind(payment.hold_attempt)
        .bind(attempt)
        .bind(payment.amount)
        .bind(&payment.currency)
        .bind(&payment.capture_method)
        .bind(now)
        .bind(now + its_maker_has)
        .bind(payment.state.name())
        .bind(&payment.intent_id)
        .bind(&payment.client_secret)
        .execute(pool)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The next number of a payment of a hold.
pub(crate) async fn next_attempt(pool: &PgPool, hold_id: HoldId) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("SELECT coalesce(max(attempt), 0) + 1 FROM payments WHERE hold_id = $1")
        .bind(hold_id.uuid())
        .fetch_one(pool)
        .await
}

/// The buyer may pay from here on. False: the worker has given the payment up meanwhile.
pub(crate) async fn open(pool: &PgPool, payment_ref: &str, intent: &str, secret: &str) -> Result<bool, sqlx::Error> {
    let query = "UPDATE payments SET state = 'pending', intent_id = $2, client_secret = $3, updated_at = $4, next_at = $4 \
                 WHERE payment_ref = $1 AND state = 'beginning'";
    let done = sqlx::query(query)
        .bind(payment_ref)
        .bind(intent)
        .bind(secret)
        .bind(time::now_ms())
        .execute(pool)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes the intent of a payment whose maker did not come to it. One that was given up is opened again, so that the worker
/// ends the intent. False: it has one, or another payment of the hold is open and goes first.
pub(crate) async fn adopt(pool: &PgPool, payment_ref: &str, intent: &str) -> Result<bool, sqlx::Error> {
    let query = "UPDATE payments AS p SET intent_id = $2, state = CASE state WHEN 'aborted' THEN 'aborting' ELSE state END, \
                 news = news + 1, next_at = 0, updated_at = $3 WHERE payment_ref = $1 AND intent_id IS NULL \
                 AND NOT EXISTS (SELECT FROM payments AS o WHERE o.hold_id = p.hold_id AND o.payment_ref <> p.payment_ref \
                 AND o.state IN ('beginning', 'pending', 'aborting', 'returning'))";
    let done = sqlx::query(query)
        .bind(payment_ref)
        .bind(intent)
        .bind(time::now_ms())
        .execute(pool)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// What a payment's row has of its intent.
pub(crate) struct Noted {
    pub(crate) intent_id: Option<String>,
    pub(crate) hold_attempt: i64,
}

/// Of these payments those that have a row.
pub(crate) async fn known(
    pool: &PgPool,
    payment_refs: &[String],
) -> Result<std::collections::HashMap<String, Noted>, sqlx::Error> {
    let query = "SELECT payment_ref, intent_id, hold_attempt FROM payments WHERE payment_ref = ANY($1)";
    let rows: Vec<(String, Option<String>, i64)> = sqlx::query_as(query).bind(payment_refs).fetch_all(pool).await?;
    let noted = |(reference, intent_id, hold_attempt)| {
        let noted = Noted {
            intent_id,
            hold_attempt,
        };
        (reference, noted)
    };
    Ok(rows.into_iter().map(noted).collect())
}

/// Moves a payment on, if it is as it was read. Its state alone says too little: reconciliation may have found an intent
/// meanwhile, which is to be ended first.
pub(crate) async fn change(pool: &PgPool, payment: &Payment, to: PaymentState) -> Result<bool, sqlx::Error> {
    let query = "UPDATE payments SET state = $3, updated_at = $4 \
                 WHERE payment_ref = $1 AND state = $2 AND intent_id IS NOT DISTINCT FROM $5";
    let done = sqlx::query(query)
        .bind(&payment.payment_ref)
        .bind(payment.state.name())
        .bind(to.name())
        .bind(time::now_ms())
        .bind(&payment.intent_id)
        .execute(pool)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(crate) async fn retake(pool: &PgPool, payment_ref: &str, hold_id: HoldId) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE payments SET retaken_hold_id = $2 WHERE payment_ref = $1")
        .bind(payment_ref)
        .bind(hold_id.uuid())
        .execute(pool)
        .await
        .map(drop)
}

/// Takes a due payment for the time of the lease.
pub(crate) async fn lease(pool: &PgPool, lease_ms: Millis) -> anyhow::Result<Option<Payment>> {
    let query = "UPDATE payments SET next_at = $2 WHERE payment_ref = (SELECT payment_ref FROM payments \
                 WHERE state IN ('beginning', 'pending', 'aborting', 'returning') AND next_at <= $1 \
                 ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING *";
    let now = time::now_ms();
    let row = sqlx::query(query)
        .bind(now)
        .bind(now + lease_ms)
        .fetch_optional(pool)
        .await?;
    row.as_ref().map(Payment::read).transpose()
}

/// Gives a payment back until `next_at`, or until now when there was news.
pub(crate) async fn release(
    pool: &PgPool,
    payment: &Payment,
    next_at: Millis,
    step: Option<&str>,
    error: Option<&str>,
) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let query =
        "UPDATE payments SET next_at = CASE WHEN news = $2 THEN $3 ELSE 0 END, tries = $4 WHERE payment_ref = $1";
    sqlx::query(query)
        .bind(&payment.payment_ref)
        .bind(payment.news)
        .bind(next_at)
        .bind(if error.is_some() {
            payment.tries.saturating_add(1)
        } else {
            0
        })
        .execute(&mut *transaction)
        .await?;
    if step.is_some() || error.is_some() {
        sqlx::query("INSERT INTO payment_steps (payment_ref, step, error, at) VALUES ($1, $2, $3, $4)")
            .bind(&payment.payment_ref)
            .bind(step.unwrap_or("look"))
            .bind(error)
            .bind(time::now_ms())
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}

/// Stores an event once, and makes its payment due.
pub(crate) async fn note_event(
    pool: &PgPool,
    event_id: &str,
    kind: &str,
    intent_id: Option<&str>,
) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let query = "INSERT INTO webhook_events VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
    let stored = sqlx::query(query)
        .bind(event_id)
        .bind(kind)
        .bind(intent_id)
        .bind(time::now_ms())
        .execute(&mut *transaction)
        .await?;
    if stored.rows_affected() == 1 {
        let query = "UPDATE payments SET news = news + 1, next_at = 0, recheck = recheck OR (state = 'paid' AND $2) \
                     WHERE intent_id = $1";
        sqlx::query(query)
            .bind(intent_id)
            .bind(kind == "charge.refunded")
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}

/// Paid ones that Stripe has told of a refund of.
pub(crate) async fn to_recheck(pool: &PgPool) -> anyhow::Result<Vec<Payment>> {
    let query = "SELECT * FROM payments WHERE recheck LIMIT 100";
    let rows = sqlx::query(query).fetch_all(pool).await?;
    rows.iter().map(Payment::read).collect()
}

/// It was looked at; what has been told since then counts again.
pub(crate) async fn rechecked(pool: &PgPool, payment: &Payment) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE payments SET recheck = false WHERE payment_ref = $1 AND news = $2")
        .bind(&payment.payment_ref)
        .bind(payment.news)
        .execute(pool)
        .await
        .map(drop)
}

/// How often Stripe said no to a step of a payment.
pub(crate) async fn refusals(pool: &PgPool, payment: &Payment) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM payment_steps WHERE payment_ref = $1 AND starts_with(error, $2)")
        .bind(&payment.payment_ref)
        .bind(stripe::SAID_NO)
        .fetch_one(pool)
        .await
}

/// Whether the log says that a payment has to go back.
pub(crate) async fn is_refund_required(pool: &PgPool, payment: &Payment) -> Result<bool, sqlx::Error> {
    let query = "SELECT EXISTS (SELECT 1 FROM required_refunds WHERE hold_id = $1 AND payment_ref = $2)";
    sqlx::query_scalar(query)
        .bind(payment.hold_id.uuid())
        .bind(&payment.payment_ref)
        .fetch_one(pool)
        .await
}

/// A hold as a payment of it sees it. `attempt`: only that hold of its id.
pub(crate) async fn served(
    pool: &PgPool,
    hold_id: HoldId,
    attempt: Option<i64>,
    payment_ref: &str,
) -> anyhow::Result<Served> {
    let Some(stored) = picture::find_hold(pool, hold_id).await? else {
        return Ok(Served::Unknown);
    };
    let terms = &stored.hold.terms;
    let is_ours = terms
        .payment_ref
        .as_ref()
        .is_some_and(|payment| payment.as_str() == payment_ref);
    Ok(match terms.state {
        _ if attempt.is_some_and(|attempt| attempt != terms.attempt) => Served::Over,
        HoldState::Held => Served::Open,
        HoldState::Paying if is_ours => Served::Open,
        HoldState::Pending | HoldState::Paying => Served::Busy,
        HoldState::Confirmed | HoldState::Shipped if is_ours => Served::Ours,
        HoldState::Confirmed | HoldState::Shipped | HoldState::Unallocated => Served::Gone,
        _ => Served::Over,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_says_its_hold_and_its_number_and_nothing_else_does() {
        let hold_id = HoldId::of(
            domain::Lane::new(3).expect("a lane"),
            &domain::Tenant::parse("default").expect("a tenant"),
            &domain::Key::parse("key", "k").expect("a key"),
        );
        let reference = reference_of(hold_id, 12);
        assert_eq!(said_by(&reference), Some((hold_id, 12)));
        for other in [
            "",
            "pay-",
            "payment-1",
            &format!("pay-{hold_id}"),
            &format!("pay-{hold_id}-012"),
            &format!("{reference}x"),
        ] {
            assert_eq!(said_by(other), None, "{other}");
        }
    }
}
