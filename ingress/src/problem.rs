//! Every "no" of the API: RFC 9457 problem details with a stable `code`.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use domain::{Invalid, Reason, Shortage};
use plumbing::{http::json::BadBody, problem};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{bodies, meters::Outcome};

/// What went wrong, apart from the sentence that explains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The log, or what the ingress knows of it, says no.
    Refused(Reason),
    /// No or a wrong token.
    Unauthorized,
    /// A page that may not.
    Forbidden,
    /// No such path.
    NotFound,
    /// Not with this method.
    MethodNotAllowed,
    /// The body did not come in time.
    RequestTimeout,
    /// The body is above 64 KiB.
    PayloadTooLarge,
    /// The body is not JSON.
    UnsupportedMediaType,
    /// Too many calls are in flight.
    TooManyRequests,
    /// A fault of ours.
    Internal,
    /// Something that the call needs does not answer.
    Unavailable,
}

impl Code {
    /// The stable code.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused(reason) => reason.code(),
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::TooManyRequests => "too_many_requests",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    /// The status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Refused(reason) => status_of(reason),
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Refused(reason) => title_of(reason),
            Self::Unauthorized => "A valid token is needed",
            Self::Forbidden => "Not from this page",
            Self::NotFound => "There is no such path",
            Self::MethodNotAllowed => "The path does not know this method",
            Self::RequestTimeout => "The body did not come in time",
            Self::PayloadTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The body must be JSON",
            Self::TooManyRequests => "Too many calls are in flight",
            Self::Internal => "A fault of the service",
            Self::Unavailable => "The service cannot answer now",
        }
    }
}

fn status_of(reason: Reason) -> StatusCode {
    match reason {
        Reason::InvalidRequest | Reason::Malformed => StatusCode::BAD_REQUEST,
        Reason::UnknownSku | Reason::HoldNotFound => StatusCode::NOT_FOUND,
        Reason::InsufficientStock
        | Reason::HoldPending
        | Reason::AlreadyConfirmed
        | Reason::AlreadyCancelled
        | Reason::AlreadyShipped
        | Reason::AlreadyUnallocated
        | Reason::NotConfirmed
        | Reason::PaymentInProgress
        | Reason::NotPaying
        | Reason::VersionConflict
        | Reason::StockCommitted
        | Reason::Stale
        | Reason::NotDue
        | Reason::AlreadyApplied => StatusCode::CONFLICT,
        Reason::HoldExpired => StatusCode::GONE,
        Reason::IdempotencyKeyReused | Reason::LimitExceeded | Reason::LifetimeExceeded | Reason::SeveralLanes => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Reason::Busy | Reason::CartTimedOut => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn title_of(reason: Reason) -> &'static str {
    match reason {
        Reason::InsufficientStock => "Not enough units are available",
        Reason::UnknownSku => "There is no such SKU",
        Reason::LimitExceeded => "The buyer's limit for this SKU is reached",
        Reason::Busy => "Reservations wait until there is room again",
        Reason::IdempotencyKeyReused => "The idempotency key stands for another request",
        Reason::HoldNotFound => "There is no such hold",
        Reason::HoldPending => "The hold is not decided yet",
        Reason::AlreadyConfirmed => "The hold is confirmed",
        Reason::AlreadyCancelled => "The hold was cancelled",
        Reason::AlreadyShipped => "The hold has been shipped",
        Reason::AlreadyUnallocated => "The hold was paid and given back",
        Reason::NotConfirmed => "The hold is not confirmed",
        Reason::PaymentInProgress => "A payment of the hold is being made",
        Reason::NotPaying => "The hold is not being paid",
        Reason::HoldExpired => "The hold has expired",
        Reason::VersionConflict => "The stock on hand is not what was expected",
        Reason::StockCommitted => "The units are held or sold",
        Reason::LifetimeExceeded => "A hold cannot live that long",
        Reason::NotDue => "The hold is not due yet",
        Reason::Malformed | Reason::InvalidRequest => "The request is not valid",
        Reason::Stale => "The command is too old",
        Reason::AlreadyApplied => "The command was applied before",
        Reason::CartTimedOut => "Not every lane of the cart held its lines in time",
        Reason::SeveralLanes => "The SKUs cannot be held together",
    }
}

/// One SKU that could not be held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Shortage)]
pub struct ShortageBody {
    /// Which SKU.
    #[schema(example = "TICKET-1")]
    pub sku: String,
    /// Units asked for.
    #[schema(example = 2)]
    pub requested: i64,
    /// Units that were available, or that the buyer's limit leaves.
    #[schema(example = 1)]
    pub available: i64,
    /// Whether units that would do are in carts that are not decided yet: they may be back within seconds.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retry: bool,
}

impl From<&Shortage> for ShortageBody {
    fn from(shortage: &Shortage) -> Self {
        Self {
            sku: shortage.sku.to_string(),
            requested: shortage.requested,
            available: shortage.available,
            retry: shortage.retry,
        }
    }
}

/// Up to where the log was read when the answer was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AsOf)]
pub struct AsOfBody {
    /// The lane: a partition of the events topic.
    #[schema(example = 3)]
    pub lane: u16,
    /// The offset of the last event that was taken into account; -1 for none.
    #[schema(example = 4711)]
    pub event_offset: i64,
}

/// The body of every problem (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// The code as a URI.
    #[serde(rename = "type")]
    #[schema(example = "urn:holdfast:problem:insufficient_stock")]
    kind: String,
    /// What the code means.
    title: &'a str,
    /// The HTTP status.
    #[schema(example = 409)]
    status: u16,
    /// What is wrong this time.
    #[schema(example = "TICKET-1: 2 asked for, 1 available")]
    detail: &'a str,
    /// The stable code.
    #[schema(example = "insufficient_stock")]
    code: &'a str,
    /// The request, as its event in the log names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    /// The hold that the request was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_id: Option<&'a str>,
    /// Every SKU that could not be held.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    shortages: &'a [ShortageBody],
    /// Whether every SKU that was short may be back within seconds: the units are in carts that are not decided yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    retry: bool,
    /// Where the log stood.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<AsOfBody>,
}

/// A "no" on its way to the client.
#[derive(Debug)]
pub struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    detail: String,
    request_id: Option<String>,
    hold_id: Option<String>,
    shortages: Vec<ShortageBody>,
    as_of: Option<AsOfBody>,
    headers: Vec<(&'static str, String)>,
}

/// What handlers give.
pub type Answer = Result<Response, Problem>;

impl Problem {
    /// A problem with the sentence that explains it.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            detail: detail.into(),
            request_id: None,
            hold_id: None,
            shortages: Vec::new(),
            as_of: None,
            headers: Vec::new(),
        }))
    }

    /// A decided "no".
    #[must_use]
    pub fn refused(reason: Reason, detail: impl Into<String>) -> Self {
        Self::new(Code::Refused(reason), detail)
    }

    /// 400 `invalid_request`.
    #[must_use]
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::refused(Reason::InvalidRequest, detail)
    }

    /// 503 `unavailable`.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, detail)
    }

    /// Its body.
    #[must_use]
    pub fn json(&self) -> String {
        let told = &*self.0;
        let code = told.code;
        serde_json::to_string(&ProblemBody {
            kind: problem::kind(code.name()),
            title: code.title(),
            status: code.status().as_u16(),
            detail: &told.detail,
            code: code.name(),
            request_id: told.request_id.as_deref(),
            hold_id: told.hold_id.as_deref(),
            shortages: &told.shortages,
            retry: !told.shortages.is_empty() && told.shortages.iter().all(|shortage| shortage.retry),
            as_of: told.as_of,
        })
        .expect("texts and numbers are JSON")
    }

    /// The request's id in the log.
    #[must_use]
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.0.request_id = Some(request_id.into());
        self
    }

    /// The hold in question.
    #[must_use]
    pub fn hold_id(mut self, hold_id: impl ToString) -> Self {
        self.0.hold_id = Some(hold_id.to_string());
        self
    }

    /// The lines that were short.
    #[must_use]
    pub fn shortages(mut self, shortages: &[Shortage]) -> Self {
        self.0.shortages = shortages.iter().map(Into::into).collect();
        self
    }

    /// A header of the answer.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.0.headers.push((name, value.to_string()));
        self
    }

    /// Where the log stood.
    #[must_use]
    pub fn read_to(mut self, as_of: AsOfBody) -> Self {
        self.0.as_of = Some(as_of);
        self
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(invalid.to_string())
    }
}

impl From<BadBody> for Problem {
    fn from(bad: BadBody) -> Self {
        let code = match bad {
            BadBody::NotJson => Code::UnsupportedMediaType,
            BadBody::TooLarge => Code::PayloadTooLarge,
            BadBody::Late => Code::RequestTimeout,
            BadBody::Broken | BadBody::Invalid(_) => return Self::invalid(bad.to_string()),
        };
        Self::new(code, bad.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.json();
        let told = *self.0;
        let code = told.code;
        tracing::debug!(
            code = code.name(),
            request_id = told.request_id,
            "refused: {}",
            told.detail
        );
        let mut response = problem::framed(code.status(), body);
        if code == Code::Unauthorized {
            response = problem::wanting_token(response);
        }
        for (name, value) in &told.headers {
            bodies::set(&mut response, name, value);
        }
        response.extensions_mut().insert(Outcome(code.name()));
        response
    }
}
