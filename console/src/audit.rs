//! What people did. An action outside Postgres is written before it is done, so that nothing is done unseen, and completed
//! afterwards; an action that is a change of Postgres stands in the same transaction as the change, with its outcome.

use plumbing::{task, time};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};

use crate::{App, access::Person, problem::Problem};

/// An action, as the audit tells it.
#[derive(Debug, Clone)]
pub struct Action {
    actor: String,
    name: &'static str,
    subject: String,
    detail: Value,
}

impl Action {
    /// What a person does to what.
    pub fn of(person: &Person, name: &'static str, subject: impl Into<String>, detail: Value) -> Self {
        Self {
            actor: person.actor(),
            name,
            subject: subject.into(),
            detail,
        }
    }

    /// Writes it into the transaction that does it; `outcome` where the transaction is all there is to do.
    pub async fn write(&self, connection: &mut PgConnection, outcome: Option<&str>) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(
            "INSERT INTO audit_log (at, actor, action, subject, detail, outcome) \
             VALUES ($1, $2, $3, $4, $5::jsonb, $6) RETURNING id",
        )
        .bind(time::now_ms())
        .bind(&self.actor)
        .bind(self.name)
        .bind(&self.subject)
        .bind(self.detail.to_string())
        .bind(outcome)
        .fetch_one(connection)
        .await
    }

    /// Writes that it begins. Without this row nothing is done.
    ///
    /// # Errors
    /// 503 when it cannot be written.
    pub async fn begin(self, app: &App) -> Result<Begun, Problem> {
        let pool = app.pool.clone();
        let writing = task::spawn("console-audit", {
            let pool = pool.clone();
            async move { self.write(&mut *pool.acquire().await?, None).await }
        });
        Ok(Begun {
            pool,
            id: writing.await??,
        })
    }
}

/// An action that has begun.
pub struct Begun {
    pool: PgPool,
    id: i64,
}

impl Begun {
    /// One that is in the log of actions already.
    pub fn known(app: &App, id: i64) -> Self {
        Self {
            pool: app.pool.clone(),
            id,
        }
    }

    /// Writes what became of it.
    pub async fn end(self, outcome: &'static str) {
        let (pool, id) = (self.pool, self.id);
        let writing = task::spawn("console-audit", async move {
            end(&mut *pool.acquire().await?, id, outcome).await
        });
        if !matches!(writing.await, Ok(Ok(()))) {
            tracing::warn!(
                audit.id = id,
                "the outcome of an action could not be written: it stays open in the audit"
            );
        }
    }

    /// Its number, for whoever writes the outcome in a transaction of their own.
    pub fn id(&self) -> i64 {
        self.id
    }
}

/// Writes an outcome.
pub async fn end(connection: &mut PgConnection, id: i64, outcome: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE audit_log SET outcome = $2 WHERE id = $1")
        .bind(id)
        .bind(outcome)
        .execute(connection)
        .await?;
    Ok(())
}
