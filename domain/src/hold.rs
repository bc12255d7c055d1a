//! The hold's states and the only steps between them.

use crate::{refusal::Reason, values::Millis};

/// Where a hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldState {
    /// Its units are kept until the deadline.
    Held,
    /// Paid: its units wait to be shipped.
    Confirmed,
    /// Given back by the buyer or an operator.
    Cancelled,
    /// Given back by the deadline.
    Expired,
    /// Never held.
    Rejected,
}

/// What may be asked of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Pay.
    Confirm,
    /// Give back.
    Cancel,
    /// Give back because the deadline has passed.
    Expire,
    /// Move the deadline.
    Extend,
}

impl HoldState {
    /// All states.
    pub const ALL: [Self; 5] = [
        Self::Held,
        Self::Confirmed,
        Self::Cancelled,
        Self::Expired,
        Self::Rejected,
    ];

    /// The state's name, as clients, topics and tables spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Confirmed => "confirmed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing can change it any more (I4).
    #[must_use]
    pub fn is_ended(self) -> bool {
        !matches!(self, Self::Held)
    }

    /// The state after a step at log time `now` for a hold due at `deadline`.
    ///
    /// Confirm wins over expiry when it comes first in the lane, even past the deadline: the units are still there.
    ///
    /// # Errors
    /// The refusal, when the step is not possible from here.
    pub fn step(self, step: Step, now: Millis, deadline: Millis) -> Result<Self, Reason> {
        match (self, step) {
            (Self::Held, Step::Confirm) => Ok(Self::Confirmed),
            (Self::Held, Step::Cancel) => Ok(Self::Cancelled),
            (Self::Held, Step::Extend) => Ok(Self::Held),
            (Self::Held, Step::Expire) if now < deadline => Err(Reason::NotDue),
            (Self::Held, Step::Expire) => Ok(Self::Expired),
            (Self::Confirmed, Step::Confirm | Step::Cancel | Step::Expire | Step::Extend) => {
                Err(Reason::AlreadyConfirmed)
            }
            (Self::Cancelled, Step::Confirm | Step::Cancel | Step::Expire | Step::Extend) => {
                Err(Reason::AlreadyCancelled)
            }
            (Self::Expired, Step::Confirm | Step::Cancel | Step::Expire | Step::Extend) => Err(Reason::HoldExpired),
            (Self::Rejected, Step::Confirm | Step::Cancel | Step::Expire | Step::Extend) => Err(Reason::HoldNotFound),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I4: from any end, no step leads anywhere.
    #[test]
    fn an_ended_hold_never_comes_back_to_life() {
        for state in HoldState::ALL.into_iter().filter(|state| state.is_ended()) {
            for step in [Step::Confirm, Step::Cancel, Step::Expire, Step::Extend] {
                assert!(state.step(step, i64::MAX, 0).is_err(), "{state:?} {step:?}");
            }
        }
    }

    #[test]
    fn a_hold_does_not_expire_before_its_deadline_but_may_be_confirmed_after_it() {
        assert_eq!(HoldState::Held.step(Step::Expire, 99, 100), Err(Reason::NotDue));
        assert_eq!(HoldState::Held.step(Step::Expire, 100, 100), Ok(HoldState::Expired));
        assert_eq!(HoldState::Held.step(Step::Confirm, 500, 100), Ok(HoldState::Confirmed));
    }
}
