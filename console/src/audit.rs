//! What people did: written before it is done, so that nothing is done unseen, and completed afterwards.

use plumbing::{task, time};
use serde_json::Value;
use sqlx::PgPool;

use crate::{App, access::Person, problem::Problem};

/// An action that has begun.
pub struct Begun {
    pool: PgPool,
    id: i64,
}

/// Writes that a person begins something. Without this row nothing is done.
///
/// # Errors
/// 503 when it cannot be written.
pub async fn begin(app: &App, person: &Person, action: &str, subject: &str, detail: Value) -> Result<Begun, Problem> {
    let (actor, action, subject) = (person.actor(), action.to_owned(), subject.to_owned());
    let pool = app.pool.clone();
    let writing = task::spawn("console-audit", {
        let pool = pool.clone();
        async move {
            sqlx::query_scalar::<_, i64>(
                "INSERT INTO audit_log (at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5::jsonb) RETURNING id",
            )
            .bind(time::now_ms())
            .bind(actor)
            .bind(action)
            .bind(subject)
            .bind(detail.to_string())
            .fetch_one(&pool)
            .await
        }
    });
    let id = writing.await??;
    Ok(Begun { pool, id })
}

impl Begun {
    /// Writes what became of it.
    pub async fn end(self, outcome: &str) {
        let (pool, id, outcome) = (self.pool, self.id, outcome.to_owned());
        let writing = task::spawn("console-audit", async move {
            sqlx::query("UPDATE audit_log SET outcome = $2 WHERE id = $1")
                .bind(id)
                .bind(outcome)
                .execute(&pool)
                .await
        });
        if !matches!(writing.await, Ok(Ok(_))) {
            tracing::warn!(
                audit.id = id,
                "the outcome of an action could not be written: it stays open in the audit"
            );
        }
    }
}

/// Something that is done already.
///
/// # Errors
/// 503 when it cannot be written.
pub async fn done(
    app: &App,
    person: &Person,
    action: &str,
    subject: &str,
    detail: Value,
    outcome: &str,
) -> Result<(), Problem> {
    begin(app, person, action, subject, detail).await?.end(outcome).await;
    Ok(())
}
