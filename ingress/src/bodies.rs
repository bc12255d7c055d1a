//! Bodies of answers.

use std::borrow::Cow;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use domain::{HoldId, HoldState, Sku, SkuPolicy, Stock};
use plumbing::time;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{memory::HoldView, problem::ShortageBody};

/// One (SKU, quantity) of a hold.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Line)]
pub struct LineBody<'a> {
    /// What.
    #[schema(example = "TICKET-1")]
    sku: &'a str,
    /// How many units.
    #[schema(example = 2)]
    quantity: i64,
}

/// A hold. While it is `pending` only its id and its state are known.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Hold)]
pub struct HoldBody<'a> {
    /// Its id.
    #[schema(example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab")]
    hold_id: String,
    /// pending, held, paying, confirmed, shipped, unallocated, cancelled, expired or rejected
    #[schema(example = "held")]
    state: &'static str,
    /// While it is pending: the offset of its command in its lane.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<i64>,
    /// Who buys.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "user-17")]
    user_id: Option<&'a str>,
    /// What, one line per SKU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lines: Vec<LineBody<'a>>,
    /// What was asked for, where the policy lets the lines be others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    asked: Vec<LineBody<'a>>,
    /// When it was decided, by the log's clock (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, example = "2026-11-22T08:05:00.123Z")]
    created_at: Option<String>,
    /// Until when its units are kept; while it is paying, the latest end of the payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, example = "2026-11-22T08:15:00.123Z")]
    expires_at: Option<String>,
    /// What was to be done when not all lines could be held.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "all_or_nothing")]
    policy: Option<&'a str>,
    /// The key that names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "order-1")]
    idempotency_key: Option<&'a str>,
    /// The caller's own reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    external_ref: Option<&'a str>,
    /// The payment that is being made or was tried last; once confirmed, the one that paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_ref: Option<&'a str>,
    /// Why it was cancelled or given back after it was paid, or the code of its rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// Every SKU that could not be held.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shortages: Vec<ShortageBody>,
}

fn lines(lines: &[(Sku, i64)]) -> Vec<LineBody<'_>> {
    let lines = lines.iter();
    lines
        .map(|(sku, quantity)| LineBody {
            sku: sku.as_str(),
            quantity: *quantity,
        })
        .collect()
}

impl<'a> HoldBody<'a> {
    /// A hold as it is.
    #[must_use]
    pub fn of(view: &'a HoldView) -> Self {
        let terms = &view.terms;
        // The relay's deadline is no promise to the buyer.
        let is_promised = terms.state != HoldState::Pending;
        let rejection = view.rejection.as_ref();
        Self {
            hold_id: view.hold_id.to_string(),
            state: terms.state.name(),
            command: None,
            user_id: Some(terms.user_id.as_str()),
            lines: lines(&view.lines),
            asked: lines(&terms.asked),
            created_at: Some(time::text(terms.created_at)),
            expires_at: is_promised.then(|| time::text(terms.expires_at)),
            policy: Some(terms.policy.name()),
            idempotency_key: Some(terms.idempotency_key.as_str()),
            external_ref: terms.external_ref.as_ref().map(AsRef::as_ref),
            payment_ref: terms.payment_ref.as_ref().map(AsRef::as_ref),
            reason: match rejection {
                Some(rejection) => Some(rejection.reason.code()),
                None => terms
                    .reason
                    .as_ref()
                    .map(AsRef::as_ref)
                    .filter(|reason| !reason.is_empty()),
            },
            shortages: rejection.map_or_else(Vec::new, |rejection| {
                rejection.shortages.iter().map(Into::into).collect()
            }),
        }
    }

    /// A hold that is not decided, or whose command is not.
    #[must_use]
    pub fn pending(hold_id: HoldId, command: i64) -> Self {
        Self {
            hold_id: hold_id.to_string(),
            state: "pending",
            command: Some(command),
            user_id: None,
            lines: Vec::new(),
            asked: Vec::new(),
            created_at: None,
            expires_at: None,
            policy: None,
            idempotency_key: None,
            external_ref: None,
            payment_ref: None,
            reason: None,
            shortages: Vec::new(),
        }
    }
}

/// A page of holds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Holds)]
pub struct HoldsBody<'a> {
    /// Newest first.
    pub holds: Vec<HoldBody<'a>>,
    /// Give it as `cursor` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A SKU's counters, in units.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stock)]
pub struct StockBody<'a> {
    /// Which SKU.
    #[schema(example = "TICKET-1")]
    sku: Cow<'a, str>,
    /// In the warehouse.
    #[schema(example = 100)]
    on_hand: i64,
    /// Kept for holds.
    #[schema(example = 7)]
    held: i64,
    /// Bought and not shipped yet.
    #[schema(example = 20)]
    allocated: i64,
    /// Can be reserved now: on hand, less held, allocated and safety stock. Absent in the answer to a change when the
    /// safety stock cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 68)]
    available: Option<i64>,
    /// One more with every change.
    #[schema(example = 42)]
    version: i64,
    /// Never sold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 5)]
    safety_stock: Option<i64>,
    /// Most units that one user may hold and buy; absent for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 4)]
    max_per_user: Option<i64>,
}

impl<'a> StockBody<'a> {
    /// Counters with their policy, as far as that is known.
    #[must_use]
    pub fn of(sku: &'a Sku, stock: Stock, policy: Option<SkuPolicy>) -> Self {
        let known = policy.map(|policy| Stock { policy, ..stock });
        Self {
            sku: Cow::Borrowed(sku.as_str()),
            on_hand: stock.on_hand,
            held: stock.held,
            allocated: stock.allocated,
            available: known.map(|stock| stock.available()),
            version: stock.version,
            safety_stock: policy.map(|policy| policy.safety_stock),
            max_per_user: policy.and_then(|policy| policy.max_per_user),
        }
    }
}

/// A page of SKUs, or those that were asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StockList)]
pub struct StockListBody<'a> {
    /// Ascending by SKU.
    pub stock: Vec<StockBody<'a>>,
    /// SKUs that were asked for and have never had stock or a policy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<&'a str>,
    /// Give it as `cursor` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<&'a str>,
}

/// A change of stock that is not decided yet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PendingStock)]
pub struct PendingStockBody<'a> {
    /// Which SKU.
    #[schema(example = "TICKET-1")]
    pub sku: &'a str,
    /// pending
    #[schema(example = "pending")]
    pub state: &'static str,
    /// The offset of the command in its lane.
    pub command: i64,
}

/// What a look at a SKU shows.
#[derive(ToSchema)]
#[schema(as = StockOrPending)]
#[serde(untagged)]
#[expect(dead_code, reason = "only the description is used")]
pub enum StockOrPending {
    /// Its counters.
    Stock(StockBody<'static>),
    /// The command that is waited for is not decided yet.
    Pending(PendingStockBody<'static>),
}

/// The short form's answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ShortHold)]
pub struct ShortBody {
    /// The hold.
    #[schema(example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab")]
    pub hold_id: String,
    /// `pending` in a 202.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
}

/// A JSON response.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("texts and numbers are JSON");
    let kind = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, kind)], bytes).into_response()
}

/// Sets a header whose value is ASCII by construction.
pub fn set(response: &mut Response, name: &'static str, value: &str) {
    let value = HeaderValue::from_str(value).expect("ids, keys and numbers are visible ASCII");
    response.headers_mut().insert(name, value);
}
