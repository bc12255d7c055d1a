//! What the ingress counts. Labels are calls, statuses, outcomes and lanes: never a SKU, a user or an id.

use std::time::Duration;

use axum::{
    http::{Method, StatusCode},
    response::Response,
};
use domain::Lane;

/// What a response means, in a word; responses carry it as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome(pub &'static str);

/// The short name of a call, by its method and its route.
#[must_use]
pub fn call_of(method: &Method, route: &str) -> &'static str {
    match (method.as_str(), route) {
        ("POST", "/v1/holds") => "reserve",
        ("GET", "/v1/holds") => "list_holds",
        ("GET", "/v1/holds/{hold_id}") => "get_hold",
        ("POST", "/v1/holds/{hold_id}/confirm") => "confirm",
        ("POST", "/v1/holds/{hold_id}/cancel") => "cancel",
        ("POST", "/v1/holds/{hold_id}/extend") => "extend",
        ("GET", "/v1/stock") => "list_stock",
        ("GET", "/v1/stock/{sku}") => "get_stock",
        ("GET", "/v1/stock/{sku}/live") => "watch_sku",
        ("GET", "/v1/live") => "watch",
        ("POST", "/v1/stock/adjustments") => "adjust_stock",
        ("POST", "/v1/stock/returns") => "return_stock",
        ("PUT", "/v1/skus/{sku}") => "configure_sku",
        ("POST", "/holds/reserve") => "short_reserve",
        ("POST", "/holds/confirm") => "short_confirm",
        ("POST", "/holds/cancel") => "short_cancel",
        _ => "other",
    }
}

/// Counts one answered call.
pub fn answered(call: &'static str, response: &Response, took: Duration) {
    let outcome = response
        .extensions()
        .get::<Outcome>()
        .map_or_else(|| plain(response.status()), |outcome| outcome.0);
    let status = status_text(response.status());
    metrics::counter!("holdfast_http_requests_total", "call" => call, "status" => status, "outcome" => outcome)
        .increment(1);
    metrics::histogram!("holdfast_http_request_seconds", "call" => call).record(took);
}

fn plain(status: StatusCode) -> &'static str {
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        "ok"
    } else {
        "other"
    }
}

fn status_text(status: StatusCode) -> &'static str {
    match status.as_u16() {
        101 => "101",
        200 => "200",
        201 => "201",
        202 => "202",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        410 => "410",
        413 => "413",
        415 => "415",
        422 => "422",
        429 => "429",
        500 => "500",
        503 => "503",
        _ => "other",
    }
}

/// Where the tail stands in a lane, and how many events are before it.
pub fn tail(lane: Lane, position: i64, lag: i64) {
    let label = lane.to_string();
    #[expect(clippy::cast_precision_loss, reason = "a gauge; exact below 2^53")]
    {
        metrics::gauge!("holdfast_tail_position", "lane" => label.clone()).set(position as f64);
        metrics::gauge!("holdfast_tail_lag", "lane" => label).set(lag as f64);
    }
}

/// Counts records that the fold found void.
pub fn void() {
    metrics::counter!("holdfast_tail_void_total").increment(1);
}
