//! The API's own description: what `/openapi.json` and `/docs` show, and the problems that calls share.

use utoipa::{
    IntoParams, IntoResponses, Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use crate::problem::ProblemBody;

/// The description's head; the calls add themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Holdfast",
        description = "Sells stock that cannot be sold twice. A buyer holds units for a few minutes, pays, and the hold becomes an order; \
            if the buyer does not pay, the units go back on sale by themselves.\n\n\
            Every answer to a change is an event that was read back from the log. A call that is not decided in time answers 202 with a \
            `Location`: the outcome is still coming. Problems are `application/problem+json` (RFC 9457) with a stable `code`.",
    ),
    servers((url = "/", description = "this server")),
    tags(
        (name = "holds", description = "Units kept for a buyer until a deadline"),
        (name = "stock", description = "Counters and policies of SKUs"),
        (name = "live stock", description = "What is left, pushed to whoever watches"),
        (name = "short form", description = "The same in three plain calls"),
    ),
    security((), ("token" = [])),
    modifiers(&Token),
)]
pub struct Api;

struct Token;

impl Modify for Token {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let mut http = Http::new(HttpAuthScheme::Bearer);
        http.description = Some("HOLDFAST_TOKEN, where the service has one".to_owned());
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(http));
    }
}

/// A hold, in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only the description is used")]
pub struct HoldInPath {
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
pub struct SkuInPath {
    /// The SKU
    #[param(example = "TICKET-1", pattern = "^[A-Za-z0-9._~-]{1,64}$")]
    sku: String,
}

/// The header that names a request for good.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only the description is used")]
pub struct KeyHeader {
    /// 1 to 255 visible ASCII characters; made when absent, and returned
    #[param(
        rename = "Idempotency-Key",
        nullable = false,
        example = "order-1",
        pattern = "^[!-~]{1,255}$"
    )]
    idempotency_key: Option<String>,
}

/// The header that says how the answer is wanted.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only the description is used")]
pub struct PreferHeader {
    /// `wait=N` seconds, at most 30, or `respond-async`
    #[param(rename = "Prefer", nullable = false, example = "wait=5")]
    prefer: Option<String>,
}

/// What any call may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only the description is used")]
pub enum ReadProblems {
    /// `invalid_request`: the detail says what to change
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(ProblemBody<'static>),
    /// `unauthorized`: a token is needed
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(ProblemBody<'static>),
    /// `hold_not_found`, `unknown_sku`
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(ProblemBody<'static>),
    /// `too_many_requests`: again after `Retry-After`
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(ProblemBody<'static>),
    /// `unavailable`: again after `Retry-After`
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(ProblemBody<'static>),
}

/// What a call with a command may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only the description is used")]
pub enum CommandProblems {
    /// `invalid_request`: the detail says what to change
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(ProblemBody<'static>),
    /// `unauthorized`: a token is needed
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(ProblemBody<'static>),
    /// `payload_too_large`: above 64 KiB
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(ProblemBody<'static>),
    /// `unsupported_media_type`: not JSON
    #[response(status = 415, content_type = "application/problem+json")]
    NotJson(ProblemBody<'static>),
    /// `idempotency_key_reused`, `limit_exceeded`, `lifetime_exceeded`, `several_lanes` (a cart that may be held in part)
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(ProblemBody<'static>),
    /// `too_many_requests`: again after `Retry-After`
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(ProblemBody<'static>),
    /// `unavailable`: Kafka has not acknowledged the command; `busy`: again after `Retry-After`
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(ProblemBody<'static>),
}

/// What a reservation may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only the description is used")]
pub enum NotEnough {
    /// `unknown_sku`
    #[response(status = 404, content_type = "application/problem+json")]
    UnknownSku(ProblemBody<'static>),
    /// `insufficient_stock`, with `shortages`
    #[response(status = 409, content_type = "application/problem+json")]
    Insufficient(ProblemBody<'static>),
}

/// What a call on a hold may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only the description is used")]
pub enum ClosedHold {
    /// `hold_not_found`
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(ProblemBody<'static>),
    /// `payment_in_progress`, `already_confirmed`, `already_cancelled`, `already_shipped`, `already_unallocated`, `hold_pending`
    #[response(status = 409, content_type = "application/problem+json")]
    Ended(ProblemBody<'static>),
    /// `hold_expired`
    #[response(status = 410, content_type = "application/problem+json")]
    Expired(ProblemBody<'static>),
}

/// What an adjustment may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only the description is used")]
pub enum StockConflicts {
    /// `version_conflict`, `stock_committed`
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(ProblemBody<'static>),
}
