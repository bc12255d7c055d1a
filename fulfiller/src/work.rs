//! Orders to the carrier: a row for each, a lease, a try, and what the carrier said.

use std::{sync::Arc, time::Duration};

use plumbing::{backoff::Backoff, failpoint, health::Component, postgres, stop::Stop};
use serde_json::{Value, json};
use sqlx::{PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    Options,
    carrier::{Carrier, Refused, Shipment},
    current::Current,
    outbox::Outbox,
};

const LEASED_MAX: i64 = 16;
const SEEDED_MAX: i64 = 1_000;
/// A lease outlives the carrier's timeout by this, in milliseconds.
const LEASE_SLACK_MS: i64 = 5_000;

/// A fulfiller at work.
pub(crate) struct Worker {
    pub(crate) pool: PgPool,
    pub(crate) outbox: Outbox,
    pub(crate) carrier: Option<Arc<dyn Carrier>>,
    pub(crate) options: Options,
    pub(crate) lanes: u16,
    pub(crate) current: Current,
    pub(crate) health: Component,
    pub(crate) stop: Stop,
}

/// An order that is ours to try until the lease ends.
struct Leased {
    hold_id: Uuid,
    attempt: i64,
    lease: i64,
    tries: i32,
    started_at: i64,
    shipment: Shipment,
}

/// Works until the stop.
pub(crate) async fn run(mut worker: Worker) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let tick = Duration::from_millis(worker.options.fulfiller_tick_ms);
    while !worker.stop.is_requested() {
        match worker.once().await {
            Ok(()) => {
                worker.health.up();
                backoff.reset();
                worker.stop.unless_requested(tokio::time::sleep(tick)).await;
            }
            Err(error) => {
                let hint = if postgres::is_transient(&error) {
                    ""
                } else {
                    " (is it migrated? `holdfast migrate`)"
                };
                worker.health.down(format_args!("{error}{hint}"));
                tracing::warn!(%error, "fulfilment waits for Postgres");
                backoff.sleep(&worker.stop).await;
            }
        }
    }
    Ok(())
}

impl Worker {
    async fn once(&mut self) -> Result<(), sqlx::Error> {
        if let Some(carrier) = &self.carrier
            && self.current.is_reached(&self.pool).await?
        {
            self.seed().await?;
            let leased = self.lease().await?;
            if !leased.is_empty() {
                failpoint::reach("fulfiller.leased");
            }
            let tries = leased.into_iter().map(|leased| self.attempt(carrier.as_ref(), leased));
            for tried in futures::future::join_all(tries).await {
                tried?;
            }
        }
        self.settle().await
    }

    /// A row for each sale that is not shipped and has none. One by checkout waits until Stripe says that it is paid: where
    /// money is reserved first and taken later, its hold is confirmed before.
    async fn seed(&self) -> Result<(), sqlx::Error> {
        let query = "INSERT INTO fulfilments (hold_id, attempt, state, next_try_at, created_at, changed_at) \
             SELECT hold_id, attempt, 'paid', clock_ms(), clock_ms(), clock_ms() \
             FROM holds JOIN orders USING (hold_id, attempt) WHERE holds.state = 'confirmed' AND NOT EXISTS \
             (SELECT FROM fulfilments AS f WHERE f.hold_id = holds.hold_id AND f.attempt = holds.attempt) \
             AND NOT EXISTS (SELECT FROM payments AS p WHERE p.payment_ref = orders.payment_ref AND p.state <> 'paid') \
             LIMIT $1 ON CONFLICT DO NOTHING";
        sqlx::query(query).bind(SEEDED_MAX).execute(&self.pool).await?;
        Ok(())
    }

    /// Takes what is due, and what another one left when it died.
    async fn lease(&self) -> Result<Vec<Leased>, sqlx::Error> {
        let query = "WITH due AS MATERIALIZED (SELECT f.hold_id, f.attempt \
             FROM fulfilments AS f JOIN holds AS h USING (hold_id, attempt) \
             WHERE h.state = 'confirmed' AND f.carrier_reference IS NULL \
             AND ((f.state = 'paid' AND f.next_try_at <= clock_ms()) \
             OR (f.state = 'fulfilling' AND f.leased_until < clock_ms())) \
             ORDER BY f.next_try_at LIMIT $2 FOR UPDATE OF f SKIP LOCKED) \
             UPDATE fulfilments AS f SET state = 'fulfilling', leased_until = clock_ms() + $1, lease = lease + 1, \
             tries = tries + 1, changed_at = clock_ms() FROM due JOIN orders AS o USING (hold_id, attempt) \
             WHERE f.hold_id = due.hold_id AND f.attempt = due.attempt \
             RETURNING f.hold_id, f.attempt, f.lease, f.tries, f.changed_at, o.tenant, o.user_id, o.external_ref, \
             o.lines::text AS lines";
        let timeout = i64::try_from(self.options.fulfiller_timeout_ms).unwrap_or(i64::MAX / 2);
        let rows = sqlx::query(query)
            .bind(timeout + LEASE_SLACK_MS)
            .bind(LEASED_MAX)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(leased).collect()
    }

    async fn attempt(&self, carrier: &dyn Carrier, leased: Leased) -> Result<(), sqlx::Error> {
        // A carrier that keeps us waiting is one that did not answer: the lease must not end before the try does.
        let limit = Duration::from_millis(self.options.fulfiller_timeout_ms);
        let said = tokio::time::timeout(limit, carrier.ship(&leased.shipment));
        let said = said
            .await
            .unwrap_or_else(|_| Err(Refused("no answer in time".to_owned())));
        failpoint::reach("fulfiller.carried");
        self.write_try(carrier.name(), &leased, &said).await?;
        match said {
            Ok(reference) => self.accepted(&leased, &reference).await?,
            Err(_) => self.refused(&leased).await?,
        }
        failpoint::reach("fulfiller.recorded");
        Ok(())
    }

    async fn write_try(
        &self,
        carrier: &str,
        leased: &Leased,
        said: &Result<String, Refused>,
    ) -> Result<(), sqlx::Error> {
        let query = "INSERT INTO fulfilment_tries (hold_id, attempt, lease, carrier, payload, started_at, ended_at, \
             reference, error) VALUES ($1, $2, $3, $4, $5::jsonb, $6, clock_ms(), $7, $8)";
        sqlx::query(query)
            .bind(leased.hold_id)
            .bind(leased.attempt)
            .bind(leased.lease)
            .bind(carrier)
            .bind(leased.shipment.payload.to_string())
            .bind(leased.started_at)
            .bind(said.as_ref().ok())
            .bind(said.as_ref().err().map(ToString::to_string))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The carrier has it: a fact, whoever holds the lease now.
    async fn accepted(&self, leased: &Leased, reference: &str) -> Result<(), sqlx::Error> {
        let query = "UPDATE fulfilments SET state = 'fulfilling', carrier_reference = $3, leased_until = NULL, \
             failed_at = NULL, changed_at = clock_ms() WHERE hold_id = $1 AND attempt = $2 \
             AND carrier_reference IS NULL AND state IN ('paid', 'fulfilling', 'failed')";
        let written = sqlx::query(query)
            .bind(leased.hold_id)
            .bind(leased.attempt)
            .bind(reference)
            .execute(&self.pool)
            .await?;
        if written.rows_affected() == 0 {
            tracing::error!(hold.id = %leased.hold_id, %reference,
                "the carrier took an order that was given up or taken already: look at its tries");
        }
        Ok(())
    }

    /// It waits for the next try, or for a person; unless the lease ended and another one is at it.
    async fn refused(&self, leased: &Leased) -> Result<(), sqlx::Error> {
        let tries = u32::try_from(leased.tries - 1).unwrap_or(0).min(10);
        let wait = self
            .options
            .fulfiller_wait_ms
            .saturating_mul(4_i64.saturating_pow(tries));
        let query = "UPDATE fulfilments SET state = CASE WHEN tries >= $4 THEN 'failed' ELSE 'paid' END, \
             failed_at = CASE WHEN tries >= $4 THEN clock_ms() END, next_try_at = clock_ms() + $5, \
             leased_until = NULL, changed_at = clock_ms() WHERE hold_id = $1 AND attempt = $2 AND lease = $3 \
             AND state = 'fulfilling' AND carrier_reference IS NULL";
        sqlx::query(query)
            .bind(leased.hold_id)
            .bind(leased.attempt)
            .bind(leased.lease)
            .bind(self.options.fulfiller_tries)
            .bind(wait)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

fn leased(row: &PgRow) -> Result<Leased, sqlx::Error> {
    let (hold_id, attempt): (Uuid, i64) = (row.try_get("hold_id")?, row.try_get("attempt")?);
    let text = |name: &str| row.try_get::<Option<String>, _>(name);
    let lines: Value = serde_json::from_str(row.try_get("lines")?).unwrap_or_default();
    Ok(Leased {
        hold_id,
        attempt,
        lease: row.try_get("lease")?,
        tries: row.try_get("tries")?,
        started_at: row.try_get("changed_at")?,
        shipment: Shipment {
            // With the attempt: a hold that was shipped is forgotten one day, and its id may be used again.
            key: format!("{hold_id}.{attempt}"),
            payload: json!({"hold_id": hold_id.to_string(), "tenant": text("tenant")?, "user_id": text("user_id")?,
                "external_ref": text("external_ref")?, "lines": lines}),
        },
    })
}
