//! The hold's states and the only steps between them.

use crate::{refusal::Reason, values::Millis};

/// Where a hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldState {
    /// A cart over several lanes: its units here are kept while the other lanes are asked.
    Pending,
    /// Its units are kept until the deadline.
    Held,
    /// The buyer pays: its units are kept until the payment's cap, and its own clock stands still.
    Paying,
    /// Paid: its units wait to be shipped.
    Confirmed,
    /// Its units have left the warehouse.
    Shipped,
    /// Paid, and given back before it was shipped.
    Unallocated,
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
    Confirm(Payment),
    /// Give back.
    Cancel,
    /// Give back because the deadline has passed.
    Expire,
    /// Move the deadline.
    Extend,
    /// Stop the clock while a payment is made.
    BeginPayment,
    /// Let the clock go on: the payment failed.
    AbortPayment(Payment),
    /// Let the units leave the warehouse.
    Ship,
    /// Give back what was paid and is not shipped.
    Unallocate,
    /// Hold: all lanes of the cart do.
    Hold,
    /// Give back: a lane of the cart cannot hold, or did not in time.
    Reject,
}

/// How the payment that a step names stands to the one that the hold has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payment {
    /// It is that one.
    Same,
    /// It is another.
    Other,
}

impl Step {
    /// All steps.
    pub const ALL: [Self; 12] = [
        Self::Confirm(Payment::Same),
        Self::Confirm(Payment::Other),
        Self::Cancel,
        Self::Expire,
        Self::Extend,
        Self::BeginPayment,
        Self::AbortPayment(Payment::Same),
        Self::AbortPayment(Payment::Other),
        Self::Ship,
        Self::Unallocate,
        Self::Hold,
        Self::Reject,
    ];
}

impl HoldState {
    /// All states.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Held,
        Self::Paying,
        Self::Confirmed,
        Self::Shipped,
        Self::Unallocated,
        Self::Cancelled,
        Self::Expired,
        Self::Rejected,
    ];

    /// The state's name, as clients, topics and tables spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Held => "held",
            Self::Paying => "paying",
            Self::Confirmed => "confirmed",
            Self::Shipped => "shipped",
            Self::Unallocated => "unallocated",
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

    /// Whether it keeps units until a deadline: what `due` names, and what the expirer may end.
    #[must_use]
    pub fn is_live(self) -> bool {
        match self {
            Self::Pending | Self::Held | Self::Paying => true,
            Self::Confirmed | Self::Shipped | Self::Unallocated | Self::Cancelled | Self::Expired | Self::Rejected => {
                false
            }
        }
    }

    /// Whether it was ended as a sale, whatever became of the sale.
    #[must_use]
    pub fn is_sold(self) -> bool {
        match self {
            Self::Confirmed | Self::Shipped | Self::Unallocated => true,
            Self::Pending | Self::Held | Self::Paying | Self::Cancelled | Self::Expired | Self::Rejected => false,
        }
    }

    /// Whether nothing can change it any more (I4); only such a hold is ever forgotten.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Held | Self::Paying | Self::Confirmed => false,
            Self::Shipped | Self::Unallocated | Self::Cancelled | Self::Expired | Self::Rejected => true,
        }
    }

    /// The state after a step at log time `now` for a hold due at `deadline`.
    ///
    /// Confirm wins over expiry when it comes first in the lane, even past the deadline: the units are still there.
    /// While a payment is made, only that payment and its cap have a say.
    ///
    /// # Errors
    /// The refusal, when the step is not possible from here.
    pub fn step(self, step: Step, now: Millis, deadline: Millis) -> Result<Self, Reason> {
        use Payment::{Other, Same};
        use Step::{AbortPayment, BeginPayment, Cancel, Confirm, Expire, Extend, Hold, Reject, Ship, Unallocate};
        // Every step by its name: a new one does not compile until it is decided what it means here.
        macro_rules! any_step {
            () => {
                Confirm(Same | Other)
                    | Cancel
                    | Expire
                    | Extend
                    | BeginPayment
                    | AbortPayment(Same | Other)
                    | Ship
                    | Unallocate
                    | Hold
                    | Reject
            };
        }
        match (self, step) {
            (Self::Pending, Hold) => Ok(Self::Held),
            (Self::Pending, Reject) => Ok(Self::Rejected),
            (
                Self::Pending,
                Confirm(Same | Other)
                | Cancel
                | Expire
                | Extend
                | BeginPayment
                | AbortPayment(Same | Other)
                | Ship
                | Unallocate,
            ) => Err(Reason::HoldPending),
            (Self::Held | Self::Paying | Self::Confirmed, Hold | Reject) => Err(Reason::AlreadyApplied),

            (Self::Held, Confirm(Same | Other)) => Ok(Self::Confirmed),
            (Self::Held, Cancel) => Ok(Self::Cancelled),
            (Self::Held, Extend) => Ok(Self::Held),
            (Self::Held, BeginPayment) => Ok(Self::Paying),
            (Self::Held, AbortPayment(Same | Other)) => Err(Reason::NotPaying),
            (Self::Held, Ship | Unallocate) => Err(Reason::NotConfirmed),

            (Self::Paying, Confirm(Same)) => Ok(Self::Confirmed),
            (Self::Paying, AbortPayment(Same)) => Ok(Self::Held),
            (
                Self::Paying,
                Confirm(Other) | AbortPayment(Other) | BeginPayment | Cancel | Extend | Ship | Unallocate,
            ) => Err(Reason::PaymentInProgress),

            (Self::Held | Self::Paying, Expire) if now < deadline => Err(Reason::NotDue),
            (Self::Held | Self::Paying, Expire) => Ok(Self::Expired),

            (Self::Confirmed, Ship) => Ok(Self::Shipped),
            (Self::Confirmed, Unallocate) => Ok(Self::Unallocated),
            (
                Self::Confirmed,
                Confirm(Same | Other) | Cancel | Expire | Extend | BeginPayment | AbortPayment(Same | Other),
            ) => Err(Reason::AlreadyConfirmed),

            (Self::Shipped, any_step!()) => Err(Reason::AlreadyShipped),
            (Self::Unallocated, any_step!()) => Err(Reason::AlreadyUnallocated),
            (Self::Cancelled, any_step!()) => Err(Reason::AlreadyCancelled),
            (Self::Expired, any_step!()) => Err(Reason::HoldExpired),
            (Self::Rejected, any_step!()) => Err(Reason::HoldNotFound),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a hold can come from a state, at any time.
    fn reachable(from: HoldState) -> Vec<HoldState> {
        let mut found = vec![from];
        let mut looked_at = 0;
        while let Some(state) = found.get(looked_at).copied() {
            looked_at += 1;
            for step in Step::ALL {
                for now in [99, 100] {
                    if let Ok(next) = state.step(step, now, 100)
                        && !found.contains(&next)
                    {
                        found.push(next);
                    }
                }
            }
        }
        found.retain(|state| *state != from);
        found
    }

    /// I4: a hold ends as one of confirmed, cancelled and expired; only a confirmed one goes on, as one of shipped and
    /// unallocated; from there no step leads anywhere.
    #[test]
    fn an_ended_hold_never_comes_back_to_life() {
        for state in HoldState::ALL {
            let next = reachable(state);
            if state.is_final() {
                assert_eq!(next, [], "{state:?}");
            } else if state.is_live() {
                assert!(next.iter().any(|next| !next.is_live()), "{state:?}");
            } else {
                assert_eq!(
                    (state, next),
                    (HoldState::Confirmed, vec![HoldState::Shipped, HoldState::Unallocated])
                );
            }
        }
    }

    #[test]
    fn a_hold_does_not_expire_before_its_deadline_but_may_be_confirmed_after_it() {
        for live in [HoldState::Held, HoldState::Paying] {
            assert_eq!(live.step(Step::Expire, 99, 100), Err(Reason::NotDue));
            assert_eq!(live.step(Step::Expire, 100, 100), Ok(HoldState::Expired));
            let confirm = Step::Confirm(Payment::Same);
            assert_eq!(live.step(confirm, 500, 100), Ok(HoldState::Confirmed));
        }
    }

    #[test]
    fn while_a_payment_is_made_only_that_payment_and_its_cap_have_a_say() {
        let allowed: Vec<Step> = Step::ALL
            .into_iter()
            .filter(|step| HoldState::Paying.step(*step, 100, 100).is_ok())
            .collect();
        let expected = [
            Step::Confirm(Payment::Same),
            Step::Expire,
            Step::AbortPayment(Payment::Same),
        ];
        assert_eq!(allowed, expected);
    }
}
