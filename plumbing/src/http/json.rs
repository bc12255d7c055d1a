//! Bodies of requests that are JSON objects, for every role that serves calls: what is not one is a problem that says so.

use std::{fmt, marker::PhantomData, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned},
};

use crate::problem;

/// Largest body, in bytes: what a router's `DefaultBodyLimit` should say.
pub const BODY_MAX: usize = 64 * 1024;
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Of what a parser says, so much is passed on; it may quote the body.
const DETAIL_MAX: usize = 300;

/// Why a body is not what a call takes.
#[derive(Debug, thiserror::Error)]
pub enum BadBody {
    /// It is not sent as JSON.
    #[error("send the body as JSON, with `Content-Type: application/json`")]
    NotJson,
    /// It is above [`BODY_MAX`].
    #[error("a body has at most {BODY_MAX} bytes")]
    TooLarge,
    /// It did not come in time.
    #[error("the body did not come within {} s", BODY_TIMEOUT.as_secs())]
    Late,
    /// It ended early.
    #[error("the body could not be read to its end")]
    Broken,
    /// It is not the object that the call takes.
    #[error("the body is not what this call takes: {0}")]
    Invalid(String),
}

impl IntoResponse for BadBody {
    fn into_response(self) -> Response {
        let (status, code) = match self {
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"),
            Self::Late => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            Self::Broken | Self::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
        };
        problem::respond(status, code, &self.to_string())
    }
}

/// A JSON body.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = BadBody;

    async fn from_request(request: Request, state: &S) -> Result<Self, BadBody> {
        let is_json = is_json(request.headers());
        let bytes = read(request, state).await?;
        if !is_json {
            return Err(BadBody::NotJson);
        }
        parse(&bytes).map(Self)
    }
}

/// A JSON body that may be absent, or `null`.
#[derive(Debug)]
pub struct OptionalJsonBody<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJsonBody<T> {
    type Rejection = BadBody;

    async fn from_request(request: Request, state: &S) -> Result<Self, BadBody> {
        let is_json = is_json(request.headers());
        let bytes = read(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        if !is_json {
            return Err(BadBody::NotJson);
        }
        if bytes.trim_ascii() == b"null" {
            return Ok(Self(T::default()));
        }
        parse(&bytes).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|kind| kind.trim().to_ascii_lowercase());
    kind.is_some_and(|kind| kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")))
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, BadBody> {
    match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(BadBody::TooLarge),
        Ok(Err(_)) => Err(BadBody::Broken),
        Err(_) => Err(BadBody::Late),
    }
}

/// Reads a JSON object.
///
/// # Errors
/// [`BadBody::Invalid`] that says what is wrong.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadBody> {
    let parsed = serde_json::from_slice::<Object<T>>(bytes).map(|Object(body)| body);
    parsed.map_err(|error| {
        let mut text = error.to_string();
        if text.len() > DETAIL_MAX {
            let end = (0..=DETAIL_MAX).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            text.push_str("...");
        }
        BadBody::Invalid(text)
    })
}

/// A JSON object: what serde derives for a struct would also take an array of its values in order.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(fields)).map(Object)
            }
        }
        deserializer.deserialize_map(Visitor(PhantomData))
    }
}
