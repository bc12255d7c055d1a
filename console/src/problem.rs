//! Every "no" of the console: RFC 9457 problem details, like the API's.

use axum::{
    extract::rejection::{JsonRejection, QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use plumbing::problem;

/// A "no" on its way to the page.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

pub type Answer = Result<Response, Problem>;

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
        }
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    pub fn logged_out() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "logged_out", "log in first")
    }

    pub fn is_logged_out(&self) -> bool {
        self.code == "logged_out"
    }

    pub fn wrong_password() -> Self {
        let detail = "no user of this name has this password";
        Self::new(StatusCode::UNAUTHORIZED, "wrong_password", detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is no such call of the console",
        )
    }

    pub fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail)
    }

    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }

    pub fn refused(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "refused", detail)
    }
}

impl Problem {
    /// In a person's words.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        tracing::debug!(code = self.code, "the console refused: {}", self.detail);
        problem::respond(self.status, self.code, &self.detail)
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let code = match rejection.status() {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
            _ => "invalid_request",
        };
        Self::new(rejection.status(), code, rejection.body_text())
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        tracing::warn!(%error, "the console's database work failed");
        Self::unavailable("the database does not answer")
    }
}

impl From<plumbing::task::Error> for Problem {
    fn from(error: plumbing::task::Error) -> Self {
        tracing::error!(%error, "a task of the console failed");
        Self::unavailable("a fault of the console")
    }
}
