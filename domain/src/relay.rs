//! The relay: what a valid event has other lanes do. Pure, so that whoever reads the log makes the same records of it.
//!
//! A cart passes through its lanes in ascending order, each holding its own lines all or nothing; the last one, or the
//! first that cannot, reports to the home lane, which alone decides. What it decides is then told to all other lanes of
//! the cart, not only to those known to hold: one of them may still be about to.

use crate::{
    cart::{self, CartLine, PartId, PartStep, PartTerms},
    command::CommandBody,
    event::{Event, EventBody, HoldTerms},
    lane::Lane,
    values::UserId,
};

/// A record for another lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Which lane.
    pub lane: Lane,
    /// What it is asked or told.
    pub body: CommandBody,
}

/// What a valid event of `lane` has other lanes do, in ascending order of lane.
#[must_use]
pub fn forwards(lane: Lane, event: &Event) -> Vec<Forward> {
    match &event.body {
        EventBody::HoldPending => match (part_of(event), &event.hold) {
            (
                Some(part),
                Some(HoldTerms {
                    user_id,
                    cart: Some(cart),
                    ..
                }),
            ) => {
                vec![next(lane, part, user_id, cart.relay_until, &cart.lines)]
            }
            _ => Vec::new(),
        },
        EventBody::PartHeld => match (part_of(event), &event.part) {
            (
                Some(part),
                Some(PartTerms {
                    user_id: Some(user_id),
                    relay_until,
                    cart,
                    ..
                }),
            ) => {
                vec![next(lane, part, user_id, *relay_until, cart)]
            }
            _ => Vec::new(),
        },
        EventBody::PartRefused { reason, shortages } => part_of(event)
            .map(|part| Forward {
                lane: part.hold_id.lane(),
                body: CommandBody::RelayFailed {
                    part,
                    reason: *reason,
                    shortages: shortages.clone(),
                },
            })
            .into_iter()
            .collect(),
        // Rejected by its own Reserve, a cart has asked nobody yet.
        EventBody::HoldRejected { .. } if !decides_pending(event) => Vec::new(),
        EventBody::HoldRejected { .. } | EventBody::HoldCancelled | EventBody::HoldExpired => {
            follow(lane, event, PartStep::Undo)
        }
        EventBody::HoldConfirmed => follow(lane, event, PartStep::Settle),
        EventBody::HoldShipped { .. } => follow(lane, event, PartStep::Ship),
        EventBody::HoldUnallocated { .. } => follow(lane, event, PartStep::Unallocate),
        EventBody::LaneOpened { .. }
        | EventBody::HoldCreated
        | EventBody::HoldExtended { .. }
        | EventBody::HoldReplayed
        | EventBody::StockAdjusted { .. }
        | EventBody::StockReplayed
        | EventBody::SkuConfigured { .. }
        | EventBody::PaymentBegun
        | EventBody::PaymentAborted { .. }
        | EventBody::StockReturned { .. }
        | EventBody::RefundRequired { .. }
        | EventBody::PartFollowed { .. }
        | EventBody::RelayIgnored
        | EventBody::CommandForwarded { .. }
        | EventBody::OffsetsSkipped
        | EventBody::CommandRefused { .. } => Vec::new(),
    }
}

/// The attempt that an event is about.
fn part_of(event: &Event) -> Option<PartId> {
    let attempt = match (&event.hold, &event.part) {
        (Some(hold), _) => hold.attempt,
        (None, Some(part)) => part.attempt,
        (None, None) => return None,
    };
    let hold_id = event.hold_id?;
    Some(PartId { hold_id, attempt })
}

/// Whether an event decides a cart that was pending: a later command than its Reserve made it.
#[must_use]
pub fn decides_pending(event: &Event) -> bool {
    event
        .hold
        .as_ref()
        .is_some_and(|terms| terms.cart.is_some() && terms.attempt != event.command_offset)
}

/// To the next lane of the cart, or back to the home lane after the last.
fn next(lane: Lane, part: PartId, user_id: &UserId, relay_until: i64, lines: &[CartLine]) -> Forward {
    match cart::lanes_of(lines).into_iter().find(|other| *other > lane) {
        Some(next) => Forward {
            lane: next,
            body: CommandBody::Relay {
                part,
                lane: next,
                user_id: user_id.clone(),
                relay_until,
                cart: lines.to_vec(),
            },
        },
        None => Forward {
            lane: part.hold_id.lane(),
            body: CommandBody::RelayDone { part },
        },
    }
}

/// To all other lanes of the cart.
fn follow(lane: Lane, event: &Event, step: PartStep) -> Vec<Forward> {
    let (Some(part), Some(HoldTerms { cart: Some(cart), .. })) = (part_of(event), &event.hold) else {
        return Vec::new();
    };
    cart::lanes_of(&cart.lines)
        .into_iter()
        .filter(|other| *other != lane)
        .map(|other| Forward {
            lane: other,
            body: CommandBody::Follow {
                part,
                lane: other,
                relay_until: cart.relay_until,
                step,
            },
        })
        .collect()
}
