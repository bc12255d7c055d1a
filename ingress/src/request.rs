//! What a request carries besides its meaning: the body, the key, the wait, the trace; each checked on its way in.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, request::Parts},
};
use domain::{HoldId, Key, Sku};
use plumbing::http::json;
use serde::de::DeserializeOwned;

use crate::{app::App, options::WAIT_MS_MAX, problem::Problem};

/// The header that names a request for good.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A JSON body.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<App>) -> Result<Self, Problem> {
        let json::JsonBody(body) = json::JsonBody::from_request(request, state).await?;
        Ok(Self(body))
    }
}

/// A JSON body that may be absent.
#[derive(Debug)]
pub struct OptionalJsonBody<T>(pub T);

impl<T: DeserializeOwned + Default> FromRequest<Arc<App>> for OptionalJsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<App>) -> Result<Self, Problem> {
        let json::OptionalJsonBody(body) = json::OptionalJsonBody::from_request(request, state).await?;
        Ok(Self(body))
    }
}

/// The `Idempotency-Key` header, where there is one.
#[derive(Debug)]
pub struct IdempotencyKey(pub Option<Key>);

impl IdempotencyKey {
    /// The key, or a fresh one.
    #[must_use]
    pub fn or_made(self) -> Key {
        self.0.unwrap_or_else(|| {
            Key::parse("Idempotency-Key", &plumbing::id::random().to_string()).expect("a UUID is visible ASCII")
        })
    }
}

impl FromRequestParts<Arc<App>> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        if values.next().is_some() {
            return Err(Problem::invalid("Idempotency-Key: must be given once"));
        }
        // What is not text is no visible ASCII either.
        let key = Key::parse("Idempotency-Key", value.to_str().unwrap_or_default())?;
        Ok(Self(Some(key)))
    }
}

/// How the client wants its answer, and the trace that it belongs to.
#[derive(Debug)]
pub struct Manner {
    /// How long to wait for the outcome; zero: not at all.
    pub wait: Duration,
    /// How long to wait where the client does not say.
    pub wait_default: Duration,
    /// The preference that is honoured, as `Preference-Applied` says it (RFC 7240).
    pub applied: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

impl FromRequestParts<Arc<App>> for Manner {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<App>) -> Result<Self, Problem> {
        let wait_default = Duration::from_millis(state.options.wait_default_ms);
        let (wait, applied) = match preference(&parts.headers) {
            Preference {
                wait: Some(seconds), ..
            } => {
                let seconds = seconds.min(WAIT_MS_MAX / 1_000);
                (Duration::from_secs(seconds), Some(format!("wait={seconds}")))
            }
            Preference {
                respond_async: true, ..
            } => (Duration::ZERO, Some("respond-async".to_owned())),
            Preference { .. } => (wait_default, None),
        };
        Ok(Self {
            wait,
            wait_default,
            applied,
            traceparent: traceparent(&parts.headers),
        })
    }
}

#[derive(Default)]
struct Preference {
    wait: Option<u64>,
    respond_async: bool,
}

/// Reads `Prefer`; of a preference the first one counts, and what cannot be read is not there (RFC 7240, section 2).
fn preference(headers: &HeaderMap) -> Preference {
    let mut found = Preference::default();
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    for part in values.flat_map(|value| value.split(',')) {
        let token = part.split(';').next().unwrap_or_default();
        let (name, value) = token.split_once('=').unwrap_or((token, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "respond-async" => found.respond_async = true,
            "wait" => found.wait = found.wait.or(value.trim().trim_matches('"').parse().ok()),
            _ => {}
        }
    }
    found
}

/// `00-<32 hex>-<16 hex>-<2 hex>`; anything else would only be carried about.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(schemas::headers::TRACEPARENT)?.to_str().ok()?;
    let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut parts = text.splitn(4, '-');
    let mut next = |len| parts.next().is_some_and(|part| hex(part, len));
    (next(2) && next(32) && next(16) && next(2)).then(|| text.to_owned())
}

/// The `{hold_id}` of a path.
#[derive(Debug)]
pub struct HoldPath(pub HoldId);

impl FromRequestParts<Arc<App>> for HoldPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<App>) -> Result<Self, Problem> {
        Ok(Self(HoldId::parse(&path(parts, state).await?)?))
    }
}

/// The `{sku}` of a path.
#[derive(Debug)]
pub struct SkuPath(pub Sku);

impl FromRequestParts<Arc<App>> for SkuPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<App>) -> Result<Self, Problem> {
        Ok(Self(Sku::parse(&path(parts, state).await?)?))
    }
}

async fn path(parts: &mut Parts, state: &Arc<App>) -> Result<String, Problem> {
    let Path(text) = Path::<String>::from_request_parts(parts, state)
        .await
        .map_err(|rejection| Problem::invalid(rejection.body_text()))?;
    Ok(text)
}

/// The query's parameters, in order.
#[derive(Debug)]
pub struct Params(Vec<(String, String)>);

impl FromRequestParts<Arc<App>> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

impl Params {
    /// Refuses parameters that the call does not know: a filter with a typing error would show everything.
    ///
    /// # Errors
    /// 400 that names the parameter and the known ones.
    pub fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => Err(Problem::invalid(format!(
                "unknown parameter `{}`; this call knows {}",
                name.chars().take(64).collect::<String>(),
                known.join(", ")
            ))),
        }
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    /// The only value of a parameter.
    ///
    /// # Errors
    /// 400 when it is given twice.
    pub fn one<'a>(&'a self, name: &'a str) -> Result<Option<&'a str>, Problem> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Problem::invalid(format!("{name}: must be given once"))),
        }
    }

    /// A parameter that is a whole number of a range.
    ///
    /// # Errors
    /// 400 when it is not.
    pub fn number(&self, name: &str, range: std::ops::RangeInclusive<i64>) -> Result<Option<i64>, Problem> {
        let Some(text) = self.one(name)? else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            Problem::invalid(format!(
                "{name}: must be a whole number from {} to {}",
                range.start(),
                range.end()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_preference_that_cannot_be_read_is_not_there() {
        let wait = |values: &[&str]| preference(&headers("prefer", values)).wait;
        assert_eq!(wait(&["wait=3"]), Some(3));
        assert_eq!(wait(&["respond-async, Wait=\"10\";strict"]), Some(10));
        assert_eq!(wait(&["handling=lenient", "wait=1, wait=2"]), Some(1));
        for bad in [
            "wait",
            "wait=",
            "wait=-1",
            "wait=1.5",
            "wait=soon",
            "",
            ",,;=",
            "waiting=3",
        ] {
            assert_eq!(wait(&[bad]), None, "{bad}");
        }
        assert!(preference(&headers("prefer", &["foo, respond-async"])).respond_async);
    }

    #[test]
    fn only_a_trace_context_is_passed_on() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(traceparent(&headers("traceparent", &[good])).as_deref(), Some(good));
        for bad in [
            "",
            "00-0af7-b7ad-01",
            &good.replace('c', "x"),
            &format!("{good}-more"),
            "a b",
        ] {
            assert_eq!(traceparent(&headers("traceparent", &[bad])), None, "{bad}");
        }
    }

    /// Bodies of strangers: examples with bytes changed, cut, doubled and spliced are read or refused, and never a panic.
    #[test]
    fn fuzz_bodies() {
        use json::{BODY_MAX, parse};

        use crate::requests::{
            AdjustRequest, CancelRequest, ConfirmRequest, ExtendRequest, PolicyRequest, ReserveRequest,
            ShortReserveRequest,
        };
        let examples: [&[u8]; 7] = [
            br#"{"lines":[{"sku":"a","quantity":1},{"sku":"b","quantity":1000000}],"user_id":"u","ttl_seconds":60,"policy":"all_or_nothing"}"#,
            br#"{"payment_ref":"p"}"#,
            br#"{"reason":"\ud83c\udf7a"}"#,
            br#"{"ttl_seconds":3600}"#,
            br#"{"sku":"a","change":-9223372036854775808,"reason":"r","reference":"x"}"#,
            br#"{"safety_stock":0,"max_per_user":1e2}"#,
            br#"{"sku":"a","qty":1,"user_id":"u","idempotency_key":"k"}"#,
        ];
        let seed = plumbing::id::random().as_u128();
        println!("seed {seed}");
        // A linear congruential generator modulo 2^128; its high bits are random enough to break things.
        let mut state = seed | 1;
        let mut below = |end: usize| {
            state = state
                .wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645)
                .wrapping_add(1);
            (state >> 64) as usize % end.max(1)
        };
        for _ in 0..20_000 {
            let mut body = examples[below(examples.len())].to_vec();
            for _ in 0..below(6) {
                let at = below(body.len() + 1);
                match below(5) {
                    0 if at < body.len() => body[at] = below(256) as u8,
                    1 => body.truncate(at),
                    2 => {
                        let other = examples[below(examples.len())];
                        body.splice(at.., other[below(other.len())..].iter().copied());
                    }
                    3 => drop(body.splice(at..at, *b"[[[[{\"\\u0000")),
                    _ => body.extend_from_within(at..),
                }
                body.truncate(BODY_MAX);
            }
            let key = || Key::parse("key", "k").unwrap();
            // What is read is parsed further, into what may go into the log.
            let _read = (
                parse::<ReserveRequest>(&body).map(|body| body.parse(key()).ok()),
                parse::<ShortReserveRequest>(&body).map(|body| body.parse().ok()),
                parse::<ConfirmRequest>(&body).map(|body| body.parse().ok()),
                parse::<CancelRequest>(&body).map(|body| body.parse().ok()),
                parse::<ExtendRequest>(&body).map(|body| body.parse().ok()),
                parse::<AdjustRequest>(&body).map(|body| body.parse().ok()),
                parse::<PolicyRequest>(&body).map(|body| body.parse().ok()),
            );
        }
    }
}
