//! The model of payments, shipping, returns and refunds.

use domain::{
    Command, CommandBody, EventBody, Fingerprint, HoldId, HoldState, HoldTerms, Payment, Reason, Text, hold::Step,
    limits,
};

use super::{Damage, Decision, Model, no};

/// A "no" that shows the hold.
fn refused(reason: Reason) -> EventBody {
    let message = Text::parse("message", "").expect("empty");
    EventBody::CommandRefused { reason, message }
}

/// How a payment stands to the one that a hold has.
pub fn payment(terms: &HoldTerms, payment_ref: &Text) -> Payment {
    if terms.payment_ref.as_ref() == Some(payment_ref) {
        Payment::Same
    } else {
        Payment::Other
    }
}

impl Model {
    /// Decides what is about a sale.
    pub(super) fn sale(&mut self, command: &Command) -> Result<Decision, Damage> {
        match &command.body {
            CommandBody::BeginPayment {
                hold_id,
                payment_ref,
                cap_ms,
            } => self.begin_payment(command, *hold_id, payment_ref, *cap_ms),
            CommandBody::AbortPayment {
                hold_id,
                payment_ref,
                reason,
            } => self.abort_payment(command, *hold_id, payment_ref, reason),
            CommandBody::Ship { hold_id, reference } => {
                let body = EventBody::HoldShipped {
                    reference: reference.clone(),
                };
                self.end_sale(command, *hold_id, Step::Ship, HoldState::Shipped, body, None)
            }
            CommandBody::Unallocate { hold_id, reason, actor } => {
                let body = EventBody::HoldUnallocated {
                    reason: reason.clone(),
                    actor: actor.clone(),
                };
                let to = HoldState::Unallocated;
                self.end_sale(command, *hold_id, Step::Unallocate, to, body, Some(reason))
            }
            CommandBody::ReturnStock {
                sku,
                quantity,
                hold_id,
                reason,
                reference,
                actor,
            } => {
                let fingerprint = Fingerprint::of_return(sku, *quantity, *hold_id, reason, reference.as_ref(), actor);
                self.on_sku(command, sku, fingerprint, |stock| {
                    if stock.version == 0 {
                        return Err(Reason::UnknownSku);
                    }
                    stock.on_hand += quantity.units();
                    if stock.on_hand > limits::ON_HAND_MAX {
                        return Err(Reason::InvalidRequest);
                    }
                    Ok(EventBody::StockReturned {
                        quantity: quantity.units(),
                        hold_id: *hold_id,
                        reason: reason.clone(),
                        reference: reference.clone(),
                        actor: actor.clone(),
                        fingerprint,
                    })
                })
            }
            CommandBody::RequireRefund {
                hold_id,
                payment_ref,
                reason,
            } => self.require_refund(command, *hold_id, payment_ref, reason),
            other => panic!("{other:?} is about no sale"),
        }
    }

    fn begin_payment(
        &mut self,
        command: &Command,
        id: HoldId,
        payment_ref: &Text,
        cap_ms: i64,
    ) -> Result<Decision, Damage> {
        let now = self.log_time;
        let Some(mut hold) = self.hold(id)?.filter(|hold| hold.tenant == command.tenant) else {
            return Ok(no(Reason::HoldNotFound));
        };
        let terms = &mut hold.terms;
        if terms.state == HoldState::Paying && payment(terms, payment_ref) == Payment::Same {
            return self.about(id, EventBody::HoldReplayed);
        }
        match terms.state.step(Step::BeginPayment, now, terms.expires_at) {
            Err(reason) => return self.about(id, refused(reason)),
            Ok(_) if now > terms.created_at + self.rules.max_hold_ms => {
                return self.about(id, refused(Reason::LifetimeExceeded));
            }
            Ok(state) => terms.state = state,
        }
        terms.payment_ref = Some(payment_ref.clone());
        terms.remaining_ms = Some((terms.expires_at - now).max(0));
        (terms.expires_at, terms.changed_at) = (now + cap_ms, now);
        self.holds.insert(id, hold);
        self.about(id, EventBody::PaymentBegun)
    }

    fn abort_payment(
        &mut self,
        command: &Command,
        id: HoldId,
        payment_ref: &Text,
        reason: &Text,
    ) -> Result<Decision, Damage> {
        let now = self.log_time;
        let Some(mut hold) = self.hold(id)?.filter(|hold| hold.tenant == command.tenant) else {
            return Ok(no(Reason::HoldNotFound));
        };
        let terms = &mut hold.terms;
        let same = payment(terms, payment_ref);
        if (terms.state, same) == (HoldState::Held, Payment::Same) {
            return self.about(id, EventBody::HoldReplayed);
        }
        match terms.state.step(Step::AbortPayment(same), now, terms.expires_at) {
            Err(reason) => return self.about(id, refused(reason)),
            Ok(state) => terms.state = state,
        }
        let left = terms.remaining_ms.take().expect("it was paying");
        (terms.expires_at, terms.changed_at) = (now + left, now);
        self.holds.insert(id, hold);
        let reason = reason.clone();
        self.about(id, EventBody::PaymentAborted { reason })
    }

    fn end_sale(
        &mut self,
        command: &Command,
        id: HoldId,
        step: Step,
        to: HoldState,
        body: EventBody,
        reason: Option<&Text>,
    ) -> Result<Decision, Damage> {
        if let Some(hold) = self.hold(id)?
            && hold.tenant == command.tenant
            && hold.terms.state == to
        {
            return self.about(id, EventBody::HoldReplayed);
        }
        self.end(&command.tenant, id, step, body, |terms| {
            if let Some(reason) = reason {
                terms.reason = Some(reason.clone());
            }
        })
    }

    fn require_refund(
        &mut self,
        command: &Command,
        id: HoldId,
        payment_ref: &Text,
        reason: &Text,
    ) -> Result<Decision, Damage> {
        let fingerprint = Fingerprint::of_refund(id, payment_ref, reason);
        let remembered = self.memory_of(command);
        if remembered.is_some_and(|remembered| remembered != fingerprint) {
            return Ok(no(Reason::IdempotencyKeyReused));
        }
        let hold = self.hold(id)?.filter(|hold| hold.tenant == command.tenant);
        let required = EventBody::RefundRequired {
            payment_ref: payment_ref.clone(),
            reason: reason.clone(),
            fingerprint,
        };
        let body = match &hold {
            _ if remembered.is_some() => EventBody::HoldReplayed,
            Some(hold) if payment(&hold.terms, payment_ref) == Payment::Same => match hold.terms.state {
                HoldState::Paying => refused(Reason::PaymentInProgress),
                HoldState::Confirmed | HoldState::Shipped => refused(Reason::AlreadyConfirmed),
                _ => required,
            },
            _ => required,
        };
        if matches!(body, EventBody::RefundRequired { .. }) {
            self.remember(command, fingerprint);
        }
        match hold {
            Some(_) => self.about(id, body),
            None => Ok(body.into()),
        }
    }
}
