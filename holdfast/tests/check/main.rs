//! The checker's own test: a clean life is clean, and each planted corruption is found.

use domain::{
    Event, EventBody, EventId, EventLine, Fingerprint, HoldId, HoldState, HoldTerms, Key, Lane, Policy, Reason, Sku,
    Tenant, Text, UserId,
};
use holdfast::check::{
    Bounds, LaneLog, Log, Promise, SeenCommand, SeenEvent, check,
    history::{Call, Op, Reply},
};

const DAY_MS: i64 = 86_400_000;

/// A lane's life, written down as it happens.
#[derive(Clone)]
struct Life {
    ops: Vec<Op>,
    log: Log,
    bounds: Bounds,
    now_ms: i64,
    counters: (i64, i64, i64, i64),
}

fn text(text: &str) -> Text {
    Text::parse("text", text).expect("legal")
}

fn tenant() -> Tenant {
    Tenant::parse("default").expect("legal")
}

fn hold_id(key: &str) -> HoldId {
    HoldId::of(
        Lane::new(0).expect("legal"),
        &tenant(),
        &Key::parse("key", key).expect("legal"),
    )
}

impl Life {
    fn opened() -> Self {
        let lane = Lane::new(0).expect("legal");
        let mut life = Self {
            ops: Vec::new(),
            log: Log {
                count: 1,
                lanes: vec![LaneLog {
                    lane,
                    commands: Vec::new(),
                    events: Vec::new(),
                }],
            },
            bounds: Bounds {
                healed_ms: DAY_MS,
                read_ms: DAY_MS + 30_000,
            },
            now_ms: DAY_MS,
            counters: (0, 0, 0, 0),
        };
        let opened = EventBody::LaneOpened {
            nonce: uuid::Uuid::nil(),
            owner: text("test"),
        };
        let mut event = life.event("", opened, 0);
        (event.epoch, event.command_offset, event.previous_command_offset) = (-1, -1, -1);
        life.log.lanes[0].events.push(SeenEvent {
            offset: 0,
            at_ms: DAY_MS,
            event,
        });
        life
    }

    fn event(&self, id: &str, body: EventBody, quantity: i64) -> Event {
        let offset = self.log.lanes[0].commands.len() as i64;
        let (on_hand, held, allocated, sku_version) = self.counters;
        Event {
            event_id: EventId::of(Lane::new(0).expect("legal"), 0, offset),
            request_id: id.to_owned(),
            epoch: 0,
            command_offset: offset,
            previous_command_offset: offset - 1,
            command_id: id.to_owned(),
            tenant: tenant(),
            hold_id: None,
            decided_at: self.now_ms,
            source: None,
            hold: None,
            part: None,
            lines: vec![EventLine {
                sku: Sku::parse("mug").expect("legal"),
                quantity,
                counted: 0,
                on_hand,
                held,
                allocated,
                sku_version,
            }],
            body,
        }
    }

    fn decided(&mut self, id: &str, event: Event) {
        let lane = &mut self.log.lanes[0];
        lane.commands.push(SeenCommand {
            offset: event.command_offset,
            at_ms: self.now_ms,
            command_id: Some(id.to_owned()),
        });
        lane.events.push(SeenEvent {
            offset: lane.events.len() as i64,
            at_ms: self.now_ms + 5,
            event,
        });
    }

    fn told(&mut self, call: Call, key: &str, quantity: i64, reply: Reply) {
        let at = (self.now_ms - DAY_MS) * 1_000;
        self.ops.push(Op {
            call,
            key: key.to_owned(),
            sku: "mug".to_owned(),
            quantity,
            user: "ann".to_owned(),
            invoked_us: at,
            returned_us: at + 10_000,
            reply,
        });
        self.now_ms += 100;
    }

    fn adjust(&mut self, key: &str, change: i64) {
        self.counters.0 += change;
        self.counters.3 += 1;
        let body = EventBody::StockAdjusted {
            change,
            reason: text("delivery"),
            reference: None,
            actor: text("test"),
            fingerprint: Fingerprint::from_bytes(&[0; 32]).expect("legal"),
        };
        let event = self.event(key, body, 0);
        self.decided(key, event);
        let hold_id = None;
        self.told(
            Call::Adjust,
            key,
            change,
            Reply::Done {
                hold_id,
                replayed: false,
            },
        );
    }

    fn about_hold(&mut self, call: Call, key: &str, units: i64, body: EventBody, state: HoldState, created: i64) {
        let counted = self.counters.1 + self.counters.2;
        let id = format!("{key}-{}", self.now_ms);
        let mut event = self.event(&id, body.clone(), units);
        event.lines[0].counted = counted;
        event.hold_id = Some(hold_id(key));
        event.hold = Some(HoldTerms {
            attempt: 0,
            state,
            user_id: UserId::parse("ann").expect("legal"),
            idempotency_key: Key::parse("key", key).expect("legal"),
            fingerprint: Fingerprint::from_bytes(&[0; 32]).expect("legal"),
            created_at: created,
            expires_at: created + 1_000,
            changed_at: self.now_ms,
            policy: Policy::AllOrNothing,
            external_ref: None,
            payment_ref: None,
            reason: None,
            remaining_ms: None,
            cart: None,
            asked: Vec::new(),
        });
        self.decided(&id, event);
        let reply = match body {
            EventBody::HoldRejected { reason, .. } => Reply::Refused {
                code: reason.code().to_owned(),
                early: false,
            },
            _ => Reply::Done {
                hold_id: Some(hold_id(key).to_string()),
                replayed: false,
            },
        };
        self.told(call, key, units, reply);
    }

    fn reserve(&mut self, key: &str, units: i64) {
        self.counters.1 += units;
        self.counters.3 += 1;
        let now = self.now_ms;
        self.about_hold(Call::Reserve, key, units, EventBody::HoldCreated, HoldState::Held, now);
    }

    fn sold_out(&mut self, key: &str, units: i64) {
        let body = EventBody::HoldRejected {
            reason: Reason::InsufficientStock,
            shortages: Vec::new(),
        };
        let now = self.now_ms;
        self.about_hold(Call::Reserve, key, units, body, HoldState::Rejected, now);
    }

    fn end(&mut self, call: Call, key: &str, units: i64) {
        self.counters.1 -= units;
        self.counters.3 += 1;
        let (body, state) = match call {
            Call::Confirm => (EventBody::HoldConfirmed, HoldState::Confirmed),
            _ => (EventBody::HoldCancelled, HoldState::Cancelled),
        };
        if call == Call::Confirm {
            self.counters.2 += units;
        }
        let created = self.log.lanes[0]
            .events
            .iter()
            .find(|seen| seen.event.hold_id == Some(hold_id(key)))
            .map_or(0, |seen| seen.event.decided_at);
        self.about_hold(call, key, units, body, state, created);
    }

    /// A shop's morning, in which nothing goes wrong.
    fn clean() -> Self {
        let mut life = Self::opened();
        life.adjust("delivery", 5);
        life.reserve("ann-1", 2);
        life.reserve("ann-2", 1);
        life.sold_out("ann-3", 3);
        life.end(Call::Confirm, "ann-1", 2);
        life.end(Call::Cancel, "ann-2", 1);
        life.reserve("ann-4", 3);
        life
    }

    fn event_mut(&mut self, number: usize) -> &mut Event {
        &mut self.log.lanes[0].events[number].event
    }

    fn found(&self) -> Vec<Promise> {
        let mut found: Vec<_> = check(&self.ops, &self.log, self.bounds)
            .into_iter()
            .map(|violation| violation.promise)
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

#[test]
fn a_clean_life_is_clean() {
    let life = Life::clean();
    assert_eq!(check(&life.ops, &life.log, life.bounds), []);
}

/// A zombie's records are void: they are nobody's fault.
#[test]
fn void_events_are_no_violation() {
    let mut life = Life::clean();
    let mut zombie = life.log.lanes[0].events[2].clone();
    zombie.offset = life.log.lanes[0].events.len() as i64;
    life.log.lanes[0].events.push(zombie);
    assert_eq!(life.found(), []);
}

/// What is corrupted, how, and the promise that must be found broken.
type Corruption = (&'static str, Promise, fn(&mut Life));

/// Events: 1 delivery, 2 ann-1, 3 ann-2, 4 ann-3 sold out, 5 confirm ann-1, 6 cancel ann-2, 7 ann-4. Replies from 0.
const CORRUPTIONS: [Corruption; 22] = [
    ("an event is lost", Promise::OneDecision, |life| {
        life.log.lanes[0].events.remove(4);
        let previous = life.event_mut(3).command_offset;
        life.event_mut(4).previous_command_offset = previous;
    }),
    ("the last event is lost", Promise::Reply, |life| {
        life.log.lanes[0].events.pop();
    }),
    ("a command is never decided", Promise::Decided, |life| {
        life.log.lanes[0].events.pop();
        life.bounds.read_ms += 61_000;
    }),
    ("a command is lost", Promise::OneDecision, |life| {
        life.log.lanes[0].commands.remove(3);
    }),
    ("an event answers another command", Promise::OneDecision, |life| {
        life.event_mut(2).command_id = "somebody".to_owned();
    }),
    ("a request is answered twice", Promise::OneDecision, |life| {
        life.event_mut(7).request_id = life.event_mut(2).request_id.clone();
    }),
    ("a command is skipped", Promise::OneDecision, |life| {
        life.event_mut(4).body = EventBody::OffsetsSkipped;
    }),
    ("a decision comes too late", Promise::Decided, |life| {
        life.log.lanes[0].events[4].at_ms += 61_000;
    }),
    ("more is held than there is", Promise::Books, |life| {
        life.event_mut(7).lines[0].held = 9;
    }),
    ("a bought hold is made again", Promise::OneOutcome, |life| {
        life.reserve("ann-1", 0);
    }),
    ("stock is made of nothing", Promise::Books, |life| {
        let body = &mut life.event_mut(1).body;
        if let EventBody::StockAdjusted { change, .. } = body {
            *change = 4;
        }
    }),
    ("a hold ends twice", Promise::OneEnd, |life| {
        life.event_mut(6).hold_id = Some(hold_id("ann-1"));
    }),
    ("a hold is made twice", Promise::OneOutcome, |life| {
        life.reserve("ann-4", 0);
    }),
    ("log time runs backwards", Promise::Time, |life| {
        life.event_mut(4).decided_at -= 1_000;
    }),
    ("a buyer is told of a hold that is none", Promise::Reply, |life| {
        life.ops[3].reply = Reply::Done {
            hold_id: Some(hold_id("ann-3").to_string()),
            replayed: false,
        };
    }),
    ("a buyer is told no who has a hold", Promise::Reply, |life| {
        life.ops[1].reply = Reply::Refused {
            code: "insufficient_stock".to_owned(),
            early: false,
        };
    }),
    ("a buyer is told of another hold", Promise::OneOutcome, |life| {
        life.ops[1].reply = Reply::Done {
            hold_id: Some(hold_id("ann-2").to_string()),
            replayed: false,
        };
    }),
    ("a hold has other units than were asked for", Promise::Reply, |life| {
        life.ops[1].quantity = 1;
    }),
    (
        "a payment is confirmed that is not in the log",
        Promise::Reply,
        |life| {
            life.ops[5].call = Call::Confirm;
        },
    ),
    ("what came later is decided before", Promise::Order, |life| {
        life.ops[1].invoked_us += 1_000_000;
        life.ops[1].returned_us += 1_000_000;
    }),
    ("what nobody knows of is done twice", Promise::OneDecision, |life| {
        life.adjust("delivery", 5);
        let last = life.log.lanes[0].events.len() - 1;
        life.event_mut(last).request_id = "another".to_owned();
        life.ops.retain(|op| op.key == "delivery");
        life.ops.iter_mut().for_each(|op| op.reply = Reply::Unknown);
    }),
    ("a unit is never given back", Promise::Released, |life| {
        life.bounds.read_ms += 61_000;
    }),
];

#[test]
fn every_planted_corruption_is_found() {
    for (what, promise, corrupt) in CORRUPTIONS {
        let mut life = Life::clean();
        corrupt(&mut life);
        let found = life.found();
        assert!(found.contains(&promise), "{what}: {promise:?} is not among {found:?}");
    }
}

/// An acknowledged record of an upstream service that the log lost, or decides twice.
#[test]
fn an_acknowledged_command_is_decided_once() {
    let mut life = Life::clean();
    let hold_id = None;
    life.told(
        Call::Send,
        "gone",
        1,
        Reply::Done {
            hold_id,
            replayed: false,
        },
    );
    assert_eq!(life.found(), [Promise::OneDecision]);
}
