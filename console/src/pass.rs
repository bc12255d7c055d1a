//! Calls of the HTTP API, passed on as the person: the page speaks to the console only, and the console knows who may.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, header},
    response::IntoResponse,
};
use serde_json::{Value, json};

use crate::{
    App, Console,
    access::Person,
    audit::Action,
    problem::{Answer, Problem},
    users::Role,
};

/// A call of the API answers in this time: it may wait 30 s for a decision.
pub const TIMEOUT: Duration = Duration::from_secs(40);
/// What of a request goes on, and what of an answer comes back.
const ASKED: [&str; 3] = ["content-type", "idempotency-key", "prefer"];
const ANSWERED: [&str; 4] = ["content-type", "location", "idempotent-replayed", "retry-after"];

/// Who writes the audit of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audit {
    /// The console, before and after: the change is a command in the log, or another service's.
    Ours(&'static str),
    /// Whoever serves the call, in the transaction that does it, in the name that the body's `actor` says.
    Theirs,
}

/// What a change needs, by its method and path; `None` where the console offers no such call.
fn needed(method: &Method, path: &str) -> Option<(Audit, Role)> {
    let parts = parts(path)?;
    Some(match (method.as_str(), parts.as_slice()) {
        ("POST", ["holds"]) => (Audit::Ours("reserve"), Role::Operator),
        ("POST", ["holds", _, "confirm"]) => (Audit::Ours("confirm"), Role::Operator),
        ("POST", ["holds", _, "cancel"]) => (Audit::Ours("cancel"), Role::Operator),
        ("POST", ["holds", _, "extend"]) => (Audit::Ours("extend"), Role::Operator),
        ("POST", ["holds", _, "checkout"]) => (Audit::Ours("checkout"), Role::Operator),
        ("POST", ["stock", "adjustments"]) => (Audit::Ours("adjust_stock"), Role::Operator),
        ("PUT", ["skus", _]) => (Audit::Ours("configure_sku"), Role::Admin),
        ("PUT", ["prices", _]) => (Audit::Ours("set_price"), Role::Admin),
        ("POST", ["admin", "failed", _, "retry" | "cancel"]) => (Audit::Theirs, Role::Operator),
        ("POST", ["orders", _, "returns"]) => (Audit::Theirs, Role::Operator),
        _ => return None,
    })
}

fn is_readable(path: &str) -> bool {
    parts(path).is_some_and(|parts| {
        matches!(
            parts.as_slice(),
            ["holds" | "stock" | "orders" | "prices", ..] | ["admin", "failed", ..]
        )
    })
}

/// A path's parts; `None` where what is asked for would not be what was looked at: a part that climbs (RFC 3986, section 5.2.4),
/// or a character that a URL's path cannot have as it is. No SKU, id or name of the API has one.
fn parts(path: &str) -> Option<Vec<&str>> {
    let is_plain = |c: char| c.is_ascii_graphic() && !"?#%\\".contains(c);
    let parts: Vec<&str> = path.split('/').collect();
    (path.chars().all(is_plain) && !parts.iter().any(|part| matches!(*part, "." | ".."))).then_some(parts)
}

/// A look at holds or stock.
pub async fn read(
    State(app): State<App>,
    _person: Person,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    if !is_readable(&path) || path.ends_with("/live") {
        return Err(Problem::not_found());
    }
    let url = url(&app, &path, query.as_deref());
    answer(send(&app, app.client.get(url)).await?).await
}

/// A change: the person's role, the audit, the call, the outcome.
pub async fn change(
    State(app): State<App>,
    person: Person,
    method: Method,
    Path(path): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let (audit, role) = needed(&method, &path).ok_or_else(Problem::not_found)?;
    person.must_be(role)?;
    let mut detail = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let mut request = app.client.request(method, url(&app, &path, None));
    for name in ASKED {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let request = request.header("x-actor", person.actor());
    let name = match audit {
        Audit::Ours(name) => name,
        Audit::Theirs => {
            // Whatever the page says: it is this person.
            if let Value::Object(fields) = &mut detail {
                fields.insert("actor".to_owned(), person.actor().into());
            }
            return answer(send(&app, request.body(detail.to_string())).await?).await;
        }
    };
    let begun = Action::of(&person, name, &*path, detail).begin(&app).await?;
    let sent = send(&app, request.body(body)).await;
    let outcome = sent.as_ref().map_or("unknown", |answer| outcome(answer.status()));
    begun.end(outcome).await;
    answer(sent?).await
}

fn outcome(status: StatusCode) -> &'static str {
    match status.as_u16() {
        202 => "pending",
        200..300 => "ok",
        400..500 => "refused",
        _ => "unknown",
    }
}

fn url(app: &Console, path: &str, query: Option<&str>) -> String {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/v1/{path}{query}", app.api.url)
}

/// Sends a request to the API with the service's token.
pub async fn send(app: &Console, mut request: reqwest::RequestBuilder) -> Result<reqwest::Response, Problem> {
    if let Some(token) = &app.api.token {
        request = request.bearer_auth(token);
    }
    request.send().await.map_err(|error| {
        tracing::debug!(%error, "the API does not answer the console");
        Problem::unavailable("the HTTP API does not answer")
    })
}

async fn answer(answered: reqwest::Response) -> Answer {
    let status = answered.status();
    let mut headers = HeaderMap::new();
    for name in ANSWERED {
        if let Some(value) = answered.headers().get(name) {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
    }
    let body = answered
        .bytes()
        .await
        .map_err(|_| Problem::unavailable("the HTTP API broke off its answer"))?;
    Ok((status, headers, body).into_response())
}

/// What the API's process counts, as the plots need it: names, labels and values.
pub async fn metrics(State(app): State<App>, _person: Person) -> Answer {
    let answered = send(&app, app.client.get(format!("{}/metrics", app.api.url))).await?;
    let text = answered
        .text()
        .await
        .map_err(|_| Problem::unavailable("the HTTP API broke off its answer"))?;
    let wanted = [
        "holdfast_http_request",
        "holdfast_tail_",
        "holdfast_live_",
        "holdfast_reserver_",
        "holdfast_persister_",
    ];
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| wanted.iter().any(|wanted| line.starts_with(wanted)))
        .collect();
    let body = json!({"at": plumbing::time::now_ms(), "lines": lines});
    Ok(([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_changes_are_passed_on() {
        let role = |method: Method, path: &str| needed(&method, path).map(|(_, role)| role);
        assert_eq!(role(Method::POST, "holds"), Some(Role::Operator));
        assert_eq!(role(Method::PUT, "skus/a"), Some(Role::Admin));
        assert_eq!(role(Method::POST, "admin/failed/x/retry"), Some(Role::Operator));
        for (method, path) in [
            (Method::POST, "holds/x/y/confirm"),
            (Method::POST, "stock"),
            (Method::PUT, "skus/a/b"),
            (Method::POST, "../metrics"),
            (Method::POST, "holds/../confirm"),
            (Method::POST, "admin/failed/x/delete"),
            (Method::PUT, "admin/failed/x/retry"),
            (Method::POST, ""),
        ] {
            assert_eq!(role(method, path), None, "{path}");
        }
        assert!(is_readable("holds/x") && is_readable("stock") && !is_readable("admin/secrets") && !is_readable(""));
        assert!(!is_readable("holds/../admin/secrets") && !is_readable("admin/failed/./x"));
        for bent in [
            "holds/.%./.%./metrics",
            "stock/x/live?",
            "holds/x#",
            "holds/a b",
            "holds\\..\\x",
            "holds/\u{e9}",
        ] {
            assert!(!is_readable(bent), "{bent}");
        }
        assert!(is_readable("admin/failed") && is_readable("admin/failed/x") && is_readable("orders/x"));
    }
}
