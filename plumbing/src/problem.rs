//! The frame of every "no" over HTTP: RFC 9457 problem details with a stable `code`. Which codes there are is each role's own.

use std::collections::BTreeMap;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::json;
use utoipa::{
    IntoResponses,
    openapi::{self, Content, Ref, RefOr, ResponseBuilder},
};

/// Seconds after which a call that could not be served now may be made again.
const RETRY_AFTER_S: u16 = 1;
const MEDIA_TYPE: &str = "application/problem+json";

/// The `type` of a problem: its code as a URI.
#[must_use]
pub fn kind(code: &str) -> String {
    format!("urn:holdfast:problem:{code}")
}

/// A problem that is its status, its code, and the sentence that explains it.
#[must_use]
pub fn respond(status: StatusCode, code: &str, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Refused");
    let body = json!({"type": kind(code), "title": title, "status": status.as_u16(), "detail": detail, "code": code});
    framed(status, body.to_string())
}

/// A problem's body with the headers that go with its status.
#[must_use]
pub fn framed(status: StatusCode, body: String) -> Response {
    let kind = [(header::CONTENT_TYPE, MEDIA_TYPE)];
    let mut response = (status, kind, body).into_response();
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
    response
}

/// A refused call, told that the service's token lets it in.
#[must_use]
pub fn wanting_token(mut refused: Response) -> Response {
    let headers = refused.headers_mut();
    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refused
}

/// Problems in the description of a call (OpenAPI): each status with its codes. Their schema, `Problem`, is the API's.
#[must_use]
pub fn described(problems: &[(u16, &str)]) -> BTreeMap<String, RefOr<openapi::Response>> {
    let one = |&(status, codes): &(u16, &str)| {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let response = ResponseBuilder::new().description(codes).content(MEDIA_TYPE, content);
        (status.to_string(), response.build().into())
    };
    problems.iter().map(one).collect()
}

/// What any call may answer, in its description.
#[derive(Debug)]
pub struct CallProblems;

impl IntoResponses for CallProblems {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        described(&[
            (400, "`invalid_request`: the detail says what to change"),
            (401, "`unauthorized`: a token is needed"),
            (503, "`unavailable`: again after `Retry-After`"),
        ])
    }
}

/// What a call with a body ([`crate::http::json`]) may answer beside those.
#[derive(Debug)]
pub struct BodyProblems;

impl IntoResponses for BodyProblems {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        described(&[
            (413, "`payload_too_large`: above 64 KiB"),
            (415, "`unsupported_media_type`: not JSON"),
        ])
    }
}
