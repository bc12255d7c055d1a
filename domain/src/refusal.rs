//! Why a command was refused: a decided "no", which is an answer and not an error.

use std::fmt;

macro_rules! reasons {
    ($($(#[$meta:meta])* $name:ident = $code:literal),+ $(,)?) => {
        /// A refusal's stable code, the same in events, in HTTP problems and in metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$meta])* $name),+
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The stable code.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code),+
                }
            }

            /// The reason of a code; `None` for a code that this version does not know.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// Fewer units are available than a line asks for.
    InsufficientStock = "insufficient_stock",
    /// The SKU has never had stock or a policy.
    UnknownSku = "unknown_sku",
    /// The user would pass the SKU's purchase limit.
    LimitExceeded = "limit_exceeded",
    /// Redis is nearly full: releases go on, reservations wait.
    Busy = "busy",
    /// The key was used before with another body.
    IdempotencyKeyReused = "idempotency_key_reused",
    /// No such hold, or it is forgotten.
    HoldNotFound = "hold_not_found",
    /// The hold is not decided yet.
    HoldPending = "hold_pending",
    /// The hold is confirmed.
    AlreadyConfirmed = "already_confirmed",
    /// The hold was cancelled.
    AlreadyCancelled = "already_cancelled",
    /// The units of the hold have left the warehouse.
    AlreadyShipped = "already_shipped",
    /// The hold was paid, and given back before it was shipped.
    AlreadyUnallocated = "already_unallocated",
    /// The hold is not confirmed: there is nothing to ship or to take back.
    NotConfirmed = "not_confirmed",
    /// A payment of the hold is being made, and it is another, or the step has to wait for it.
    PaymentInProgress = "payment_in_progress",
    /// The payment that is to be aborted is not being made.
    NotPaying = "not_paying",
    /// The hold expired; its units are back on sale.
    HoldExpired = "hold_expired",
    /// The stock on hand is not what the adjustment expected.
    VersionConflict = "version_conflict",
    /// The adjustment would leave less on hand than is held and allocated.
    StockCommitted = "stock_committed",
    /// The extension would pass the longest life of a hold.
    LifetimeExceeded = "lifetime_exceeded",
    /// A release came before the hold's deadline by log time.
    NotDue = "not_due",
    /// The record could not be read; it is in the dead-letter topic.
    Malformed = "malformed",
    /// The command can be read but asks for something that is not allowed.
    InvalidRequest = "invalid_request",
    /// A forwarded command is older than what lanes remember.
    Stale = "stale",
    /// A forwarded command was applied before.
    AlreadyApplied = "already_applied",
    /// Not every lane of the cart held its lines in time.
    CartTimedOut = "cart_timed_out",
    /// The lines of the hold live in more than one lane, which its policy does not allow.
    SeveralLanes = "several_lanes",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn codes_are_unique_and_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
        }
        assert_eq!(Reason::from_code("of_the_future"), None);
    }
}
