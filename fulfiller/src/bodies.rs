//! Bodies of requests and of answers, and how the description of the calls (OpenAPI) shows them.

use std::collections::BTreeMap;

use plumbing::{problem, time};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Row, postgres::PgRow};
use utoipa::{
    IntoParams, IntoResponses, OpenApi, ToSchema,
    openapi::{RefOr, Response},
};
use uuid::Uuid;

/// The description's own part; the calls add themselves.
#[derive(OpenApi)]
#[openapi(tags((name = "orders", description = "From a confirmed hold to a parcel, and what failed on the way")))]
pub(crate) struct Calls;

/// A hold, in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only the description is used")]
pub(crate) struct HoldInPath {
    /// The order's hold
    #[param(
        example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab",
        pattern = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-8[0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
    )]
    hold_id: String,
}

/// One (SKU, quantity) of an order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = OrderLine)]
pub(crate) struct LineBody {
    /// What.
    #[schema(example = "TICKET-1")]
    sku: String,
    /// How many units.
    #[schema(example = 2)]
    quantity: i64,
}

/// An order, and where it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Order)]
pub(crate) struct OrderBody {
    /// The hold that was bought.
    #[schema(example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab")]
    hold_id: String,
    /// The offset of the hold's Reserve in its lane: which one it is, of those that its key has named.
    #[schema(example = 4711)]
    attempt: Option<i64>,
    /// payment_pending, paid, fulfilling, fulfilled, failed, cancelled or refunded
    #[schema(example = "paid")]
    state: Option<String>,
    /// Who buys.
    #[schema(example = "user-17")]
    user_id: Option<String>,
    /// What, one line per SKU.
    lines: Vec<LineBody>,
    /// The payment.
    #[schema(example = "pay-000e2be4-9d35-8aa6-a571-1a9ffd9d8aab-1")]
    payment_ref: Option<String>,
    /// The payment's state, where checkout made it.
    #[schema(example = "paid")]
    payment_state: Option<String>,
    /// The caller's own reference.
    external_ref: Option<String>,
    /// When it was bought, or when its payment began (RFC 3339).
    #[schema(format = DateTime, example = "2026-11-22T08:05:00.123Z")]
    ordered_at: Option<String>,
    /// How often a carrier was asked; in the failed queue, where one order is looked at, each try.
    pub(crate) tries: Option<Tries>,
    /// When it is asked again.
    #[schema(format = DateTime)]
    next_try_at: Option<String>,
    /// The parcel, as the carrier calls it.
    carrier_reference: Option<String>,
    /// When the last try failed.
    #[schema(format = DateTime)]
    failed_at: Option<String>,
    /// Why it failed or was given up.
    reason: Option<String>,
    /// What people did to it, oldest first, where one order of the failed queue is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeline: Option<Vec<EntryBody>>,
}

/// Tries with carriers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = OrderTries)]
pub(crate) enum Tries {
    /// How many.
    Count(i32),
    /// Each, oldest first.
    Each(Vec<TryBody>),
}

impl OrderBody {
    /// A row of `order_states`, with its lines as text.
    pub(crate) fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let text = |name: &str| row.try_get::<Option<String>, _>(name);
        let number = |name: &str| row.try_get::<Option<i64>, _>(name);
        let moment = |name: &str| Ok::<_, sqlx::Error>(number(name)?.map(time::text));
        Ok(Self {
            hold_id: row.try_get::<Uuid, _>("hold_id")?.to_string(),
            attempt: number("attempt")?,
            state: text("state")?,
            user_id: text("user_id")?,
            lines: serde_json::from_str(row.try_get("lines_json")?).unwrap_or_default(),
            payment_ref: text("payment_ref")?,
            payment_state: text("payment_state")?,
            external_ref: text("external_ref")?,
            ordered_at: moment("ordered_at")?,
            tries: row.try_get::<Option<i32>, _>("tries")?.map(Tries::Count),
            next_try_at: moment("next_try_at")?,
            carrier_reference: text("carrier_reference")?,
            failed_at: moment("failed_at")?,
            reason: text("reason")?,
            timeline: None,
        })
    }

    /// Whether checkout made its payment.
    pub(crate) fn is_paid_by_checkout(&self) -> bool {
        self.payment_state.is_some()
    }
}

/// A page of orders.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderList)]
pub(crate) struct OrderListBody {
    /// Newest first.
    pub(crate) orders: Vec<OrderBody>,
    /// Give it as `cursor` to get the next page; null on the last one.
    pub(crate) next_cursor: Option<String>,
}

/// One try with a carrier.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderTry)]
pub(crate) struct TryBody {
    /// Who was asked.
    pub(crate) carrier: String,
    /// What was sent.
    #[schema(value_type = Object)]
    pub(crate) payload: Value,
    /// When it began (RFC 3339).
    #[schema(format = DateTime)]
    pub(crate) started_at: String,
    /// When there was an answer, or none in time.
    #[schema(format = DateTime)]
    pub(crate) ended_at: String,
    /// The parcel, as the carrier calls it.
    pub(crate) reference: Option<String>,
    /// Why it failed.
    pub(crate) error: Option<String>,
}

/// What somebody did to an order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderEntry)]
pub(crate) struct EntryBody {
    /// When (RFC 3339).
    #[schema(format = DateTime)]
    pub(crate) at: String,
    /// Who.
    pub(crate) actor: String,
    /// What.
    #[schema(example = "order.retry")]
    pub(crate) action: String,
    /// Why.
    #[schema(value_type = Object)]
    pub(crate) detail: Value,
}

/// Who acts on an order, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ActOnOrder)]
pub(crate) struct ActRequest {
    /// Why.
    #[schema(
        example = "the address is right now",
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub(crate) reason: String,
    /// Who; `api` when absent.
    #[schema(example = "ann", max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    pub(crate) actor: Option<String>,
}

/// `POST /v1/orders/{hold_id}/returns`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReturnOrder)]
pub(crate) struct ReturnRequest {
    /// Why.
    #[schema(example = "does not fit", max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    pub(crate) reason: String,
    /// Who; `api` when absent.
    #[schema(example = "ann", max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    pub(crate) actor: Option<String>,
    /// What comes back; all that was shipped and has not come back when absent.
    pub(crate) lines: Option<Vec<ReturnLine>>,
}

/// One (SKU, quantity) that comes back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReturnLine {
    /// What.
    #[schema(example = "TICKET-1", pattern = "^[A-Za-z0-9._~-]{1,64}$")]
    pub(crate) sku: String,
    /// How many units.
    #[schema(example = 1, minimum = 1, maximum = 1_000_000)]
    pub(crate) quantity: i64,
}

/// What a call on one order may answer beside [`problem::CallProblems`].
pub(crate) struct NoOrder;

impl IntoResponses for NoOrder {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem::described(&[(404, "`order_not_found`")])
    }
}

/// What a call that acts on an order may answer beside those.
pub(crate) struct ActProblems;

impl IntoResponses for ActProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem::described(&[(409, "`wrong_order_state`: the detail says which it has")])
    }
}

/// What a return may answer beside those.
pub(crate) struct ReturnProblems;

impl IntoResponses for ReturnProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem::described(&[
            (409, "`wrong_order_state`: it was not shipped; `more_than_shipped`"),
            (
                422,
                "`idempotency_key_reused`: the key stands for a return of other lines",
            ),
        ])
    }
}
