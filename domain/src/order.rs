//! The states of an order, from the payment to the parcel, and the only steps between them.

use crate::{hold::HoldState, payment::PaymentState};

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderState {
    /// The buyer pays.
    PaymentPending,
    /// Paid: it waits for the carrier.
    Paid,
    /// The carrier is asked, or has it and the log does not say so yet.
    Fulfilling,
    /// The log says that its units have left.
    Fulfilled,
    /// The carrier was asked as often as it may be: a person decides, or the janitor.
    Failed,
    /// Given up: the units go back on sale, and the money to the buyer.
    Cancelled,
    /// The money is back.
    Refunded,
}

/// What may happen to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderStep {
    /// The payment succeeded.
    Pay,
    /// A try with the carrier begins.
    Try,
    /// A try failed, and another follows.
    Wait,
    /// The last try failed.
    GiveUp,
    /// The carrier has it, also when that became known late.
    Accept,
    /// The log says that it is shipped.
    Ship,
    /// A person wants it tried again.
    Retry,
    /// A person or the janitor gives it up, or its payment ended without money.
    Cancel,
    /// The money went back.
    Refund,
}

impl OrderStep {
    /// All steps.
    pub const ALL: [Self; 9] = [
        Self::Pay,
        Self::Try,
        Self::Wait,
        Self::GiveUp,
        Self::Accept,
        Self::Ship,
        Self::Retry,
        Self::Cancel,
        Self::Refund,
    ];
}

impl OrderState {
    /// All states.
    pub const ALL: [Self; 7] = [
        Self::PaymentPending,
        Self::Paid,
        Self::Fulfilling,
        Self::Fulfilled,
        Self::Failed,
        Self::Cancelled,
        Self::Refunded,
    ];

    /// The state's name, as clients and tables spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PaymentPending => "payment_pending",
            Self::Paid => "paid",
            Self::Fulfilling => "fulfilling",
            Self::Fulfilled => "fulfilled",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Refunded => "refunded",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Where an order stands that nobody has begun to ship: by its payment, where checkout knows it (else whoever confirmed
    /// the hold says that it is paid), and by its hold. The view `order_states` says the same in SQL.
    #[must_use]
    pub fn before_shipping(payment: Option<PaymentState>, hold: HoldState) -> Self {
        use PaymentState::{Aborted, Aborting, Beginning, Paid, Pending, Refunded, Returning};
        match (hold, payment) {
            (HoldState::Shipped, _) => Self::Fulfilled,
            (_, Some(Refunded)) => Self::Refunded,
            (_, Some(Returning | Aborted)) | (HoldState::Unallocated, _) => Self::Cancelled,
            (HoldState::Confirmed, None | Some(Paid)) => Self::Paid,
            (_, None | Some(Beginning | Pending | Aborting | Paid)) => Self::PaymentPending,
        }
    }

    /// The state after a step; `None` when it is not possible from here.
    ///
    /// What is paid and can still be served is never cancelled: that takes a failed order.
    #[must_use]
    pub fn step(self, step: OrderStep) -> Option<Self> {
        use OrderStep::{Accept, Cancel, GiveUp, Pay, Refund, Retry, Ship, Try, Wait};
        match (self, step) {
            (Self::PaymentPending, Pay) => Some(Self::Paid),
            (Self::PaymentPending | Self::Failed, Cancel) => Some(Self::Cancelled),
            (Self::Paid | Self::Fulfilling, Try) => Some(Self::Fulfilling),
            (Self::Fulfilling, Wait) | (Self::Failed, Retry) => Some(Self::Paid),
            (Self::Fulfilling, GiveUp) => Some(Self::Failed),
            (Self::Paid | Self::Fulfilling | Self::Failed, Accept) => Some(Self::Fulfilling),
            (Self::Fulfilling, Ship) => Some(Self::Fulfilled),
            (Self::Cancelled, Refund) => Some(Self::Refunded),
            (_, Pay | Try | Wait | GiveUp | Accept | Ship | Retry | Cancel | Refund) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reachable(from: OrderState) -> Vec<OrderState> {
        let mut found = vec![from];
        let mut looked_at = 0;
        while let Some(state) = found.get(looked_at).copied() {
            looked_at += 1;
            for next in OrderStep::ALL.into_iter().filter_map(|step| state.step(step)) {
                if !found.contains(&next) {
                    found.push(next);
                }
            }
        }
        found
    }

    #[test]
    fn names_read_back() {
        for state in OrderState::ALL {
            assert_eq!(OrderState::from_name(state.name()), Some(state));
        }
        assert_eq!(OrderState::from_name("lost"), None);
    }

    /// I7: whatever is paid can come to served and to refunded, and never from one to the other.
    #[test]
    fn paid_means_served_or_refunded() {
        for state in [OrderState::Paid, OrderState::Fulfilling, OrderState::Failed] {
            let ends = reachable(state);
            assert!(
                ends.contains(&OrderState::Fulfilled) && ends.contains(&OrderState::Refunded),
                "{state:?}"
            );
        }
        assert_eq!(reachable(OrderState::Fulfilled), [OrderState::Fulfilled]);
        assert_eq!(reachable(OrderState::Refunded), [OrderState::Refunded]);
        assert_eq!(
            reachable(OrderState::Cancelled),
            [OrderState::Cancelled, OrderState::Refunded]
        );
    }

    /// I7: what Stripe has not said to be paid is never `paid` to the fulfiller.
    #[test]
    fn an_order_of_checkout_is_paid_only_when_its_payment_is() {
        for payment in PaymentState::ALL {
            let state = OrderState::before_shipping(Some(payment), HoldState::Confirmed);
            assert_eq!(state == OrderState::Paid, payment == PaymentState::Paid, "{payment:?}");
        }
        assert_eq!(
            OrderState::before_shipping(None, HoldState::Confirmed),
            OrderState::Paid
        );
    }

    #[test]
    fn what_can_still_be_served_is_never_cancelled() {
        for state in [OrderState::Paid, OrderState::Fulfilling, OrderState::Fulfilled] {
            assert_eq!(state.step(OrderStep::Cancel), None, "{state:?}");
        }
        assert_eq!(OrderState::Failed.step(OrderStep::Cancel), Some(OrderState::Cancelled));
    }
}
