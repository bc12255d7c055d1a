//! Commands as `apply.lua` reads them, and its outcomes as events.
//!
//! The positions in the arrays are the contract with `lua/apply.lua`; a change here is a change there.

use domain::{
    Adjustment, Command, CommandBody, Event, EventBody, EventId, EventLine, Fingerprint, HoldId, Key, Lane, Reason,
    Shortage, Sku, Source, Tenant, Text,
};
use rmp::encode::{write_array_len, write_bool, write_sint, write_str, write_str_len};
use schemas::cells::{self, HoldCell};
use serde::Deserialize;

/// What is to be decided on one command offset.
#[derive(Debug)]
pub enum Asked {
    /// A command of this lane.
    Command(Box<Command>),
    /// A command of another lane: to be forwarded.
    Misrouted(Box<Command>, Lane),
    /// A record that is refused before any stock is looked at.
    Refused {
        /// Its `command_id`, where it has one.
        command_id: String,
        /// Its `request_id`, where it has one.
        request_id: String,
        /// Why.
        reason: Reason,
        /// A sentence for whoever sent it.
        message: Text,
    },
    /// Offsets up to this one hold no record.
    Skip,
}

/// One command offset of a batch.
#[derive(Debug)]
pub struct Entry {
    /// Command offset.
    pub offset: i64,
    /// The record before it; -1 for the first.
    pub previous: i64,
    /// The broker's timestamp, in milliseconds.
    pub timestamp: i64,
    /// Hash of the record's bytes: a journal entry must be about the same record.
    pub hash: String,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// W3C trace context of the record.
    pub traceparent: Option<String>,
    /// What is to be decided.
    pub asked: Asked,
}

/// Settings of decisions that come from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How long ended holds, command ids and sources are remembered, in log milliseconds.
    pub remember_ms: i64,
    /// Longest life of a hold, from its creation, in milliseconds.
    pub max_hold_ms: i64,
    /// Time to live of a hold that names none, in milliseconds.
    pub default_ttl_ms: i64,
}

struct Writer(Vec<u8>);

impl Writer {
    fn array(&mut self, len: usize) {
        write_array_len(&mut self.0, u32::try_from(len).expect("batches are small")).expect("a Vec takes all");
    }

    fn text(&mut self, text: &str) {
        write_str(&mut self.0, text).expect("a Vec takes all");
    }

    fn number(&mut self, number: i64) {
        write_sint(&mut self.0, number).expect("a Vec takes all");
    }
}

/// Packs a batch for `apply.lua`: the record before it, its commands, and read-back offsets to trim from the journal.
#[must_use]
pub fn batch(lane: Lane, entries: &[Entry], trim: &[i64], busy: bool, rules: Rules) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(256 * entries.len() + 64));
    out.array(6);
    out.number(entries.first().map_or(-1, |entry| entry.previous));
    out.array(entries.len());
    for entry in entries {
        pack_entry(&mut out, lane, entry, rules);
    }
    out.array(trim.len());
    for offset in trim {
        // A journal field: Lua hands it to HDEL as it is.
        out.text(&offset.to_string());
    }
    write_bool(&mut out.0, busy).expect("a Vec takes all");
    out.number(rules.remember_ms);
    out.number(rules.max_hold_ms);
    out.0
}

/// Packs the writes of a rebuild's chunk for `load.lua`: each a command's name and arguments.
///
/// Redis' `cmsgpack` knows no binary type, so bytes go as strings, whatever they are.
#[must_use]
pub fn writes(writes: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(256 * writes.len()));
    out.array(writes.len());
    for parts in writes {
        out.array(parts.len());
        for part in parts {
            let length = u32::try_from(part.len()).expect("a value is shorter than 4 GiB");
            write_str_len(&mut out.0, length).expect("a Vec takes all");
            out.0.extend_from_slice(part);
        }
    }
    out.0
}

fn pack_entry(out: &mut Writer, lane: Lane, entry: &Entry, rules: Rules) {
    match &entry.asked {
        Asked::Command(command) => pack_command(out, lane, entry, command, rules),
        Asked::Misrouted(command, to_lane) => {
            head(out, entry, "forward", &command.tenant, None, 1);
            out.number(i64::from(to_lane.number()));
        }
        Asked::Refused { reason, .. } => {
            head(out, entry, "refuse", &default_tenant(), None, 1);
            out.text(reason.code());
        }
        Asked::Skip => head(out, entry, "skip", &default_tenant(), None, 0),
    }
}

fn head(out: &mut Writer, entry: &Entry, kind: &str, tenant: &Tenant, source: Option<&Source>, rest: usize) {
    out.array(7 + rest);
    out.text(kind);
    out.number(entry.offset);
    out.number(entry.timestamp);
    out.text(&entry.hash);
    out.text(tenant.as_str());
    match source {
        Some(source) => {
            out.text(&format!("{}/{}/{}", source.topic, source.partition, source.offset));
            out.number(source.log_time);
        }
        None => {
            out.text("");
            out.number(0);
        }
    }
}

fn pack_command(out: &mut Writer, lane: Lane, entry: &Entry, command: &Command, rules: Rules) {
    let start = |out: &mut Writer, kind: &str, rest: usize| {
        head(out, entry, kind, &command.tenant, command.source.as_ref(), rest);
    };
    let optional = |text: &Option<Text>| text.as_ref().map(ToString::to_string).unwrap_or_default();
    match &command.body {
        CommandBody::Reserve(reserve) => {
            start(out, "reserve", 8);
            out.text(&HoldId::of(lane, &command.tenant, &reserve.idempotency_key).to_string());
            out.text(reserve.idempotency_key.as_str());
            out.text(reserve.user_id.as_str());
            out.text(&cells::hex(&Fingerprint::of_reserve(reserve)));
            out.number(reserve.ttl_ms.unwrap_or(rules.default_ttl_ms));
            out.text(reserve.policy.name());
            out.text(&optional(&reserve.external_ref));
            out.array(reserve.lines.as_slice().len());
            for line in &reserve.lines {
                out.array(2);
                out.text(line.sku.as_str());
                out.number(line.quantity.units());
            }
        }
        CommandBody::Confirm { hold_id, payment_ref } => {
            start(out, "confirm", 2);
            out.text(&hold_id.to_string());
            out.text(payment_ref.as_str());
        }
        CommandBody::Cancel { hold_id, reason } => {
            start(out, "cancel", 2);
            out.text(&hold_id.to_string());
            out.text(reason.as_str());
        }
        CommandBody::Extend { hold_id, ttl_ms } => {
            start(out, "extend", 4);
            out.text(&hold_id.to_string());
            out.number(*ttl_ms);
            out.text(command.command_id.as_str());
            out.text(&cells::hex(&Fingerprint::of_extend(*hold_id, *ttl_ms)));
        }
        CommandBody::Release { hold_id, attempt } => {
            start(out, "release", 2);
            out.text(&hold_id.to_string());
            out.number(attempt.unwrap_or(-1));
        }
        CommandBody::AdjustStock {
            sku,
            adjustment,
            expected_on_hand,
            ..
        } => {
            start(out, "adjust", 6);
            out.text(sku.as_str());
            let (mode, units) = match adjustment {
                Adjustment::Change(units) => ("change", *units),
                Adjustment::Set(units) => ("set", *units),
            };
            out.text(mode);
            out.number(units);
            out.number(expected_on_hand.unwrap_or(-1));
            out.text(command.command_id.as_str());
            out.text(&cells::hex(
                &fingerprint_of(&command.body).expect("an adjustment has a fingerprint"),
            ));
        }
        CommandBody::ConfigureSku { sku, policy } => {
            start(out, "configure", 5);
            out.text(sku.as_str());
            out.number(policy.safety_stock);
            out.number(policy.max_per_user.unwrap_or(-1));
            out.text(command.command_id.as_str());
            out.text(&cells::hex(
                &fingerprint_of(&command.body).expect("a policy has a fingerprint"),
            ));
        }
    }
}

fn default_tenant() -> Tenant {
    Tenant::parse("default").expect("a legal tenant")
}

/// What a command id stands for, where the command is idempotent by it.
fn fingerprint_of(body: &CommandBody) -> Option<Fingerprint> {
    match body {
        CommandBody::Extend { hold_id, ttl_ms } => Some(Fingerprint::of_extend(*hold_id, *ttl_ms)),
        CommandBody::AdjustStock {
            sku,
            adjustment,
            expected_on_hand,
            reason,
            reference,
            actor,
        } => Some(Fingerprint::of_adjustment(
            sku,
            *adjustment,
            *expected_on_hand,
            reason,
            reference.as_ref(),
            actor,
        )),
        CommandBody::ConfigureSku { sku, policy } => Some(Fingerprint::of_policy(sku, policy)),
        CommandBody::Reserve(_)
        | CommandBody::Confirm { .. }
        | CommandBody::Cancel { .. }
        | CommandBody::Release { .. } => None,
    }
}

/// The SKUs' or the hold's own lane; several lanes for a cart that spans them.
#[must_use]
pub fn lanes_of(body: &CommandBody, lanes: u16) -> Vec<Lane> {
    match body {
        CommandBody::Reserve(reserve) => {
            let mut all: Vec<Lane> = reserve
                .lines
                .into_iter()
                .map(|line| Lane::of_sku(&line.sku, lanes))
                .collect();
            all.sort();
            all.dedup();
            all
        }
        CommandBody::AdjustStock { sku, .. } | CommandBody::ConfigureSku { sku, .. } => vec![Lane::of_sku(sku, lanes)],
        CommandBody::Confirm { hold_id, .. }
        | CommandBody::Cancel { hold_id, .. }
        | CommandBody::Extend { hold_id, .. }
        | CommandBody::Release { hold_id, .. } => vec![hold_id.lane()],
    }
}

/// An outcome as `apply.lua` packs it and the journal keeps it.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    kind: String,
    time: i64,
    previous: i64,
    hash: String,
    lines: Vec<LineCell>,
    hold: Vec<HoldCell>,
    reason: String,
    shortages: Vec<(String, i64, i64)>,
    number: i64,
}

#[derive(Debug, Deserialize)]
struct LineCell(String, i64, i64, i64, i64, i64, i64);

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
    let hold = match outcome.hold.into_iter().next() {
        Some(cell) => Some(domain::ledger::LedgerHold::try_from(cell).map_err(|invalid| unreadable(&invalid))?),
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
        hold: hold.map(|hold| hold.terms),
        lines: outcome
            .lines
            .into_iter()
            .map(line)
            .collect::<Result<_, _>>()
            .map_err(|invalid| unreadable(&invalid))?,
        body,
    })
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
        "created" => EventBody::HoldCreated,
        "rejected" => EventBody::HoldRejected {
            reason: reason()?,
            shortages: outcome
                .shortages
                .iter()
                .map(|(sku, requested, available)| {
                    let sku = Sku::parse(sku).map_err(|invalid| invalid.to_string())?;
                    Ok(Shortage {
                        sku,
                        requested: *requested,
                        available: *available,
                    })
                })
                .collect::<Result<_, String>>()?,
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

fn message_of(entry: &Entry, reason: Reason) -> Text {
    let text = match &entry.asked {
        Asked::Refused { message, .. } => return message.clone(),
        Asked::Command(command) => match (reason, &command.body) {
            (Reason::InvalidRequest, CommandBody::AdjustStock { .. }) => "stock on hand must stay from 0 to 10^12",
            _ => "",
        },
        Asked::Misrouted(..) | Asked::Skip => "",
    };
    Text::parse("message", text).expect("our own sentences are short")
}

/// A text cut to what a [`Text`] may hold.
#[must_use]
pub fn sentence(text: &str) -> Text {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = clean.len().min(domain::limits::TEXT_LEN_MAX);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    Text::parse("message", &clean[..end]).expect("cut and cleaned")
}

/// An id as a refusal may repeat it: itself when it is legal, else nothing.
#[must_use]
pub fn id_or_nothing(id: &str) -> String {
    Key::parse("id", id).map(|key| key.to_string()).unwrap_or_default()
}
