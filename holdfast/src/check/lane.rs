//! One lane's log by itself: its chain, its books, its time, its bounds; and what the replies are laid beside.

use std::collections::{HashMap, HashSet};

use domain::{Event, EventBody, HoldId, HoldState, LaneState, Ledger, PartState, Reason, Verdict};

use super::{Bounds, DECIDED_WITHIN_MS, LaneLog, Promise, RELEASED_WITHIN_MS, SeenEvent, Violation};

/// Valid decisions, found by what clients know of them.
#[derive(Debug, Default)]
pub struct Index {
    /// By hold, in log order.
    pub holds: HashMap<HoldId, Vec<Event>>,
    /// By command id, in log order; forwards, which decide nothing, are left out.
    pub commands: HashMap<String, Vec<Event>>,
}

/// Checks a lane and adds its valid decisions to the index.
pub fn check(log: &LaneLog, bounds: Bounds, index: &mut Index, violations: &mut Vec<Violation>) {
    let mut say = |promise, what: String| {
        violations.push(Violation {
            promise,
            what: format!("lane {}: {what}", log.lane),
        });
    };
    let valid = fold(log);
    decisions(log, &valid, bounds, &mut say);
    let ledger = books(&valid, bounds, &mut say);
    at_the_end(&ledger, bounds, &mut say);
    for seen in valid {
        let event = &seen.event;
        // A copy that came twice decides nothing the second time.
        if matches!(event.body, EventBody::CommandForwarded { .. }) || reason_of(event) == Some(Reason::AlreadyApplied)
        {
            continue;
        }
        if let Some(hold_id) = event.hold_id {
            index.holds.entry(hold_id).or_default().push(event.clone());
        }
        if !event.command_id.is_empty() {
            index
                .commands
                .entry(event.command_id.clone())
                .or_default()
                .push(event.clone());
        }
    }
}

/// The events that count.
pub fn fold(log: &LaneLog) -> Vec<&SeenEvent> {
    let mut state = LaneState::default();
    log.events
        .iter()
        .filter(|seen| state.fold(seen.offset, seen.stamp()) == Verdict::Valid)
        .collect()
}

/// I2: commands and valid events side by side, both ascending by command offset.
fn decisions(log: &LaneLog, valid: &[&SeenEvent], bounds: Bounds, say: &mut impl FnMut(Promise, String)) {
    let mut events = valid.iter().peekable();
    for command in &log.commands {
        while let Some(seen) = events.next_if(|seen| seen.event.command_offset < command.offset) {
            no_command(&seen.event, say);
        }
        let Some(seen) = events.next_if(|seen| seen.event.command_offset == command.offset) else {
            let waited_ms = bounds.read_ms - command.at_ms.max(bounds.healed_ms);
            let promise = if valid
                .last()
                .is_some_and(|seen| seen.event.command_offset > command.offset)
            {
                Promise::OneDecision
            } else if waited_ms > DECIDED_WITHIN_MS {
                Promise::Decided
            } else {
                continue; // There is time left.
            };
            say(promise, format!("command {} has no valid event", command.offset));
            continue;
        };
        let says = &seen.event.command_id;
        if let Some(id) = &command.command_id
            && !says.is_empty()
            && says != id
        {
            say(
                Promise::OneDecision,
                format!(
                    "event {} answers {says}, but command {} is {id}",
                    seen.offset, command.offset
                ),
            );
        }
        if matches!(seen.event.body, EventBody::OffsetsSkipped) {
            say(Promise::OneDecision, format!("command {} was skipped", command.offset));
        }
        let late_ms = seen.at_ms - command.at_ms.max(bounds.healed_ms);
        if late_ms > DECIDED_WITHIN_MS {
            say(
                Promise::Decided,
                format!(
                    "command {} was decided {late_ms} ms after it could have been",
                    command.offset
                ),
            );
        }
    }
    for seen in events {
        no_command(&seen.event, say);
    }
    let mut requests = HashSet::new();
    for seen in valid {
        let event = &seen.event;
        // A producer may write a record twice when its broker dies; the second may only be told what is.
        let answers = !event.request_id.is_empty() && !is_step(&event.body);
        let again = answers && !requests.insert(&event.request_id);
        if again && moves(&event.body) {
            say(
                Promise::OneDecision,
                format!(
                    "request {} does something twice, again by event {}",
                    event.request_id, seen.offset
                ),
            );
        }
    }
}

/// A step on the road of a request, or what its second record is told: not its outcome.
fn is_step(body: &EventBody) -> bool {
    matches!(
        body,
        EventBody::CommandRefused {
            reason: Reason::AlreadyApplied,
            ..
        } | EventBody::CommandForwarded { .. }
            | EventBody::HoldPending
            | EventBody::PartHeld
            | EventBody::PartRefused { .. }
            | EventBody::PartFollowed { .. }
            | EventBody::RelayIgnored
    )
}

fn no_command(event: &Event, say: &mut impl FnMut(Promise, String)) {
    if !matches!(event.body, EventBody::OffsetsSkipped) {
        say(
            Promise::OneDecision,
            format!("command {} is decided but is not in the log", event.command_offset),
        );
    }
}

/// I1, I4: each event follows from those before it.
fn books(valid: &[&SeenEvent], bounds: Bounds, say: &mut impl FnMut(Promise, String)) -> Ledger {
    let mut ledger = Ledger::default();
    let mut time_ms = i64::MIN;
    for seen in valid {
        let event = &seen.event;
        if event.decided_at < time_ms {
            say(Promise::Time, format!("event {} goes back in time", seen.offset));
        }
        time_ms = time_ms.max(event.decided_at);
        if let Some(line) = event
            .lines
            .iter()
            .find(|line| line.held + line.allocated > line.on_hand)
        {
            say(
                Promise::Books,
                format!("event {} oversells {}: {line:?}", seen.offset, line.sku),
            );
        }
        let deadline = event
            .hold_id
            .and_then(|id| Some(ledger.holds.get(&id)?.terms.expires_at));
        if let (EventBody::HoldExpired, Some(deadline)) = (&event.body, deadline) {
            let late_ms = seen.at_ms - deadline.max(bounds.healed_ms);
            if late_ms > RELEASED_WITHIN_MS {
                say(
                    Promise::Released,
                    format!("event {} gives units back {late_ms} ms after the deadline", seen.offset),
                );
            }
        }
        if let Err(contradiction) = ledger.apply(event) {
            let promise = match &event.body {
                EventBody::HoldConfirmed | EventBody::HoldCancelled | EventBody::HoldExpired => Promise::OneEnd,
                EventBody::HoldCreated => Promise::OneOutcome,
                _ => Promise::Books,
            };
            say(promise, format!("event {}: {contradiction}", seen.offset));
        }
    }
    ledger
}

/// I5 in the log itself, and units that nobody gives back.
fn at_the_end(ledger: &Ledger, bounds: Bounds, say: &mut impl FnMut(Promise, String)) {
    let mut units: HashMap<_, (i64, i64)> = HashMap::new();
    for (id, hold) in &ledger.holds {
        let held = hold.terms.state.is_live();
        if held && bounds.read_ms - hold.terms.expires_at.max(bounds.healed_ms) > RELEASED_WITHIN_MS {
            say(Promise::Released, format!("hold {id} is due and still held"));
        }
        for (sku, quantity) in &hold.lines {
            let sum = units.entry((hold.tenant.clone(), sku.clone())).or_default();
            match hold.terms.state {
                HoldState::Pending | HoldState::Held | HoldState::Paying => sum.0 += quantity,
                HoldState::Confirmed => sum.1 += quantity,
                _ => {}
            }
        }
    }
    for part in ledger.parts.values() {
        for (sku, quantity) in &part.lines {
            let sum = units.entry((part.tenant.clone(), sku.clone())).or_default();
            match part.terms.state {
                PartState::Held => sum.0 += quantity,
                PartState::Settled => sum.1 += quantity,
                PartState::Shipped | PartState::Unallocated | PartState::Undone => {}
            }
        }
    }
    for (key, stock) in &ledger.stock {
        let (held, allocated) = units.get(key).copied().unwrap_or_default();
        if (held, allocated) != (stock.held, stock.allocated) {
            say(
                Promise::Conservation,
                format!(
                    "{}/{}: holds have {held} held and {allocated} allocated, its counters say {} and {}",
                    key.0, key.1, stock.held, stock.allocated
                ),
            );
        }
    }
}

/// Whether it is more than an answer.
#[must_use]
pub fn moves(body: &EventBody) -> bool {
    matches!(
        body,
        EventBody::HoldCreated
            | EventBody::HoldConfirmed
            | EventBody::HoldCancelled
            | EventBody::HoldExpired
            | EventBody::HoldExtended { .. }
            | EventBody::StockAdjusted { .. }
            | EventBody::SkuConfigured { .. }
    )
}

/// The reason of a refusal.
#[must_use]
pub fn reason_of(event: &Event) -> Option<Reason> {
    match &event.body {
        EventBody::HoldRejected { reason, .. } | EventBody::CommandRefused { reason, .. } => Some(*reason),
        _ => None,
    }
}
