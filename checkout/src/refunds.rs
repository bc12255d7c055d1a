//! Money of orders that were given up: requests become payments that go back, and payments that are back end requests.
//!
//! A request stands in `refund_requests`. The fulfiller writes one where it cancels an order; here one is written for every
//! sale that was taken back in the log, by whomever. Each of the steps below may run again at any time.
//!
//! Money that a person gave back at Stripe itself goes the other way round: its sale is taken back.

use std::{sync::Arc, time::Duration};

use domain::{CommandBody, HoldId, Key, Millis, Tenant, Text, payment::Intent};
use plumbing::{failpoint, stop::Stop, time};
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::{
    Shared,
    store::{self, Payment},
    worker::{self, rest},
};

const EVERY: Duration = Duration::from_millis(500);
/// The log is asked again when the picture does not show its fact after so long, in milliseconds.
const AGAIN_MS: Millis = 3_000;

/// Up to which log time each lane was searched for sales that were taken back.
type Looked = Vec<(i16, Millis)>;

/// Works requests off until the stop.
pub(crate) async fn run(shared: Arc<Shared>, stop: Stop) -> anyhow::Result<()> {
    let mut looked = Looked::new();
    while !stop.is_requested() {
        if let Err(error) = once(&shared, &mut looked).await {
            tracing::warn!(error = format!("{error:#}"), "requests for refunds wait");
        }
        rest(&stop, EVERY).await;
    }
    Ok(())
}

async fn once(shared: &Shared, looked: &mut Looked) -> anyhow::Result<()> {
    request(&shared.pool, looked).await?;
    if begin(&shared.pool).await? > 0 {
        failpoint::reach("checkout.refund_begun");
    }
    end(&shared.pool).await?;
    ask(shared).await?;
    by_hand(shared).await
}

/// Paid orders whose money somebody gave back at Stripe itself, all of it: the sale is taken back, and so comes to its end here too.
async fn by_hand(shared: &Shared) -> anyhow::Result<()> {
    for payment in store::to_recheck(&shared.pool).await? {
        let situation = worker::situation(shared, &payment).await?;
        if situation.intent == Intent::Refunded && situation.serves() {
            tracing::warn!(
                payment = payment.payment_ref,
                "refunded at Stripe by hand: the sale is taken back"
            );
            worker::take_back(shared, &payment, situation.intent).await?;
        }
        store::rechecked(&shared.pool, &payment).await?;
    }
    Ok(())
}

/// A request for every sale of checkout's that was taken back and has none. The checkpoints are read first: what is written
/// later is not older than they are.
async fn request(pool: &PgPool, looked: &mut Looked) -> Result<(), sqlx::Error> {
    let next: Looked = sqlx::query_as("SELECT lane, log_time FROM lanes")
        .fetch_all(pool)
        .await?;
    let since = |lane: i16| looked.iter().find(|(seen, _)| *seen == lane).map_or(0, |(_, at)| *at);
    let (lanes, times): (Vec<i16>, Vec<Millis>) = next.iter().map(|(lane, _)| (*lane, since(*lane))).unzip();
    let query = "INSERT INTO refund_requests (hold_id, payment_ref, reason, actor, requested_at) \
         SELECT h.hold_id, h.payment_ref, coalesce(h.reason, 'taken back'), 'the log', $1 \
         FROM UNNEST($2::smallint[], $3::bigint[]) AS seen (lane, at) \
         JOIN holds AS h ON h.lane = seen.lane AND h.changed_at >= seen.at AND h.state = 'unallocated' \
         JOIN payments AS p ON p.payment_ref = h.payment_ref \
         WHERE p.state IN ('pending', 'paid') ON CONFLICT DO NOTHING";
    sqlx::query(query)
        .bind(time::now_ms())
        .bind(lanes)
        .bind(times)
        .execute(pool)
        .await?;
    *looked = next;
    Ok(())
}

/// Requests -> payments. How many were begun.
async fn begin(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let query = "UPDATE payments AS p SET state = 'returning', news = news + 1, next_at = 0, updated_at = $1 \
         FROM refund_requests AS r WHERE r.done_at IS NULL AND r.payment_ref = p.payment_ref \
         AND p.state IN ('pending', 'aborting', 'paid') AND NOT EXISTS (SELECT FROM payments AS o \
         WHERE o.hold_id = p.hold_id AND o.payment_ref <> p.payment_ref \
         AND o.state IN ('beginning', 'pending', 'aborting', 'returning'))";
    let begun = sqlx::query(query).bind(time::now_ms()).execute(pool).await?;
    Ok(begun.rows_affected())
}

/// Payments -> requests.
async fn end(pool: &PgPool) -> Result<(), sqlx::Error> {
    let query = "UPDATE refund_requests AS r SET done_at = $1 FROM payments AS p \
         WHERE r.done_at IS NULL AND p.payment_ref = r.payment_ref AND p.state IN ('refunded', 'aborted')";
    sqlx::query(query).bind(time::now_ms()).execute(pool).await?;
    Ok(())
}

/// A payment that is not checkout's: whoever holds it reads in the log that it has to go back.
async fn ask(shared: &Shared) -> anyhow::Result<()> {
    let query = "UPDATE refund_requests AS r SET asked_at = $1 FROM holds AS h \
         WHERE r.done_at IS NULL AND h.hold_id = r.hold_id AND h.payment_ref = r.payment_ref AND h.state = 'unallocated' \
         AND (r.asked_at IS NULL OR r.asked_at < $1 - $2) \
         AND NOT EXISTS (SELECT FROM payments AS p WHERE p.payment_ref = r.payment_ref) \
         AND NOT EXISTS (SELECT FROM required_refunds AS q WHERE q.hold_id = r.hold_id AND q.payment_ref = r.payment_ref) \
         RETURNING r.id, r.hold_id, r.payment_ref, r.reason, h.tenant";
    let asked = sqlx::query(query).bind(time::now_ms()).bind(AGAIN_MS);
    for row in asked.fetch_all(&shared.pool).await? {
        let hold_id = HoldId::parse(&row.try_get::<Uuid, _>("hold_id")?.to_string())?;
        let body = CommandBody::RequireRefund {
            hold_id,
            payment_ref: Text::parse("payment_ref", row.try_get("payment_ref")?)?,
            reason: Text::parse("reason", row.try_get("reason")?)?,
        };
        let id = Key::parse(
            "command_id",
            &format!("refund-request-{}", row.try_get::<i64, _>("id")?),
        )?;
        let tenant = Tenant::parse(row.try_get("tenant")?)?;
        shared.outbox.send(&tenant, hold_id, Some(id), body).await?;
    }
    Ok(())
}

/// Why a payment goes back: as its request says, else it came too late.
pub(crate) async fn reason(pool: &PgPool, payment: &Payment) -> Result<String, sqlx::Error> {
    let query = "SELECT reason FROM refund_requests WHERE payment_ref = $1 LIMIT 1";
    let reason = sqlx::query_scalar(query)
        .bind(&payment.payment_ref)
        .fetch_optional(pool);
    Ok(reason.await?.unwrap_or_else(|| "paid_too_late".to_owned()))
}
