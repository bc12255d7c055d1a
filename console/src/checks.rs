//! What the last checks found: verify, asked for here, and torture, written by whoever ran it.

use axum::{Json, extract::State, response::IntoResponse};
use plumbing::{task, time};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    App,
    access::Person,
    problem::{Answer, Problem},
};

/// The newest result of each kind, or null.
pub async fn last(State(app): State<App>, _person: Person) -> Answer {
    let pool = app.pool.clone();
    let reading = task::spawn("console-checks", async move {
        sqlx::query_as::<_, (String, i64, String, bool, String)>(
            "SELECT DISTINCT ON (kind) kind, at, actor, agrees, report::text FROM check_results ORDER BY kind, id DESC",
        )
        .fetch_all(&pool)
        .await
    });
    let mut found = json!({"verify": null, "torture": null});
    for (kind, at, actor, agrees, report) in reading.await?? {
        let report: Value = serde_json::from_str(&report).unwrap_or_default();
        found[kind] = json!({"at": at, "actor": actor, "agrees": agrees, "report": report});
    }
    Ok(Json(found).into_response())
}

/// Verifies now. It only reads the log, so whoever may look may ask for it.
pub async fn verify(State(app): State<App>, person: Person) -> Answer {
    Ok(Json(run(&app, &person).await?).into_response())
}

/// Verifies, and keeps what was found.
pub async fn run(app: &App, person: &Person) -> Result<Value, Problem> {
    let said = app.tools.run(&["verify", "--json"]).await?;
    let (agrees, at, actor) = (said.code == Some(0), time::now_ms(), person.actor());
    let report = said.json()?;
    let writing = task::spawn(
        "console-verified",
        keep(app.pool.clone(), at, actor.clone(), agrees, report.to_string()),
    );
    writing.await??;
    Ok(json!({"at": at, "actor": actor, "agrees": agrees, "report": report}))
}

async fn keep(pool: PgPool, at: i64, actor: String, agrees: bool, report: String) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO check_results (kind, at, actor, agrees, report) VALUES ('verify', $1, $2, $3, $4::jsonb)")
        .bind(at)
        .bind(actor)
        .bind(agrees)
        .bind(report)
        .execute(&pool)
        .await?;
    Ok(())
}
