//! An outcome of `apply`, and the event that is made of it.

use domain::{
    Command, CommandBody, Event, EventBody, EventId, EventLine, Fingerprint, HoldId, HoldState, HoldTerms, Lane,
    Millis, Policy, Reason, Reserve, Shortage, Sku, Text,
};
use schemas::cells::{HoldCell, PartCell};
use serde::Deserialize;

use super::{Asked, Entry, default_tenant, fingerprint_of};

/// An outcome as `apply` packs it and the journal keeps it.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    kind: String,
    time: i64,
    previous: i64,
    hash: i64,
    /// A change of stock, a lane, or the deadline of a hold that is not in it.
    number: i64,
    reason: String,
    lines: Vec<LineCell>,
    /// None or one. Of a Reserve whose hold lives in one lane: none, for all but its deadline is in the command.
    hold: Vec<HoldCell>,
    shortages: Vec<ShortCell>,
    /// None or one.
    part: Vec<PartCell>,
}

#[derive(Debug, Deserialize)]
struct LineCell(String, i64, i64, i64, i64, i64, i64);

/// SKU, units asked for, units available, and whether more may come back within seconds.
#[derive(Debug, Deserialize)]
struct ShortCell(String, i64, i64, #[serde(default)] bool);

/// A journal entry or a cell that does not fit its command.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// The journal speaks of another record than the log has at this offset.
    #[error("the journal's entry of command {0} is about another record than the one in the log")]
    OtherRecord(i64),
    /// The outcome cannot be read.
    #[error("the outcome of command {0} cannot be read: {1}")]
    Unreadable(i64, String),
}

/// Where an event comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The lane.
    pub lane: Lane,
    /// Under which epoch it is published.
    pub epoch: i64,
}

/// The command that was decided before the one of an outcome; `None` where it cannot be read.
pub(crate) fn previous_of(packed: &[u8]) -> Option<i64> {
    rmp_serde::from_slice::<Outcome>(packed)
        .ok()
        .map(|outcome| outcome.previous)
}

/// Makes the event of an entry from its outcome: the same bytes but for the epoch, however often it is made.
///
/// # Errors
/// [`Mismatch`] when the outcome is not about this entry.
pub fn event(origin: Origin, entry: &Entry, packed: &[u8]) -> Result<Event, Mismatch> {
    let unreadable = |what: &dyn std::fmt::Display| Mismatch::Unreadable(entry.offset, what.to_string());
    let outcome: Outcome = rmp_serde::from_slice(packed).map_err(|error| unreadable(&error))?;
    if outcome.hash != entry.hash || outcome.previous != entry.previous {
        return Err(Mismatch::OtherRecord(entry.offset));
    }
    let command = match &entry.asked {
        Asked::Command(command) | Asked::Misrouted(command, _) => Some(&**command),
        Asked::Refused { .. } | Asked::Skip => None,
    };
    let ids = match (&entry.asked, command) {
        (
            Asked::Refused {
                command_id, request_id, ..
            },
            _,
        ) => (command_id.clone(), request_id.clone()),
        (_, Some(command)) => (command.command_id.to_string(), command.request_id.to_string()),
        (_, None) => (String::new(), String::new()),
    };
    let body = body_of(entry, command, &outcome).map_err(|what| unreadable(&what))?;
    let terms = match (outcome.hold.into_iter().next(), command.map(|command| &command.body)) {
        (Some(cell), _) => {
            let hold = domain::ledger::LedgerHold::try_from(cell).map_err(|invalid| unreadable(&invalid))?;
            Some(hold.terms)
        }
        (None, Some(CommandBody::Reserve(reserve))) => {
            let state = match body {
                EventBody::HoldCreated => Some(HoldState::Held),
                EventBody::HoldRejected { .. } => Some(HoldState::Rejected),
                _ => None,
            };
            state.map(|state| terms_of(reserve, entry.offset, state, outcome.time, outcome.number))
        }
        (None, _) => None,
    };
    let part = match outcome.part.into_iter().next() {
        Some(cell) => Some(
            domain::ledger::LedgerPart::try_from(cell)
                .map_err(|invalid| unreadable(&invalid))?
                .terms,
        ),
        None => None,
    };
    // A source that was refused as stale or as applied before is not applied by this command.
    let applied = !matches!(
        &body,
        EventBody::CommandRefused {
            reason: Reason::Stale | Reason::AlreadyApplied,
            ..
        }
    );
    Ok(Event {
        event_id: EventId::of(origin.lane, origin.epoch, entry.offset),
        request_id: ids.1,
        epoch: origin.epoch,
        command_offset: entry.offset,
        previous_command_offset: entry.previous,
        command_id: ids.0,
        tenant: command.map_or_else(default_tenant, |command| command.tenant.clone()),
        hold_id: match &entry.asked {
            Asked::Command(command) => hold_in(command, origin.lane),
            Asked::Misrouted(..) | Asked::Refused { .. } | Asked::Skip => None,
        },
        decided_at: outcome.time,
        source: match &entry.asked {
            Asked::Command(command) if applied => command.source.clone(),
            _ => None,
        },
        hold: terms,
        part,
        lines: outcome
            .lines
            .into_iter()
            .map(line)
            .collect::<Result<_, _>>()
            .map_err(|invalid| unreadable(&invalid))?,
        body,
    })
}

/// A hold in one lane as its Reserve made it, or did not.
fn terms_of(reserve: &Reserve, attempt: i64, state: HoldState, time: Millis, expires_at: Millis) -> HoldTerms {
    let asked = match reserve.policy {
        Policy::AllOrNothing => Vec::new(),
        Policy::PerLine | Policy::UpTo => reserve
            .lines
            .into_iter()
            .map(|line| (line.sku.clone(), line.quantity.units()))
            .collect(),
    };
    HoldTerms {
        attempt,
        state,
        user_id: reserve.user_id.clone(),
        idempotency_key: reserve.idempotency_key.clone(),
        fingerprint: Fingerprint::of_reserve(reserve),
        created_at: time,
        expires_at,
        changed_at: time,
        policy: reserve.policy,
        external_ref: reserve.external_ref.clone(),
        payment_ref: None,
        reason: None,
        cart: None,
        asked,
        remaining_ms: None,
    }
}

/// What a command is about in its own lane, as its `ce_subject` says: the hold, else the SKU.
#[must_use]
pub fn subject(command: &Command, lane: Lane) -> String {
    match (&command.body, hold_in(command, lane)) {
        (_, Some(hold_id)) => hold_id.to_string(),
        (
            CommandBody::AdjustStock { sku, .. }
            | CommandBody::ConfigureSku { sku, .. }
            | CommandBody::ReturnStock { sku, .. },
            None,
        ) => sku.to_string(),
        (_, None) => String::new(),
    }
}

fn hold_in(command: &Command, lane: Lane) -> Option<HoldId> {
    match &command.body {
        CommandBody::Reserve(reserve) => Some(HoldId::of(lane, &command.tenant, &reserve.idempotency_key)),
        other => other.hold_id(),
    }
}

fn line(cell: LineCell) -> Result<EventLine, domain::Invalid> {
    Ok(EventLine {
        sku: Sku::parse(&cell.0)?,
        quantity: cell.1,
        counted: cell.2,
        on_hand: cell.3,
        held: cell.4,
        allocated: cell.5,
        sku_version: cell.6,
    })
}

fn body_of(entry: &Entry, command: Option<&Command>, outcome: &Outcome) -> Result<EventBody, String> {
    let reason = || Reason::from_code(&outcome.reason).ok_or_else(|| format!("reason {}", outcome.reason));
    let fingerprint = || {
        command
            .and_then(|command| fingerprint_of(&command.body))
            .ok_or_else(|| "it has no fingerprint".to_owned())
    };
    Ok(match outcome.kind.as_str() {
        "pending" => EventBody::HoldPending,
        "created" => EventBody::HoldCreated,
        "part_held" => EventBody::PartHeld,
        "part_refused" => EventBody::PartRefused {
            reason: reason()?,
            shortages: shortages(&outcome.shortages)?,
        },
        "part_followed" => match command.map(|command| &command.body) {
            Some(CommandBody::Follow { step, .. }) => EventBody::PartFollowed { step: *step },
            _ => return Err("followed by another command".to_owned()),
        },
        "relay_ignored" => EventBody::RelayIgnored,
        "rejected" => EventBody::HoldRejected {
            reason: reason()?,
            shortages: shortages(&outcome.shortages)?,
        },
        "confirmed" => EventBody::HoldConfirmed,
        "cancelled" => EventBody::HoldCancelled,
        "expired" => EventBody::HoldExpired,
        "extended" => EventBody::HoldExtended {
            fingerprint: fingerprint()?,
        },
        "replayed" => EventBody::HoldReplayed,
        "stock_replayed" => EventBody::StockReplayed,
        "adjusted" => match command.map(|command| &command.body) {
            Some(CommandBody::AdjustStock {
                reason,
                reference,
                actor,
                ..
            }) => EventBody::StockAdjusted {
                change: outcome.number,
                reason: reason.clone(),
                reference: reference.clone(),
                actor: actor.clone(),
                fingerprint: fingerprint()?,
            },
            _ => return Err("adjusted by another command".to_owned()),
        },
        "configured" => match command.map(|command| &command.body) {
            Some(CommandBody::ConfigureSku { policy, .. }) => EventBody::SkuConfigured {
                policy: *policy,
                fingerprint: fingerprint()?,
            },
            _ => return Err("configured by another command".to_owned()),
        },
        "began" => EventBody::PaymentBegun,
        "aborted" => match command.map(|command| &command.body) {
            Some(CommandBody::AbortPayment { reason, .. }) => EventBody::PaymentAborted { reason: reason.clone() },
            _ => return Err("aborted by another command".to_owned()),
        },
        "shipped" => match command.map(|command| &command.body) {
            Some(CommandBody::Ship { reference, .. }) => EventBody::HoldShipped {
                reference: reference.clone(),
            },
            _ => return Err("shipped by another command".to_owned()),
        },
        "unallocated" => match command.map(|command| &command.body) {
            Some(CommandBody::Unallocate { reason, actor, .. }) => EventBody::HoldUnallocated {
                reason: reason.clone(),
                actor: actor.clone(),
            },
            _ => return Err("unallocated by another command".to_owned()),
        },
        "taken_back" => match command.map(|command| &command.body) {
            Some(CommandBody::ReturnStock {
                quantity,
                hold_id,
                reason,
                reference,
                actor,
                ..
            }) => EventBody::StockReturned {
                quantity: quantity.units(),
                hold_id: *hold_id,
                reason: reason.clone(),
                reference: reference.clone(),
                actor: actor.clone(),
                fingerprint: fingerprint()?,
            },
            _ => return Err("taken back by another command".to_owned()),
        },
        "refund" => match command.map(|command| &command.body) {
            Some(CommandBody::RequireRefund {
                payment_ref, reason, ..
            }) => EventBody::RefundRequired {
                payment_ref: payment_ref.clone(),
                reason: reason.clone(),
                fingerprint: fingerprint()?,
            },
            _ => return Err("a refund by another command".to_owned()),
        },
        "forwarded" => EventBody::CommandForwarded {
            to_lane: i32::try_from(outcome.number).map_err(|_| format!("lane {}", outcome.number))?,
        },
        "skipped" => EventBody::OffsetsSkipped,
        "refused" => EventBody::CommandRefused {
            reason: reason()?,
            message: message_of(entry, reason()?),
        },
        other => return Err(format!("kind {other}")),
    })
}

fn shortages(cells: &[ShortCell]) -> Result<Vec<Shortage>, String> {
    cells
        .iter()
        .map(|ShortCell(sku, requested, available, retry)| {
            Ok(Shortage {
                sku: Sku::parse(sku).map_err(|invalid| invalid.to_string())?,
                requested: *requested,
                available: *available,
                retry: *retry,
            })
        })
        .collect()
}

fn message_of(entry: &Entry, reason: Reason) -> Text {
    let text = match &entry.asked {
        Asked::Refused { message, .. } => return message.clone(),
        Asked::Command(command) => match (reason, &command.body) {
            (Reason::InvalidRequest, CommandBody::AdjustStock { .. } | CommandBody::ReturnStock { .. }) => {
                "stock on hand must stay from 0 to 10^12"
            }
            _ => "",
        },
        Asked::Misrouted(..) | Asked::Skip => "",
    };
    Text::parse("message", text).expect("our own sentences are short")
}
