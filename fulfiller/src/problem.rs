//! Every "no" of the desk: RFC 9457 problem details, as the API's.

use axum::{
    extract::rejection::QueryRejection,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use plumbing::problem;

/// A "no" on its way to the client.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { status, code, detail }
    }

    pub(crate) fn unauthorized() -> Self {
        let detail = "send `Authorization: Bearer` with the service's token";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "order_not_found", "there is no such order")
    }

    pub(crate) fn wrong_state(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "wrong_order_state", detail)
    }

    pub(crate) fn key_reused() -> Self {
        let detail = "Idempotency-Key: stands for a return of other lines; a new return needs a new key";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
    }

    pub(crate) fn too_many_units(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "more_than_shipped", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        problem::respond(self.status, self.code, &self.detail)
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        tracing::warn!(%error, "the desk's database work failed");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "the database does not answer",
        )
    }
}

impl From<domain::Invalid> for Problem {
    fn from(invalid: domain::Invalid) -> Self {
        Self::invalid(invalid.to_string())
    }
}

impl From<plumbing::task::Error> for Problem {
    fn from(error: plumbing::task::Error) -> Self {
        tracing::error!(%error, "a task of the desk failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "a fault of the service")
    }
}
