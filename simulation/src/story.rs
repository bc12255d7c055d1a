//! The commands of a story: few SKUs with few units, few keys, many commands that meet each other.

use domain::{
    Adjustment, Command, CommandBody, HoldId, Key, Lane, Line, Lines, Policy, Quantity, Reserve, Sku, SkuPolicy,
    Tenant, Text, UserId,
};
use reserver::Options;

use crate::{
    chance::Chance,
    clients::{Planned, home_of},
    state::{BEGIN_MS, Event, MS, Micros, State},
};

/// How the reservers of a story are configured: short times, so that much happens in a short story.
///
/// `batch`: the most commands in one script call; while few fill one, several batches are in flight.
pub(crate) fn options(batch: u16) -> Options {
    Options {
        reserver_postgres_login: None,
        reserver_redis_login: None,
        remember_seconds: 86_400,
        max_hold_seconds: 8,
        hold_ttl_seconds: 3,
        relay_ms: 3_000,
        busy_share: 0.9,
        skip_seconds: 2,
        unknown_schema_seconds: 10,
        reserver_linger_ms: "0".to_owned(),
        reserver_batch: batch,
    }
}

fn text(text: &str) -> Text {
    Text::parse("text", text).expect("short")
}

fn key(text: &str) -> Key {
    Key::parse("key", text).expect("short visible ASCII")
}

/// What the commands of a story are about.
struct Cast {
    lanes: u16,
    skus: Vec<Sku>,
    reserves: Vec<Reserve>,
}

impl Cast {
    fn drawn(chance: &mut Chance, lanes: u16) -> Self {
        let names = ('A'..='Z').map(|name| Sku::parse(&name.to_string()).expect("a letter"));
        let mut skus: Vec<Sku> = Vec::new();
        for lane in Lane::all(lanes) {
            let own = names.clone().filter(|sku| Lane::of_sku(sku, lanes) == lane);
            skus.extend(own.take(if chance.permille(500) { 1 } else { 2 }));
        }
        let keys = 3 + chance.index(10);
        let mut cast = Self {
            lanes,
            skus,
            reserves: Vec::new(),
        };
        for number in 0..keys {
            let reserve = cast.reserve(chance, number);
            cast.reserves.push(reserve);
        }
        cast
    }

    fn reserve(&self, chance: &mut Chance, number: usize) -> Reserve {
        let wanted = if chance.permille(250) { 2 } else { 1 };
        let mut line = || Line {
            sku: self.skus[chance.index(self.skus.len())].clone(),
            quantity: Quantity::parse(if chance.permille(800) { 1 } else { 2 }).expect("few"),
        };
        let lines: Vec<Line> = (0..wanted).map(|_| line()).collect();
        let policy = if chance.permille(850) {
            Policy::AllOrNothing
        } else {
            chance.one_of(&Policy::ALL)
        };
        Reserve {
            idempotency_key: key(&format!("key-{number}")),
            user_id: UserId::parse(&format!("user-{}", chance.below(4))).expect("short"),
            lines: Lines::parse(lines).expect("few"),
            ttl_ms: chance
                .permille(700)
                .then(|| i64::try_from(chance.from(600, 6_000)).expect("short")),
            policy,
            external_ref: None,
        }
    }

    fn hold(&self, chance: &mut Chance) -> HoldId {
        let reserve = &self.reserves[chance.index(self.reserves.len())];
        let home = home_of(&CommandBody::Reserve(reserve.clone()), self.lanes);
        HoldId::of(home, &tenant(), &reserve.idempotency_key)
    }

    fn body(&self, chance: &mut Chance) -> CommandBody {
        let payment_ref = text(&format!("payment-{}", chance.below(2)));
        let hold_id = self.hold(chance);
        let sku = self.skus[chance.index(self.skus.len())].clone();
        let (reason, actor) = (text("reason"), text("actor"));
        match chance.below(100) {
            0..48 => {
                let number = chance.index(self.reserves.len());
                if chance.permille(60) {
                    return CommandBody::Reserve(self.reserve(chance, number));
                }
                CommandBody::Reserve(self.reserves[number].clone())
            }
            48..58 => CommandBody::Confirm { hold_id, payment_ref },
            58..70 => CommandBody::Cancel { hold_id, reason },
            70..75 => CommandBody::Extend {
                hold_id,
                ttl_ms: i64::try_from(chance.from(500, 6_000)).expect("short"),
            },
            75..80 => CommandBody::BeginPayment {
                hold_id,
                payment_ref,
                cap_ms: i64::try_from(chance.from(1_000, 4_000)).expect("short"),
            },
            80..84 => CommandBody::AbortPayment {
                hold_id,
                payment_ref,
                reason,
            },
            84..87 => CommandBody::Release { hold_id, attempt: None },
            87..90 => CommandBody::Ship {
                hold_id,
                reference: text("parcel"),
            },
            90..92 => CommandBody::Unallocate { hold_id, reason, actor },
            92..98 => CommandBody::AdjustStock {
                sku,
                // Sometimes by nothing, which is refused.
                adjustment: Adjustment::Change(i64::try_from(chance.below(5)).expect("few") - 2),
                expected_on_hand: None,
                reason,
                reference: None,
                actor,
            },
            _ => CommandBody::ConfigureSku {
                sku,
                policy: SkuPolicy {
                    safety_stock: i64::try_from(chance.below(2)).expect("few"),
                    max_per_user: chance
                        .permille(500)
                        .then(|| i64::try_from(chance.from(1, 3)).expect("few")),
                },
            },
        }
    }
}

fn tenant() -> Tenant {
    Tenant::parse("default").expect("a legal tenant")
}

/// When commands are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// At any time, some close upon others.
    Any,
    /// Many at once, and then none for a while: whoever decides next decides the same ones.
    Bursts,
    /// In the beginning and in the end.
    Silence,
}

impl State {
    /// Draws the commands of a story and puts their sending on the agenda.
    pub(crate) fn plan_commands(&mut self, until: Micros, pace: Pace) {
        let lanes = u16::try_from(self.lanes).expect("few lanes");
        let cast = Cast::drawn(&mut self.chance, lanes);
        self.clients.writer = self.kafka.new_writer();
        self.clients.skus.clone_from(&cast.skus);
        for number in 0..cast.skus.len() {
            let body = CommandBody::AdjustStock {
                sku: cast.skus[number].clone(),
                adjustment: Adjustment::Set(i64::try_from(self.chance.from(1, 6)).expect("few")),
                expected_on_hand: None,
                reason: text("opening"),
                reference: None,
                actor: text("actor"),
            };
            let at = self.chance.from(0, 100 * MS);
            self.plan(at, &cast, body);
        }
        let wanted = 5 + self.chance.below(36);
        let bursts: Vec<Micros> = (0..2 + self.chance.below(4))
            .map(|_| self.chance.from(0, until))
            .collect();
        let mut last = 0;
        for _ in 0..wanted {
            let body = cast.body(&mut self.chance);
            // Alone, or close upon the one before.
            let at = if self.chance.permille(500) {
                last + self.chance.below(20 * MS)
            } else {
                self.chance.from(0, until)
            };
            last = at.min(until);
            match pace {
                Pace::Any => {}
                Pace::Bursts => last = self.chance.one_of(&bursts) + self.chance.below(3 * MS),
                Pace::Silence if (until / 8..until * 7 / 8).contains(&last) => last = until * 7 / 8,
                Pace::Silence => {}
            }
            self.plan(last, &cast, body);
        }
    }

    fn plan(&mut self, at: Micros, cast: &Cast, body: CommandBody) {
        let number = self.clients.planned.len();
        let mut lane = usize::from(home_of(&body, cast.lanes).number());
        if self.chance.permille(50) {
            lane = self.chance.index(self.lanes);
        }
        let command = Command {
            command_id: key(&format!("command-{number}")),
            request_id: key(&format!("request-{number}")),
            tenant: tenant(),
            issued_at: BEGIN_MS,
            source: None,
            body,
        };
        let value = match self.chance.below(100) {
            0 => Some(b"no record".to_vec()),
            1 if self.chance.permille(300) => None,
            _ => Some(self.codec().encode_command(&command)),
        };
        self.clients.planned.push(Planned {
            lane,
            key: Some(b"key".to_vec()),
            value,
        });
        self.at(at, Event::Send(number));
        // A client that was not answered asks again.
        if self.chance.permille(100) {
            let later = self.chance.latency() * 4;
            self.at(at + later, Event::Send(number));
        }
    }
}
