//! A payment's road as one total function: what our row says, what Stripe's intent says, what the hold says -> the next step.
//!
//! The worker of `checkout` does the step and asks again, so every step may be done twice. Money that was taken ends in one
//! of two ways: the hold is confirmed by it, or it is given back (I7). The two cannot both happen: money is given back only
//! for a hold that is over, and what is over is never confirmed. And the other way round: what was confirmed for money that
//! never came is taken back.

/// What we have decided so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaymentState {
    /// The payment is announced in the log; the buyer has no secret yet, so nobody can pay.
    Beginning,
    /// The buyer may pay.
    Pending,
    /// No money will be taken: the hold gets its time back.
    Aborting,
    /// The money goes back, whatever the hold may still become.
    Returning,
    /// The hold is confirmed by it, and the money is taken.
    Paid,
    /// No money was taken, and none can be.
    Aborted,
    /// The money was taken, and given back.
    Refunded,
}

impl PaymentState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Beginning,
        Self::Pending,
        Self::Aborting,
        Self::Returning,
        Self::Paid,
        Self::Aborted,
        Self::Refunded,
    ];

    /// The state's name, as it is stored.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Beginning => "beginning",
            Self::Pending => "pending",
            Self::Aborting => "aborting",
            Self::Returning => "returning",
            Self::Paid => "paid",
            Self::Aborted => "aborted",
            Self::Refunded => "refunded",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Paid | Self::Aborted | Self::Refunded)
    }
}

/// What Stripe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    /// There is none that anybody could pay.
    Absent,
    /// The buyer has not paid, and still can.
    Unpaid,
    /// On its way; it can neither be cancelled nor counted on.
    Processing,
    /// The money is reserved, to be captured or let go.
    Authorised,
    /// The money is taken.
    Succeeded,
    /// The money was taken and given back.
    Refunded,
    /// No money was taken, and none can be.
    Cancelled,
}

impl Intent {
    /// Every case.
    pub const ALL: [Self; 7] = [
        Self::Absent,
        Self::Unpaid,
        Self::Processing,
        Self::Authorised,
        Self::Succeeded,
        Self::Refunded,
        Self::Cancelled,
    ];
}

/// What the log says of a hold, from one payment's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Served {
    /// Nothing was asked of the log yet, or no answer is there.
    Unknown,
    /// Its units are held, and this payment may confirm it.
    Open,
    /// Another payment of the same hold is being made.
    Busy,
    /// This payment confirmed it, and it stands.
    Ours,
    /// It is over: this payment can never confirm it, but its units may be there.
    Over,
    /// It was sold and taken back, or sold for another payment: there is nothing to be had for this one.
    Gone,
}

impl Served {
    /// Every case.
    pub const ALL: [Self; 6] = [
        Self::Unknown,
        Self::Open,
        Self::Busy,
        Self::Ours,
        Self::Over,
        Self::Gone,
    ];
}

/// Everything that the next step depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Situation {
    /// Our row.
    pub state: PaymentState,
    /// Stripe's intent.
    pub intent: Intent,
    /// The hold that was to be paid.
    pub hold: Served,
    /// The hold that took the units again for late money; `Unknown` before it was asked for.
    pub retaken: Served,
    /// Whether the log says that the money has to go back.
    pub is_refund_required: bool,
    /// Whether the buyer had all the time to pay that there is.
    pub is_overdue: bool,
}

impl Situation {
    /// Whether something stands confirmed by this payment.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.hold == Served::Ours || self.retaken == Served::Ours
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing until there is news.
    Wait,
    /// Tell the log that the payment has failed, then the row is aborted.
    Abort,
    /// Take the possibility to pay away: cancel the intent, which lets reserved money go.
    CancelIntent,
    /// Confirm the hold.
    Confirm,
    /// Ask for the units again, in a new hold.
    Retake,
    /// Confirm the new hold.
    ConfirmRetaken,
    /// Take the reserved money.
    Capture,
    /// Give back what was confirmed: there is no money for it.
    TakeBack,
    /// Decide that the money goes back.
    GiveUp,
    /// Tell the log that the money has to go back.
    RequireRefund,
    /// Give the money back.
    Refund,
    /// Write down the end.
    Finish(PaymentState),
}

/// The next step of a payment.
#[must_use]
pub fn next(at: Situation) -> Action {
    match at.state {
        PaymentState::Paid | PaymentState::Aborted | PaymentState::Refunded => Action::Wait,
        PaymentState::Beginning => Action::Abort, // Its maker is gone: the worker waits for him before it asks.
        PaymentState::Aborting => match at.intent {
            Intent::Absent | Intent::Cancelled => without_money(at),
            Intent::Unpaid => Action::CancelIntent,
            _ => with_money(at),
        },
        PaymentState::Pending => match at.intent {
            Intent::Absent | Intent::Processing => Action::Wait,
            Intent::Unpaid => match at.hold {
                Served::Over | Served::Gone => Action::CancelIntent,
                // Somebody confirmed it before it was paid.
                Served::Ours if at.is_overdue => Action::CancelIntent,
                _ => Action::Wait,
            },
            Intent::Cancelled => without_money(at),
            _ => with_money(at),
        },
        PaymentState::Returning => giving_back(at),
    }
}

/// No money can come any more. A confirmation that counted on it (reserved, and gone before it was taken) is undone first.
fn without_money(at: Situation) -> Action {
    match at.serves() {
        true => Action::TakeBack,
        false => Action::Abort,
    }
}

/// Money is reserved or taken: it serves, or it goes back.
fn with_money(at: Situation) -> Action {
    match (at.intent, at.hold, at.retaken) {
        (Intent::Processing, ..) => Action::Wait,
        // Somebody gave it back at Stripe by hand: nothing more is promised to the buyer, and nothing shipped.
        (Intent::Refunded, ..) if at.serves() => Action::TakeBack,
        (Intent::Refunded, ..) => Action::Finish(PaymentState::Refunded),
        (Intent::Authorised, Served::Ours, _) | (Intent::Authorised, _, Served::Ours) => Action::Capture,
        (_, Served::Ours, _) | (_, _, Served::Ours) => Action::Finish(PaymentState::Paid),
        (_, Served::Open, _) => Action::Confirm,
        (_, Served::Unknown | Served::Busy, _) => Action::Wait,
        (_, Served::Over, Served::Unknown) => Action::Retake,
        (_, Served::Over, Served::Open) => Action::ConfirmRetaken,
        (_, Served::Over, Served::Busy) => Action::Wait,
        (_, Served::Over, Served::Over | Served::Gone) | (_, Served::Gone, _) => Action::GiveUp,
    }
}

fn giving_back(at: Situation) -> Action {
    match at.intent {
        Intent::Absent | Intent::Cancelled if at.serves() => Action::TakeBack,
        Intent::Absent | Intent::Cancelled => Action::Finish(PaymentState::Aborted),
        Intent::Refunded if at.serves() => Action::TakeBack,
        Intent::Refunded => Action::Finish(PaymentState::Refunded),
        Intent::Unpaid | Intent::Authorised => Action::CancelIntent,
        Intent::Processing => Action::Wait,
        // Whoever asked for it takes the units back first: what serves is not given back.
        Intent::Succeeded if at.serves() => Action::Wait,
        Intent::Succeeded if at.is_refund_required => Action::Refund,
        Intent::Succeeded => Action::RequireRefund,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Situation> {
        let mut all = Vec::new();
        for state in PaymentState::ALL {
            for intent in Intent::ALL {
                for hold in Served::ALL {
                    for retaken in Served::ALL {
                        for flags in 0..4 {
                            all.push(Situation {
                                state,
                                intent,
                                hold,
                                retaken,
                                is_refund_required: flags & 1 > 0,
                                is_overdue: flags & 2 > 0,
                            });
                        }
                    }
                }
            }
        }
        all
    }

    fn is_lost(served: Served) -> bool {
        matches!(served, Served::Over | Served::Gone)
    }

    #[test]
    fn money_goes_back_only_when_nothing_is_served_by_it() {
        for at in all() {
            let serves = at.serves();
            match next(at) {
                Action::Refund => assert!(
                    !serves && at.is_refund_required && at.intent == Intent::Succeeded,
                    "{at:?}"
                ),
                Action::GiveUp => assert!(
                    !serves && is_lost(at.hold) && (at.hold == Served::Gone || is_lost(at.retaken)),
                    "{at:?}"
                ),
                Action::RequireRefund => assert!(!serves && at.state == PaymentState::Returning, "{at:?}"),
                Action::Finish(PaymentState::Paid) => assert!(serves && at.intent == Intent::Succeeded, "{at:?}"),
                Action::Finish(PaymentState::Refunded) => assert!(!serves && at.intent == Intent::Refunded, "{at:?}"),
                Action::Retake => assert_eq!(at.hold, Served::Over, "what was taken back is not sold again: {at:?}"),
                _ => {}
            }
        }
    }

    #[test]
    fn money_is_captured_only_for_a_confirmed_hold_and_nothing_is_confirmed_once_it_goes_back() {
        for at in all() {
            let action = next(at);
            if action == Action::Capture {
                assert!(at.serves(), "{at:?}");
            }
            if at.state == PaymentState::Returning {
                assert!(
                    !matches!(
                        action,
                        Action::Confirm | Action::ConfirmRetaken | Action::Retake | Action::Capture
                    ),
                    "{at:?}"
                );
            }
            if matches!(action, Action::Confirm | Action::ConfirmRetaken | Action::Retake) {
                assert!(matches!(at.intent, Intent::Authorised | Intent::Succeeded), "{at:?}");
            }
        }
    }

    #[test]
    fn nothing_is_aborted_while_it_can_be_paid() {
        for at in all() {
            if next(at) == Action::Abort && at.state != PaymentState::Beginning {
                assert!(matches!(at.intent, Intent::Absent | Intent::Cancelled), "{at:?}");
            }
        }
    }

    #[test]
    fn nothing_ends_unpaid_while_something_stands_confirmed_by_it() {
        for at in all() {
            match next(at) {
                Action::Abort if at.state == PaymentState::Beginning => {}
                Action::Abort | Action::Finish(PaymentState::Aborted) => assert!(!at.serves(), "{at:?}"),
                Action::TakeBack => assert!(
                    at.serves() && matches!(at.intent, Intent::Absent | Intent::Cancelled | Intent::Refunded),
                    "{at:?}"
                ),
                _ => {}
            }
        }
    }

    /// From every situation with settled answers, doing what is said comes to an end, and money to the right one.
    #[test]
    fn every_succeeded_payment_ends_served_xor_refunded() {
        for start in all() {
            let is_open = matches!(start.state, PaymentState::Pending | PaymentState::Aborting);
            let has_money = matches!(start.intent, Intent::Authorised | Intent::Succeeded | Intent::Refunded);
            let is_settled = !matches!(start.hold, Served::Unknown | Served::Busy) && start.retaken != Served::Busy;
            if !(is_open && has_money && is_settled) || start.is_refund_required {
                continue;
            }
            for units_are_there in [false, true] {
                let mut at = start;
                let mut steps = 0;
                while !at.state.is_final() {
                    steps += 1;
                    assert!(steps < 12, "{start:?} never ends");
                    match next(at) {
                        Action::Wait | Action::Abort => panic!("{start:?} stands still at {at:?}"),
                        Action::TakeBack => {
                            let gone = |served| if served == Served::Ours { Served::Gone } else { served };
                            (at.hold, at.retaken) = (gone(at.hold), gone(at.retaken));
                        }
                        Action::Confirm => at.hold = if units_are_there { Served::Ours } else { Served::Over },
                        Action::Retake => at.retaken = if units_are_there { Served::Open } else { Served::Over },
                        Action::ConfirmRetaken => {
                            at.retaken = if units_are_there { Served::Ours } else { Served::Over }
                        }
                        Action::Capture => at.intent = Intent::Succeeded,
                        Action::CancelIntent => at.intent = Intent::Cancelled,
                        Action::GiveUp => at.state = PaymentState::Returning,
                        Action::RequireRefund => at.is_refund_required = true,
                        Action::Refund => at.intent = Intent::Refunded,
                        Action::Finish(state) => at.state = state,
                    }
                }
                let serves = at.serves();
                assert_eq!(serves, at.state == PaymentState::Paid, "{start:?} -> {at:?}");
                if !serves {
                    assert!(
                        matches!(at.intent, Intent::Refunded | Intent::Cancelled),
                        "{start:?} -> {at:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn names_are_read_back() {
        for state in PaymentState::ALL {
            assert_eq!(PaymentState::from_name(state.name()), Some(state));
        }
        assert_eq!(PaymentState::from_name("?"), None);
    }
}
