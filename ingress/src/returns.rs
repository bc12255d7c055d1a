//! `/v1/stock/returns`: units that come back, as a movement of their own.

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap};
use domain::{CommandBody, HoldId, Invalid, Quantity, Sku, Text};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    bodies::{PendingStockBody, StockBody},
    openapi::{CommandProblems, KeyHeader, PreferHeader},
    problem::Answer,
    request::{IdempotencyKey, JsonBody, Manner},
    requests::{Whole, note},
    stock,
};

/// `POST /v1/stock/returns`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReturnStock)]
pub struct ReturnRequest {
    /// What came back.
    #[schema(example = "TICKET-1", pattern = "^[A-Za-z0-9._~-]{1,64}$")]
    sku: String,
    /// How many units.
    #[schema(value_type = i64, example = 1, minimum = 1, maximum = 1_000_000)]
    quantity: Whole,
    /// Why.
    #[schema(
        example = "customer return",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    reason: String,
    /// The caller's document.
    #[schema(example = "RMA-2026-0815", max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    reference: Option<String>,
    /// The hold that they were sold by.
    #[schema(
        example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab",
        pattern = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-8[0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
    )]
    hold_id: Option<String>,
}

impl ReturnRequest {
    /// The command of whoever takes them back.
    ///
    /// # Errors
    /// [`Invalid`] for the first field that is not allowed.
    pub fn parse(self, actor: Text) -> Result<(Sku, CommandBody), Invalid> {
        let sku = Sku::parse(&self.sku)?;
        let body = CommandBody::ReturnStock {
            sku: sku.clone(),
            quantity: Quantity::parse(self.quantity.0)?,
            hold_id: self.hold_id.as_deref().map(HoldId::parse).transpose()?,
            reason: Text::parse_some("reason", &self.reason)?,
            reference: note("reference", self.reference.as_deref())?,
            actor,
        };
        Ok((sku, body))
    }
}

/// Take units back into stock: a return
///
/// The same `Idempotency-Key` with the same body counts once.
#[utoipa::path(
    post, path = "/v1/stock/returns", tag = "stock", operation_id = "return_stock",
    request_body = ReturnRequest,
    params(
        KeyHeader,
        ("X-Actor" = Option<String>, Header, description = "Who takes them back, for the record of movements", nullable = false),
        PreferHeader,
    ),
    responses(
        (status = 200, description = "The counters after the return", body = StockBody,
            headers(("Idempotent-Replayed", description = "true, when it was applied before"))),
        (status = 202, description = "Not decided yet", body = PendingStockBody, headers(("Location", description = "Where the outcome will be"))),
        (status = 404, description = "`unknown_sku`", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        CommandProblems,
    ),
)]
pub async fn return_stock(
    State(app): State<Arc<App>>,
    key: IdempotencyKey,
    manner: Manner,
    headers: HeaderMap,
    JsonBody(body): JsonBody<ReturnRequest>,
) -> Answer {
    let (sku, body) = body.parse(stock::actor(&app, &headers)?)?;
    stock::change(&app, sku, body, key.or_made(), &manner).await
}
