//! Dead letters: look at one, send it where it belongs, as it is or corrected.
//!
//! A letter is sent in one form only. Each lane counts it once; two forms, corrected into two lanes, would count twice. So the
//! form stands in `dead_letters_sent`, in the transaction that begins the action, before anything is sent.

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
    response::IntoResponse,
};
use plumbing::{task, time};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    App,
    access::Person,
    audit::{self, Action, Begun},
    problem::{Answer, Problem},
    users::Role,
};

/// All of them, oldest first, and which were sent by whom.
pub async fn list(State(app): State<App>, _person: Person) -> Answer {
    let said = app.tools.run(&["dead-letters", "list", "--json"]).await?;
    if said.code != Some(0) {
        return Err(said.failed());
    }
    let sent = sent(&app.pool, None).await?;
    let letters = said.out.lines().filter_map(|line| serde_json::from_str(line).ok());
    let letters: Vec<Value> = letters
        .map(|mut letter: Value| {
            letter["sent"] = of(&sent, letter["offset"].as_i64());
            letter
        })
        .collect();
    Ok(Json(letters).into_response())
}

/// One of them: where, why, its bytes, what they mean, and a draft of a corrected copy.
pub async fn show(State(app): State<App>, _person: Person, Path(offset): Path<u32>) -> Answer {
    let offset_text = offset.to_string();
    let said = app.tools.run(&["dead-letters", "show", &offset_text, "--json"]).await?;
    if said.code != Some(0) {
        return Err(said.failed());
    }
    let mut letter = said.json()?;
    letter["sent"] = of(&sent(&app.pool, Some(offset.into())).await?, Some(offset.into()));
    Ok(Json(letter).into_response())
}

struct Sent {
    letter: i64,
    told: Value,
}

fn of(sent: &[Sent], offset: Option<i64>) -> Value {
    let found = sent.iter().find(|sent| Some(sent.letter) == offset);
    found.map(|sent| sent.told.clone()).unwrap_or_default()
}

async fn sent(pool: &PgPool, letter: Option<i64>) -> Result<Vec<Sent>, Problem> {
    let pool = pool.clone();
    let reading = task::spawn("console-sent", async move {
        sqlx::query_as::<_, (i64, String, String, i64)>(
            "SELECT letter, copy, actor, sent_at FROM dead_letters_sent WHERE $1::bigint IS NULL OR letter = $1",
        )
        .bind(letter)
        .fetch_all(&pool)
        .await
    });
    let rows = reading.await??.into_iter();
    let sent = rows.map(|(letter, copy, actor, at)| Sent {
        letter,
        told: json!({"at": at, "actor": actor, "corrected": (!copy.is_empty()).then_some(copy)}),
    });
    Ok(sent.collect())
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The corrected copy; without it the letter goes as it is.
    corrected: Option<Value>,
}

/// Sends one where it belongs. Again, in the same form, it changes nothing.
pub async fn send(
    State(app): State<App>,
    person: Person,
    Path(offset): Path<u32>,
    asked: Result<Json<Asked>, JsonRejection>,
) -> Answer {
    let Json(asked) = asked?;
    person.must_be(Role::Operator)?;
    let copy = asked.corrected.map(|copy| copy.to_string()).unwrap_or_default();
    let begun = begin(&app, &person, offset, &copy).await?;
    let (offset_text, actor) = (offset.to_string(), person.actor());
    let mut arguments = vec!["dead-letters", "send", &offset_text];
    if !copy.is_empty() {
        arguments.extend(["--corrected", "-", "--actor", &actor]);
    }
    let said = match app.tools.run_on(&arguments, &copy).await {
        Ok(said) => said,
        Err(problem) => {
            begun.end("unknown").await;
            return Err(problem);
        }
    };
    match said.code {
        Some(0) => begun.end("ok").await,
        Some(1) => {
            refuse(&app, begun.id(), offset).await?;
            return Err(said.failed());
        }
        // Not acknowledged, or ended from outside: it may be in the log.
        _ => {
            begun.end("unknown").await;
            return Err(said.failed());
        }
    }
    Ok(Json(json!({"text": said.out})).into_response())
}

/// The action and the letter's form, in one transaction.
async fn begin(app: &App, person: &Person, offset: u32, copy: &str) -> Result<Begun, Problem> {
    let detail = match copy {
        "" => json!({}),
        copy => json!({"corrected": serde_json::from_str::<Value>(copy).unwrap_or_default()}),
    };
    let action = Action::of(person, "send_dead_letter", offset.to_string(), detail);
    let (pool, copy, actor) = (app.pool.clone(), copy.to_owned(), person.actor());
    let writing = task::spawn("console-letter", async move {
        let mut transaction = pool.begin().await?;
        sqlx::query("INSERT INTO dead_letters_sent (letter, copy, actor, sent_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING")
            .bind(i64::from(offset))
            .bind(&copy)
            .bind(actor)
            .bind(time::now_ms())
            .execute(&mut *transaction)
            .await?;
        let form: String = sqlx::query_scalar("SELECT copy FROM dead_letters_sent WHERE letter = $1")
            .bind(i64::from(offset))
            .fetch_one(&mut *transaction)
            .await?;
        let id = match form == copy {
            true => Some(action.write(&mut transaction, None).await?),
            false => {
                action.write(&mut transaction, Some("refused")).await?;
                None
            }
        };
        transaction.commit().await?;
        Ok::<_, sqlx::Error>(id)
    });
    let id = writing.await??;
    let id =
        id.ok_or_else(|| Problem::refused("this letter was sent in another form already: a lane would count both"))?;
    Ok(Begun::known(app, id))
}

/// The tool would not send it: nothing went out, and another form may be tried.
async fn refuse(app: &App, id: i64, offset: u32) -> Result<(), Problem> {
    let pool = app.pool.clone();
    let writing = task::spawn("console-letter-refused", async move {
        let mut transaction = pool.begin().await?;
        // Unless an earlier attempt, in the same form, went out.
        sqlx::query(
            "DELETE FROM dead_letters_sent WHERE letter = $1 AND NOT EXISTS (SELECT FROM audit_log \
             WHERE action = 'send_dead_letter' AND subject = $2 AND id <> $3 AND coalesce(outcome, 'unknown') <> 'refused')",
        )
        .bind(i64::from(offset))
        .bind(offset.to_string())
        .bind(id)
        .execute(&mut *transaction)
        .await?;
        audit::end(&mut transaction, id, "refused").await?;
        transaction.commit().await
    });
    Ok(writing.await??)
}
