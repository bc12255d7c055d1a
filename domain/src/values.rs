//! Values that are always legal: each is built by one `parse`, so whoever holds one need not check it again.

use std::{fmt, sync::Arc};

use crate::limits;

/// Why a value was not accepted: the field's name and a sentence for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// The field, as clients spell it.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Invalid {
    /// A problem with one field.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}

/// Milliseconds since the Unix epoch, or a span of them.
pub type Millis = i64;

macro_rules! text_value {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_value!(
    /// What is sold: `[A-Za-z0-9._~-]{1,64}`, so that it is safe in a Redis key, a Kafka key and a URL path.
    Sku
);
text_value!(
    /// Whose stock: the same alphabet as a SKU; HTTP uses `default`.
    Tenant
);
text_value!(
    /// An idempotency key, command id or request id: 1..=255 visible ASCII characters.
    Key
);
text_value!(
    /// Who buys: 1..=128 bytes without control characters.
    UserId
);
text_value!(
    /// A note for people and other systems (reason, reference, actor, payment reference): up to 255 bytes without control characters.
    Text
);

fn is_sku_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-')
}

fn sku_text(field: &'static str, text: &str) -> Result<Arc<str>, Invalid> {
    if text.is_empty() || text.len() > limits::SKU_LEN_MAX || !text.bytes().all(is_sku_byte) {
        return Err(Invalid::new(field, "must be 1 to 64 characters of A-Z a-z 0-9 . _ ~ -"));
    }
    Ok(text.into())
}

impl Sku {
    /// Parses a SKU.
    ///
    /// # Errors
    /// [`Invalid`] when it is empty, longer than 64 bytes, or has a character outside `[A-Za-z0-9._~-]`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        sku_text("sku", text).map(Self)
    }
}

impl Tenant {
    /// Parses a tenant.
    ///
    /// # Errors
    /// [`Invalid`] as for a SKU.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        sku_text("tenant", text).map(Self)
    }
}

impl Key {
    /// Parses an idempotency key, command id or request id.
    ///
    /// # Errors
    /// [`Invalid`] when it is empty, longer than 255 bytes, or not visible ASCII.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text.len() > limits::KEY_LEN_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Invalid::new(field, "must be 1 to 255 visible ASCII characters"));
        }
        Ok(Self(text.into()))
    }
}

impl UserId {
    /// Parses a user id.
    ///
    /// # Errors
    /// [`Invalid`] when it is empty, longer than 128 bytes, or has a control character.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text.len() > limits::USER_LEN_MAX || text.chars().any(char::is_control) {
            return Err(Invalid::new(
                "user_id",
                "must be 1 to 128 bytes without control characters",
            ));
        }
        Ok(Self(text.into()))
    }
}

impl Text {
    /// Parses a note; empty is allowed.
    ///
    /// # Errors
    /// [`Invalid`] when it is longer than 255 bytes or has a control character.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, Invalid> {
        if text.len() > limits::TEXT_LEN_MAX || text.chars().any(char::is_control) {
            return Err(Invalid::new(
                field,
                "must be at most 255 bytes without control characters",
            ));
        }
        Ok(Self(text.into()))
    }

    /// Parses a note that must say something.
    ///
    /// # Errors
    /// [`Invalid`] as [`Text::parse`], and when it is empty.
    pub fn parse_some(field: &'static str, text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new(field, "must not be empty"));
        }
        Self::parse(field, text)
    }
}

/// Whole units of one line: 1..=1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(u32);

impl Quantity {
    /// Parses a number of units.
    ///
    /// # Errors
    /// [`Invalid`] outside 1..=1,000,000.
    pub fn parse(units: i64) -> Result<Self, Invalid> {
        match u32::try_from(units) {
            Ok(units) if (1..=limits::LINE_QUANTITY_MAX).contains(&units) => Ok(Self(units)),
            _ => Err(Invalid::new("quantity", "must be a whole number from 1 to 1000000")),
        }
    }

    /// The units.
    #[must_use]
    pub fn units(self) -> i64 {
        i64::from(self.0)
    }
}

/// One (SKU, quantity) of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What.
    pub sku: Sku,
    /// How many.
    pub quantity: Quantity,
}

/// The lines of a hold: 1..=50 asked for, those of the same SKU summed, in ascending order of SKU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines(Vec<Line>);

impl Lines {
    /// Sums lines of the same SKU and sorts them, so that the same cart in another order is the same cart.
    ///
    /// # Errors
    /// [`Invalid`] for none, for more than 50, and when a sum passes 1,000,000 units.
    pub fn parse(asked: Vec<Line>) -> Result<Self, Invalid> {
        if asked.is_empty() || asked.len() > limits::LINES_MAX {
            return Err(Invalid::new("lines", "must be 1 to 50 lines"));
        }
        let mut lines = asked;
        lines.sort_by(|a, b| a.sku.cmp(&b.sku));
        let mut summed: Vec<Line> = Vec::with_capacity(lines.len());
        for line in lines {
            match summed.last_mut() {
                Some(last) if last.sku == line.sku => {
                    last.quantity = Quantity::parse(last.quantity.units() + line.quantity.units()).map_err(|_| {
                        Invalid::new(
                            "lines",
                            format!("the lines of {} add up to more than 1000000", line.sku),
                        )
                    })?;
                }
                _ => summed.push(line),
            }
        }
        Ok(Self(summed))
    }

    /// The lines, one per SKU, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[Line] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Lines {
    type Item = &'a Line;
    type IntoIter = std::slice::Iter<'a, Line>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sku_is_safe_in_a_redis_key_and_a_url() {
        for good in ["a", "TICKET-1", "a.b_c~d", &"x".repeat(64)] {
            assert!(Sku::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "{a}",
            "a:b",
            "a\r\n",
            "a\0",
            "a/b",
            "ä",
            &"x".repeat(65),
            &"x".repeat(4096),
        ] {
            assert!(Sku::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_of_one_sku_are_summed_whatever_their_order() {
        let line = |sku: &str, units| Line {
            sku: Sku::parse(sku).unwrap(),
            quantity: Quantity::parse(units).unwrap(),
        };
        let cart = Lines::parse(vec![line("b", 1), line("a", 2), line("b", 3)]).unwrap();
        assert_eq!(cart.as_slice(), [line("a", 2), line("b", 4)]);
        assert!(Lines::parse(vec![line("a", 1_000_000), line("a", 1)]).is_err());
        assert!(Lines::parse(vec![]).is_err());
        assert!(Lines::parse((0..51).map(|_| line("a", 1)).collect()).is_err());
    }

    #[test]
    fn quantities_are_whole_and_bounded() {
        for bad in [0, -1, 1_000_001, 1 << 31, i64::MAX] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }
}
