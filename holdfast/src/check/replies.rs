//! What clients were told, beside what the log decided (I2, I3), and in which order.

use std::collections::HashMap;

use domain::{Event, EventBody, HoldId, Key, Lane, Sku, Tenant};

use super::{
    Promise, Violation,
    history::{Call, Op, Reply},
    lane::{Index, moves, reason_of},
};

/// The decisions that may be behind a reply: its own command is one of them.
struct Behind<'a> {
    op: &'a Op,
    lane: Lane,
    first: i64,
    last: i64,
}

/// Lays every reply beside the log.
pub fn check(ops: &[Op], lanes: u16, index: &Index, violations: &mut Vec<Violation>) {
    let mut behind: Vec<Behind<'_>> = Vec::with_capacity(ops.len());
    let mut say = |promise, what: String| violations.push(Violation { promise, what });
    for op in ops {
        match judge(op, lanes, index) {
            Ok(Some(found)) => behind.push(found),
            Ok(None) => {}
            Err((promise, what)) => say(
                promise,
                format!("{:?} under {}: {what} ({:?})", op.call, op.key, op.reply),
            ),
        }
    }
    for (key, sum) in created(index) {
        if sum > 1 {
            say(Promise::OneOutcome, format!("key {key} made {sum} holds"));
        }
    }
    order(behind, &mut say);
}

fn created(index: &Index) -> HashMap<String, usize> {
    let mut sums = HashMap::new();
    for event in index.holds.values().flatten() {
        if let (EventBody::HoldCreated, Some(terms)) = (&event.body, &event.hold) {
            *sums
                .entry(format!("{}/{}", event.tenant, terms.idempotency_key))
                .or_default() += 1;
        }
    }
    sums
}

fn judge<'a>(op: &'a Op, lanes: u16, index: &Index) -> Result<Option<Behind<'a>>, (Promise, String)> {
    let parsed = Sku::parse(&op.sku).ok().zip(Key::parse("key", &op.key).ok());
    let Some((sku, key)) = parsed else {
        return Err((Promise::Reply, "the history names no legal SKU or key".to_owned()));
    };
    let lane = Lane::of_sku(&sku, lanes);
    let tenant = Tenant::parse("default").expect("a legal tenant");
    let hold_id = HoldId::of(lane, &tenant, &key);
    let empty = Vec::new();
    let events = match op.call {
        Call::Reserve | Call::Confirm | Call::Cancel => index.holds.get(&hold_id).unwrap_or(&empty),
        Call::Adjust | Call::Send => index.commands.get(&op.key).unwrap_or(&empty),
    };
    let fits: Box<dyn Fn(&Event) -> bool> = match &op.reply {
        Reply::Refused { early: true, .. } => return Ok(None),
        Reply::Unknown => {
            let done = events.iter().filter(|event| does(op.call, &event.body)).count();
            return match done {
                0 | 1 => Ok(None),
                more => Err((
                    Promise::OneDecision,
                    format!("nobody knows what became of it, and it was done {more} times"),
                )),
            };
        }
        Reply::Done { .. } if op.call == Call::Send => {
            // An acknowledged record: the log has it, so it is decided, exactly once.
            let moved = events.iter().filter(|event| moves(&event.body)).count();
            return if !events.is_empty() && moved <= 1 {
                Ok(None)
            } else {
                let sum = events.len();
                Err((
                    Promise::OneDecision,
                    format!("its command has {sum} decisions, {moved} of which move something"),
                ))
            };
        }
        Reply::Done {
            hold_id: told,
            replayed,
        } => {
            if let Some(told) = told
                && *told != hold_id.to_string()
            {
                return Err((
                    Promise::OneOutcome,
                    format!("it was told of hold {told} instead of {hold_id}"),
                ));
            }
            let replayed = *replayed;
            Box::new(move |event| match op.call {
                Call::Reserve => is_as_asked(event, op) && (replayed || matches!(event.body, EventBody::HoldCreated)),
                Call::Confirm => matches!(event.body, EventBody::HoldConfirmed),
                Call::Cancel => matches!(event.body, EventBody::HoldCancelled),
                Call::Adjust => {
                    matches!(event.body, EventBody::StockAdjusted { change, .. } if change == op.quantity)
                }
                Call::Send => false,
            })
        }
        Reply::Refused { code, .. } => {
            Box::new(move |event| reason_of(event).is_some_and(|reason| reason.code() == code))
        }
    };
    let mut fitting = events
        .iter()
        .filter(|event| fits(event))
        .map(|event| event.command_offset);
    let Some(first) = fitting.next() else {
        return Err((Promise::Reply, format!("no valid event of {hold_id} says so")));
    };
    // A repetition of what was done before has an event of its own, anywhere behind the first.
    let last = events.last().map_or(first, |event| event.command_offset);
    Ok(Some(Behind { op, lane, first, last }))
}

/// Whether an event does what a call asks.
fn does(call: Call, body: &EventBody) -> bool {
    match call {
        Call::Reserve => matches!(body, EventBody::HoldCreated),
        Call::Confirm => matches!(body, EventBody::HoldConfirmed),
        Call::Cancel => matches!(body, EventBody::HoldCancelled),
        Call::Adjust => matches!(body, EventBody::StockAdjusted { .. }),
        Call::Send => moves(body),
    }
}

fn is_as_asked(event: &Event, op: &Op) -> bool {
    let [line] = event.lines.as_slice() else { return false };
    let same = line.sku.as_str() == op.sku && line.quantity == op.quantity;
    same && event
        .hold
        .as_ref()
        .is_some_and(|terms| terms.user_id.as_str() == op.user)
        && matches!(event.body, EventBody::HoldCreated | EventBody::HoldReplayed)
}

/// Whatever was asked for after an answer came is decided after what that answer told. A sweep over both times: nothing
/// is compared twice.
fn order(mut behind: Vec<Behind<'_>>, say: &mut impl FnMut(Promise, String)) {
    let mut returned: Vec<(i64, Lane, i64)> = behind
        .iter()
        .map(|found| (found.op.returned_us, found.lane, found.first))
        .collect();
    returned.sort_unstable_by_key(|(at, ..)| *at);
    behind.sort_unstable_by_key(|found| found.op.invoked_us);
    let mut told: HashMap<Lane, i64> = HashMap::new();
    let mut answers = returned.into_iter().peekable();
    for found in behind {
        while let Some((_, lane, offset)) = answers.next_if(|(at, ..)| *at < found.op.invoked_us) {
            let highest = told.entry(lane).or_insert(offset);
            *highest = (*highest).max(offset);
        }
        if let Some(highest) = told.get(&found.lane)
            && found.last < *highest
        {
            say(
                Promise::Order,
                format!(
                    "{:?} under {} was asked after command {highest} of lane {} had been answered, but is decided at {}",
                    found.op.call, found.op.key, found.lane, found.last
                ),
            );
        }
    }
}
