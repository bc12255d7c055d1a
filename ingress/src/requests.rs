//! Bodies of requests: dumb mirrors of the JSON, each turned into domain values in one place.
//!
//! Unknown fields are refused, and a number of units is a JSON integer: a typing error must not reserve something else.

use std::fmt;

use domain::{
    Adjustment, Invalid, Key, Line, Lines, Millis, Policy, Quantity, Reserve, Sku, SkuPolicy, Text, UserId, limits,
};
use plumbing::http::json::Object;
use schemas::convert;
use serde::{Deserialize, Deserializer, de};
use utoipa::ToSchema;

/// A JSON integer: not 1.5, not 1e3, not "5".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole(pub i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Whole, E> {
                i64::try_from(number)
                    .map(Whole)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &"a whole number below 2^63"))
            }
        }
        deserializer.deserialize_i64(Visitor)
    }
}

/// One (SKU, quantity).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReserveLine)]
pub struct LineRequest {
    /// What.
    #[schema(example = "TICKET-1", pattern = "^[A-Za-z0-9._~-]{1,64}$")]
    sku: String,
    /// How many units.
    #[schema(value_type = i64, example = 2, minimum = 1, maximum = 1_000_000)]
    quantity: Whole,
}

/// `POST /v1/holds`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Reserve)]
pub struct ReserveRequest {
    /// What to hold. Lines of the same SKU are summed.
    #[schema(value_type = Vec<LineRequest>, min_items = 1, max_items = 50)]
    lines: Vec<Object<LineRequest>>,
    /// Who buys.
    #[schema(
        example = "user-17",
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    user_id: String,
    /// How long to hold, in seconds; 600 when absent.
    #[schema(value_type = Option<i64>, example = 600, minimum = 1, maximum = 3_600)]
    ttl_seconds: Option<Whole>,
    /// What to do when not all lines can be held: nothing (`all_or_nothing`), hold the lines that are there (`per_line`), or
    /// as many units of each as there are (`up_to`). The last two need lines of one lane.
    #[schema(example = "all_or_nothing", pattern = "^(all_or_nothing|per_line|up_to)$")]
    policy: Option<String>,
    /// The caller's own reference.
    #[schema(example = "cart-99", max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    external_ref: Option<String>,
}

fn line(sku: &str, quantity: Whole) -> Result<Line, Invalid> {
    Ok(Line {
        sku: Sku::parse(sku)?,
        quantity: Quantity::parse(quantity.0)?,
    })
}

fn ttl(seconds: Whole) -> Result<Millis, Invalid> {
    const SECONDS_MAX: i64 = limits::HOLD_TTL_MS_MAX / 1_000;
    if (1..=SECONDS_MAX).contains(&seconds.0) {
        Ok(seconds.0 * 1_000)
    } else {
        Err(Invalid::new(
            "ttl_seconds",
            format!("must be a whole number from 1 to {SECONDS_MAX}"),
        ))
    }
}

pub(crate) fn note(field: &'static str, text: Option<&str>) -> Result<Option<Text>, Invalid> {
    // An empty note says as much as none.
    text.filter(|text| !text.is_empty())
        .map(|text| Text::parse(field, text))
        .transpose()
}

impl ReserveRequest {
    /// The domain's value under an idempotency key.
    ///
    /// # Errors
    /// [`Invalid`] for the first field that is not allowed.
    pub fn parse(self, idempotency_key: Key) -> Result<Reserve, Invalid> {
        if self.lines.len() > limits::LINES_MAX {
            return Err(Invalid::new("lines", "must be 1 to 50 lines"));
        }
        let lines = self.lines.iter().enumerate().map(|(index, Object(asked))| {
            line(&asked.sku, asked.quantity)
                .map_err(|Invalid { field, problem }| Invalid::new("lines", format!("[{index}].{field} {problem}")))
        });
        Ok(Reserve {
            idempotency_key,
            user_id: UserId::parse(&self.user_id)?,
            lines: Lines::parse(lines.collect::<Result<_, _>>()?)?,
            ttl_ms: self.ttl_seconds.map(ttl).transpose()?,
            policy: self
                .policy
                .as_deref()
                .map(Policy::parse)
                .transpose()?
                .unwrap_or_default(),
            external_ref: note("external_ref", self.external_ref.as_deref())?,
        })
    }
}

/// `POST /v1/holds/{hold_id}/confirm`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Confirm)]
pub struct ConfirmRequest {
    /// The payment, as the payment provider calls it.
    #[schema(
        example = "pay_123",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    payment_ref: String,
}

impl ConfirmRequest {
    /// The payment.
    ///
    /// # Errors
    /// [`Invalid`] when it is not allowed.
    pub fn parse(&self) -> Result<Text, Invalid> {
        Text::parse_some("payment_ref", &self.payment_ref)
    }
}

/// `POST /v1/holds/{hold_id}/cancel`
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Cancel)]
pub struct CancelRequest {
    /// Why.
    #[schema(example = "changed my mind", max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    reason: Option<String>,
}

impl CancelRequest {
    /// Why; empty for no reason.
    ///
    /// # Errors
    /// [`Invalid`] when it is not allowed.
    pub fn parse(&self) -> Result<Text, Invalid> {
        Text::parse("reason", self.reason.as_deref().unwrap_or_default())
    }
}

/// `POST /v1/holds/{hold_id}/extend`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Extend)]
pub struct ExtendRequest {
    /// How long to hold from now on, in seconds.
    #[schema(value_type = i64, example = 300, minimum = 1, maximum = 3_600)]
    ttl_seconds: Whole,
}

impl ExtendRequest {
    /// How long, in milliseconds.
    ///
    /// # Errors
    /// [`Invalid`] when it is not allowed.
    pub fn parse(&self) -> Result<Millis, Invalid> {
        ttl(self.ttl_seconds)
    }
}

/// `POST /v1/stock/adjustments`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AdjustStock)]
pub struct AdjustRequest {
    /// What; a new SKU is made.
    #[schema(example = "TICKET-1", pattern = "^[A-Za-z0-9._~-]{1,64}$")]
    sku: String,
    /// Add so many units to those on hand, or take them away. Either this or `set`.
    #[schema(value_type = Option<i64>, example = 100)]
    change: Option<Whole>,
    /// Make it so many units on hand.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000_000_i64)]
    set: Option<Whole>,
    /// Refuse (`version_conflict`) unless so many units are on hand.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000_000_i64)]
    expected: Option<Whole>,
    /// Why.
    #[schema(
        example = "delivery",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    reason: String,
    /// The caller's document.
    #[schema(example = "DN-2026-0815", max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    reference: Option<String>,
}

/// An adjustment, parsed.
#[derive(Debug)]
pub struct Adjust {
    /// What.
    pub sku: Sku,
    /// How.
    pub adjustment: Adjustment,
    /// Units that must be on hand.
    pub expected_on_hand: Option<i64>,
    /// Why.
    pub reason: Text,
    /// The caller's document.
    pub reference: Option<Text>,
}

impl AdjustRequest {
    /// The domain's values.
    ///
    /// # Errors
    /// [`Invalid`] for the first field that is not allowed.
    pub fn parse(self) -> Result<Adjust, Invalid> {
        let number = |whole: Option<Whole>| whole.map(|whole| whole.0);
        let expected_on_hand = number(self.expected);
        if expected_on_hand.is_some_and(|units| !(0..=limits::ON_HAND_MAX).contains(&units)) {
            return Err(Invalid::new("expected", "must be a whole number from 0 to 10^12"));
        }
        Ok(Adjust {
            sku: Sku::parse(&self.sku)?,
            adjustment: convert::parse_adjustment(number(self.change), number(self.set))?,
            expected_on_hand,
            reason: Text::parse_some("reason", &self.reason)?,
            reference: note("reference", self.reference.as_deref())?,
        })
    }
}

/// `PUT /v1/skus/{sku}`: the whole policy; what is absent gets its default.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SkuPolicy)]
pub struct PolicyRequest {
    /// Units on hand that are never sold; 0 when absent.
    #[schema(value_type = Option<i64>, example = 5, minimum = 0, maximum = 1_000_000_000_000_i64)]
    safety_stock: Option<Whole>,
    /// Most units that one user may hold and buy; no limit when absent.
    #[schema(value_type = Option<i64>, example = 4, minimum = 1, maximum = 1_000_000_000_000_i64)]
    max_per_user: Option<Whole>,
}

impl PolicyRequest {
    /// The domain's value.
    ///
    /// # Errors
    /// [`Invalid`] for the first field that is not allowed.
    pub fn parse(&self) -> Result<SkuPolicy, Invalid> {
        convert::parse_policy(
            self.safety_stock.map_or(0, |units| units.0),
            self.max_per_user.map(|units| units.0),
        )
    }
}

/// `POST /holds/reserve`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ShortReserve)]
pub struct ShortReserveRequest {
    /// What.
    #[schema(example = "TICKET-1", pattern = "^[A-Za-z0-9._~-]{1,64}$")]
    sku: String,
    /// How many units.
    #[schema(value_type = i64, example = 1, minimum = 1, maximum = 1_000_000)]
    qty: Whole,
    /// Who buys.
    #[schema(
        example = "user-17",
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    user_id: String,
    /// Names the hold: the same key and body give the same hold.
    #[schema(example = "order-1", pattern = "^[!-~]{1,255}$")]
    idempotency_key: String,
}

impl ShortReserveRequest {
    /// The domain's value.
    ///
    /// # Errors
    /// [`Invalid`] for the first field that is not allowed.
    pub fn parse(&self) -> Result<Reserve, Invalid> {
        let quantity = Quantity::parse(self.qty.0).map_err(|invalid| Invalid::new("qty", invalid.problem))?;
        Ok(Reserve {
            idempotency_key: Key::parse("idempotency_key", &self.idempotency_key)?,
            user_id: UserId::parse(&self.user_id)?,
            lines: Lines::parse(vec![Line {
                sku: Sku::parse(&self.sku)?,
                quantity,
            }])?,
            ttl_ms: None,
            policy: Policy::default(),
            external_ref: None,
        })
    }
}

/// `POST /holds/confirm`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ShortConfirm)]
pub struct ShortConfirmRequest {
    /// Which hold.
    #[schema(
        example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab",
        pattern = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-8[0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
    )]
    pub hold_id: String,
    /// The payment.
    #[schema(
        example = "pay_123",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub payment_ref: String,
}

/// `POST /holds/cancel`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ShortCancel)]
pub struct ShortCancelRequest {
    /// Which hold.
    #[schema(
        example = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab",
        pattern = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-8[0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
    )]
    pub hold_id: String,
}
