//! Bodies of requests and of answers, and how the description of the calls (OpenAPI) shows them.

use std::collections::BTreeMap;

use domain::Sku;
use plumbing::problem;
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, IntoResponses, OpenApi, ToSchema,
    openapi::{RefOr, Response},
};

use crate::store::Payment;

/// The description's own part; the calls add themselves.
#[derive(OpenApi)]
#[openapi(tags((name = "checkout", description = "Prices, and paying for a hold by Stripe")))]
pub(crate) struct Calls;

/// A hold, in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only the description is used")]
pub(crate) struct HoldInPath {
    /// The hold
    #[param(
        example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab",
        pattern = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-8[0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
    )]
    hold_id: String,
}

/// A SKU, in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only the description is used")]
pub(crate) struct SkuInPath {
    /// The SKU
    #[param(example = "TICKET-1", pattern = "^[A-Za-z0-9._~-]{1,64}$")]
    sku: String,
}

/// `PUT /v1/prices/{sku}`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetPrice)]
pub(crate) struct PriceRequest {
    /// What one unit costs, in the currency's smallest coin.
    #[schema(example = 1250, minimum = 1, maximum = 99_999_999)]
    pub(crate) amount: i64,
    /// Three small letters (ISO 4217).
    #[schema(example = "eur", pattern = "^[a-z]{3}$")]
    pub(crate) currency: String,
}

impl PriceRequest {
    /// Stripe's own limits: eight digits, three small letters.
    pub(crate) fn is_legal(&self) -> bool {
        let is_currency = self.currency.len() == 3 && self.currency.bytes().all(|byte| byte.is_ascii_lowercase());
        (1..=99_999_999).contains(&self.amount) && is_currency
    }
}

/// What one unit of a SKU costs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Price)]
pub(crate) struct PriceBody {
    /// Which SKU.
    #[schema(example = "TICKET-1")]
    pub(crate) sku: String,
    /// In the currency's smallest coin.
    #[schema(example = 1250)]
    pub(crate) amount: i64,
    /// Three small letters.
    #[schema(example = "eur")]
    pub(crate) currency: String,
}

impl PriceBody {
    pub(crate) fn of(sku: &Sku, (amount, currency): (i64, String)) -> Self {
        let sku = sku.as_str().to_owned();
        Self { sku, amount, currency }
    }
}

/// A page of prices.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PriceList)]
pub(crate) struct PriceListBody {
    /// Ascending by SKU.
    pub(crate) prices: Vec<PriceBody>,
    /// Give it as `cursor` to get the next page; null on the last one.
    pub(crate) next_cursor: Option<String>,
}

/// `POST /v1/holds/{hold_id}/checkout`
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Checkout)]
pub(crate) struct CheckoutRequest {
    /// `automatic`: Stripe takes the money, then the hold is confirmed. `manual`: Stripe reserves it, the hold is confirmed, and only then
    /// the money is taken. The first when absent.
    #[schema(example = "automatic", pattern = "^(automatic|manual)$")]
    pub(crate) capture_method: Option<String>,
}

/// A payment of a hold.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Payment)]
pub(crate) struct PaymentBody<'a> {
    /// Its name here and in the log.
    #[schema(example = "pay-000e2be4-9d35-8aa6-a571-1a9ffd9d8aab-1")]
    payment_ref: &'a str,
    /// What it pays.
    #[schema(example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab")]
    hold_id: String,
    /// Stripe's name of it, once there is one.
    #[schema(example = "pi_3PqXyZ")]
    intent_id: Option<&'a str>,
    /// In the currency's smallest coin.
    #[schema(example = 2500)]
    amount: i64,
    /// Three small letters.
    #[schema(example = "eur")]
    currency: &'a str,
    /// automatic or manual
    #[schema(example = "automatic")]
    capture_method: &'a str,
    /// beginning, pending, aborting, returning, paid, aborted or refunded
    #[schema(example = "pending")]
    state: &'static str,
    /// The hold that took the units again, where the money came after the first one's end.
    retaken_hold_id: Option<String>,
    /// What the buyer's page pays by, with Stripe's own form. Only whoever begins the payment is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "pi_3PqXyZ_secret_aBc")]
    client_secret: Option<&'a str>,
}

impl<'a> PaymentBody<'a> {
    pub(crate) fn of(payment: &'a Payment) -> Self {
        Self {
            payment_ref: &payment.payment_ref,
            hold_id: payment.hold_id.to_string(),
            intent_id: payment.intent_id.as_deref(),
            amount: payment.amount,
            currency: &payment.currency,
            capture_method: &payment.capture_method,
            state: payment.state.name(),
            retaken_hold_id: payment.retaken.map(|hold_id| hold_id.to_string()),
            client_secret: None,
        }
    }

    /// With the secret that pays it.
    pub(crate) fn with_secret(payment: &'a Payment) -> Self {
        Self {
            client_secret: payment.client_secret.as_deref(),
            ..Self::of(payment)
        }
    }
}

/// What the beginning of a payment may answer.
pub(crate) struct CheckoutProblems;

impl IntoResponses for CheckoutProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem::described(&[
            (404, "`hold_not_found`"),
            (409, "`hold_closed`: what has ended, or is sold already, cannot be paid"),
            (
                422,
                "`no_price`: a line has none, or currencies differ; `payment_refused`: Stripe says no, and would again",
            ),
        ])
    }
}

/// What a look at one thing may answer beside [`problem::CallProblems`].
pub(crate) struct NotThere;

impl IntoResponses for NotThere {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem::described(&[(404, "`no_price`, `no_payment`")])
    }
}
