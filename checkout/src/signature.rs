//! Stripe's signature of a webhook: HMAC-SHA256 over `<time>.<raw body>`, compared in constant time.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// A signature older, or newer, than this is refused.
const TOLERANCE_S: i64 = 300;

/// Whether one of the header's `v1` signatures is the secret's over this very body, and not old.
pub(crate) fn is_good(header: &str, body: &[u8], secret: &str, now_s: i64) -> bool {
    let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
    let Some(text) = parts().find(|(name, _)| *name == "t").map(|(_, time)| time) else {
        return false;
    };
    let is_fresh = text
        .parse::<i64>()
        .is_ok_and(|time| now_s.abs_diff(time) <= TOLERANCE_S.unsigned_abs());
    is_fresh
        && parts().filter(|(name, _)| *name == "v1").any(|(_, hex)| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length is one");
            mac.update(text.as_bytes());
            mac.update(b".");
            mac.update(body);
            bytes(hex).is_some_and(|signature| mac.verify_slice(&signature).is_ok())
        })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(body: &[u8], secret: &str, time: i64) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{time}.").as_bytes());
        mac.update(body);
        mac.finalize()
            .into_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    #[test]
    fn only_the_very_body_signed_lately_with_the_secret_is_good() {
        let (body, secret, now) = (br#"{"id": "evt_1"}"#.as_slice(), "whsec_1", 1_000_000);
        let good = sign(body, secret, now);
        assert!(is_good(&format!("t={now},v1={good}"), body, secret, now));
        assert!(is_good(
            &format!("t={now},v1={},v1={good}", "0".repeat(64)),
            body,
            secret,
            now + 300
        ));
        let reserialised = br#"{"id":"evt_1"}"#;
        assert!(!is_good(&format!("t={now},v1={good}"), reserialised, secret, now));
        for time in [now + 301, now - 301] {
            assert!(!is_good(&format!("t={now},v1={good}"), body, secret, time), "{time}");
        }
        assert!(!is_good(&format!("t={now},v1={good}"), body, "whsec_2", now));
        for wrong in [
            "",
            "t=",
            "v1=00",
            &format!("t={now}"),
            &format!("t={now},v0={good}"),
            &format!("t={now},v1=é{good}"),
        ] {
            assert!(!is_good(wrong, body, secret, now), "{wrong}");
        }
    }

    /// Made with Python's hmac, so that the two ends are not ours alone.
    #[test]
    fn golden() {
        let signature = "35495024f4ef3f94e5a93e22221544c4b75e9a42300cd965ab81cb85cd994e91";
        assert!(is_good(
            &format!("t=1700000000,v1={signature}"),
            b"{}",
            "whsec_test",
            1_700_000_000
        ));
    }
}
