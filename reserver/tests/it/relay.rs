//! Carts over three lanes, played on the real scripts: random walks through what the model of the relay searches
//! exhaustively (domain/tests/relay). Records come late, twice, in any order or never, and each lane has its own clock.

use std::collections::BTreeMap;

use domain::{CommandBody, HoldId, HoldState, Lane, PartId, PartState, Sku, relay};
use reserver::pack::Rules;

use crate::books::{Books, key, reserve, set, tenant, text};

const LANES: u16 = 3;
/// Ended parts are remembered so shortly that only the relay's deadline keeps them.
const RULES: Rules = Rules {
    remember_ms: 1,
    request_ms: 60_000,
    max_hold_ms: 3_600_000,
    default_ttl_ms: 600_000,
    relay_ms: 10_000,
    lanes: LANES,
};
const UNITS: i64 = 3;
const STEPS: usize = 80;
/// The carts, each with its lanes.
const CARTS: [(&str, &[usize]); 3] = [("all", &[0, 1, 2]), ("upper", &[1, 2]), ("outer", &[0, 2])];

/// A record that was sent from one lane to another.
struct Sent {
    lane: usize,
    body: CommandBody,
    arrived: bool,
}

/// Numbers that look random, and are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// Three lanes, and the records between them.
struct Walk {
    lanes: Vec<Books>,
    skus: Vec<String>,
    sent: Vec<Sent>,
    dice: Dice,
    /// How often each kind of event came.
    seen: BTreeMap<&'static str, usize>,
}

fn number(lane: usize) -> Lane {
    Lane::new(lane as i32).expect("a lane")
}

fn sku_in(lane: usize) -> String {
    let mut names = (0..).map(|number| format!("sku-{number}"));
    names
        .find(|name| Lane::of_sku(&Sku::parse(name).expect("a SKU"), LANES) == number(lane))
        .expect("some number fits")
}

fn hold_id(cart: usize) -> HoldId {
    let (name, lanes) = CARTS[cart];
    HoldId::of(number(lanes[0]), &tenant(), &key(name))
}

impl Walk {
    fn begin(seed: u64) -> Self {
        let mut walk = Self {
            lanes: (0..3).map(|lane| Books::of(number(lane), RULES)).collect(),
            skus: (0..3).map(sku_in).collect(),
            sent: Vec::new(),
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            seen: BTreeMap::new(),
        };
        for lane in 0..3 {
            let stock = set(&walk.skus[lane].clone(), UNITS);
            walk.decide(lane, stock);
        }
        walk
    }

    /// A lane decides; the ledger refuses what contradicts it, and the real relay says what follows.
    fn decide(&mut self, lane: usize, body: CommandBody) {
        let event = self.lanes[lane].one(body);
        *self.seen.entry(event.body.name()).or_default() += 1;
        let forwards = relay::forwards(number(lane), &event).into_iter();
        self.sent.extend(forwards.map(|forward| Sent {
            lane: usize::from(forward.lane.number()),
            body: forward.body,
            arrived: false,
        }));
    }

    /// Something happens.
    fn step(&mut self) {
        let cart = self.dice.below(CARTS.len());
        let (name, lanes) = CARTS[cart];
        let (hold, home) = (hold_id(cart), lanes[0]);
        match self.dice.below(16) {
            0 | 1 => {
                let lines: Vec<(&str, i64)> = lanes.iter().map(|lane| (self.skus[*lane].as_str(), 1)).collect();
                let asked = reserve(name, "ann", &lines, 5_000);
                self.decide(home, asked);
            }
            2 => {
                let lane = self.dice.below(3);
                let asked = reserve("rival", "bob", &[(&self.skus[lane], 1)], 2_000);
                self.decide(lane, asked);
            }
            3 => self.end(home, hold),
            4 => {
                let (lane, jump) = (self.dice.below(3), [1, 500, 4_000, 11_000][self.dice.below(4)]);
                self.lanes[lane].now += jump;
            }
            5 => self.release(home, hold),
            _ => self.arrive_any(),
        }
        self.assert_whole();
    }

    fn end(&mut self, home: usize, hold_id: HoldId) {
        let body = match self.dice.below(3) {
            0 => CommandBody::Confirm {
                hold_id,
                payment_ref: text("payment-1"),
            },
            _ => CommandBody::Cancel {
                hold_id,
                reason: text("changed my mind"),
            },
        };
        self.decide(home, body);
    }

    /// The expirer's command; the lane says whether it is due.
    fn release(&mut self, home: usize, hold_id: HoldId) {
        let known = self.lanes[home].ledger.holds.get(&hold_id);
        let attempt = known.map(|hold| hold.terms.attempt);
        self.decide(home, CommandBody::Release { hold_id, attempt });
    }

    /// One record of those that were ever sent, rather a new one than an old one.
    fn arrive_any(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let recent = self.sent.len().saturating_sub(4);
        let place = match self.dice.below(3) {
            0 => self.dice.below(self.sent.len()),
            _ => recent + self.dice.below(self.sent.len() - recent),
        };
        self.arrive(place);
    }

    fn arrive(&mut self, place: usize) {
        let (lane, body) = (self.sent[place].lane, self.sent[place].body.clone());
        self.sent[place].arrived = true;
        self.lanes[lane].busy = self.dice.below(8) == 0;
        self.decide(lane, body);
        self.lanes[lane].busy = false;
    }

    fn part(&self, lane: usize, part: PartId) -> Option<PartState> {
        let found = self.lanes[lane].ledger.parts.get(&part);
        found.map(|part| part.terms.state)
    }

    /// The carts of all lanes: attempt, state, other lanes.
    fn carts(&self) -> Vec<(PartId, HoldState, Vec<usize>)> {
        let mut carts = Vec::new();
        for books in &self.lanes {
            for (hold_id, hold) in &books.ledger.holds {
                let Some(cart) = &hold.terms.cart else { continue };
                let others = domain::cart::lanes_of(&cart.lines).into_iter();
                let others = others.filter(|lane| *lane != books.lane);
                let part = PartId {
                    hold_id: *hold_id,
                    attempt: hold.terms.attempt,
                };
                let others = others.map(|lane| usize::from(lane.number())).collect();
                carts.push((part, hold.terms.state, others));
            }
        }
        carts
    }

    /// What a home lane has promised, every lane keeps, at every instant.
    fn assert_whole(&self) {
        for (part, state, others) in self.carts() {
            if matches!(state, HoldState::Held | HoldState::Confirmed) {
                for lane in others {
                    let kept = self.part(lane, part);
                    let keeps = matches!(kept, Some(PartState::Held | PartState::Settled));
                    assert!(keeps, "cart {part} is {}, but lane {lane} has {kept:?}", state.name());
                }
            }
        }
    }

    /// All deadlines pass, and what must arrive does.
    fn rest(&mut self) {
        for books in &mut self.lanes {
            books.now += 1_000_000;
        }
        for (cart, (_, lanes)) in CARTS.iter().enumerate() {
            self.release(lanes[0], hold_id(cart));
        }
        for place in 0..self.sent.len() {
            let must_arrive = matches!(self.sent[place].body, CommandBody::Follow { .. });
            if !self.sent[place].arrived && (must_arrive || self.dice.below(2) == 0) {
                self.arrive(place);
            }
        }
        // What came late may have asked for more.
        for place in 0..self.sent.len() {
            if !self.sent[place].arrived {
                self.arrive(place);
            }
        }
    }

    /// Every part is what its home lane decided, no part is kept for nobody, and Redis is the ledger.
    fn assert_at_rest(&self) {
        let carts = self.carts();
        for (part, state, others) in &carts {
            let expected = PartState::under(*state);
            for lane in others {
                let found = self.part(*lane, *part);
                let gone = found.is_none() && expected == Some(PartState::Undone);
                assert!(
                    found == expected || gone,
                    "cart {part} is {}, lane {lane} has {found:?}",
                    state.name()
                );
            }
        }
        for books in &self.lanes {
            for (id, part) in &books.ledger.parts {
                let known = carts.iter().any(|(part, ..)| part == id);
                assert!(
                    known || part.terms.state.is_final(),
                    "{id} is {} for nobody",
                    part.terms.state.name()
                );
            }
            books.assert_agree();
        }
    }
}

#[test]
fn carts_over_three_lanes_are_whole_at_every_step_and_strand_nothing() {
    let walks = if std::env::var_os("HOLDFAST_TEST_FULL").is_some() {
        3_000
    } else {
        60
    };
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..walks {
        let mut walk = Walk::begin(seed);
        let walked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..STEPS {
                walk.step();
            }
            walk.rest();
            walk.assert_at_rest();
        }));
        if let Err(panic) = walked {
            println!("walk {seed}");
            std::panic::resume_unwind(panic);
        }
        for (kind, times) in walk.seen {
            *seen.entry(kind).or_default() += times;
        }
    }
    println!("{seen:?}");
    for kind in [
        "HoldCreated",
        "HoldConfirmed",
        "PartSettled",
        "PartUndone",
        "PartRefused",
        "RelayIgnored",
    ] {
        assert!(seen.contains_key(kind), "no walk has come to a {kind}");
    }
}
