//! Records <-> domain: the one place where each becomes the other.

use domain::{
    Adjustment, Command, CommandBody, Event, EventBody, EventId, EventLine, Fingerprint, HoldId, HoldState, HoldTerms,
    Invalid, Key, Line, Lines, Policy, Quantity, Reason, Reserve, Shortage, Sku, SkuPolicy, Source, Tenant, Text,
    UserId, limits,
};
use uuid::Uuid;

use crate::records::{self, InventoryCommand, InventoryEvent};

impl From<&Source> for records::Source {
    fn from(source: &Source) -> Self {
        Self {
            topic: source.topic.clone(),
            partition: source.partition,
            offset: source.offset,
            log_time: source.log_time,
        }
    }
}

impl From<records::Source> for Source {
    fn from(source: records::Source) -> Self {
        Self {
            topic: source.topic,
            partition: source.partition,
            offset: source.offset,
            log_time: source.log_time,
        }
    }
}

impl From<&Command> for InventoryCommand {
    fn from(command: &Command) -> Self {
        Self {
            command_id: command.command_id.to_string(),
            request_id: command.request_id.to_string(),
            tenant: command.tenant.to_string(),
            issued_at: command.issued_at,
            source: command.source.as_ref().map(Into::into),
            body: (&command.body).into(),
        }
    }
}

impl From<&CommandBody> for records::CommandBody {
    fn from(body: &CommandBody) -> Self {
        match body {
            CommandBody::Reserve(reserve) => Self::Reserve(records::Reserve {
                idempotency_key: reserve.idempotency_key.to_string(),
                user_id: reserve.user_id.to_string(),
                lines: reserve
                    .lines
                    .into_iter()
                    .map(|line| records::ReserveLine {
                        sku: line.sku.to_string(),
                        quantity: line.quantity.units(),
                    })
                    .collect(),
                ttl_ms: reserve.ttl_ms,
                policy: reserve.policy.name().to_owned(),
                external_ref: text(&reserve.external_ref),
            }),
            CommandBody::Confirm { hold_id, payment_ref } => Self::Confirm(records::Confirm {
                hold_id: hold_id.to_string(),
                payment_ref: payment_ref.to_string(),
            }),
            CommandBody::Cancel { hold_id, reason } => Self::Cancel(records::Cancel {
                hold_id: hold_id.to_string(),
                reason: reason.to_string(),
            }),
            CommandBody::Extend { hold_id, ttl_ms } => Self::Extend(records::Extend {
                hold_id: hold_id.to_string(),
                ttl_ms: *ttl_ms,
            }),
            CommandBody::Release { hold_id, attempt } => Self::Release(records::Release {
                hold_id: hold_id.to_string(),
                attempt: *attempt,
            }),
            CommandBody::AdjustStock {
                sku,
                adjustment,
                expected_on_hand,
                reason,
                reference,
                actor,
            } => {
                let (change, set) = match adjustment {
                    Adjustment::Change(units) => (Some(*units), None),
                    Adjustment::Set(units) => (None, Some(*units)),
                };
                Self::AdjustStock(records::AdjustStock {
                    sku: sku.to_string(),
                    change,
                    set,
                    expected_on_hand: *expected_on_hand,
                    reason: reason.to_string(),
                    reference: text(reference),
                    actor: actor.to_string(),
                })
            }
            CommandBody::ConfigureSku { sku, policy } => Self::ConfigureSku(records::ConfigureSku {
                sku: sku.to_string(),
                safety_stock: policy.safety_stock,
                max_per_user: policy.max_per_user,
            }),
        }
    }
}

impl TryFrom<InventoryCommand> for Command {
    type Error = Invalid;

    fn try_from(record: InventoryCommand) -> Result<Self, Invalid> {
        Ok(Self {
            command_id: Key::parse("command_id", &record.command_id)?,
            request_id: Key::parse("request_id", &record.request_id)?,
            tenant: Tenant::parse(&record.tenant)?,
            issued_at: record.issued_at,
            source: record.source.map(Into::into),
            body: record.body.try_into()?,
        })
    }
}

impl TryFrom<records::CommandBody> for CommandBody {
    type Error = Invalid;

    fn try_from(body: records::CommandBody) -> Result<Self, Invalid> {
        use records::CommandBody as Record;
        Ok(match body {
            Record::Reserve(reserve) => Self::Reserve(Reserve {
                idempotency_key: Key::parse("idempotency_key", &reserve.idempotency_key)?,
                user_id: UserId::parse(&reserve.user_id)?,
                lines: Lines::parse(reserve.lines.into_iter().map(line).collect::<Result<_, _>>()?)?,
                ttl_ms: reserve.ttl_ms.map(parse_ttl).transpose()?,
                policy: Policy::parse(&reserve.policy)?,
                external_ref: note("external_ref", reserve.external_ref)?,
            }),
            Record::Confirm(confirm) => Self::Confirm {
                hold_id: HoldId::parse(&confirm.hold_id)?,
                payment_ref: Text::parse_some("payment_ref", &confirm.payment_ref)?,
            },
            Record::Cancel(cancel) => Self::Cancel {
                hold_id: HoldId::parse(&cancel.hold_id)?,
                reason: Text::parse("reason", &cancel.reason)?,
            },
            Record::Extend(extend) => Self::Extend {
                hold_id: HoldId::parse(&extend.hold_id)?,
                ttl_ms: parse_ttl(extend.ttl_ms)?,
            },
            Record::Release(release) => Self::Release {
                hold_id: HoldId::parse(&release.hold_id)?,
                attempt: release.attempt,
            },
            Record::AdjustStock(adjust) => Self::AdjustStock {
                sku: Sku::parse(&adjust.sku)?,
                adjustment: parse_adjustment(adjust.change, adjust.set)?,
                expected_on_hand: adjust
                    .expected_on_hand
                    .map(|units| on_hand("expected_on_hand", units))
                    .transpose()?,
                reason: Text::parse_some("reason", &adjust.reason)?,
                reference: note("reference", adjust.reference)?,
                actor: Text::parse_some("actor", &adjust.actor)?,
            },
            Record::ConfigureSku(configure) => Self::ConfigureSku {
                sku: Sku::parse(&configure.sku)?,
                policy: parse_policy(configure.safety_stock, configure.max_per_user)?,
            },
        })
    }
}

/// Parses a time to live in milliseconds.
///
/// # Errors
/// [`Invalid`] outside 1 ms to 60 min.
pub fn parse_ttl(ttl_ms: i64) -> Result<i64, Invalid> {
    if (limits::HOLD_TTL_MS_MIN..=limits::HOLD_TTL_MS_MAX).contains(&ttl_ms) {
        Ok(ttl_ms)
    } else {
        Err(Invalid::new("ttl", "must be more than 0 and at most 60 minutes"))
    }
}

/// Parses an adjustment: exactly one of `change` and `set`.
///
/// # Errors
/// [`Invalid`] for both, for neither, and outside 10^12 units.
pub fn parse_adjustment(change: Option<i64>, set: Option<i64>) -> Result<Adjustment, Invalid> {
    match (change, set) {
        (Some(0), None) => Err(Invalid::new("change", "must not be 0")),
        (Some(units), None) if units.unsigned_abs() <= limits::ON_HAND_MAX.unsigned_abs() => {
            Ok(Adjustment::Change(units))
        }
        (Some(_), None) => Err(Invalid::new("change", "must be within 10^12 units")),
        (None, Some(units)) => on_hand("set", units).map(Adjustment::Set),
        (Some(_), Some(_)) | (None, None) => Err(Invalid::new(
            "change",
            "exactly one of `change` and `set` must be given",
        )),
    }
}

/// Parses a SKU's policy.
///
/// # Errors
/// [`Invalid`] for a negative safety stock or a limit below 1.
pub fn parse_policy(safety_stock: i64, max_per_user: Option<i64>) -> Result<SkuPolicy, Invalid> {
    if max_per_user.is_some_and(|units| !(1..=limits::ON_HAND_MAX).contains(&units)) {
        return Err(Invalid::new(
            "max_per_user",
            "must be at least 1, or absent for no limit",
        ));
    }
    Ok(SkuPolicy {
        safety_stock: on_hand("safety_stock", safety_stock)?,
        max_per_user,
    })
}

fn on_hand(field: &'static str, units: i64) -> Result<i64, Invalid> {
    if (0..=limits::ON_HAND_MAX).contains(&units) {
        Ok(units)
    } else {
        Err(Invalid::new(field, "must be a whole number from 0 to 10^12"))
    }
}

fn line(line: records::ReserveLine) -> Result<Line, Invalid> {
    Ok(Line {
        sku: Sku::parse(&line.sku)?,
        quantity: Quantity::parse(line.quantity)?,
    })
}

fn text(text: &Option<Text>) -> Option<String> {
    text.as_ref().map(ToString::to_string)
}

/// An optional note; an empty one is none.
fn note(field: &'static str, text: Option<String>) -> Result<Option<Text>, Invalid> {
    text.filter(|text| !text.is_empty())
        .map(|text| Text::parse(field, &text))
        .transpose()
}

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
            EventBody::HoldCreated => Self::HoldCreated,
            EventBody::HoldRejected { reason, shortages } => Self::HoldRejected(records::HoldRejected {
                reason: reason.code().to_owned(),
                shortages: shortages
                    .iter()
                    .map(|short| records::Shortage {
                        sku: short.sku.to_string(),
                        requested: short.requested,
                        available: short.available,
                    })
                    .collect(),
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

fn reason(code: &str) -> Result<Reason, Invalid> {
    Reason::from_code(code).ok_or_else(|| Invalid::new("reason", format!("`{code}` is not known to this version")))
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
            Record::HoldCreated => Self::HoldCreated,
            Record::HoldRejected(rejected) => Self::HoldRejected {
                reason: reason(&rejected.reason)?,
                shortages: rejected
                    .shortages
                    .into_iter()
                    .map(|short| {
                        let sku = Sku::parse(&short.sku)?;
                        Ok(Shortage {
                            sku,
                            requested: short.requested,
                            available: short.available,
                        })
                    })
                    .collect::<Result<_, Invalid>>()?,
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
        })
    }
}
