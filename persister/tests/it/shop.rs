//! A reserver of its own, small enough to trust: it decides random commands for one lane and writes the events that a
//! real one would, checked by the ledger as they come.

use domain::{
    Event, EventBody, EventId, EventLine, Fingerprint, HoldId, HoldState, HoldTerms, Key, Lane, Ledger, Policy, Reason,
    Shortage, Sku, SkuPolicy, Source, Stock, Tenant, Text, UserId,
    hold::{Payment, Step},
};
use uuid::Uuid;

pub struct Shop {
    pub lane: Lane,
    pub epoch: i64,
    pub ledger: Ledger,
    pub last: i64,
    pub now: i64,
    pub decided_at: i64,
    pub refunds: i64,
    random: u64,
}

pub fn sku(number: u64) -> Sku {
    Sku::parse(&format!("SKU-{number}")).unwrap()
}

pub fn tenant() -> Tenant {
    Tenant::parse("default").unwrap()
}

fn text(text: &str) -> Text {
    Text::parse("text", text).unwrap()
}

impl Shop {
    pub fn new(lane: i32, seed: u64) -> Self {
        Self {
            lane: Lane::new(lane).unwrap(),
            epoch: -1,
            ledger: Ledger::default(),
            last: -1,
            now: 1_800_000_000_000,
            decided_at: 0,
            refunds: 0,
            random: seed,
        }
    }

    pub fn dice(&mut self, sides: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % sides
    }

    /// A new owner's turn; its epoch is known once it is in the log.
    pub fn opened(&self) -> Event {
        Event {
            command_offset: -1,
            previous_command_offset: -1,
            epoch: -1,
            event_id: EventId::from_uuid(plumbing::id::random()),
            ..self.event(
                EventBody::LaneOpened {
                    nonce: Uuid::nil(),
                    owner: text("shop"),
                },
                vec![],
            )
        }
    }

    fn event(&self, body: EventBody, lines: Vec<EventLine>) -> Event {
        let command_offset = self.last + 1;
        Event {
            event_id: EventId::of(self.lane, self.epoch, command_offset),
            request_id: format!("r{command_offset}"),
            epoch: self.epoch,
            command_offset,
            previous_command_offset: self.last,
            command_id: format!("c{command_offset}"),
            tenant: tenant(),
            hold_id: None,
            decided_at: self.now,
            source: None,
            hold: None,
            part: None,
            lines,
            body,
        }
    }

    fn decide(&mut self, event: Event) -> Event {
        self.ledger.apply(&event).expect("the shop follows the ledger's rules");
        self.last = event.command_offset;
        self.decided_at = event.decided_at;
        event
    }

    fn stock(&self, sku: &Sku) -> Stock {
        self.ledger
            .stock
            .get(&(tenant(), sku.clone()))
            .copied()
            .unwrap_or_default()
    }

    fn counted(&self, sku: &Sku, user: &UserId) -> i64 {
        self.ledger
            .counted
            .get(&(tenant(), sku.clone(), user.clone()))
            .copied()
            .unwrap_or(0)
    }

    fn line(sku: Sku, quantity: i64, counted: i64, stock: Stock) -> EventLine {
        EventLine {
            sku,
            quantity,
            counted,
            on_hand: stock.on_hand,
            held: stock.held,
            allocated: stock.allocated,
            sku_version: stock.version,
        }
    }

    pub fn adjust(&mut self, sku: Sku, change: i64) -> Event {
        let mut stock = self.stock(&sku);
        stock.on_hand += change;
        stock.version += 1;
        let body = EventBody::StockAdjusted {
            change,
            reason: text("delivery"),
            reference: (change % 2 == 0).then(|| text("note-7")),
            actor: text("anna"),
            fingerprint: Fingerprint::from_bytes(&[7; 32]).unwrap(),
        };
        let mut event = self.event(body, vec![Self::line(sku, 0, 0, stock)]);
        if change % 3 == 0 {
            event.source = Some(Source {
                topic: "inventory.commands.v1".to_owned(),
                partition: 9,
                offset: self.last + 100,
                log_time: self.now - 5,
            });
        }
        self.decide(event)
    }

    pub fn configure(&mut self, sku: Sku, policy: SkuPolicy) -> Event {
        let mut stock = self.stock(&sku);
        stock.version += 1;
        let body = EventBody::SkuConfigured {
            policy,
            fingerprint: Fingerprint::from_bytes(&[8; 32]).unwrap(),
        };
        let event = self.event(body, vec![Self::line(sku, 0, 0, stock)]);
        self.decide(event)
    }

    /// A Reserve: held when every line is available, else rejected.
    pub fn reserve(&mut self, key: &str, user: &str, lines: &[(Sku, i64)]) -> Event {
        let key = Key::parse("key", key).unwrap();
        let user_id = UserId::parse(user).unwrap();
        let hold_id = HoldId::of(self.lane, &tenant(), &key);
        let shortages: Vec<Shortage> = lines
            .iter()
            .filter(|(sku, units)| self.stock(sku).available() < *units)
            .map(|(sku, units)| Shortage {
                sku: sku.clone(),
                requested: *units,
                available: self.stock(sku).available(),
                retry: false,
            })
            .collect();
        let rejected = !shortages.is_empty();
        let event_lines = lines
            .iter()
            .map(|(sku, units)| {
                let (mut stock, mut counted) = (self.stock(sku), self.counted(sku, &user_id));
                if !rejected {
                    stock.held += units;
                    stock.version += 1;
                    counted += units;
                }
                Self::line(sku.clone(), *units, counted, stock)
            })
            .collect();
        let body = if rejected {
            EventBody::HoldRejected {
                reason: Reason::InsufficientStock,
                shortages,
            }
        } else {
            EventBody::HoldCreated
        };
        let mut event = self.event(body, event_lines);
        event.hold_id = Some(hold_id);
        event.hold = Some(HoldTerms {
            attempt: event.command_offset,
            state: if rejected { HoldState::Rejected } else { HoldState::Held },
            user_id,
            idempotency_key: key,
            fingerprint: Fingerprint::from_bytes(&[9; 32]).unwrap(),
            created_at: self.now,
            expires_at: self.now + 600_000,
            changed_at: self.now,
            policy: Policy::AllOrNothing,
            external_ref: Some(text("cart, \"quoted\" {1}")),
            payment_ref: None,
            reason: None,
            remaining_ms: None,
            cart: None,
            asked: Vec::new(),
        });
        self.decide(event)
    }

    pub fn take_back(&mut self, sku: Sku, quantity: i64, hold_id: Option<HoldId>) -> Event {
        let mut stock = self.stock(&sku);
        stock.on_hand += quantity;
        stock.version += 1;
        let body = EventBody::StockReturned {
            quantity,
            hold_id,
            reason: text("too small"),
            reference: None,
            actor: text("anna"),
            fingerprint: Fingerprint::from_bytes(&[5; 32]).unwrap(),
        };
        let event = self.event(body, vec![Self::line(sku, 0, 0, stock)]);
        self.decide(event)
    }

    /// Money whose hold the lane does not know.
    pub fn require_refund(&mut self) -> Event {
        let body = EventBody::RefundRequired {
            payment_ref: text("pay-9"),
            reason: text("the hold had expired"),
            fingerprint: Fingerprint::from_bytes(&[4; 32]).unwrap(),
        };
        let mut event = self.event(body, vec![]);
        event.hold_id = Some(HoldId::of(self.lane, &tenant(), &Key::parse("key", "gone").unwrap()));
        self.refunds += 1;
        self.decide(event)
    }

    /// A hold in a state, by the dice.
    fn any(&mut self, state: HoldState) -> Option<HoldId> {
        let holds = self.ledger.holds.iter();
        let mut in_state: Vec<HoldId> = holds
            .filter(|(_, hold)| hold.terms.state == state)
            .map(|(id, _)| *id)
            .collect();
        in_state.sort_unstable();
        let sides = in_state.len() as u64;
        (sides > 0).then(|| in_state[self.dice(sides) as usize])
    }

    /// A step of a hold that can take it.
    pub fn step(&mut self, hold_id: HoldId, step: Step) -> Event {
        let hold = self.ledger.holds[&hold_id].clone();
        let mut terms = hold.terms.clone();
        terms.state = terms.state.step(step, i64::MAX, 0).expect("the hold is held");
        terms.changed_at = self.now;
        let before = hold.terms.remaining_ms;
        terms.remaining_ms = None;
        // On hand, held, allocated, counted.
        let (moves, body) = match step {
            Step::Confirm(_) => {
                terms.payment_ref.get_or_insert(text("pay-1"));
                ([0, -1, 1, 0], EventBody::HoldConfirmed)
            }
            Step::Cancel => {
                terms.reason = Some(text("changed my mind"));
                ([0, -1, 0, -1], EventBody::HoldCancelled)
            }
            Step::Expire => {
                self.now = self.now.max(terms.expires_at);
                terms.changed_at = self.now;
                ([0, -1, 0, -1], EventBody::HoldExpired)
            }
            Step::Extend => {
                terms.expires_at += 60_000;
                let fingerprint = Fingerprint::from_bytes(&[6; 32]).unwrap();
                ([0; 4], EventBody::HoldExtended { fingerprint })
            }
            Step::BeginPayment => {
                terms.payment_ref = Some(text("pay-2"));
                terms.remaining_ms = Some((terms.expires_at - self.now).max(0));
                terms.expires_at = self.now + 30_000;
                ([0; 4], EventBody::PaymentBegun)
            }
            Step::AbortPayment(_) => {
                terms.expires_at = self.now + before.expect("it is paying");
                let reason = text("card declined");
                ([0; 4], EventBody::PaymentAborted { reason })
            }
            Step::Hold | Step::Reject => panic!("the holds of this shop have one lane"),
            Step::Ship => {
                let reference = text("parcel-5");
                ([-1, 0, -1, 0], EventBody::HoldShipped { reference })
            }
            Step::Unallocate => {
                let (reason, actor) = (text("refunded"), text("support"));
                terms.reason = Some(reason.clone());
                ([0, 0, -1, -1], EventBody::HoldUnallocated { reason, actor })
            }
        };
        let lines = hold
            .lines
            .iter()
            .map(|(sku, units)| {
                let (mut stock, counted) = (self.stock(sku), self.counted(sku, &terms.user_id));
                stock.on_hand += moves[0] * units;
                stock.held += moves[1] * units;
                stock.allocated += moves[2] * units;
                stock.version += i64::from(moves != [0; 4]);
                Self::line(sku.clone(), *units, counted + moves[3] * units, stock)
            })
            .collect();
        let mut event = self.event(body, lines);
        event.hold_id = Some(hold_id);
        event.hold = Some(terms);
        self.decide(event)
    }

    pub fn refuse(&mut self) -> Event {
        let body = EventBody::CommandRefused {
            reason: Reason::HoldNotFound,
            message: text("no such hold"),
        };
        let event = self.event(body, vec![]);
        self.decide(event)
    }

    /// The decision on a random command.
    pub fn random(&mut self) -> Event {
        self.now += self.dice(3) as i64 * 1_000;
        let (held, paying) = (self.any(HoldState::Held), self.any(HoldState::Paying));
        let confirmed = self.any(HoldState::Confirmed);
        let one = sku(self.dice(5));
        match (self.dice(20), held.or(paying), paying, confirmed) {
            (0, ..) => {
                let change = 1 + self.dice(20) as i64;
                self.adjust(one, change)
            }
            (1, ..) => {
                let safety_stock = self.dice(3) as i64;
                let policy = SkuPolicy {
                    safety_stock,
                    max_per_user: (safety_stock > 0).then_some(100),
                };
                self.configure(one, policy)
            }
            (2, Some(live), ..) => self.step(live, Step::Confirm(Payment::Same)),
            (3, Some(live), ..) => self.step(live, Step::Expire),
            (4, ..) if held.is_some() => self.step(held.unwrap(), Step::Cancel),
            (5, ..) if held.is_some() => self.step(held.unwrap(), Step::Extend),
            (6 | 7, ..) if held.is_some() => self.step(held.unwrap(), Step::BeginPayment),
            (8, _, Some(paying), _) => self.step(paying, Step::AbortPayment(Payment::Same)),
            (9, _, Some(paying), _) => self.step(paying, Step::Confirm(Payment::Same)),
            (10, _, _, Some(sold)) => self.step(sold, Step::Ship),
            (11, _, _, Some(sold)) => self.step(sold, Step::Unallocate),
            (12, _, _, sold) => self.take_back(one, 2, sold),
            (13, ..) => self.require_refund(),
            (14, ..) => self.refuse(),
            _ => {
                let first = self.dice(5);
                let mut lines = vec![(sku(first), 1 + self.dice(3) as i64)];
                if first < 4 && self.dice(2) == 0 {
                    lines.push((sku(first + 1), 1 + self.dice(2) as i64));
                }
                let (key, user) = (format!("key-{}", self.dice(200)), format!("user-{}", self.dice(6)));
                let hold_id = HoldId::of(self.lane, &tenant(), &Key::parse("key", &key).unwrap());
                match self.ledger.holds.get(&hold_id) {
                    // Its key is in use: a new one.
                    Some(_) => {
                        let key = format!("key-new-{}", self.last);
                        self.reserve(&key, &user, &lines)
                    }
                    None => self.reserve(&key, &user, &lines),
                }
            }
        }
    }
}
