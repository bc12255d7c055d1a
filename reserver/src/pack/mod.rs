//! Commands as `apply` reads them (`batch`), and its outcomes as events (`outcome`).
//!
//! The positions in the arrays are the contract with `lua/apply/`; a change here is a change there.

mod asked;
mod batch;
mod outcome;

pub use asked::Asked;
pub use batch::{batch, forget, writes};
use domain::{CartLine, CommandBody, Fingerprint, Key, Lane, Lines, RequestMark, Tenant, Text};
pub(crate) use outcome::previous_of;
pub use outcome::{Mismatch, Origin, Outcome, event, subject};

/// One command offset of a batch.
#[derive(Debug)]
pub struct Entry {
    /// Command offset.
    pub offset: i64,
    /// The record before it; -1 for the first.
    pub previous: i64,
    /// The broker's timestamp, in milliseconds.
    pub timestamp: i64,
    /// Hash of the record's bytes, below 2^53, which Lua can hold: a journal entry must be about the same record.
    pub hash: i64,
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
    /// How long requests that were refused are remembered, in log milliseconds.
    pub request_ms: i64,
    /// Longest life of a hold, from its creation, in milliseconds.
    pub max_hold_ms: i64,
    /// Time to live of a hold that names none, in milliseconds.
    pub default_ttl_ms: i64,
    /// How long the lanes of a cart may take to hold it, from its Reserve on, in log milliseconds.
    pub relay_ms: i64,
    /// How many lanes there are.
    pub lanes: u16,
}

/// What a record's request is remembered by; `None` for one that names none.
fn request_of(asked: &Asked) -> Option<RequestMark> {
    match asked {
        Asked::Command(command) | Asked::Misrouted(command, _) => {
            RequestMark::of(&command.tenant, command.request_id.as_str())
        }
        Asked::Refused { request_id, .. } => RequestMark::of(&default_tenant(), request_id),
        Asked::Skip => None,
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
        CommandBody::ReturnStock {
            sku,
            quantity,
            hold_id,
            reason,
            reference,
            actor,
        } => Some(Fingerprint::of_return(
            sku,
            *quantity,
            *hold_id,
            reason,
            reference.as_ref(),
            actor,
        )),
        CommandBody::RequireRefund {
            hold_id,
            payment_ref,
            reason,
        } => Some(Fingerprint::of_refund(*hold_id, payment_ref, reason)),
        CommandBody::Reserve(_)
        | CommandBody::Confirm { .. }
        | CommandBody::Cancel { .. }
        | CommandBody::Release { .. }
        | CommandBody::BeginPayment { .. }
        | CommandBody::AbortPayment { .. }
        | CommandBody::Ship { .. }
        | CommandBody::Unallocate { .. }
        | CommandBody::Relay { .. }
        | CommandBody::RelayDone { .. }
        | CommandBody::RelayFailed { .. }
        | CommandBody::Follow { .. } => None,
    }
}

/// A hold's lines with their lanes, by lane and SKU.
#[must_use]
pub fn cart_of(lines: &Lines, lanes: u16) -> Vec<CartLine> {
    let mut cart: Vec<CartLine> = lines
        .into_iter()
        .map(|line| CartLine {
            lane: Lane::of_sku(&line.sku, lanes),
            sku: line.sku.clone(),
            quantity: line.quantity.units(),
        })
        .collect();
    cart.sort_by_key(|line| line.lane);
    cart
}

/// The SKUs' or the hold's own lane; several lanes for a cart that spans them, ascending.
#[must_use]
pub fn lanes_of(body: &CommandBody, lanes: u16) -> Vec<Lane> {
    match body {
        CommandBody::Reserve(reserve) => domain::cart::lanes_of(&cart_of(&reserve.lines, lanes)),
        CommandBody::Relay { lane, .. } | CommandBody::Follow { lane, .. } => vec![*lane],
        CommandBody::RelayDone { part } | CommandBody::RelayFailed { part, .. } => vec![part.hold_id.lane()],
        CommandBody::AdjustStock { sku, .. }
        | CommandBody::ConfigureSku { sku, .. }
        | CommandBody::ReturnStock { sku, .. } => vec![Lane::of_sku(sku, lanes)],
        CommandBody::Confirm { hold_id, .. }
        | CommandBody::Cancel { hold_id, .. }
        | CommandBody::Extend { hold_id, .. }
        | CommandBody::Release { hold_id, .. }
        | CommandBody::BeginPayment { hold_id, .. }
        | CommandBody::AbortPayment { hold_id, .. }
        | CommandBody::Ship { hold_id, .. }
        | CommandBody::Unallocate { hold_id, .. }
        | CommandBody::RequireRefund { hold_id, .. } => vec![hold_id.lane()],
    }
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
