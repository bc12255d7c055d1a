//! `POST /v1/webhooks/stripe`: an event that is signed, of the right mode, and stored before the 200.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use plumbing::{task, time};
use serde_json::Value;

use crate::{Shared, signature, store};

/// Largest event, in bytes: its object comes whole.
pub(crate) const EVENT_MAX: usize = 256 * 1024;

/// Take an event of Stripe's
///
/// The body as Stripe sent it, signed by the webhook's secret at most 300 s ago, of our mode. It is stored once by its id before the 200, and
/// moves nothing by itself: what became of the payment is read from Stripe. Register this address at Stripe.
#[utoipa::path(
    post, path = "/v1/webhooks/stripe", tag = "checkout", operation_id = "stripe_webhook", security(()),
    request_body(content = Object, description = "Stripe's Event object"),
    params(("Stripe-Signature" = String, Header, description = "`t=<seconds>,v1=<HMAC-SHA256>`")),
    responses(
        (status = 200, description = "Stored, now or before"),
        (status = 400, description = "Not signed by the secret, too old, of the other mode, or no event"),
        (status = 413, description = "Above 256 KiB"),
        (status = 503, description = "No secret is set, or the database is away: Stripe sends it again"),
    ),
)]
pub(crate) async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Some(secret) = &shared.options.stripe_webhook_secret else {
        return StatusCode::SERVICE_UNAVAILABLE; // Stripe sends it again, when somebody has set the secret.
    };
    let header = headers.get("stripe-signature").and_then(|value| value.to_str().ok());
    if !header.is_some_and(|header| signature::is_good(header, &body, secret.expose(), time::now_ms() / 1_000)) {
        return StatusCode::BAD_REQUEST;
    }
    let Ok(event) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    let (Some(id), Some(kind)) = (event["id"].as_str(), event["type"].as_str()) else {
        return StatusCode::BAD_REQUEST;
    };
    if event["livemode"].as_bool().unwrap_or(false) != shared.stripe.is_live() {
        return StatusCode::BAD_REQUEST;
    }
    let object = &event["data"]["object"];
    let intent = match object["object"].as_str() {
        Some("payment_intent") => object["id"].as_str(),
        _ => object["payment_intent"].as_str(),
    };
    let (id, kind, intent) = (id.to_owned(), kind.to_owned(), intent.map(str::to_owned));
    // A task: a sender who hangs up does not stop a transaction half-way.
    let noting = task::spawn("webhook", async move {
        store::note_event(&shared.pool, &id, &kind, intent.as_deref()).await
    });
    match noting.await {
        Ok(Ok(())) => StatusCode::OK,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a webhook could not be stored; Stripe sends it again");
            StatusCode::SERVICE_UNAVAILABLE
        }
        Err(error) => {
            tracing::error!(%error, "a webhook's task failed; Stripe sends it again");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}
