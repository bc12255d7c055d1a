//! Commands <-> their records.

use domain::{
    Adjustment, Command, CommandBody, HoldId, Invalid, Key, Line, Lines, PartStep, Policy, Quantity, Reserve, Sku,
    SkuPolicy, Tenant, Text, UserId, limits,
};

use super::{cart, note, text};
use crate::records::{self, InventoryCommand};

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
            CommandBody::Relay {
                part,
                lane,
                user_id,
                relay_until,
                cart,
            } => Self::Relay(records::Relay {
                hold_id: part.hold_id.to_string(),
                attempt: part.attempt,
                lane: lane.partition(),
                user_id: user_id.to_string(),
                relay_until: *relay_until,
                cart: cart.iter().map(Into::into).collect(),
            }),
            CommandBody::RelayDone { part } => Self::RelayDone(records::RelayDone {
                hold_id: part.hold_id.to_string(),
                attempt: part.attempt,
            }),
            CommandBody::RelayFailed {
                part,
                reason,
                shortages,
            } => Self::RelayFailed(records::RelayFailed {
                hold_id: part.hold_id.to_string(),
                attempt: part.attempt,
                reason: reason.code().to_owned(),
                shortages: shortages.iter().map(Into::into).collect(),
            }),
            CommandBody::Follow {
                part,
                lane,
                relay_until,
                step,
            } => {
                let (hold_id, attempt) = (part.hold_id.to_string(), part.attempt);
                let (lane, relay_until) = (lane.partition(), *relay_until);
                match step {
                    PartStep::Settle => Self::Settle(records::Settle {
                        hold_id,
                        attempt,
                        lane,
                        relay_until,
                    }),
                    PartStep::Undo => Self::Undo(records::Undo {
                        hold_id,
                        attempt,
                        lane,
                        relay_until,
                    }),
                    PartStep::Ship => Self::ShipPart(records::ShipPart {
                        hold_id,
                        attempt,
                        lane,
                        relay_until,
                    }),
                    PartStep::Unallocate => Self::UnallocatePart(records::UnallocatePart {
                        hold_id,
                        attempt,
                        lane,
                        relay_until,
                    }),
                }
            }
            CommandBody::ConfigureSku { sku, policy } => Self::ConfigureSku(records::ConfigureSku {
                sku: sku.to_string(),
                safety_stock: policy.safety_stock,
                max_per_user: policy.max_per_user,
            }),
            CommandBody::BeginPayment {
                hold_id,
                payment_ref,
                cap_ms,
            } => Self::BeginPayment(records::BeginPayment {
                hold_id: hold_id.to_string(),
                payment_ref: payment_ref.to_string(),
                cap_ms: *cap_ms,
            }),
            CommandBody::AbortPayment {
                hold_id,
                payment_ref,
                reason,
            } => Self::AbortPayment(records::AbortPayment {
                hold_id: hold_id.to_string(),
                payment_ref: payment_ref.to_string(),
                reason: reason.to_string(),
            }),
            CommandBody::Ship { hold_id, reference } => Self::Ship(records::Ship {
                hold_id: hold_id.to_string(),
                reference: reference.to_string(),
            }),
            CommandBody::Unallocate { hold_id, reason, actor } => Self::Unallocate(records::Unallocate {
                hold_id: hold_id.to_string(),
                reason: reason.to_string(),
                actor: actor.to_string(),
            }),
            CommandBody::ReturnStock {
                sku,
                quantity,
                hold_id,
                reason,
                reference,
                actor,
            } => Self::ReturnStock(records::ReturnStock {
                sku: sku.to_string(),
                quantity: quantity.units(),
                hold_id: hold_id.map(|hold_id| hold_id.to_string()),
                reason: reason.to_string(),
                reference: text(reference),
                actor: actor.to_string(),
            }),
            CommandBody::RequireRefund {
                hold_id,
                payment_ref,
                reason,
            } => Self::RequireRefund(records::RequireRefund {
                hold_id: hold_id.to_string(),
                payment_ref: payment_ref.to_string(),
                reason: reason.to_string(),
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
            Record::Relay(relay) => Self::Relay {
                part: cart::part(&relay.hold_id, relay.attempt)?,
                lane: cart::lane(relay.lane)?,
                user_id: UserId::parse(&relay.user_id)?,
                relay_until: relay.relay_until,
                cart: cart::lines(relay.cart)?,
            },
            Record::RelayDone(done) => Self::RelayDone {
                part: cart::part(&done.hold_id, done.attempt)?,
            },
            Record::RelayFailed(failed) => Self::RelayFailed {
                part: cart::part(&failed.hold_id, failed.attempt)?,
                reason: cart::reason(&failed.reason)?,
                shortages: cart::shortages(failed.shortages)?,
            },
            Record::Settle(told) => Self::Follow {
                part: cart::part(&told.hold_id, told.attempt)?,
                lane: cart::lane(told.lane)?,
                relay_until: told.relay_until,
                step: PartStep::Settle,
            },
            Record::Undo(told) => Self::Follow {
                part: cart::part(&told.hold_id, told.attempt)?,
                lane: cart::lane(told.lane)?,
                relay_until: told.relay_until,
                step: PartStep::Undo,
            },
            Record::ShipPart(told) => Self::Follow {
                part: cart::part(&told.hold_id, told.attempt)?,
                lane: cart::lane(told.lane)?,
                relay_until: told.relay_until,
                step: PartStep::Ship,
            },
            Record::UnallocatePart(told) => Self::Follow {
                part: cart::part(&told.hold_id, told.attempt)?,
                lane: cart::lane(told.lane)?,
                relay_until: told.relay_until,
                step: PartStep::Unallocate,
            },
            Record::ConfigureSku(configure) => Self::ConfigureSku {
                sku: Sku::parse(&configure.sku)?,
                policy: parse_policy(configure.safety_stock, configure.max_per_user)?,
            },
            Record::BeginPayment(begin) => Self::BeginPayment {
                hold_id: HoldId::parse(&begin.hold_id)?,
                payment_ref: Text::parse_some("payment_ref", &begin.payment_ref)?,
                cap_ms: parse_cap(begin.cap_ms)?,
            },
            Record::AbortPayment(abort) => Self::AbortPayment {
                hold_id: HoldId::parse(&abort.hold_id)?,
                payment_ref: Text::parse_some("payment_ref", &abort.payment_ref)?,
                reason: Text::parse("reason", &abort.reason)?,
            },
            Record::Ship(ship) => Self::Ship {
                hold_id: HoldId::parse(&ship.hold_id)?,
                reference: Text::parse_some("reference", &ship.reference)?,
            },
            Record::Unallocate(unallocate) => Self::Unallocate {
                hold_id: HoldId::parse(&unallocate.hold_id)?,
                reason: Text::parse_some("reason", &unallocate.reason)?,
                actor: Text::parse_some("actor", &unallocate.actor)?,
            },
            Record::ReturnStock(returned) => Self::ReturnStock {
                sku: Sku::parse(&returned.sku)?,
                quantity: Quantity::parse(returned.quantity)?,
                hold_id: returned.hold_id.as_deref().map(HoldId::parse).transpose()?,
                reason: Text::parse_some("reason", &returned.reason)?,
                reference: note("reference", returned.reference)?,
                actor: Text::parse_some("actor", &returned.actor)?,
            },
            Record::RequireRefund(refund) => Self::RequireRefund {
                hold_id: HoldId::parse(&refund.hold_id)?,
                payment_ref: Text::parse_some("payment_ref", &refund.payment_ref)?,
                reason: Text::parse_some("reason", &refund.reason)?,
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

/// Parses the longest time that a payment may take, in milliseconds.
///
/// # Errors
/// [`Invalid`] outside 1 ms to 60 min.
pub fn parse_cap(cap_ms: i64) -> Result<i64, Invalid> {
    if (limits::PAYMENT_CAP_MS_MIN..=limits::PAYMENT_CAP_MS_MAX).contains(&cap_ms) {
        Ok(cap_ms)
    } else {
        Err(Invalid::new("cap_ms", "must be more than 0 and at most 60 minutes"))
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
