//! A lane in Redis driven through the scripts alone, with the ledger as its model.

use domain::{
    Adjustment, Command, CommandBody, Event, Fingerprint, HoldId, Key, Lane, Ledger, Line, Lines, Policy, Quantity,
    Reserve, Sku, SkuPolicy, Source, Tenant, Text, UserId, ledger::LedgerHold,
};
use redis::Commands as _;
use reserver::{
    pack::{self, Asked, Entry, Origin, Rules},
    scripts::{Applied, Claimed, LaneRedis, Step},
};
use schemas::{cells, keys::LaneKeys};

pub const RULES: Rules = Rules {
    remember_ms: 100_000,
    request_ms: 60_000,
    max_hold_ms: 3_600_000,
    default_ttl_ms: 600_000,
    relay_ms: 10_000,
    lanes: 1,
};
const FINGERPRINT: fn(&Reserve) -> Fingerprint = Fingerprint::of_reserve;

pub fn redis_url() -> String {
    std::env::var("HOLDFAST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:16379".to_owned())
}

pub fn lane() -> Lane {
    Lane::new(0).expect("lane 0")
}

/// One lane, its owner and its model.
pub struct Books {
    pub lane: Lane,
    pub rules: Rules,
    /// Whether Redis is so full that nothing new is held.
    pub busy: bool,
    pub redis: LaneRedis,
    pub keys: LaneKeys,
    pub epoch: i64,
    pub ledger: Ledger,
    pub previous: i64,
    pub now: i64,
    entries: u64,
}

impl Books {
    /// An empty lane under a prefix of its own, rebuilt from nothing as a first owner does.
    pub fn new() -> Self {
        Self::of(lane(), RULES)
    }

    /// The same of any lane, under other rules.
    pub fn of(lane: Lane, rules: Rules) -> Self {
        let keys = LaneKeys::new(&format!("test-{}", plumbing::id::random()), lane);
        let redis = LaneRedis::connect(&redis_url(), keys.clone()).expect("Redis answers");
        let mut books = Self {
            lane,
            rules,
            busy: false,
            redis,
            keys,
            epoch: 0,
            ledger: Ledger::default(),
            previous: -1,
            now: 1_000,
            entries: 0,
        };
        assert!(matches!(
            books.redis.claim(0, -1, -1, i64::MAX),
            Ok(Claimed::Refused(_))
        ));
        assert_eq!(books.redis.begin(0).expect("begin"), Step::Done);
        assert_eq!(books.redis.finish(0, -1, 0, 0).expect("finish"), Step::Done);
        books
    }

    pub fn entry(&mut self, body: CommandBody) -> Entry {
        self.entry_from(body, None)
    }

    pub fn entry_from(&mut self, body: CommandBody, source: Option<Source>) -> Entry {
        self.entries += 1;
        let id = key(&format!("command-{}", self.entries));
        self.entry_named(id, body, source)
    }

    pub fn entry_named(&mut self, command_id: Key, body: CommandBody, source: Option<Source>) -> Entry {
        let offset = self.previous + 1;
        let entry = Entry {
            offset,
            previous: self.previous,
            timestamp: self.now,
            hash: offset,
            key: None,
            traceparent: None,
            asked: Asked::Command(Box::new(Command {
                request_id: command_id.clone(),
                command_id,
                tenant: tenant(),
                issued_at: 0,
                source,
                body,
            })),
        };
        self.previous = offset;
        entry
    }

    /// Decides a batch and takes its events into the ledger, which refuses what does not follow.
    pub fn apply(&mut self, entries: &[Entry]) -> Vec<Event> {
        let events = self.events(entries);
        for event in &events {
            self.ledger
                .apply(event)
                .unwrap_or_else(|contradiction| panic!("{contradiction}: {event:?}"));
        }
        events
    }

    /// Decides a batch and returns its events.
    pub fn events(&mut self, entries: &[Entry]) -> Vec<Event> {
        let packed = pack::batch(self.lane, entries, &[], self.busy, self.rules);
        let Applied::Outcomes(outcomes) = self.redis.apply(self.epoch, &packed).expect("Redis answers") else {
            panic!("the lane is ours and whole");
        };
        let origin = Origin {
            lane: self.lane,
            epoch: self.epoch,
        };
        entries
            .iter()
            .zip(&outcomes)
            .map(|(entry, outcome)| pack::event(origin, entry, outcome).expect("it fits"))
            .collect()
    }

    pub fn one(&mut self, body: CommandBody) -> Event {
        let entry = self.entry(body);
        self.apply(&[entry]).remove(0)
    }

    /// Every stock hash and hold in Redis is the ledger's.
    pub fn assert_agree(&self) {
        let mut connection = plumbing::redis::client(&redis_url())
            .expect("a URL")
            .get_connection()
            .expect("Redis answers");
        let generation: i64 = connection.hget(self.keys.lane(), "generation").expect("a lane");
        let keys = self.keys.generation(generation);
        for ((tenant, sku), stock) in &self.ledger.stock {
            let fields = connection.hgetall(keys.stock(tenant, sku)).expect("Redis answers");
            assert_eq!(cells::read_stock(&fields).expect("a stock"), *stock, "{sku}");
        }
        for (hold_id, hold) in &self.ledger.holds {
            let bytes: Option<Vec<u8>> = connection.hget(keys.holds(), &hold_id.bytes()).expect("Redis answers");
            let found: Option<LedgerHold> = bytes.map(|bytes| cells::read_hold(&bytes).expect("a hold"));
            if !hold.terms.state.is_final() || found.is_some() {
                assert_eq!(found.as_ref(), Some(hold), "{hold_id}");
            }
            let due: Option<i64> = connection.zscore(keys.due(), &hold_id.bytes()).expect("Redis answers");
            let expected = hold.terms.state.is_live().then_some(hold.terms.expires_at);
            assert_eq!(due, expected, "due of {hold_id}");
        }
        for ((tenant, sku, user_id), units) in &self.ledger.counted {
            let found: i64 = connection
                .hget(keys.limit(tenant, sku), user_id.as_str())
                .expect("Redis answers");
            assert_eq!(found, *units, "{user_id} of {sku}");
        }
    }

    /// All keys of the lane, for tests that damage it.
    pub fn connection(&self) -> redis::Connection {
        plumbing::redis::client(&redis_url())
            .expect("a URL")
            .get_connection()
            .expect("Redis answers")
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        let mut connection = self.connection();
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS")
            .arg(self.keys.pattern())
            .query(&mut connection)
            .unwrap_or_default();
        if !keys.is_empty() {
            let _removed: redis::RedisResult<()> = connection.del(keys);
        }
    }
}

pub fn tenant() -> Tenant {
    Tenant::parse("default").expect("a tenant")
}

pub fn key(text: &str) -> Key {
    Key::parse("key", text).expect("a key")
}

pub fn text(text: &str) -> Text {
    Text::parse("text", text).expect("a text")
}

pub fn sku(name: &str) -> Sku {
    Sku::parse(name).expect("a SKU")
}

pub fn hold_id(name: &str) -> HoldId {
    HoldId::of(lane(), &tenant(), &key(name))
}

pub fn reserve(name: &str, user: &str, lines: &[(&str, i64)], ttl_ms: i64) -> CommandBody {
    let lines = lines
        .iter()
        .map(|(name, units)| Line {
            sku: sku(name),
            quantity: Quantity::parse(*units).expect("a quantity"),
        })
        .collect();
    CommandBody::Reserve(Reserve {
        idempotency_key: key(name),
        user_id: UserId::parse(user).expect("a user"),
        lines: Lines::parse(lines).expect("lines"),
        ttl_ms: Some(ttl_ms),
        policy: Policy::AllOrNothing,
        external_ref: None,
    })
}

pub fn set(name: &str, units: i64) -> CommandBody {
    adjust(name, Adjustment::Set(units), None)
}

pub fn adjust(name: &str, adjustment: Adjustment, expected_on_hand: Option<i64>) -> CommandBody {
    CommandBody::AdjustStock {
        sku: sku(name),
        adjustment,
        expected_on_hand,
        reason: text("test"),
        reference: None,
        actor: text("test"),
    }
}

pub fn configure(name: &str, safety_stock: i64, max_per_user: Option<i64>) -> CommandBody {
    CommandBody::ConfigureSku {
        sku: sku(name),
        policy: SkuPolicy {
            safety_stock,
            max_per_user,
        },
    }
}

pub fn confirm(name: &str) -> CommandBody {
    CommandBody::Confirm {
        hold_id: hold_id(name),
        payment_ref: text("payment-1"),
    }
}

pub fn confirm_by(name: &str, payment: &str) -> CommandBody {
    CommandBody::Confirm {
        hold_id: hold_id(name),
        payment_ref: text(payment),
    }
}

pub fn begin(name: &str, payment: &str, cap_ms: i64) -> CommandBody {
    CommandBody::BeginPayment {
        hold_id: hold_id(name),
        payment_ref: text(payment),
        cap_ms,
    }
}

pub fn abort(name: &str, payment: &str) -> CommandBody {
    CommandBody::AbortPayment {
        hold_id: hold_id(name),
        payment_ref: text(payment),
        reason: text("card declined"),
    }
}

pub fn ship(name: &str) -> CommandBody {
    CommandBody::Ship {
        hold_id: hold_id(name),
        reference: text("parcel-1"),
    }
}

pub fn unallocate(name: &str) -> CommandBody {
    CommandBody::Unallocate {
        hold_id: hold_id(name),
        reason: text("refunded"),
        actor: text("support"),
    }
}

pub fn take_back(name: &str, units: i64) -> CommandBody {
    CommandBody::ReturnStock {
        sku: sku(name),
        quantity: Quantity::parse(units).expect("a quantity"),
        hold_id: None,
        reason: text("too small"),
        reference: None,
        actor: text("warehouse"),
    }
}

pub fn require_refund(name: &str, payment: &str) -> CommandBody {
    CommandBody::RequireRefund {
        hold_id: hold_id(name),
        payment_ref: text(payment),
        reason: text("the hold had expired"),
    }
}

pub fn cancel(name: &str) -> CommandBody {
    CommandBody::Cancel {
        hold_id: hold_id(name),
        reason: text("changed my mind"),
    }
}

pub fn release(name: &str) -> CommandBody {
    CommandBody::Release {
        hold_id: hold_id(name),
        attempt: None,
    }
}

pub fn extend(name: &str, ttl_ms: i64) -> CommandBody {
    CommandBody::Extend {
        hold_id: hold_id(name),
        ttl_ms,
    }
}

/// The fingerprint that a Reserve gets, for tests that compare.
pub fn fingerprint(body: &CommandBody) -> Fingerprint {
    match body {
        CommandBody::Reserve(reserve) => FINGERPRINT(reserve),
        other => panic!("{other:?} has no fingerprint of a Reserve"),
    }
}
