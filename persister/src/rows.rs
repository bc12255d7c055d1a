//! What a batch of valid events makes of the rows: for each key its last absolute value, for each change one movement.
//!
//! Pure: columns for the set-based statements of `write`, borrowed from the events.

use std::collections::HashMap;

use domain::{
    Event, EventBody, EventLine, Fingerprint, HoldId, HoldTerms, Lane, PartId, PartStep, PartTerms, Reason,
    RequestMark, Shortage, Sku, SkuPolicy, Source, Tenant, UserId, relay,
};
use serde_json::json;

use crate::reader::Decided;

/// A stock row's counters.
pub(crate) struct StockRow<'a> {
    pub(crate) line: &'a EventLine,
    pub(crate) changed_at: i64,
}

/// A hold's row.
pub(crate) struct HoldRow<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) terms: &'a HoldTerms,
    pub(crate) rejection: Option<(Reason, &'a [Shortage])>,
    pub(crate) command_offset: i64,
    /// Made by this batch: nothing can be there, unless somebody has set the offset back.
    pub(crate) is_new: bool,
}

/// A part of another lane's cart.
pub(crate) struct PartRow<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) terms: &'a PartTerms,
    pub(crate) lines: &'a [EventLine],
}

impl PartRow<'_> {
    /// This lane's own lines.
    pub(crate) fn own_lines(&self) -> Vec<(Sku, i64)> {
        let lines = self.lines.iter();
        lines.map(|line| (line.sku.clone(), line.quantity)).collect()
    }
}

/// What a part's step does to the counters.
fn part_change(step: PartStep, units: i64) -> Change {
    let (on_hand, held, allocated) = match step {
        PartStep::Settle => (0, -units, units),
        PartStep::Undo => (0, -units, 0),
        PartStep::Ship => (-units, 0, -units),
        PartStep::Unallocate => (0, 0, -units),
    };
    Change {
        on_hand,
        held,
        allocated,
    }
}

/// A line of a hold that is new.
pub(crate) struct LineRow<'a> {
    pub(crate) hold_id: HoldId,
    pub(crate) tenant: &'a Tenant,
    pub(crate) terms: &'a HoldTerms,
    /// Where its SKU lives.
    pub(crate) lane: Lane,
    pub(crate) sku: &'a Sku,
    pub(crate) quantity: i64,
}

/// How the counters of a SKU moved.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) on_hand: i64,
    pub(crate) held: i64,
    pub(crate) allocated: i64,
}

/// A movement: a change of one SKU by one event, for ever.
pub(crate) struct MovementRow<'a> {
    pub(crate) decided: &'a Decided,
    pub(crate) line: &'a EventLine,
    pub(crate) change: Change,
    pub(crate) reason: Option<&'a str>,
    pub(crate) reference: Option<&'a str>,
    pub(crate) actor: Option<&'a str>,
    pub(crate) hold_id: Option<HoldId>,
}

/// An order: a hold that was confirmed.
pub(crate) struct OrderRow<'a> {
    pub(crate) event: &'a Event,
    pub(crate) hold_id: HoldId,
    pub(crate) terms: &'a HoldTerms,
    pub(crate) lines: String,
}

/// A payment that has to be given back.
pub(crate) struct RefundRow<'a> {
    pub(crate) event: &'a Event,
    pub(crate) hold_id: HoldId,
    pub(crate) payment_ref: &'a str,
    pub(crate) reason: &'a str,
}

/// All that one transaction writes, but for the lane's own row.
#[derive(Default)]
pub(crate) struct Rows<'a> {
    pub(crate) stock: HashMap<(&'a Tenant, &'a Sku), StockRow<'a>>,
    pub(crate) policies: HashMap<(&'a Tenant, &'a Sku), SkuPolicy>,
    pub(crate) holds: HashMap<(HoldId, i64), HoldRow<'a>>,
    pub(crate) parts: HashMap<PartId, PartRow<'a>>,
    pub(crate) lines: Vec<LineRow<'a>>,
    pub(crate) counted: HashMap<(&'a Tenant, &'a Sku, &'a UserId), i64>,
    pub(crate) commands: HashMap<(&'a Tenant, &'a str), (Fingerprint, i64)>,
    pub(crate) sources: HashMap<&'a Source, i64>,
    pub(crate) requests: Vec<(RequestMark, i64)>,
    pub(crate) movements: Vec<MovementRow<'a>>,
    pub(crate) orders: Vec<OrderRow<'a>>,
    pub(crate) refunds: Vec<RefundRow<'a>>,
}

impl<'a> Rows<'a> {
    /// Of events in the order of the log.
    pub(crate) fn of(events: impl Iterator<Item = &'a Decided>) -> Self {
        let mut rows = Self::default();
        for decided in events {
            rows.take(decided);
        }
        rows
    }

    /// Rows that are written.
    pub(crate) fn count(&self) -> usize {
        self.stock.len()
            + self.policies.len()
            + self.holds.len()
            + self.parts.len()
            + self.lines.len()
            + self.counted.len()
            + self.commands.len()
            + self.sources.len()
            + self.requests.len()
            + self.movements.len()
            + self.orders.len()
            + self.refunds.len()
    }

    fn take(&mut self, decided: &'a Decided) {
        let event = &decided.event;
        if let Some(source) = &event.source {
            self.sources.insert(source, event.decided_at);
        }
        let request = RequestMark::ended_by(event).map(|mark| (mark, event.decided_at));
        self.requests.extend(request);
        match &event.body {
            EventBody::HoldCreated if relay::decides_pending(event) => self.hold(event, None),
            EventBody::HoldCreated | EventBody::HoldPending => {
                self.hold(event, None);
                self.new_lines(event);
                self.move_units(decided, |units| Change {
                    held: units,
                    ..Change::default()
                });
            }
            EventBody::HoldRejected { reason, shortages } => {
                self.hold(event, Some((*reason, shortages)));
                if relay::decides_pending(event) {
                    self.move_units(decided, |units| Change {
                        held: -units,
                        ..Change::default()
                    });
                } else {
                    self.new_lines(event);
                }
            }
            EventBody::PartHeld => {
                self.part(event);
                self.move_units(decided, |units| Change {
                    held: units,
                    ..Change::default()
                });
            }
            EventBody::PartFollowed { step } => {
                self.part(event);
                self.move_units(decided, |units| part_change(*step, units));
            }
            EventBody::HoldConfirmed => {
                self.hold(event, None);
                self.order(event);
                self.move_units(decided, |units| Change {
                    held: -units,
                    allocated: units,
                    ..Change::default()
                });
            }
            EventBody::HoldCancelled | EventBody::HoldExpired => {
                self.hold(event, None);
                self.move_units(decided, |units| Change {
                    held: -units,
                    ..Change::default()
                });
            }
            EventBody::HoldExtended { fingerprint } => {
                self.hold(event, None);
                self.remember(event, *fingerprint);
            }
            EventBody::PaymentBegun | EventBody::PaymentAborted { .. } => self.hold(event, None),
            EventBody::HoldShipped { .. } => {
                self.hold(event, None);
                self.move_units(decided, |units| Change {
                    on_hand: -units,
                    allocated: -units,
                    ..Change::default()
                });
            }
            EventBody::HoldUnallocated { .. } => {
                self.hold(event, None);
                self.move_units(decided, |units| Change {
                    allocated: -units,
                    ..Change::default()
                });
            }
            EventBody::StockAdjusted {
                change: units,
                fingerprint,
                ..
            }
            | EventBody::StockReturned {
                quantity: units,
                fingerprint,
                ..
            } => {
                self.remember(event, *fingerprint);
                self.change_on_hand(decided, *units);
            }
            EventBody::RefundRequired {
                payment_ref,
                reason,
                fingerprint,
            } => {
                self.remember(event, *fingerprint);
                self.refunds.extend(event.hold_id.map(|hold_id| RefundRow {
                    event,
                    hold_id,
                    payment_ref: payment_ref.as_str(),
                    reason: reason.as_str(),
                }));
            }
            EventBody::SkuConfigured { policy, fingerprint } => {
                self.remember(event, *fingerprint);
                for line in &event.lines {
                    self.counters(event, line);
                    self.policies.insert((&event.tenant, &line.sku), *policy);
                }
            }
            EventBody::LaneOpened { .. }
            | EventBody::HoldReplayed
            | EventBody::StockReplayed
            | EventBody::PartRefused { .. }
            | EventBody::RelayIgnored
            | EventBody::CommandForwarded { .. }
            | EventBody::OffsetsSkipped
            | EventBody::CommandRefused { .. } => {}
        }
    }

    fn hold(&mut self, event: &'a Event, rejection: Option<(Reason, &'a [Shortage])>) {
        if let (Some(hold_id), Some(terms)) = (event.hold_id, &event.hold) {
            let key = (hold_id, terms.attempt);
            let row = HoldRow {
                tenant: &event.tenant,
                terms,
                rejection,
                command_offset: event.command_offset,
                is_new: self.holds.get(&key).is_some_and(|before| before.is_new),
            };
            self.holds.insert(key, row);
        }
    }

    fn part(&mut self, event: &'a Event) {
        if let (Some(hold_id), Some(terms)) = (event.hold_id, &event.part) {
            let row = PartRow {
                tenant: &event.tenant,
                terms,
                lines: &event.lines,
            };
            let attempt = terms.attempt;
            self.parts.insert(PartId { hold_id, attempt }, row);
        }
    }

    /// A hold that is new, with its lines.
    fn new_lines(&mut self, event: &'a Event) {
        if let (Some(hold_id), Some(terms)) = (event.hold_id, &event.hold) {
            if let Some(row) = self.holds.get_mut(&(hold_id, terms.attempt)) {
                row.is_new = true;
            }
            let home = hold_id.lane();
            let row = |lane, sku, quantity| LineRow {
                hold_id,
                tenant: &event.tenant,
                terms,
                lane,
                sku,
                quantity,
            };
            match &terms.cart {
                Some(cart) => self
                    .lines
                    .extend(cart.lines.iter().map(|line| row(line.lane, &line.sku, line.quantity))),
                None => self
                    .lines
                    .extend(event.lines.iter().map(|line| row(home, &line.sku, line.quantity))),
            }
        }
    }

    fn order(&mut self, event: &'a Event) {
        if let (Some(hold_id), Some(terms)) = (event.hold_id, &event.hold) {
            let own: Vec<_> = event
                .lines
                .iter()
                .map(|line| (line.sku.clone(), line.quantity))
                .collect();
            let lines: Vec<_> = terms
                .all_lines(&own)
                .iter()
                .map(|(sku, quantity)| json!({ "sku": sku.as_str(), "quantity": quantity }))
                .collect();
            self.orders.push(OrderRow {
                event,
                hold_id,
                terms,
                lines: serde_json::Value::from(lines).to_string(),
            });
        }
    }

    fn counters(&mut self, event: &'a Event, line: &'a EventLine) {
        let row = StockRow {
            line,
            changed_at: event.decided_at,
        };
        self.stock.insert((&event.tenant, &line.sku), row);
    }

    fn move_units(&mut self, decided: &'a Decided, change: impl Fn(i64) -> Change) {
        let event = &decided.event;
        for line in &event.lines {
            self.counters(event, line);
            let user_id = match (&event.hold, &event.part) {
                (Some(terms), _) => Some(&terms.user_id),
                (None, Some(terms)) => terms.user_id.as_ref(),
                (None, None) => None,
            };
            if let Some(user_id) = user_id {
                self.counted.insert((&event.tenant, &line.sku, user_id), line.counted);
            }
            self.movements.push(movement(decided, line, change(line.quantity)));
        }
    }

    fn change_on_hand(&mut self, decided: &'a Decided, units: i64) {
        let change = Change {
            on_hand: units,
            ..Change::default()
        };
        for line in &decided.event.lines {
            self.counters(&decided.event, line);
            self.movements.push(movement(decided, line, change));
        }
    }

    fn remember(&mut self, event: &'a Event, fingerprint: Fingerprint) {
        self.commands
            .insert((&event.tenant, &event.command_id), (fingerprint, event.decided_at));
    }
}

/// A movement with what its event says of why, who, and by which document.
fn movement<'a>(decided: &'a Decided, line: &'a EventLine, change: Change) -> MovementRow<'a> {
    let event = &decided.event;
    let terms = event.hold.as_ref();
    let (mut hold_id, mut actor) = (event.hold_id, None);
    let mut reason = terms.and_then(|terms| terms.reason.as_ref());
    let mut reference = terms.and_then(|terms| terms.external_ref.as_ref());
    match &event.body {
        EventBody::HoldConfirmed => reference = terms.and_then(|terms| terms.payment_ref.as_ref()),
        EventBody::HoldShipped { reference: shipment } => reference = Some(shipment),
        EventBody::HoldUnallocated {
            reason: why,
            actor: who,
        } => (reason, actor) = (Some(why), Some(who)),
        EventBody::StockAdjusted {
            reason: why,
            reference: document,
            actor: who,
            ..
        } => (reason, reference, actor) = (Some(why), document.as_ref(), Some(who)),
        EventBody::StockReturned {
            hold_id: sold_by,
            reason: why,
            reference: document,
            actor: who,
            ..
        } => {
            hold_id = *sold_by;
            (reason, reference, actor) = (Some(why), document.as_ref(), Some(who));
        }
        // Hold events that say nothing beside their hold, and events that move nothing.
        EventBody::HoldPending
        | EventBody::PartHeld
        | EventBody::PartRefused { .. }
        | EventBody::PartFollowed { .. }
        | EventBody::RelayIgnored
        | EventBody::HoldCreated
        | EventBody::HoldCancelled
        | EventBody::HoldExpired
        | EventBody::HoldExtended { .. }
        | EventBody::PaymentBegun
        | EventBody::PaymentAborted { .. }
        | EventBody::RefundRequired { .. }
        | EventBody::LaneOpened { .. }
        | EventBody::HoldRejected { .. }
        | EventBody::HoldReplayed
        | EventBody::StockReplayed
        | EventBody::SkuConfigured { .. }
        | EventBody::CommandForwarded { .. }
        | EventBody::OffsetsSkipped
        | EventBody::CommandRefused { .. } => {}
    }
    MovementRow {
        decided,
        line,
        change,
        reason: reason.map(AsRef::as_ref),
        reference: reference.map(AsRef::as_ref),
        actor: actor.map(AsRef::as_ref),
        hold_id,
    }
}

/// A rejection's shortages as the column has them.
pub(crate) fn shortages_json(shortages: &[Shortage]) -> String {
    let shortages: Vec<_> = shortages
        .iter()
        .map(|short| json!({ "sku": short.sku.as_str(), "requested": short.requested, "available": short.available, "retry": short.retry }))
        .collect();
    serde_json::Value::from(shortages).to_string()
}
