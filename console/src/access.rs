//! Who is there: login, sessions, roles, and the mark that keeps other sites from acting in a person's name (CSRF).

use std::{net::SocketAddr, time::Instant};

use axum::{
    Json,
    extract::{ConnectInfo, FromRequestParts, State, rejection::JsonRejection},
    http::{Method, header, request::Parts},
    response::IntoResponse,
};
use plumbing::{task, time};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    App,
    audit::Action,
    problem::{Answer, Problem},
    users::{self, Role},
};

const COOKIE: &str = "holdfast_console";
const CSRF: &str = "x-csrf";
/// How long a login lasts, in milliseconds: a working day.
const SESSION_MS: i64 = 12 * 60 * 60 * 1_000;

/// Who makes a call. A call that changes something must carry the session's mark.
#[derive(Debug, Clone)]
pub struct Person {
    pub name: String,
    pub role: Role,
    csrf: String,
}

impl Person {
    /// Whether the person may do what needs this role.
    ///
    /// # Errors
    /// 403 when not.
    pub fn must_be(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        Err(Problem::forbidden(format!(
            "this takes the role {}; {} is {}",
            role.name(),
            self.name,
            self.role.name()
        )))
    }

    /// As the log and the API know the person.
    pub fn actor(&self) -> String {
        format!("console:{}", self.name)
    }
}

impl FromRequestParts<App> for Person {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = token(parts).ok_or_else(Problem::logged_out)?;
        let pool = app.pool.clone();
        let reading = task::spawn("console-session", async move {
            sqlx::query_as::<_, (String, String, String)>(
                "SELECT name, role, csrf FROM console_sessions JOIN console_users USING (name) \
                  WHERE token_hash = $1 AND expires_at > $2",
            )
            .bind(hashed(&token))
            .bind(time::now_ms())
            .fetch_optional(&pool)
            .await
        });
        let (name, role, csrf) = reading.await??.ok_or_else(Problem::logged_out)?;
        let role = role.parse().map_err(Problem::forbidden)?;
        let only_looks = matches!(parts.method, Method::GET | Method::HEAD);
        let shown = parts.headers.get(CSRF).map(|value| value.as_bytes());
        if !only_looks && shown != Some(csrf.as_bytes()) {
            return Err(Problem::forbidden("the page's mark is missing: reload the page"));
        }
        Ok(Self { name, role, csrf })
    }
}

/// The session's secret in the cookie.
fn token(parts: &Parts) -> Option<String> {
    let cookies = parts.headers.get_all(header::COOKIE).iter();
    cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split("; "))
        .find_map(|cookie| cookie.strip_prefix(COOKIE)?.strip_prefix('='))
        .map(ToOwned::to_owned)
}

fn hashed(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// A secret of 244 random bits.
fn secret() -> String {
    format!("{}{}", plumbing::id::random().simple(), plumbing::id::random().simple())
}

fn cookie(app: &App, token: &str, max_age_s: i64) -> String {
    let secure = if app.options.console_secure { "; Secure" } else { "" };
    format!("{COOKIE}={token}; Path=/console; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}")
}

#[derive(Deserialize)]
pub struct Login {
    name: String,
    password: String,
}

/// Lets a person in. JSON only: a form of another site cannot send it.
pub async fn log_in(
    State(app): State<App>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    login: Result<Json<Login>, JsonRejection>,
) -> Answer {
    let Json(login) = login?;
    if login.name.len() > users::TEXT_MAX {
        return Err(Problem::wrong_password());
    }
    if !app.brake.lets_try(&login.name, from.ip(), Instant::now()) {
        return Err(Problem::too_many("too many wrong passwords: wait a minute"));
    }
    let Some(role) = users::check(&app.pool, login.name.clone(), login.password).await? else {
        return Err(Problem::wrong_password());
    };
    app.brake.forgive(&login.name, from.ip());
    let (token, csrf) = (secret(), secret());
    let person = Person {
        name: login.name,
        role,
        csrf,
    };
    let (pool, name, csrf) = (app.pool.clone(), person.name.clone(), person.csrf.clone());
    let token_hash = hashed(&token);
    let action = Action::of(&person, "log_in", "console", json!({}));
    let writing = task::spawn("console-login", async move {
        let now = time::now_ms();
        let mut transaction = pool.begin().await?;
        sqlx::query("DELETE FROM console_sessions WHERE expires_at <= $1")
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("INSERT INTO console_sessions (token_hash, name, csrf, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(token_hash)
            .bind(name)
            .bind(csrf)
            .bind(now + SESSION_MS)
            .execute(&mut *transaction)
            .await?;
        action.write(&mut transaction, Some("ok")).await?;
        transaction.commit().await
    });
    writing.await??;
    let set = [(header::SET_COOKIE, cookie(&app, &token, SESSION_MS / 1_000))];
    Ok((set, told(&app, &person)).into_response())
}

/// Ends the session.
pub async fn log_out(State(app): State<App>, person: Person, parts: Parts) -> Answer {
    if let Some(token) = token(&parts) {
        let pool = app.pool.clone();
        let action = Action::of(&person, "log_out", "console", json!({}));
        let ending = task::spawn("console-logout", async move {
            let mut transaction = pool.begin().await?;
            sqlx::query("DELETE FROM console_sessions WHERE token_hash = $1")
                .bind(hashed(&token))
                .execute(&mut *transaction)
                .await?;
            action.write(&mut transaction, Some("ok")).await?;
            transaction.commit().await
        });
        ending.await??;
    }
    Ok(([(header::SET_COOKIE, cookie(&app, "", 0))], Json(json!({}))).into_response())
}

/// Who the page's person is, and what the page may offer.
pub async fn me(State(app): State<App>, person: Result<Person, Problem>) -> Answer {
    match person {
        Ok(person) => Ok(told(&app, &person).into_response()),
        // Nobody is no error: the page asks who is there.
        Err(problem) if problem.is_logged_out() => Ok(Json(json!({"name": null})).into_response()),
        Err(problem) => Err(problem),
    }
}

fn told(app: &App, person: &Person) -> Json<serde_json::Value> {
    Json(
        json!({"name": person.name, "role": person.role.name(), "csrf": person.csrf, "tour": app.options.tour,
        "test_card": app.options.tour && app.test_card.is_some()}),
    )
}
