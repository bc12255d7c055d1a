//! Which pages may watch. A browser lets any page open a WebSocket anywhere and says from which page it comes: so the
//! server decides (RFC 6455, section 10.2). Clients that are no browsers send no `Origin`.

use std::str::FromStr;

use axum::http::{HeaderMap, HeaderValue, header, request::Parts};

use crate::problem::{Code, Problem};

/// An origin of pages that may watch, such as `https://shop.example`; `*` stands for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let host = text.split_once("://").map(|(_, host)| host);
        let is_origin = host.is_some_and(|host| !host.is_empty() && !host.contains('/'));
        if text == "*" || (is_origin && text.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err("must be scheme://host or scheme://host:port without a path, or *")
    }
}

/// The page's origin where it is another than this server's: the answer has to name it, or the browser hides it.
///
/// # Errors
/// 403 `forbidden` for a page of an origin that is not allowed.
pub fn check(parts: &Parts, allowed: &[Origin]) -> Result<Option<HeaderValue>, Problem> {
    let Some(origin) = parts.headers.get(header::ORIGIN) else {
        return Ok(None);
    };
    let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
    let host = text.split_once("://").map(|(_, host)| host);
    if host.is_some() && host == host_of(&parts.headers, parts).as_deref() {
        return Ok(None);
    }
    if allowed.iter().any(|allowed| allowed.0 == "*" || allowed.0 == text) {
        return Ok(Some(origin.clone()));
    }
    Err(Problem::new(
        Code::Forbidden,
        "pages of this origin may not watch; HOLDFAST_LIVE_ORIGINS names those that may",
    ))
}

fn host_of(headers: &HeaderMap, parts: &Parts) -> Option<String> {
    let host = match headers.get(header::HOST) {
        Some(host) => host.to_str().ok(),
        None => parts.uri.authority().map(axum::http::uri::Authority::as_str), // HTTP/2
    };
    host.map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn own_pages_and_listed_ones_may_watch() {
        let allowed: Vec<Origin> = vec!["https://shop.example".parse().unwrap()];
        let check = |origin: Option<&str>, allowed: &[Origin]| {
            let mut request = Request::builder().uri("/v1/live").header("host", "stock.example:8080");
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            super::check(&parts, allowed).map_err(|_| ())
        };
        assert_eq!(check(None, &allowed), Ok(None));
        assert_eq!(check(Some("http://Stock.example:8080"), &allowed), Ok(None));
        assert!(check(Some("https://shop.example"), &allowed).unwrap().is_some());
        for foreign in [
            "https://evil.example",
            "http://stock.example",
            "http://shop.example",
            "null",
            "",
        ] {
            assert_eq!(check(Some(foreign), &allowed), Err(()), "{foreign}");
            assert!(check(Some(foreign), &["*".parse().unwrap()]).unwrap().is_some());
        }
    }

    #[test]
    fn an_origin_has_no_path() {
        for bad in ["", "shop.example", "https://", "https://shop.example/", "https://a b"] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
