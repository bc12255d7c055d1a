//! `apply` on a real Redis against the model of a lane: the same batches, the same events, the same keys.
//!
//! Batches overlap what was decided, leave gaps, come from owners of the past, repeat command ids and sources, and keys
//! are deleted in between. `HOLDFAST_TEST_FULL` plays as many stories as the promise is stated for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::{
    Adjustment, Command, CommandBody, HoldId, Key, Lane, Line, Lines, Policy, Quantity, Reason, RequestMark, Reserve,
    Sku, SkuPolicy, Source, Tenant, UserId,
};
use proptest::prelude::*;
use redis::Commands as _;
use reserver::{
    pack::{self, Asked, Entry, Origin},
    scripts::{Applied, Claimed},
};
use schemas::{cells, keys::stretch_of};

use crate::{
    books::{Books, RULES, key, lane, text},
    model::{Expected, Model},
};

const SKUS: [&str; 3] = ["A", "B", "C"];
const TENANTS: [&str; 2] = ["default", "acme"];

/// What one command asks; small numbers, so that stories meet themselves again.
#[derive(Debug, Clone)]
enum Ask {
    Reserve {
        name: u8,
        user: u8,
        lines: Vec<(u8, u8)>,
        ttl_ms: Option<i64>,
        external: bool,
    },
    Confirm {
        name: u8,
        payment: u8,
    },
    Cancel {
        name: u8,
        reason: u8,
    },
    Release {
        name: u8,
        attempt: Option<i64>,
    },
    Extend {
        name: u8,
        ttl_ms: i64,
    },
    Adjust {
        sku: u8,
        adjustment: Adjustment,
        expected: Option<i64>,
    },
    Configure {
        sku: u8,
        safety: i64,
        max: Option<i64>,
    },
    Sale(Sale, u8, u8),
    TakeBack(u8, i64),
    Misrouted,
    Malformed,
    Skip,
}

/// What may be asked of a hold that is paid for, by its name and a payment.
#[derive(Debug, Clone, Copy)]
enum Sale {
    Begin(i64),
    Abort,
    Ship,
    Unallocate,
    Refund,
}

/// One command, and how it came.
#[derive(Debug, Clone)]
struct Sent {
    ask: Ask,
    tenant: u8,
    /// Command ids come from a small pool, so that some are repeated.
    id: u8,
    /// Which request it is, of a few; a new one mostly.
    request: Option<u8>,
    /// Place and age in milliseconds of the record that it is a copy of.
    source: Option<(u8, i64)>,
    /// Records before it that are not there.
    hole: u8,
    /// Broker timestamps may run backwards.
    jitter_ms: i64,
}

/// One step of a story.
#[derive(Debug, Clone)]
enum Op {
    /// Decide new commands, after so many old ones once more.
    Batch {
        sent: Vec<Sent>,
        again: usize,
        busy: bool,
    },
    /// The next batch lacks its first command.
    Gap(Sent),
    /// So many of the oldest outcomes are read back.
    ReadBack(usize),
    Wait(i64),
    /// Another owner claims the lane; the old one tries once more.
    NewOwner,
    LoseStock(u8),
    LoseHold(u8),
}

fn sale() -> impl Strategy<Value = Sale> {
    prop_oneof![
        4 => prop_oneof![1..5_000i64, Just(3_600_000)].prop_map(Sale::Begin),
        2 => Just(Sale::Abort),
        2 => Just(Sale::Ship),
        1 => Just(Sale::Unallocate),
        1 => Just(Sale::Refund),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let name = 0..8u8;
    let units = prop_oneof![8 => -6..20i64, 1 => Just(1_000_000_000_000), 1 => Just(i64::from(i32::MAX))];
    let adjustment = (any::<bool>(), units).prop_map(|(set, units)| match (set, units) {
        (true, units) => Adjustment::Set(units.max(0)),
        (false, 0) => Adjustment::Change(1),
        (false, units) => Adjustment::Change(units),
    });
    prop_oneof![
        8 => (name.clone(), 0..3u8, prop::collection::vec((0..3u8, 1..4u8), 1..4), prop::option::of(1..3_000i64), prop::bool::weighted(0.1))
            .prop_map(|(name, user, lines, ttl_ms, external)| Ask::Reserve { name, user, lines, ttl_ms, external }),
        3 => (name.clone(), 0..2u8).prop_map(|(name, payment)| Ask::Confirm { name, payment }),
        3 => (name.clone(), 0..2u8).prop_map(|(name, reason)| Ask::Cancel { name, reason }),
        3 => (name.clone(), prop::option::weighted(0.3, 0..40i64)).prop_map(|(name, attempt)| Ask::Release { name, attempt }),
        2 => (name, prop_oneof![1..10_000i64, Just(3_600_000)]).prop_map(|(name, ttl_ms)| Ask::Extend { name, ttl_ms }),
        4 => (0..3u8, adjustment, prop::option::weighted(0.3, 0..20i64))
            .prop_map(|(sku, adjustment, expected)| Ask::Adjust { sku, adjustment, expected }),
        2 => (0..3u8, 0..3i64, prop::option::of(1..6i64)).prop_map(|(sku, safety, max)| Ask::Configure { sku, safety, max }),
        9 => (sale(), 0..8u8, 0..2u8).prop_map(|(sale, name, payment)| Ask::Sale(sale, name, payment)),
        1 => (0..3u8, 1..5i64).prop_map(|(sku, units)| Ask::TakeBack(sku, units)),
        1 => prop_oneof![Just(Ask::Misrouted), Just(Ask::Malformed), Just(Ask::Skip)],
    ]
}

fn sent() -> impl Strategy<Value = Sent> {
    (
        ask(),
        prop_oneof![5 => Just(0u8), 1 => Just(1)],
        0..40u8,
        prop::option::weighted(0.2, 0..8u8),
        prop::option::weighted(0.15, (0..4u8, prop_oneof![3 => 0..50_000i64, 1 => 99_990..100_010i64])),
        prop_oneof![9 => Just(0u8), 1 => 1..4u8],
        prop_oneof![2 => Just(0), 1 => -500..500i64],
    )
        .prop_map(|(ask, tenant, id, request, source, hole, jitter_ms)| Sent {
            ask,
            tenant,
            id,
            request,
            source,
            hole,
            jitter_ms,
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (prop::collection::vec(sent(), 1..9), prop_oneof![2 => Just(0usize), 1 => 1..12usize], prop::bool::weighted(0.05))
            .prop_map(|(sent, again, busy)| Op::Batch { sent, again, busy }),
        1 => sent().prop_map(Op::Gap),
        2 => (1..20usize).prop_map(Op::ReadBack),
        3 => prop_oneof![3 => 1..5_000i64, 1 => 40_000..120_000i64, 1 => Just(RULES.remember_ms)].prop_map(Op::Wait),
        1 => Just(Op::NewOwner),
        1 => prop_oneof![(0..3u8).prop_map(Op::LoseStock), (0..8u8).prop_map(Op::LoseHold)],
    ]
}

fn tenant(number: u8) -> Tenant {
    Tenant::parse(TENANTS[usize::from(number)]).expect("a tenant")
}

fn sku(number: u8) -> Sku {
    Sku::parse(SKUS[usize::from(number)]).expect("a SKU")
}

fn request_of(sent: &Sent, offset: i64) -> String {
    match sent.request {
        Some(number) => format!("request-{number}"),
        None => format!("request-at-{offset}"),
    }
}

fn name_of(number: u8) -> Key {
    key(&format!("key-{number}"))
}

fn sale_of(sale: Sale, hold_id: HoldId, payment: u8) -> CommandBody {
    let payment_ref = text(&format!("payment-{payment}"));
    match sale {
        Sale::Begin(cap_ms) => CommandBody::BeginPayment {
            hold_id,
            payment_ref,
            cap_ms,
        },
        Sale::Abort => CommandBody::AbortPayment {
            hold_id,
            payment_ref,
            reason: text("declined"),
        },
        Sale::Ship => CommandBody::Ship {
            hold_id,
            reference: text("parcel"),
        },
        Sale::Unallocate => CommandBody::Unallocate {
            hold_id,
            reason: text("refunded"),
            actor: text("support"),
        },
        Sale::Refund => CommandBody::RequireRefund {
            hold_id,
            payment_ref,
            reason: text("gone"),
        },
    }
}

/// A story as it is played: the lane in Redis, the model, and all commands so far.
struct Story {
    books: Books,
    model: Model,
    entries: Vec<Entry>,
    trim: Vec<i64>,
    now: i64,
    damaged: bool,
}

impl Story {
    fn new() -> Self {
        Self {
            books: Books::new(),
            model: Model::new(RULES),
            entries: Vec::new(),
            trim: Vec::new(),
            now: 1_000_000,
            damaged: false,
        }
    }

    fn entry(&self, sent: &Sent, after: i64) -> Entry {
        let tenant = tenant(sent.tenant);
        let offset = after + 1 + i64::from(sent.hole);
        let hold_id = |name: u8| HoldId::of(lane(), &tenant, &name_of(name));
        let asked = match &sent.ask {
            Ask::Malformed => Asked::Refused {
                command_id: String::new(),
                request_id: request_of(sent, offset),
                reason: Reason::Malformed,
                message: text("not ours"),
            },
            Ask::Skip => Asked::Skip,
            Ask::Misrouted => {
                let body = crate::books::set("Z", 1);
                Asked::Misrouted(
                    Box::new(self.command(sent, offset, body)),
                    Lane::new(1).expect("lane 1"),
                )
            }
            Ask::Reserve {
                name,
                user,
                lines,
                ttl_ms,
                external,
            } => {
                let line = |(number, units): &(u8, u8)| Line {
                    sku: sku(*number),
                    quantity: Quantity::parse(i64::from(*units)).expect("a quantity"),
                };
                self.asked(
                    sent,
                    offset,
                    CommandBody::Reserve(Reserve {
                        idempotency_key: name_of(*name),
                        user_id: UserId::parse(&format!("user-{user}")).expect("a user"),
                        lines: Lines::parse(lines.iter().map(line).collect()).expect("lines"),
                        ttl_ms: *ttl_ms,
                        policy: Policy::AllOrNothing,
                        external_ref: external.then(|| text("order-7")),
                    }),
                )
            }
            Ask::Confirm { name, payment } => self.asked(
                sent,
                offset,
                CommandBody::Confirm {
                    hold_id: hold_id(*name),
                    payment_ref: text(&format!("payment-{payment}")),
                },
            ),
            Ask::Sale(sale, name, payment) => self.asked(sent, offset, sale_of(*sale, hold_id(*name), *payment)),
            Ask::TakeBack(number, units) => self.asked(
                sent,
                offset,
                crate::books::take_back(SKUS[usize::from(*number)], *units),
            ),
            Ask::Cancel { name, reason } => self.asked(
                sent,
                offset,
                CommandBody::Cancel {
                    hold_id: hold_id(*name),
                    reason: text(&format!("reason-{reason}")),
                },
            ),
            Ask::Release { name, attempt } => self.asked(
                sent,
                offset,
                CommandBody::Release {
                    hold_id: hold_id(*name),
                    attempt: *attempt,
                },
            ),
            Ask::Extend { name, ttl_ms } => self.asked(
                sent,
                offset,
                CommandBody::Extend {
                    hold_id: hold_id(*name),
                    ttl_ms: *ttl_ms,
                },
            ),
            Ask::Adjust {
                sku: number,
                adjustment,
                expected,
            } => self.asked(
                sent,
                offset,
                crate::books::adjust(SKUS[usize::from(*number)], *adjustment, *expected),
            ),
            Ask::Configure {
                sku: number,
                safety,
                max,
            } => self.asked(
                sent,
                offset,
                CommandBody::ConfigureSku {
                    sku: sku(*number),
                    policy: SkuPolicy {
                        safety_stock: *safety,
                        max_per_user: *max,
                    },
                },
            ),
        };
        Entry {
            offset,
            previous: after,
            timestamp: self.now + sent.jitter_ms,
            hash: offset,
            key: None,
            traceparent: None,
            asked,
        }
    }

    fn asked(&self, sent: &Sent, offset: i64, body: CommandBody) -> Asked {
        Asked::Command(Box::new(self.command(sent, offset, body)))
    }

    fn command(&self, sent: &Sent, offset: i64, body: CommandBody) -> Command {
        Command {
            command_id: key(&format!("command-{}", sent.id)),
            request_id: key(&request_of(sent, offset)),
            tenant: tenant(sent.tenant),
            issued_at: 0,
            source: sent.source.map(|(place, age_ms)| Source {
                topic: "commands".to_owned(),
                partition: 3,
                offset: i64::from(place),
                log_time: self.now - age_ms,
            }),
            body,
        }
    }

    fn play(&mut self, op: &Op) {
        match op {
            Op::Wait(ms) => self.now += ms,
            Op::ReadBack(count) => {
                let decided = self.model.journal.keys().take(*count);
                self.trim = decided.copied().collect();
            }
            Op::Batch { sent, again, busy } => {
                let mut from = self.entries.len().saturating_sub(*again);
                if *again < 10 {
                    // Read-back outcomes are gone from the journal; only a few stories ask for them all the same.
                    let kept = self.model.journal.keys().next().copied().unwrap_or(i64::MAX);
                    from = from.max(self.entries.partition_point(|entry| entry.offset < kept));
                }
                let mut after = self.model.fence;
                for sent in sent {
                    let entry = self.entry(sent, after);
                    after = entry.offset;
                    self.entries.push(entry);
                }
                self.apply(from, *busy);
            }
            Op::Gap(sent) => {
                let mut entry = self.entry(sent, self.model.fence + 1);
                entry.previous = self.model.fence + 1;
                self.entries.push(entry);
                self.apply(self.entries.len() - 1, false);
                self.entries.pop();
            }
            Op::NewOwner => {
                let (old, new) = (self.model.epoch, self.model.epoch + 10);
                let claimed = self.books.redis.claim(new, self.model.fence, old, i64::MAX);
                assert!(
                    matches!(claimed, Ok(Claimed::Taken { fence, .. }) if fence == self.model.fence),
                    "{claimed:?}"
                );
                let packed = pack::batch(lane(), &[], &[], false, RULES);
                assert!(matches!(self.books.redis.apply(old, &packed), Ok(Applied::Fenced(epoch)) if epoch == new));
                self.model.epoch = new;
            }
            Op::LoseStock(number) => {
                let (tenant, sku) = (tenant(0), sku(*number));
                let key = (tenant, sku);
                if self.model.stock.contains_key(&key) && self.model.lost_stock.insert(key.clone()) {
                    self.delete(self.books.keys.generation(0).stock(&key.0, &key.1));
                }
            }
            Op::LoseHold(name) => {
                let id = HoldId::of(lane(), &tenant(0), &name_of(*name));
                let held = self.model.holds.get(&id).is_some_and(|hold| hold.terms.state.is_live());
                if held && self.model.lost_holds.insert(id) {
                    let holds = self.books.keys.generation(0).holds();
                    let gone: i64 = self.books.connection().hdel(holds, &id.bytes()).expect("Redis answers");
                    assert_eq!(gone, 1, "{id} was there");
                }
            }
        }
    }

    fn delete(&self, key: String) {
        let gone: i64 = self.books.connection().del(&key).expect("Redis answers");
        assert_eq!(gone, 1, "{key} was there");
    }

    /// Plays a batch on both.
    fn apply(&mut self, from: usize, busy: bool) {
        let batch = &self.entries[from..];
        let trim = std::mem::take(&mut self.trim);
        let packed = pack::batch(lane(), batch, &trim, busy, RULES);
        let expected = self.model.apply(batch, &trim, busy);
        let origin = Origin {
            lane: lane(),
            epoch: self.model.epoch,
        };
        let found = match self
            .books
            .redis
            .apply(self.model.epoch, &packed)
            .expect("Redis answers")
        {
            Applied::Outcomes(outcomes) => Expected::Events(
                batch
                    .iter()
                    .zip(&outcomes)
                    .map(|(entry, outcome)| pack::event(origin, entry, outcome).expect("it fits"))
                    .collect(),
            ),
            Applied::Gap(fence) => {
                assert_eq!(fence, self.model.fence);
                Expected::Gap
            }
            Applied::Damaged(_) => Expected::Damaged,
            Applied::Fenced(epoch) => panic!("fenced by {epoch}"),
        };
        assert_eq!(found, expected, "redis and the model of {batch:#?}");
        if expected == Expected::Damaged {
            let claimed = self.books.redis.claim(i64::MAX / 2, self.model.fence, 0, i64::MAX);
            assert!(matches!(claimed, Ok(Claimed::Refused(_))), "a damaged lane is rebuilt");
            self.damaged = true;
        }
    }

    /// Every key of the lane is the model's, but for what is old and may be forgotten.
    fn assert_same(&self) {
        let mut connection = self.books.connection();
        let keys = self.books.keys.generation(0);
        let lane_key: HashMap<String, String> = connection.hgetall(self.books.keys.lane()).expect("Redis answers");
        if !self.damaged {
            assert_eq!(lane_key["fence"], self.model.fence.to_string());
            assert_eq!(lane_key["log_time"], self.model.log_time.to_string());
            assert!(!lane_key.contains_key("building"));
        }
        let stretch = stretch_of(self.model.log_time, RULES.request_ms);
        let mut expected: BTreeSet<String> = [
            self.books.keys.lane(),
            keys.forget(),
            keys.due(),
            keys.skus(),
            keys.journal(),
            keys.holds(),
            keys.requests(stretch),
            keys.requests(stretch - 1),
        ]
        .into();
        for ((tenant, sku), stock) in &self.model.stock {
            let key = keys.stock(tenant, sku);
            if !self.model.lost_stock.contains(&(tenant.clone(), sku.clone())) {
                let fields: HashMap<String, String> = connection.hgetall(&key).expect("Redis answers");
                assert_eq!(cells::read_stock(&fields).expect("a stock"), *stock, "{key}");
            }
            let named: bool = connection
                .sismember(keys.skus(), format!("{tenant}/{sku}"))
                .expect("Redis answers");
            assert!(named, "{key} is in the index");
            assert!(stock.is_sound(), "{key} {stock:?}");
            expected.insert(key);
            let mut limits: HashMap<String, i64> = connection.hgetall(keys.limit(tenant, sku)).expect("Redis answers");
            for ((of_tenant, of_sku, user), units) in &self.model.counted {
                if (of_tenant, of_sku) == (tenant, sku) {
                    assert_eq!(limits.remove(user.as_str()), Some(*units), "{user} of {sku}");
                }
            }
            assert!(limits.is_empty(), "{limits:?} of {sku}");
            expected.insert(keys.limit(tenant, sku));
        }
        let mut due: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        for (id, hold) in &self.model.holds {
            if hold.terms.state.is_live() {
                due.insert(id.bytes().to_vec(), hold.terms.expires_at);
            }
            let found: Option<Vec<u8>> = connection.hget(keys.holds(), &id.bytes()).expect("Redis answers");
            let found = found.map(|bytes| cells::read_hold(&bytes).expect("a hold"));
            let may_be_gone = self.model.lost_holds.contains(id)
                || hold.terms.state.is_final() && self.model.is_old(hold.terms.changed_at);
            assert!(
                found.as_ref() == Some(hold) || (found.is_none() && may_be_gone),
                "{found:?} is not {hold:?}"
            );
        }
        let held: usize = connection.hlen(keys.holds()).expect("Redis answers");
        assert!(held <= self.model.holds.len(), "holds of nobody");
        let found: Vec<(Vec<u8>, i64)> = connection.zrange_withscores(keys.due(), 0, -1).expect("Redis answers");
        assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), due);
        for ((tenant, id), (fingerprint, at)) in &self.model.commands {
            let found: Option<Vec<u8>> = connection.get(keys.command(tenant, id)).expect("Redis answers");
            let found = found.map(|bytes| cells::read_command(&bytes).expect("a command"));
            let same = found.is_some_and(|found| (found.fingerprint, found.at) == (*fingerprint, *at));
            assert!(same || (found.is_none() && self.model.is_old(*at)), "{id} {found:?}");
            expected.insert(keys.command(tenant, id));
        }
        for (source, at) in &self.model.sources {
            let there: bool = connection.exists(keys.source(source)).expect("Redis answers");
            assert!(there || self.model.is_old(*at), "{source:?}");
            expected.insert(keys.source(source));
        }
        let mut found: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        for stretch in [stretch - 1, stretch] {
            let of_stretch: BTreeMap<Vec<u8>, i64> = connection.hgetall(keys.requests(stretch)).expect("Redis answers");
            found.extend(of_stretch);
        }
        for ((tenant, request), at) in &self.model.requests {
            let mark = RequestMark::of(tenant, request).expect("it names one").bytes();
            let same = found.remove(&mark[..]);
            let old = at + RULES.request_ms <= self.model.log_time;
            assert!(same == Some(*at) || (same.is_none() && old), "{request} {same:?}, {at}");
        }
        assert!(found.is_empty(), "requests that never ended: {found:?}");
        let journal: Vec<i64> = connection.hkeys(keys.journal()).expect("Redis answers");
        let offsets: BTreeSet<i64> = journal.into_iter().collect();
        assert_eq!(offsets, self.model.journal.keys().copied().collect());
        let all: Vec<String> = connection.keys(self.books.keys.pattern()).expect("Redis answers");
        let unknown: Vec<_> = all.iter().filter(|key| !expected.contains(*key)).collect();
        assert!(unknown.is_empty(), "keys of nobody: {unknown:?}");
    }
}

fn play(ops: &[Op]) {
    let mut story = Story::new();
    for op in ops {
        story.play(op);
        if story.damaged {
            break;
        }
    }
    story.assert_same();
}

fn cases() -> u32 {
    if std::env::var_os("HOLDFAST_TEST_FULL").is_some() {
        20_000
    } else {
        2_000
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// I1, I3, I4 in the script itself: it decides what the design says, and keeps what it decided.
    #[test]
    fn the_script_and_the_model_decide_alike(ops in prop::collection::vec(op(), 1..40)) {
        play(&ops);
    }
}
