//! What rows ask of the log, asked again until the picture shows it; and the janitor.

use domain::{CommandBody, HoldId, Key, Lane, OrderState, OrderStep, Quantity, Sku, Tenant, Text};
use plumbing::failpoint;
use schemas::sender::{self, Address};
use serde_json::json;
use sqlx::{PgConnection, PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use crate::work::Worker;

const PAGE: i64 = 100;
/// A command is sent again when the picture does not show it after so long, in milliseconds.
const AGAIN_MS: i64 = 3_000;
const JANITOR: &str = "janitor";

impl Worker {
    pub(crate) async fn settle(&self) -> Result<(), sqlx::Error> {
        follow_the_picture(&self.pool).await?;
        self.ask_the_log().await?;
        self.send_returns().await?;
        self.give_up().await
    }

    /// `Ship` for what the carrier has, `Unallocate` for what was given up.
    async fn ask_the_log(&self) -> Result<(), sqlx::Error> {
        let query = "UPDATE fulfilments AS f SET asked_at = clock_ms() FROM holds AS h \
             WHERE h.hold_id = f.hold_id AND h.attempt = f.attempt AND h.state = 'confirmed' \
             AND (f.state IN ('cancelled', 'refunded') OR (f.state = 'fulfilling' AND f.carrier_reference IS NOT NULL)) \
             AND (f.asked_at IS NULL OR f.asked_at < clock_ms() - $1) \
             RETURNING f.hold_id, h.tenant, f.state, f.carrier_reference, f.reason, f.actor";
        for row in sqlx::query(query).bind(AGAIN_MS).fetch_all(&self.pool).await? {
            match command_of(&row) {
                Ok((hold_id, tenant, body)) => {
                    let address = Address {
                        lane: hold_id.lane(),
                        about: &hold_id.to_string(),
                        id: sender::fresh_id("fulfiller"),
                        tenant,
                    };
                    self.outbox.send(address, body).await;
                    failpoint::reach("fulfiller.asked");
                }
                Err(error) => tracing::error!(%error, "a row of fulfilments cannot be read"),
            }
        }
        Ok(())
    }

    /// `ReturnStock`, named by its row: again, it changes nothing. Rows are counted from one again in a database that was made anew,
    /// so their time is part of the name.
    async fn send_returns(&self) -> Result<(), sqlx::Error> {
        let query = "SELECT r.id, r.requested_at, r.hold_id, r.sku, r.quantity, r.reason, r.actor, o.tenant \
             FROM order_returns AS r JOIN orders AS o USING (hold_id, attempt) \
             WHERE r.sent_at IS NULL ORDER BY r.id LIMIT $1";
        for row in sqlx::query(query).bind(PAGE).fetch_all(&self.pool).await? {
            let id: i64 = row.try_get("id")?;
            let (sku, tenant, body) = match return_of(&row, id) {
                Ok(legal) => legal,
                Err(error) => {
                    tracing::error!(%error, return_id = id, "a row of order_returns cannot be read");
                    continue;
                }
            };
            let requested_at: i64 = row.try_get("requested_at")?;
            let name = format!("order-return-{id}-{requested_at}");
            let address = Address {
                lane: Lane::of_sku(&sku, self.lanes),
                about: sku.as_str(),
                id: Key::parse("command_id", &name).expect("our own ids are visible ASCII"),
                tenant,
            };
            if self.outbox.send(address, body).await {
                failpoint::reach("fulfiller.returned");
                let sent = sqlx::query("UPDATE order_returns SET sent_at = clock_ms() WHERE id = $1");
                sent.bind(id).execute(&self.pool).await?;
            }
        }
        Ok(())
    }

    /// The janitor: what nobody has looked after for too long.
    async fn give_up(&self) -> Result<(), sqlx::Error> {
        let query = "SELECT hold_id FROM fulfilments WHERE state = 'failed' AND failed_at < clock_ms() - $1 \
             ORDER BY failed_at LIMIT $2";
        let waited = self.options.fulfiller_give_up_seconds.saturating_mul(1_000);
        let old: Vec<Uuid> = sqlx::query_scalar(query)
            .bind(waited)
            .bind(PAGE)
            .fetch_all(&self.pool)
            .await?;
        for hold_id in old {
            let mut transaction = self.pool.begin().await?;
            // Looked at again under the lock: a person may have retried it meanwhile.
            let still = "SELECT FROM fulfilments WHERE hold_id = $1 AND state = 'failed' \
                 AND failed_at < clock_ms() - $2 FOR UPDATE";
            let still = sqlx::query(still).bind(hold_id).bind(waited);
            if still.fetch_optional(&mut *transaction).await?.is_some() {
                cancel(
                    &mut transaction,
                    hold_id,
                    JANITOR,
                    "waited too long in the failed queue",
                )
                .await?;
                transaction.commit().await?;
                failpoint::reach("fulfiller.given_up");
            }
        }
        Ok(())
    }
}

/// Rows that the log, or the refund, has decided.
async fn follow_the_picture(pool: &PgPool) -> Result<(), sqlx::Error> {
    let shipped = "UPDATE fulfilments AS f SET state = 'fulfilled', changed_at = clock_ms() FROM holds AS h \
         WHERE h.hold_id = f.hold_id AND h.attempt = f.attempt AND h.state = 'shipped' \
         AND f.state IN ('paid', 'fulfilling', 'failed')";
    sqlx::query(shipped).execute(pool).await?;
    // Taken back by somebody else's command: whoever paid gets the money back.
    let taken_back = "WITH gone AS (UPDATE fulfilments AS f SET state = 'cancelled', reason = 'taken back', \
         actor = 'the log', changed_at = clock_ms() FROM holds AS h \
         WHERE h.hold_id = f.hold_id AND h.attempt = f.attempt AND h.state = 'unallocated' \
         AND f.state IN ('paid', 'fulfilling', 'failed') RETURNING f.hold_id, f.attempt) \
         INSERT INTO refund_requests (hold_id, payment_ref, reason, actor, requested_at) \
         SELECT hold_id, payment_ref, 'taken back', 'the log', clock_ms() FROM gone JOIN orders USING (hold_id, attempt) \
         WHERE payment_ref IS NOT NULL ON CONFLICT DO NOTHING";
    sqlx::query(taken_back).execute(pool).await?;
    let refunded = "UPDATE fulfilments AS f SET state = 'refunded', changed_at = clock_ms() \
         FROM orders AS o JOIN refund_requests AS r ON r.hold_id = o.hold_id AND r.payment_ref = o.payment_ref \
         WHERE o.hold_id = f.hold_id AND o.attempt = f.attempt AND r.done_at IS NOT NULL AND f.state = 'cancelled'";
    sqlx::query(refunded).execute(pool).await?;
    Ok(())
}

/// The order's newest fulfilment, locked until the transaction ends.
pub(crate) async fn locked(
    connection: &mut PgConnection,
    hold_id: Uuid,
) -> Result<Option<(i64, OrderState)>, sqlx::Error> {
    let query = "SELECT attempt, state FROM fulfilments WHERE hold_id = $1 ORDER BY attempt DESC LIMIT 1 FOR UPDATE";
    let row: Option<(i64, String)> = sqlx::query_as(query).bind(hold_id).fetch_optional(connection).await?;
    row.map(|(attempt, name)| {
        let state = OrderState::from_name(&name);
        let state = state.ok_or_else(|| sqlx::Error::Decode(format!("state {name} of an order").into()))?;
        Ok((attempt, state))
    })
    .transpose()
}

/// Gives a failed order up: the refund is asked for here, the units by [`Worker::settle`]. `None`: it has no such step.
pub(crate) async fn cancel(
    connection: &mut PgConnection,
    hold_id: Uuid,
    actor: &str,
    reason: &str,
) -> Result<Option<OrderState>, sqlx::Error> {
    let Some((attempt, state)) = locked(connection, hold_id).await? else {
        return Ok(None);
    };
    let Some(next) = state.step(OrderStep::Cancel) else {
        return Ok(None);
    };
    let query = "UPDATE fulfilments SET state = $3, reason = $4, actor = $5, asked_at = NULL, changed_at = clock_ms() \
         WHERE hold_id = $1 AND attempt = $2";
    sqlx::query(query)
        .bind(hold_id)
        .bind(attempt)
        .bind(next.name())
        .bind(reason)
        .bind(actor)
        .execute(&mut *connection)
        .await?;
    let refund = "INSERT INTO refund_requests (hold_id, payment_ref, reason, actor, requested_at) \
         SELECT hold_id, payment_ref, $3, $4, clock_ms() FROM orders \
         WHERE hold_id = $1 AND attempt = $2 AND payment_ref IS NOT NULL ON CONFLICT DO NOTHING";
    sqlx::query(refund)
        .bind(hold_id)
        .bind(attempt)
        .bind(reason)
        .bind(actor)
        .execute(&mut *connection)
        .await?;
    audit(connection, hold_id, actor, "order.cancel", reason).await?;
    Ok(Some(next))
}

/// Who did it, when, why: in the transaction that does it.
pub(crate) async fn audit(
    connection: &mut PgConnection,
    hold_id: Uuid,
    actor: &str,
    action: &str,
    reason: &str,
) -> Result<(), sqlx::Error> {
    let query = "INSERT INTO audit_log (at, actor, action, subject, detail, outcome) \
         VALUES (clock_ms(), $1, $2, $3, $4::jsonb, 'done')";
    sqlx::query(query)
        .bind(actor)
        .bind(action)
        .bind(hold_id.to_string())
        .bind(json!({"reason": reason}).to_string())
        .execute(connection)
        .await?;
    Ok(())
}

fn text(row: &PgRow, name: &'static str) -> anyhow::Result<Text> {
    Ok(Text::parse(name, row.try_get(name)?)?)
}

fn command_of(row: &PgRow) -> anyhow::Result<(HoldId, Tenant, CommandBody)> {
    let hold_id = HoldId::parse(&row.try_get::<Uuid, _>("hold_id")?.to_string())?;
    let tenant = Tenant::parse(row.try_get("tenant")?)?;
    let body = match row.try_get("state")? {
        "fulfilling" => CommandBody::Ship {
            hold_id,
            reference: text(row, "carrier_reference")?,
        },
        _ => CommandBody::Unallocate {
            hold_id,
            reason: text(row, "reason")?,
            actor: text(row, "actor")?,
        },
    };
    Ok((hold_id, tenant, body))
}

fn return_of(row: &PgRow, id: i64) -> anyhow::Result<(Sku, Tenant, CommandBody)> {
    let sku = Sku::parse(row.try_get("sku")?)?;
    let body = CommandBody::ReturnStock {
        sku: sku.clone(),
        quantity: Quantity::parse(row.try_get("quantity")?)?,
        hold_id: Some(HoldId::parse(&row.try_get::<Uuid, _>("hold_id")?.to_string())?),
        reason: text(row, "reason")?,
        reference: Some(Text::parse("reference", &format!("return-{id}"))?),
        actor: text(row, "actor")?,
    };
    Ok((sku, Tenant::parse(row.try_get("tenant")?)?, body))
}
