//! The bearer token: compared without telling by its time how much of it was right, and never printed.

use std::{fmt, str::FromStr};

use axum::http::{HeaderMap, header};

/// What callers must show. Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl FromStr for Token {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("must be visible ASCII characters, at least one");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Token {
    /// The token itself: only for a client that has to show it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a request carries it (RFC 6750, section 2.1).
    #[must_use]
    pub fn is_shown_by(&self, headers: &HeaderMap) -> bool {
        let shown = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().split_at_checked("Bearer ".len()))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
        shown.is_some_and(|(_, token)| same(token, self.0.as_bytes()))
    }
}

/// Takes the same time wherever the first difference is.
fn same(shown: &[u8], token: &[u8]) -> bool {
    let differences = shown
        .iter()
        .zip(token)
        .fold(0, |differences, (a, b)| differences | (a ^ b));
    shown.len() == token.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_opens() {
        let token: Token = "s3cret".parse().unwrap();
        let shows = |value: &str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            token.is_shown_by(&headers)
        };
        assert!(shows("Bearer s3cret") && shows("bearer s3cret"));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer s3cre",
            "Bearer s3cret2",
            "Basic s3cret",
            "s3cret",
        ] {
            assert!(!shows(wrong), "{wrong}");
        }
        assert!(!token.is_shown_by(&HeaderMap::new()));
        assert_eq!(format!("{token:?}"), "***");
    }
}
