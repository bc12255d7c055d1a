//! How the picture follows from an event, and whether the event says the same.

use super::{Ledger, LedgerHold, LedgerPart, Remembered};
use crate::{
    cart::{PartId, PartStep, PartTerms},
    event::{Event, EventBody, EventLine, HoldTerms},
    fingerprint::Fingerprint,
    hold::{HoldState, Payment, Step},
    ids::HoldId,
    relay,
    stock::Stock,
    values::{Key, Millis, Sku, Text, UserId},
};

/// How one line's counters moved.
#[derive(Clone, Copy)]
struct Move {
    on_hand: i64,
    held: i64,
    allocated: i64,
    counted: i64,
}

impl Move {
    const fn of(on_hand: i64, held: i64, allocated: i64, counted: i64) -> Self {
        Self {
            on_hand,
            held,
            allocated,
            counted,
        }
    }
}

const TAKE: Move = Move::of(0, 1, 0, 1);
const GIVE_BACK: Move = Move::of(0, -1, 0, -1);
const ALLOCATE: Move = Move::of(0, -1, 1, 0);
const SHIP: Move = Move::of(-1, 0, -1, 0);
const UNALLOCATE: Move = Move::of(0, 0, -1, -1);

impl Ledger {
    /// What an event does to the picture, or why it cannot come after what is there.
    pub(super) fn follow(&mut self, event: &Event) -> Result<(), String> {
        match &event.body {
            EventBody::HoldPending => self.create(event),
            EventBody::HoldCreated if relay::decides_pending(event) => self.step_hold(event, Step::Hold).map(drop),
            EventBody::HoldCreated => self.create(event),
            EventBody::HoldRejected { .. } if relay::decides_pending(event) => self.reject(event),
            EventBody::PartHeld => self.hold_part(event),
            EventBody::PartFollowed { step } => self.step_part(event, *step),
            EventBody::HoldConfirmed => {
                let payment = self.payment_in(event);
                self.end(event, Step::Confirm(payment), ALLOCATE)
            }
            EventBody::HoldCancelled => self.end(event, Step::Cancel, GIVE_BACK),
            EventBody::HoldExpired => self.end(event, Step::Expire, GIVE_BACK),
            EventBody::HoldExtended { fingerprint } => {
                self.step_hold(event, Step::Extend)?;
                self.remember(event, *fingerprint)
            }
            EventBody::PaymentBegun => self.step_hold(event, Step::BeginPayment).map(drop),
            EventBody::PaymentAborted { .. } => {
                let payment = self.payment_in(event);
                self.step_hold(event, Step::AbortPayment(payment)).map(drop)
            }
            EventBody::HoldShipped { .. } => self.end(event, Step::Ship, SHIP),
            EventBody::HoldUnallocated { .. } => self.end(event, Step::Unallocate, UNALLOCATE),
            EventBody::StockAdjusted {
                change, fingerprint, ..
            } => {
                self.adjust(event, *change)?;
                self.remember(event, *fingerprint)
            }
            EventBody::StockReturned {
                quantity, fingerprint, ..
            } => {
                self.adjust(event, *quantity)?;
                self.remember(event, *fingerprint)
            }
            EventBody::RefundRequired {
                payment_ref,
                fingerprint,
                ..
            } => {
                self.check_refund(event, payment_ref)?;
                self.remember(event, *fingerprint)
            }
            EventBody::SkuConfigured { policy, fingerprint } => {
                let line = only_line(event)?;
                let stock = self.stock.entry((event.tenant.clone(), line.sku.clone())).or_default();
                let expected = Stock {
                    policy: *policy,
                    version: stock.version + 1,
                    ..*stock
                };
                *stock = expected;
                agree(line, &expected)?;
                self.remember(event, *fingerprint)
            }
            EventBody::LaneOpened { .. }
            | EventBody::HoldRejected { .. }
            | EventBody::HoldReplayed
            | EventBody::StockReplayed
            | EventBody::PartRefused { .. }
            | EventBody::RelayIgnored
            | EventBody::CommandForwarded { .. }
            | EventBody::OffsetsSkipped
            | EventBody::CommandRefused { .. } => Ok(()),
        }
    }

    fn create(&mut self, event: &Event) -> Result<(), String> {
        let (hold_id, terms) = hold_of(event)?;
        if let Some(known) = self.holds.get(&hold_id)
            && !known.terms.state.is_final()
        {
            return Err(format!("hold {hold_id} is already {}", known.terms.state.name()));
        }
        self.holds.insert(
            hold_id,
            LedgerHold {
                tenant: event.tenant.clone(),
                terms: terms.clone(),
                lines: lines_of(event),
            },
        );
        self.move_lines(event, &terms.user_id, TAKE)
    }

    /// A pending cart that cannot be held: its key may be used again.
    fn reject(&mut self, event: &Event) -> Result<(), String> {
        self.end(event, Step::Reject, GIVE_BACK)?;
        self.holds.remove(&hold_of(event)?.0);
        Ok(())
    }

    fn hold_part(&mut self, event: &Event) -> Result<(), String> {
        let (id, terms) = part_of(event)?;
        if let Some(known) = self.parts.get(&id) {
            return Err(format!("part {id} is already {}", known.terms.state.name()));
        }
        let user_id = terms.user_id.clone().ok_or_else(|| format!("part {id} has no user"))?;
        let part = LedgerPart {
            tenant: event.tenant.clone(),
            terms: terms.clone(),
            lines: lines_of(event),
        };
        self.parts.insert(id, part);
        self.move_lines(event, &user_id, TAKE)
    }

    fn step_part(&mut self, event: &Event, step: PartStep) -> Result<(), String> {
        let (id, terms) = part_of(event)?;
        let Some(part) = self.parts.get_mut(&id) else {
            if step != PartStep::Undo || !event.lines.is_empty() {
                return Err(format!("part {id} was never held"));
            }
            let mark = LedgerPart {
                tenant: event.tenant.clone(),
                terms: terms.clone(),
                lines: Vec::new(),
            };
            self.parts.insert(id, mark);
            return Ok(());
        };
        match part.terms.state.step(step) {
            Ok(Some(state)) if state == terms.state => {}
            other => {
                return Err(format!(
                    "part {id} cannot take {step:?}: {other:?}, not {:?}",
                    terms.state
                ));
            }
        }
        if part.lines != lines_of(event) {
            return Err(format!("the lines of part {id} changed"));
        }
        part.terms = terms.clone();
        let user_id = terms.user_id.clone().ok_or_else(|| format!("part {id} has no user"))?;
        let moved = match step {
            PartStep::Settle => ALLOCATE,
            PartStep::Undo => GIVE_BACK,
            PartStep::Ship => SHIP,
            PartStep::Unallocate => UNALLOCATE,
        };
        self.move_lines(event, &user_id, moved)
    }

    fn adjust(&mut self, event: &Event, change: i64) -> Result<(), String> {
        let line = only_line(event)?;
        let stock = self.stock.entry((event.tenant.clone(), line.sku.clone())).or_default();
        let expected = Stock {
            on_hand: stock.on_hand + change,
            version: stock.version + 1,
            ..*stock
        };
        *stock = expected;
        agree(line, &expected)
    }

    /// Whether the payment of an event is the one that its hold had before.
    fn payment_in(&self, event: &Event) -> Payment {
        let before = event.hold_id.and_then(|hold_id| self.holds.get(&hold_id));
        let (before, now) = (before.map(|hold| &hold.terms), event.hold.as_ref());
        match (before.and_then(|terms| terms.payment_ref.as_ref()), now) {
            (Some(before), Some(now)) if Some(before) == now.payment_ref.as_ref() => Payment::Same,
            (Some(_) | None, Some(_) | None) => Payment::Other,
        }
    }

    /// I7: a payment that is served, or may be yet, is not given back.
    fn check_refund(&self, event: &Event, payment_ref: &Text) -> Result<(), String> {
        let hold = event.hold_id.and_then(|hold_id| self.holds.get(&hold_id));
        let serves = |terms: &HoldTerms| {
            terms.payment_ref.as_ref() == Some(payment_ref)
                && matches!(
                    terms.state,
                    HoldState::Paying | HoldState::Confirmed | HoldState::Shipped
                )
        };
        match hold {
            Some(hold) if serves(&hold.terms) => Err(format!(
                "a payment of a hold that is {} cannot be refunded",
                hold.terms.state.name()
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn end(&mut self, event: &Event, step: Step, moved: Move) -> Result<(), String> {
        let user_id = self.step_hold(event, step)?;
        self.move_lines(event, &user_id, moved)
    }

    fn step_hold(&mut self, event: &Event, step: Step) -> Result<UserId, String> {
        let (hold_id, terms) = hold_of(event)?;
        let hold = self
            .holds
            .get_mut(&hold_id)
            .ok_or_else(|| format!("hold {hold_id} was never created"))?;
        check_clock(&hold.terms, step, terms, event.decided_at)?;
        let next = hold
            .terms
            .state
            .step(step, event.decided_at, hold.terms.expires_at)
            .map_err(|reason| format!("hold {hold_id} cannot take {step:?}: {reason}"))?;
        if next != terms.state {
            return Err(format!(
                "hold {hold_id} should be {} but the event says {}",
                next.name(),
                terms.state.name()
            ));
        }
        let same_lines = hold.lines.len() == event.lines.len()
            && hold
                .lines
                .iter()
                .zip(&event.lines)
                .all(|(a, b)| a.0 == b.sku && a.1 == b.quantity);
        if !same_lines {
            return Err(format!("the lines of hold {hold_id} changed"));
        }
        hold.terms = terms.clone();
        Ok(hold.terms.user_id.clone())
    }

    fn move_lines(&mut self, event: &Event, user_id: &UserId, moved: Move) -> Result<(), String> {
        for line in &event.lines {
            let key = (event.tenant.clone(), line.sku.clone());
            let stock = self
                .stock
                .get_mut(&key)
                .ok_or_else(|| format!("SKU {} was never stocked", line.sku))?;
            let expected = Stock {
                on_hand: stock.on_hand + moved.on_hand * line.quantity,
                held: stock.held + moved.held * line.quantity,
                allocated: stock.allocated + moved.allocated * line.quantity,
                version: stock.version + 1,
                ..*stock
            };
            *stock = expected;
            agree(line, &expected)?;
            let key = (key.0, key.1, user_id.clone());
            let counted = self.counted.get(&key).copied().unwrap_or(0) + moved.counted * line.quantity;
            if counted != line.counted {
                return Err(format!(
                    "{user_id} has {counted} of {} but the event says {}",
                    line.sku, line.counted
                ));
            }
            if counted == 0 {
                self.counted.remove(&key);
            } else {
                self.counted.insert(key, counted);
            }
        }
        Ok(())
    }

    fn remember(&mut self, event: &Event, fingerprint: Fingerprint) -> Result<(), String> {
        let key = Key::parse("command_id", &event.command_id).map_err(|invalid| invalid.to_string())?;
        self.commands.insert(
            (event.tenant.clone(), key),
            Remembered {
                fingerprint,
                at: event.decided_at,
            },
        );
        Ok(())
    }
}

/// Checks how a step sets the deadline, where it follows from what was before: a payment stops the hold's clock, and when
/// it is aborted the clock goes on.
fn check_clock(before: &HoldTerms, step: Step, after: &HoldTerms, now: Millis) -> Result<(), String> {
    let remaining_ms = match step {
        Step::BeginPayment => Some((before.expires_at - now).max(0)),
        Step::Confirm(_)
        | Step::Cancel
        | Step::Expire
        | Step::Extend
        | Step::AbortPayment(_)
        | Step::Ship
        | Step::Unallocate
        | Step::Hold
        | Step::Reject => None,
    };
    if after.remaining_ms != remaining_ms {
        return Err(format!(
            "{remaining_ms:?} ms should remain of its time but the event says {:?}",
            after.remaining_ms
        ));
    }
    let goes_on = before.remaining_ms.unwrap_or(0) + now;
    if matches!(step, Step::AbortPayment(_)) && after.expires_at != goes_on {
        return Err(format!(
            "its deadline should be {goes_on} but the event says {}",
            after.expires_at
        ));
    }
    Ok(())
}

fn hold_of(event: &Event) -> Result<(HoldId, &HoldTerms), String> {
    match (event.hold_id, &event.hold) {
        (Some(hold_id), Some(terms)) => Ok((hold_id, terms)),
        _ => Err(format!("{} names no hold", event.body.name())),
    }
}

fn part_of(event: &Event) -> Result<(PartId, &PartTerms), String> {
    match (event.hold_id, &event.part) {
        (Some(hold_id), Some(terms)) => {
            let attempt = terms.attempt;
            Ok((PartId { hold_id, attempt }, terms))
        }
        _ => Err(format!("{} names no part", event.body.name())),
    }
}

fn lines_of(event: &Event) -> Vec<(Sku, i64)> {
    let lines = event.lines.iter();
    lines.map(|line| (line.sku.clone(), line.quantity)).collect()
}

fn only_line(event: &Event) -> Result<&EventLine, String> {
    match event.lines.as_slice() {
        [line] => Ok(line),
        lines => Err(format!(
            "{} has {} lines instead of one",
            event.body.name(),
            lines.len()
        )),
    }
}

fn agree(line: &EventLine, stock: &Stock) -> Result<(), String> {
    let says = (line.on_hand, line.held, line.allocated, line.sku_version);
    let follows = (stock.on_hand, stock.held, stock.allocated, stock.version);
    if says != follows {
        return Err(format!(
            "{}: (on_hand, held, allocated, version) should be {follows:?} but the event says {says:?}",
            line.sku
        ));
    }
    if !stock.is_sound() {
        return Err(format!("{} is oversold: {stock:?}", line.sku));
    }
    Ok(())
}
