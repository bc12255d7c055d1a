//! The calls: prices, the beginning of a payment, what became of it, and Stripe's webhook.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use domain::{HoldId, Sku, Tenant};
use plumbing::{problem, task};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Shared,
    begin::{self, Problem},
    prices,
    store::Payment,
    webhook,
};

type App = State<Arc<Shared>>;

/// Whether a call shows the service's token.
pub(crate) type LetIn = Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>;

/// The webhook shows a signature, everything else the token.
pub(crate) fn router(shared: Arc<Shared>, is_let_in: LetIn) -> Router {
    let guarded = Router::new()
        .route("/v1/prices", get(list_prices))
        .route("/v1/prices/{sku}", get(get_price).put(put_price))
        .route("/v1/holds/{hold_id}/checkout", post(checkout))
        .route("/v1/holds/{hold_id}/payment", get(payment))
        .route_layer(middleware::from_fn_with_state(is_let_in, gate));
    Router::new()
        .route("/v1/webhooks/stripe", post(webhook::receive))
        .merge(guarded)
        .layer(DefaultBodyLimit::max(256 * 1024))
        .with_state(shared)
}

async fn gate(State(is_let_in): State<LetIn>, request: Request, next: Next) -> Response {
    match is_let_in(request.headers()) {
        true => next.run(request).await,
        false => problem::wanting_token(problem::respond(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "send `Authorization: Bearer` with the service's token",
        )),
    }
}

impl Problem {
    fn answer(&self) -> Response {
        let (status, code) = match self {
            Self::NoHold => (StatusCode::NOT_FOUND, "hold_not_found"),
            Self::Closed(_) => (StatusCode::CONFLICT, "hold_closed"),
            Self::NoPrice => (StatusCode::UNPROCESSABLE_ENTITY, "no_price"),
            Self::Refused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "payment_refused"),
            Self::Later(_) | Self::Failed(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        problem::respond(status, code, &self.to_string())
    }
}

fn failed(error: impl Into<anyhow::Error>) -> Response {
    Problem::Failed(error.into()).answer()
}

fn invalid(detail: &str) -> Response {
    problem::respond(StatusCode::BAD_REQUEST, "invalid_request", detail)
}

fn tenant() -> Tenant {
    Tenant::parse("default").expect("our own tenant is legal")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    amount: i64,
    currency: String,
}

async fn put_price(State(shared): App, Path(sku): Path<String>, body: Bytes) -> Response {
    let Ok(sku) = Sku::parse(&sku) else {
        return invalid("sku: is not one");
    };
    let Ok(price) = serde_json::from_slice::<Price>(&body) else {
        return invalid("the body must be {\"amount\": units of the smallest coin, \"currency\": \"eur\"}");
    };
    // Stripe's own limits: eight digits, three small letters.
    let is_currency = price.currency.len() == 3 && price.currency.bytes().all(|byte| byte.is_ascii_lowercase());
    if !(1..=99_999_999).contains(&price.amount) || !is_currency {
        return invalid("amount: 1 to 99999999; currency: three small letters");
    }
    match prices::set(&shared.pool, &tenant(), sku.as_str(), price.amount, &price.currency).await {
        Ok(()) => price_body(&sku, price.amount, &price.currency),
        Err(error) => failed(error),
    }
}

async fn get_price(State(shared): App, Path(sku): Path<String>) -> Response {
    let Ok(sku) = Sku::parse(&sku) else {
        return invalid("sku: is not one");
    };
    match prices::get(&shared.pool, &tenant(), sku.as_str()).await {
        Ok(Some((amount, currency))) => price_body(&sku, amount, &currency),
        Ok(None) => problem::respond(StatusCode::NOT_FOUND, "no_price", "this SKU has no price"),
        Err(error) => failed(error),
    }
}

/// Prices on a page.
const PAGE: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    cursor: Option<String>,
}

async fn list_prices(State(shared): App, place: Result<Query<Place>, QueryRejection>) -> Response {
    let Query(place) = match place {
        Ok(place) => place,
        Err(rejection) => return invalid(&rejection.body_text()),
    };
    let after = match place.cursor.as_deref().map(Sku::parse) {
        None => String::new(),
        Some(Ok(sku)) => sku.as_str().to_owned(),
        Some(Err(_)) => return invalid("cursor: is not one of this list"),
    };
    let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
    match prices::list(&shared.pool, &tenant(), &after, limit).await {
        Ok(prices) => {
            let next = prices
                .last()
                .filter(|_| prices.len() == PAGE)
                .map(|(sku, ..)| sku.clone());
            let shown = |(sku, amount, currency): &(String, i64, String)| json!({"sku": sku, "amount": amount, "currency": currency});
            let prices: Vec<Value> = prices.iter().map(shown).collect();
            Json(json!({"prices": prices, "next_cursor": next})).into_response()
        }
        Err(error) => failed(error),
    }
}

fn price_body(sku: &Sku, amount: i64, currency: &str) -> Response {
    Json(json!({"sku": sku.as_str(), "amount": amount, "currency": currency})).into_response()
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Begin {
    capture_method: Option<String>,
}

async fn checkout(State(shared): App, Path(hold_id): Path<String>, body: Bytes) -> Response {
    let Ok(hold_id) = HoldId::parse(&hold_id) else {
        return invalid("hold_id: is not one");
    };
    let asked = match body.is_empty() {
        true => Ok(Begin::default()),
        false => serde_json::from_slice::<Begin>(&body),
    };
    let method = match asked.map(|asked| asked.capture_method.unwrap_or_else(|| "automatic".to_owned())) {
        Ok(method) if method == "automatic" || method == "manual" => method,
        _ => return invalid("capture_method: must be automatic or manual"),
    };
    // A task: a caller who hangs up does not stop a payment half-way.
    let beginning = task::spawn("checkout-begin", async move {
        begin::begin(&shared, hold_id, &method).await
    });
    match beginning.await {
        Ok(Ok(payment)) => Json(shown(&payment, true)).into_response(),
        Ok(Err(problem)) => problem.answer(),
        Err(error) => failed(error),
    }
}

async fn payment(State(shared): App, Path(hold_id): Path<String>) -> Response {
    let Ok(hold_id) = HoldId::parse(&hold_id) else {
        return invalid("hold_id: is not one");
    };
    match begin::newest(&shared, hold_id).await {
        Ok(Some(payment)) => Json(shown(&payment, false)).into_response(),
        Ok(None) => problem::respond(StatusCode::NOT_FOUND, "no_payment", "no payment of this hold was begun"),
        Err(problem) => problem.answer(),
    }
}

fn shown(payment: &Payment, with_secret: bool) -> Value {
    let mut body = json!({
        "payment_ref": payment.payment_ref, "hold_id": payment.hold_id.to_string(), "intent_id": payment.intent_id,
        "amount": payment.amount, "currency": payment.currency, "capture_method": payment.capture_method,
    });
    match with_secret {
        true => body["client_secret"] = payment.client_secret.clone().into(),
        false => {
            body["state"] = payment.state.name().into();
            body["retaken_hold_id"] = payment.retaken.map(|hold_id| hold_id.to_string()).into();
        }
    }
    body
}
