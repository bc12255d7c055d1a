//! What each event has other lanes do: asked once of the real relay (`domain::relay`), by real events.

use domain::{
    Cart, CartLine, CommandBody, Event, EventBody, EventId, Fingerprint, HoldId, HoldState, HoldTerms, Key, Lane,
    PartState, PartStep, PartTerms, Policy, Reason, Sku, Tenant, UserId, relay,
};

use crate::{
    shop::{LANES_MAX, Mutant, Shop, TRIES_MAX, Try},
    world::{Message, Messages},
};

/// Log time of an attempt's deadline.
const RELAY_UNTIL: i64 = 10_000;

/// What a lane says of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The home lane holds its line, and asks the next.
    Pending,
    /// The home lane's decision.
    Decided(HoldState),
    /// A lane holds its line.
    PartHeld,
    /// A lane cannot.
    PartRefused,
    /// A part went where its home lane's decision sends it.
    PartFollowed,
}

impl Said {
    const ALL: [Self; 9] = [
        Self::Pending,
        Self::Decided(HoldState::Held),
        Self::Decided(HoldState::Rejected),
        Self::Decided(HoldState::Confirmed),
        Self::Decided(HoldState::Cancelled),
        Self::Decided(HoldState::Expired),
        Self::PartHeld,
        Self::PartRefused,
        Self::PartFollowed,
    ];

    fn place(self) -> usize {
        let place = Self::ALL.iter().position(|said| *said == self);
        place.expect("all that is said in the model")
    }
}

/// The records of every event that the model knows, by attempt, lane and what is said.
#[derive(Clone, Debug)]
pub struct Forwards([[[Messages; Said::ALL.len()]; LANES_MAX]; TRIES_MAX]);

impl Forwards {
    pub fn of(shop: &Shop, mutant: Mutant) -> Self {
        let mut all = Self([[[Messages::default(); Said::ALL.len()]; LANES_MAX]; TRIES_MAX]);
        for (attempt, tried) in shop.tries.iter().enumerate() {
            // The relay knows one order only: to ask in the other, it is shown the lanes in a mirror.
            let turned = mutant == Mutant::LanesOutOfOrder && attempt == 1;
            let mirror = |lane: u8| if turned { shop.lanes - 1 - lane } else { lane };
            for lane in tried.lanes {
                for said in Said::ALL {
                    let event = event(attempt, tried, *lane, said, mirror);
                    for forward in relay::forwards(number(mirror(*lane)), &event) {
                        let message = message(attempt, &forward, mirror);
                        all.0[attempt][usize::from(*lane)][said.place()].add(message);
                    }
                }
            }
        }
        all
    }

    /// What a lane has others do by what it says of an attempt.
    pub fn by(&self, attempt: usize, lane: u8, said: Said) -> Messages {
        self.0[attempt][usize::from(lane)][said.place()]
    }
}

fn number(lane: u8) -> Lane {
    Lane::new(i32::from(lane)).expect("a small lane")
}

/// The lowest lane of the cart, in the order in which it is asked.
pub fn home(lanes: &[u8], mirror: impl Fn(u8) -> u8) -> u8 {
    let first = lanes.iter().copied().map(&mirror).min();
    mirror(first.expect("a cart has lanes"))
}

/// A real event that says it.
fn event(attempt: usize, tried: &Try, lane: u8, said: Said, mirror: impl Fn(u8) -> u8) -> Event {
    let tenant = Tenant::parse("default").expect("a tenant");
    let key = Key::parse("key", &format!("cart-{}", tried.key)).expect("a key");
    let user = UserId::parse("ann").expect("a user");
    let line = |lane: u8| CartLine {
        lane: number(mirror(lane)),
        sku: Sku::parse(&format!("sku-{lane}")).expect("a SKU"),
        quantity: 1,
    };
    let mut lines: Vec<CartLine> = tried.lanes.iter().copied().map(line).collect();
    lines.sort_by_key(|line| line.lane);
    let reserve = attempt as i64;
    let at_home = |state| HoldTerms {
        attempt: reserve,
        state,
        user_id: user.clone(),
        idempotency_key: key.clone(),
        fingerprint: Fingerprint::from_bytes(&[0; 32]).expect("32 bytes"),
        created_at: 0,
        expires_at: RELAY_UNTIL,
        changed_at: 0,
        policy: Policy::AllOrNothing,
        external_ref: None,
        payment_ref: None,
        reason: None,
        remaining_ms: None,
        cart: Some(Cart {
            relay_until: RELAY_UNTIL,
            ttl_ms: 600_000,
            lines: lines.clone(),
        }),
        asked: Vec::new(),
    };
    let elsewhere = |state| PartTerms {
        attempt: reserve,
        state,
        user_id: Some(user.clone()),
        relay_until: RELAY_UNTIL,
        changed_at: 0,
        cart: lines.clone(),
    };
    let short = Reason::InsufficientStock;
    let (body, hold, part) = match said {
        Said::Pending => (EventBody::HoldPending, Some(at_home(HoldState::Pending)), None),
        Said::Decided(state) => (ending(state), Some(at_home(state)), None),
        Said::PartHeld => (EventBody::PartHeld, None, Some(elsewhere(PartState::Held))),
        Said::PartRefused => {
            let body = EventBody::PartRefused {
                reason: short,
                shortages: Vec::new(),
            };
            (body, None, Some(elsewhere(PartState::Undone)))
        }
        Said::PartFollowed => {
            let body = EventBody::PartFollowed { step: PartStep::Undo };
            (body, None, Some(elsewhere(PartState::Undone)))
        }
    };
    // Only the Reserve's own decision has its offset.
    let command_offset = if said == Said::Pending { reserve } else { 1_000 };
    let home = number(mirror(home(tried.lanes, &mirror)));
    Event {
        event_id: EventId::of(number(mirror(lane)), 0, command_offset),
        request_id: String::new(),
        epoch: 0,
        command_offset,
        previous_command_offset: command_offset - 1,
        command_id: String::new(),
        hold_id: Some(HoldId::of(home, &tenant, &key)),
        tenant,
        decided_at: 0,
        source: None,
        hold,
        part,
        lines: Vec::new(),
        body,
    }
}

fn ending(state: HoldState) -> EventBody {
    match state {
        HoldState::Held => EventBody::HoldCreated,
        HoldState::Rejected => EventBody::HoldRejected {
            reason: Reason::InsufficientStock,
            shortages: Vec::new(),
        },
        HoldState::Confirmed => EventBody::HoldConfirmed,
        HoldState::Cancelled => EventBody::HoldCancelled,
        HoldState::Expired => EventBody::HoldExpired,
        HoldState::Pending | HoldState::Paying | HoldState::Shipped | HoldState::Unallocated => {
            unreachable!("the model does not go there")
        }
    }
}

/// A record of the real relay as one of the model.
fn message(attempt: usize, forward: &relay::Forward, mirror: impl Fn(u8) -> u8) -> Message {
    let to = mirror(u8::try_from(forward.lane.number()).expect("a small lane"));
    let (part, message) = match &forward.body {
        CommandBody::Relay { part, .. } => (part, Message::Relay(to)),
        CommandBody::RelayDone { part } => (part, Message::Done),
        CommandBody::RelayFailed { part, .. } => (part, Message::Failed),
        CommandBody::Follow {
            part,
            step: PartStep::Undo,
            ..
        } => (part, Message::Undo(to)),
        CommandBody::Follow {
            part,
            step: PartStep::Settle,
            ..
        } => (part, Message::Settle(to)),
        other => unreachable!("the model knows no {}", other.name()),
    };
    assert_eq!(
        part.attempt, attempt as i64,
        "a record is about the attempt of its event"
    );
    message
}
