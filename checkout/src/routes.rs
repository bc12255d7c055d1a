//! The calls: prices, the beginning of a payment, what became of it, and Stripe's webhook.

use std::sync::Arc;

use axum::{
    Json,
    extract::{DefaultBodyLimit, Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use domain::{HoldId, Sku, Tenant};
use plumbing::{
    http::{
        Segment,
        json::{BODY_MAX, JsonBody, OptionalJsonBody},
    },
    problem::{self, BodyProblems, CallProblems},
    task,
};
use serde::Deserialize;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Shared,
    begin::{self, Problem},
    bodies::{
        Calls, CheckoutProblems, CheckoutRequest, HoldInPath, NotThere, PaymentBody, PriceBody, PriceListBody,
        PriceRequest, SkuInPath,
    },
    prices, webhook,
};

type App = State<Arc<Shared>>;

/// Whether a call shows the service's token.
pub(crate) type LetIn = Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>;

/// The webhook shows a signature, everything else the token.
pub(crate) fn router(shared: Arc<Shared>, is_let_in: LetIn) -> OpenApiRouter {
    let guarded = OpenApiRouter::with_openapi(Calls::openapi())
        .routes(routes!(list_prices))
        .routes(routes!(get_price, put_price))
        .routes(routes!(checkout))
        .routes(routes!(payment))
        .route_layer(middleware::from_fn_with_state(is_let_in, gate))
        .layer(DefaultBodyLimit::max(BODY_MAX));
    OpenApiRouter::new()
        .routes(routes!(webhook::receive))
        .layer(DefaultBodyLimit::max(webhook::EVENT_MAX))
        .merge(guarded)
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

/// Set what one unit of a SKU costs
///
/// The amount of a payment comes from here and from nowhere else. A payment that is open keeps the price that it began with.
#[utoipa::path(
    put, path = "/v1/prices/{sku}", tag = "checkout", operation_id = "set_price",
    request_body = PriceRequest,
    params(SkuInPath),
    responses((status = 200, description = "The price", body = PriceBody), BodyProblems, CallProblems),
)]
async fn put_price(State(shared): App, Segment(sku): Segment, JsonBody(price): JsonBody<PriceRequest>) -> Response {
    let sku = match Sku::parse(&sku) {
        Ok(sku) => sku,
        Err(error) => return invalid(&error.to_string()),
    };
    if !price.is_legal() {
        return invalid("amount: 1 to 99999999; currency: three small letters");
    }
    match prices::set(&shared.pool, &tenant(), sku.as_str(), price.amount, &price.currency).await {
        Ok(()) => Json(PriceBody::of(&sku, (price.amount, price.currency))).into_response(),
        Err(error) => failed(error),
    }
}

/// Read what one unit of a SKU costs
#[utoipa::path(
    get, path = "/v1/prices/{sku}", tag = "checkout", operation_id = "get_price",
    params(SkuInPath),
    responses((status = 200, description = "The price", body = PriceBody), NotThere, CallProblems),
)]
async fn get_price(State(shared): App, Segment(sku): Segment) -> Response {
    let sku = match Sku::parse(&sku) {
        Ok(sku) => sku,
        Err(error) => return invalid(&error.to_string()),
    };
    match prices::get(&shared.pool, &tenant(), sku.as_str()).await {
        Ok(Some(price)) => Json(PriceBody::of(&sku, price)).into_response(),
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

/// List prices, page by page
#[utoipa::path(
    get, path = "/v1/prices", tag = "checkout", operation_id = "list_prices",
    params(("cursor" = Option<String>, Query, description = "`next_cursor` of the page before", pattern = "^[A-Za-z0-9._~-]{1,64}$")),
    responses((status = 200, description = "Up to 100 prices, ascending by SKU", body = PriceListBody), CallProblems),
)]
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
            let next_cursor = prices
                .last()
                .filter(|_| prices.len() == PAGE)
                .map(|(sku, ..)| sku.clone());
            let shown = |(sku, amount, currency)| PriceBody { sku, amount, currency };
            let prices = prices.into_iter().map(shown).collect();
            Json(PriceListBody { prices, next_cursor }).into_response()
        }
        Err(error) => failed(error),
    }
}

/// Begin to pay for a hold
///
/// Makes a payment at Stripe, or shows the one that is open. While it is, the hold is `paying` and does not expire up to a cap. The buyer pays
/// with the `client_secret` on a page of Stripe's; card data never comes here. What became of it is told by `payment` and by the hold.
#[utoipa::path(
    post, path = "/v1/holds/{hold_id}/checkout", tag = "checkout", operation_id = "checkout",
    request_body = Option<CheckoutRequest>,
    params(HoldInPath),
    responses((status = 200, description = "The payment, with its secret", body = PaymentBody), CheckoutProblems, BodyProblems, CallProblems),
)]
async fn checkout(
    State(shared): App,
    Segment(hold_id): Segment,
    OptionalJsonBody(asked): OptionalJsonBody<CheckoutRequest>,
) -> Response {
    let hold_id = match HoldId::parse(&hold_id) {
        Ok(hold_id) => hold_id,
        Err(error) => return invalid(&error.to_string()),
    };
    let method = asked.capture_method.unwrap_or_else(|| "automatic".to_owned());
    if method != "automatic" && method != "manual" {
        return invalid("capture_method: must be automatic or manual");
    }
    // A task: a caller who hangs up does not stop a payment half-way.
    let beginning = task::spawn("checkout-begin", async move {
        begin::begin(&shared, hold_id, &method).await
    });
    match beginning.await {
        Ok(Ok(payment)) => Json(PaymentBody::with_secret(&payment)).into_response(),
        Ok(Err(problem)) => problem.answer(),
        Err(error) => failed(error),
    }
}

/// Read the newest payment of a hold
#[utoipa::path(
    get, path = "/v1/holds/{hold_id}/payment", tag = "checkout", operation_id = "get_payment",
    params(HoldInPath),
    responses((status = 200, description = "The payment", body = PaymentBody), NotThere, CallProblems),
)]
async fn payment(State(shared): App, Segment(hold_id): Segment) -> Response {
    let hold_id = match HoldId::parse(&hold_id) {
        Ok(hold_id) => hold_id,
        Err(error) => return invalid(&error.to_string()),
    };
    match begin::newest(&shared, hold_id).await {
        Ok(Some(payment)) => Json(PaymentBody::of(&payment)).into_response(),
        Ok(None) => problem::respond(StatusCode::NOT_FOUND, "no_payment", "no payment of this hold was begun"),
        Err(problem) => problem.answer(),
    }
}
