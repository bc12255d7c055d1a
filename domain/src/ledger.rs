//! The ledger: the picture of one lane that its valid events add up to.
//!
//! A rebuild loads it into Redis, `verify` compares it with Redis and Postgres. Events carry absolute counters, and the
//! ledger checks each against what the step before left, so a log that contradicts itself is found at its first event.

mod follow;

use std::collections::{BTreeMap, HashMap};

use crate::{
    cart::{PartId, PartState, PartTerms},
    command::Source,
    event::{Event, HoldTerms},
    fingerprint::Fingerprint,
    hold::HoldState,
    ids::HoldId,
    limits,
    request::RequestMark,
    stock::Stock,
    values::{Key, Millis, Sku, Tenant, UserId},
};

/// A hold with its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerHold {
    /// Whose stock.
    pub tenant: Tenant,
    /// What it is.
    pub terms: HoldTerms,
    /// SKU and units, ascending by SKU.
    pub lines: Vec<(Sku, i64)>,
}

/// A part of another lane's cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerPart {
    /// Whose stock.
    pub tenant: Tenant,
    /// What it is.
    pub terms: PartTerms,
    /// This lane's own SKUs and units, ascending by SKU; none for a mark.
    pub lines: Vec<(Sku, i64)>,
}

/// Units of one SKU in a cart that may not be decided yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed<'a> {
    /// Which cart.
    pub part: PartId,
    /// Whose stock.
    pub tenant: &'a Tenant,
    /// Which SKU.
    pub sku: &'a Sku,
    /// How many.
    pub quantity: i64,
    /// The relay's deadline, in log milliseconds.
    pub relay_until: Millis,
}

/// An applied command id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// What it stands for.
    pub fingerprint: Fingerprint,
    /// Log time when it was applied, in milliseconds.
    pub at: Millis,
}

/// An event that does not follow from those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event of command {command_offset} contradicts the log before it: {problem}")]
pub struct Contradiction {
    /// The event's command.
    pub command_offset: i64,
    /// What does not fit.
    pub problem: String,
}

/// One lane's stock, holds, purchase counts and what is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Counters and policy by tenant and SKU.
    pub stock: BTreeMap<(Tenant, Sku), Stock>,
    /// Holds that were ever accepted, by id.
    pub holds: HashMap<HoldId, LedgerHold>,
    /// Parts of other lanes' carts, and marks that say that one must not be held any more.
    pub parts: HashMap<PartId, LedgerPart>,
    /// Units that a user holds or has bought, where not zero.
    pub counted: HashMap<(Tenant, Sku, UserId), i64>,
    /// Applied command ids.
    pub commands: HashMap<(Tenant, Key), Remembered>,
    /// Applied sources of forwarded commands, with the log time when they were applied.
    pub sources: HashMap<Source, Millis>,
    /// Requests whose records must not be decided again, with the log time of their outcomes.
    pub requests: HashMap<RequestMark, Millis>,
}

impl LedgerHold {
    /// All its lines, those of other lanes too, ascending by SKU.
    #[must_use]
    pub fn all_lines(&self) -> Vec<(Sku, i64)> {
        self.terms.all_lines(&self.lines)
    }
}

impl Ledger {
    /// Takes a valid event into the picture.
    ///
    /// # Errors
    /// [`Contradiction`] when its counters or its hold's step do not follow from the events before.
    pub fn apply(&mut self, event: &Event) -> Result<(), Contradiction> {
        self.follow(event).map_err(|problem| Contradiction {
            command_offset: event.command_offset,
            problem,
        })?;
        if let Some(source) = &event.source {
            self.sources.insert(source.clone(), event.decided_at);
        }
        if let Some(mark) = RequestMark::ended_by(event) {
            self.requests.insert(mark, event.decided_at);
        }
        Ok(())
    }

    /// Units in carts that may not be decided yet at log time `now`: those of pending holds, and of parts whose relay's
    /// deadline is ahead.
    pub fn relayed(&self, now: Millis) -> impl Iterator<Item = Relayed<'_>> {
        let pending = self.holds.iter().filter_map(|(hold_id, hold)| {
            let cart = hold.terms.cart.as_ref()?;
            let part = PartId {
                hold_id: *hold_id,
                attempt: hold.terms.attempt,
            };
            let pending = hold.terms.state == HoldState::Pending;
            pending.then_some((part, &hold.tenant, cart.relay_until, &hold.lines))
        });
        let held = self.parts.iter().filter_map(|(part, held)| {
            let keeps = held.terms.state == PartState::Held;
            keeps.then_some((*part, &held.tenant, held.terms.relay_until, &held.lines))
        });
        pending
            .chain(held)
            .filter(move |(_, _, relay_until, _)| *relay_until > now)
            .flat_map(|(part, tenant, relay_until, lines)| {
                lines.iter().map(move |(sku, quantity)| Relayed {
                    part,
                    tenant,
                    sku,
                    quantity: *quantity,
                    relay_until,
                })
            })
    }

    /// Drops what a lane no longer remembers at log time `now`: holds that nothing can change any more, command ids and
    /// sources, each `remember_ms` after its last change, and requests after [`limits::REMEMBER_REQUEST_MS`].
    pub fn forget(&mut self, now: Millis, remember_ms: Millis) {
        let keep = |at: Millis| at + remember_ms > now;
        self.holds
            .retain(|_, hold| !hold.terms.state.is_final() || keep(hold.terms.changed_at));
        // A relay is refused at its deadline, so what stands in its way is needed no longer.
        self.parts.retain(|_, part| {
            let terms = &part.terms;
            !terms.state.is_final() || keep(terms.changed_at) || terms.relay_until > now
        });
        self.commands.retain(|_, remembered| keep(remembered.at));
        self.sources.retain(|_, at| keep(*at));
        self.requests.retain(|_, at| *at + limits::REMEMBER_REQUEST_MS > now);
    }
}
