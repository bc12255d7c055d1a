//! Events <-> their records.

use domain::{
    Event, EventBody, EventId, EventLine, Fingerprint, HoldId, HoldState, HoldTerms, Invalid, Key, PartStep, Policy,
    Sku, SkuPolicy, Tenant, Text, UserId,
};
use uuid::Uuid;

use super::{
    cart::{reason, shortages},
    note, text,
};
use crate::records::{self, InventoryEvent};

impl From<&Event> for InventoryEvent {
    fn from(event: &Event) -> Self {
        Self {
            event_id: event.event_id.to_string(),
            request_id: event.request_id.clone(),
            epoch: event.epoch,
            command_offset: event.command_offset,
            previous_command_offset: event.previous_command_offset,
            command_id: event.command_id.clone(),
            tenant: event.tenant.to_string(),
            hold_id: event.hold_id.map(|hold_id| hold_id.to_string()),
            decided_at: event.decided_at,
            source: event.source.as_ref().map(Into::into),
            hold: event.hold.as_ref().map(Into::into),
            part: event.part.as_ref().map(Into::into),
            lines: event.lines.iter().map(Into::into).collect(),
            body: (&event.body).into(),
        }
    }
}

impl From<&HoldTerms> for records::HoldTerms {
    fn from(terms: &HoldTerms) -> Self {
        Self {
            attempt: terms.attempt,
            state: terms.state.name().to_owned(),
            user_id: terms.user_id.to_string(),
            idempotency_key: terms.idempotency_key.to_string(),
            fingerprint: terms.fingerprint.as_bytes().to_vec(),
            created_at: terms.created_at,
            expires_at: terms.expires_at,
            changed_at: terms.changed_at,
            policy: terms.policy.name().to_owned(),
            external_ref: text(&terms.external_ref),
            payment_ref: text(&terms.payment_ref),
            reason: text(&terms.reason),
            remaining_ms: terms.remaining_ms,
            cart: terms.cart.as_ref().map(Into::into),
            asked: terms.asked.iter().map(asked_record).collect(),
        }
    }
}

impl From<&EventLine> for records::EventLine {
    fn from(line: &EventLine) -> Self {
        Self {
            sku: line.sku.to_string(),
            quantity: line.quantity,
            counted: line.counted,
            on_hand: line.on_hand,
            held: line.held,
            allocated: line.allocated,
            sku_version: line.sku_version,
        }
    }
}

impl From<&EventBody> for records::EventBody {
    fn from(body: &EventBody) -> Self {
        match body {
            EventBody::LaneOpened { nonce, owner } => Self::LaneOpened(records::LaneOpened {
                nonce: nonce.to_string(),
                owner: owner.to_string(),
            }),
            EventBody::HoldPending => Self::HoldPending,
            EventBody::HoldCreated => Self::HoldCreated,
            EventBody::PartHeld => Self::PartHeld,
            EventBody::PartRefused { reason, shortages } => Self::PartRefused(records::PartRefused {
                reason: reason.code().to_owned(),
                shortages: shortages.iter().map(Into::into).collect(),
            }),
            EventBody::PartFollowed { step } => match step {
                PartStep::Settle => Self::PartSettled,
                PartStep::Undo => Self::PartUndone,
                PartStep::Ship => Self::PartShipped,
                PartStep::Unallocate => Self::PartUnallocated,
            },
            EventBody::RelayIgnored => Self::RelayIgnored,
            EventBody::HoldRejected { reason, shortages } => Self::HoldRejected(records::HoldRejected {
                reason: reason.code().to_owned(),
                shortages: shortages.iter().map(Into::into).collect(),
            }),
            EventBody::HoldConfirmed => Self::HoldConfirmed,
            EventBody::HoldCancelled => Self::HoldCancelled,
            EventBody::HoldExpired => Self::HoldExpired,
            EventBody::HoldExtended { fingerprint } => Self::HoldExtended(records::HoldExtended {
                fingerprint: fingerprint.as_bytes().to_vec(),
            }),
            EventBody::HoldReplayed => Self::HoldReplayed,
            EventBody::StockAdjusted {
                change,
                reason,
                reference,
                actor,
                fingerprint,
            } => Self::StockAdjusted(records::StockAdjusted {
                change: *change,
                reason: reason.to_string(),
                reference: text(reference),
                actor: actor.to_string(),
                fingerprint: fingerprint.as_bytes().to_vec(),
            }),
            EventBody::StockReplayed => Self::StockReplayed,
            EventBody::SkuConfigured { policy, fingerprint } => Self::SkuConfigured(records::SkuConfigured {
                safety_stock: policy.safety_stock,
                max_per_user: policy.max_per_user,
                fingerprint: fingerprint.as_bytes().to_vec(),
            }),
            EventBody::CommandForwarded { to_lane } => {
                Self::CommandForwarded(records::CommandForwarded { to_lane: *to_lane })
            }
            EventBody::OffsetsSkipped => Self::OffsetsSkipped,
            EventBody::CommandRefused { reason, message } => Self::CommandRefused(records::CommandRefused {
                reason: reason.code().to_owned(),
                message: message.to_string(),
            }),
            EventBody::PaymentBegun => Self::PaymentBegun,
            EventBody::PaymentAborted { reason } => Self::PaymentAborted(records::PaymentAborted {
                reason: reason.to_string(),
            }),
            EventBody::HoldShipped { reference } => Self::HoldShipped(records::HoldShipped {
                reference: reference.to_string(),
            }),
            EventBody::HoldUnallocated { reason, actor } => Self::HoldUnallocated(records::HoldUnallocated {
                reason: reason.to_string(),
                actor: actor.to_string(),
            }),
            EventBody::StockReturned {
                quantity,
                hold_id,
                reason,
                reference,
                actor,
                fingerprint,
            } => Self::StockReturned(records::StockReturned {
                quantity: *quantity,
                hold_id: hold_id.map(|hold_id| hold_id.to_string()),
                reason: reason.to_string(),
                reference: text(reference),
                actor: actor.to_string(),
                fingerprint: fingerprint.as_bytes().to_vec(),
            }),
            EventBody::RefundRequired {
                payment_ref,
                reason,
                fingerprint,
            } => Self::RefundRequired(records::RefundRequired {
                payment_ref: payment_ref.to_string(),
                reason: reason.to_string(),
                fingerprint: fingerprint.as_bytes().to_vec(),
            }),
        }
    }
}

impl TryFrom<InventoryEvent> for Event {
    type Error = Invalid;

    fn try_from(record: InventoryEvent) -> Result<Self, Invalid> {
        Ok(Self {
            event_id: EventId::from_uuid(parse_uuid("event_id", &record.event_id)?),
            request_id: record.request_id,
            epoch: record.epoch,
            command_offset: record.command_offset,
            previous_command_offset: record.previous_command_offset,
            command_id: record.command_id,
            tenant: Tenant::parse(&record.tenant)?,
            hold_id: record.hold_id.as_deref().map(HoldId::parse).transpose()?,
            decided_at: record.decided_at,
            source: record.source.map(Into::into),
            hold: record.hold.map(TryInto::try_into).transpose()?,
            part: record.part.map(TryInto::try_into).transpose()?,
            lines: record
                .lines
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            body: record.body.try_into()?,
        })
    }
}

fn parse_uuid(field: &'static str, text: &str) -> Result<Uuid, Invalid> {
    Uuid::try_parse(text).map_err(|_| Invalid::new(field, "must be a UUID"))
}

fn fingerprint(bytes: &[u8]) -> Result<Fingerprint, Invalid> {
    Fingerprint::from_bytes(bytes).ok_or_else(|| Invalid::new("fingerprint", "must have 32 bytes"))
}

fn asked_record((sku, quantity): &(Sku, i64)) -> records::AskedLine {
    records::AskedLine {
        sku: sku.to_string(),
        quantity: *quantity,
    }
}

fn asked(line: &records::AskedLine) -> Result<(Sku, i64), Invalid> {
    Ok((Sku::parse(&line.sku)?, line.quantity))
}

fn followed(step: PartStep) -> EventBody {
    EventBody::PartFollowed { step }
}

impl TryFrom<records::HoldTerms> for HoldTerms {
    type Error = Invalid;

    fn try_from(terms: records::HoldTerms) -> Result<Self, Invalid> {
        Ok(Self {
            attempt: terms.attempt,
            state: HoldState::from_name(&terms.state)
                .ok_or_else(|| Invalid::new("state", format!("`{}` is not known to this version", terms.state)))?,
            user_id: UserId::parse(&terms.user_id)?,
            idempotency_key: Key::parse("idempotency_key", &terms.idempotency_key)?,
            fingerprint: fingerprint(&terms.fingerprint)?,
            created_at: terms.created_at,
            expires_at: terms.expires_at,
            changed_at: terms.changed_at,
            policy: Policy::parse(&terms.policy)?,
            external_ref: note("external_ref", terms.external_ref)?,
            payment_ref: note("payment_ref", terms.payment_ref)?,
            reason: note("reason", terms.reason)?,
            remaining_ms: terms.remaining_ms,
            cart: terms.cart.map(TryInto::try_into).transpose()?,
            asked: terms.asked.iter().map(asked).collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<records::EventLine> for EventLine {
    type Error = Invalid;

    fn try_from(line: records::EventLine) -> Result<Self, Invalid> {
        Ok(Self {
            sku: Sku::parse(&line.sku)?,
            quantity: line.quantity,
            counted: line.counted,
            on_hand: line.on_hand,
            held: line.held,
            allocated: line.allocated,
            sku_version: line.sku_version,
        })
    }
}

impl TryFrom<records::EventBody> for EventBody {
    type Error = Invalid;

    fn try_from(body: records::EventBody) -> Result<Self, Invalid> {
        use records::EventBody as Record;
        Ok(match body {
            Record::LaneOpened(opened) => Self::LaneOpened {
                nonce: parse_uuid("nonce", &opened.nonce)?,
                owner: Text::parse("owner", &opened.owner)?,
            },
            Record::HoldPending => Self::HoldPending,
            Record::HoldCreated => Self::HoldCreated,
            Record::PartHeld => Self::PartHeld,
            Record::PartRefused(refused) => Self::PartRefused {
                reason: reason(&refused.reason)?,
                shortages: shortages(refused.shortages)?,
            },
            Record::PartSettled => followed(PartStep::Settle),
            Record::PartUndone => followed(PartStep::Undo),
            Record::PartShipped => followed(PartStep::Ship),
            Record::PartUnallocated => followed(PartStep::Unallocate),
            Record::RelayIgnored => Self::RelayIgnored,
            Record::HoldRejected(rejected) => Self::HoldRejected {
                reason: reason(&rejected.reason)?,
                shortages: shortages(rejected.shortages)?,
            },
            Record::HoldConfirmed => Self::HoldConfirmed,
            Record::HoldCancelled => Self::HoldCancelled,
            Record::HoldExpired => Self::HoldExpired,
            Record::HoldExtended(extended) => Self::HoldExtended {
                fingerprint: fingerprint(&extended.fingerprint)?,
            },
            Record::HoldReplayed => Self::HoldReplayed,
            Record::StockAdjusted(adjusted) => Self::StockAdjusted {
                change: adjusted.change,
                reason: Text::parse("reason", &adjusted.reason)?,
                reference: note("reference", adjusted.reference)?,
                actor: Text::parse("actor", &adjusted.actor)?,
                fingerprint: fingerprint(&adjusted.fingerprint)?,
            },
            Record::StockReplayed => Self::StockReplayed,
            Record::SkuConfigured(configured) => Self::SkuConfigured {
                policy: SkuPolicy {
                    safety_stock: configured.safety_stock,
                    max_per_user: configured.max_per_user,
                },
                fingerprint: fingerprint(&configured.fingerprint)?,
            },
            Record::CommandForwarded(forwarded) => Self::CommandForwarded {
                to_lane: forwarded.to_lane,
            },
            Record::OffsetsSkipped => Self::OffsetsSkipped,
            Record::CommandRefused(refused) => Self::CommandRefused {
                reason: reason(&refused.reason)?,
                message: Text::parse("message", &refused.message)?,
            },
            Record::PaymentBegun => Self::PaymentBegun,
            Record::PaymentAborted(aborted) => Self::PaymentAborted {
                reason: Text::parse("reason", &aborted.reason)?,
            },
            Record::HoldShipped(shipped) => Self::HoldShipped {
                reference: Text::parse("reference", &shipped.reference)?,
            },
            Record::HoldUnallocated(unallocated) => Self::HoldUnallocated {
                reason: Text::parse("reason", &unallocated.reason)?,
                actor: Text::parse("actor", &unallocated.actor)?,
            },
            Record::StockReturned(returned) => Self::StockReturned {
                quantity: returned.quantity,
                hold_id: returned.hold_id.as_deref().map(HoldId::parse).transpose()?,
                reason: Text::parse("reason", &returned.reason)?,
                reference: note("reference", returned.reference)?,
                actor: Text::parse("actor", &returned.actor)?,
                fingerprint: fingerprint(&returned.fingerprint)?,
            },
            Record::RefundRequired(required) => Self::RefundRequired {
                payment_ref: Text::parse("payment_ref", &required.payment_ref)?,
                reason: Text::parse("reason", &required.reason)?,
                fingerprint: fingerprint(&required.fingerprint)?,
            },
        })
    }
}
