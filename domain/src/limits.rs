//! Limits of the domain, with their units.

/// Most units in one line of a hold.
pub const LINE_QUANTITY_MAX: u32 = 1_000_000;
/// Most lines in one hold, before lines of the same SKU are summed.
pub const LINES_MAX: usize = 50;
/// Most units on hand of one SKU: exact as a double in Lua and in JSON.
pub const ON_HAND_MAX: i64 = 1_000_000_000_000;
/// Longest SKU and tenant, in bytes.
pub const SKU_LEN_MAX: usize = 64;
/// Longest idempotency key, command id and request id, in bytes.
pub const KEY_LEN_MAX: usize = 255;
/// Longest user id, in bytes.
pub const USER_LEN_MAX: usize = 128;
/// Longest free text (reason, reference, actor, payment and external references), in bytes.
pub const TEXT_LEN_MAX: usize = 255;
/// Time to live of a hold that names none, in milliseconds.
pub const HOLD_TTL_MS_DEFAULT: i64 = 10 * 60 * 1_000;
/// Longest time to live that one Reserve or Extend may ask for, in milliseconds.
pub const HOLD_TTL_MS_MAX: i64 = 60 * 60 * 1_000;
/// Shortest time to live, in milliseconds.
pub const HOLD_TTL_MS_MIN: i64 = 1;
/// Longest time that one payment may stop a hold's clock, in milliseconds.
pub const PAYMENT_CAP_MS_MAX: i64 = 60 * 60 * 1_000;
/// Shortest, in milliseconds.
pub const PAYMENT_CAP_MS_MIN: i64 = 1;
/// How long the lanes of a cart may take to hold it, in log milliseconds.
pub const RELAY_MS_DEFAULT: i64 = 10 * 1_000;
/// How long an ended hold, an applied command id and a forwarded command's source are remembered, in log milliseconds.
pub const REMEMBER_MS_DEFAULT: i64 = 24 * 60 * 60 * 1_000;
/// How long a request that was refused is remembered, in log milliseconds: as long as a producer may try to write one record (the
/// Java client's delivery.timeout.ms; ours give up after 10 s).
pub const REMEMBER_REQUEST_MS: i64 = 2 * 60 * 1_000;
/// Lanes fit the twelve bits that a hold id gives them.
pub const LANES_MAX: u16 = 4096;

const _: () = assert!(HOLD_TTL_MS_DEFAULT <= HOLD_TTL_MS_MAX && HOLD_TTL_MS_MIN <= HOLD_TTL_MS_DEFAULT);
const _: () = assert!(ON_HAND_MAX < 1 << 53);
