//! What the scripts decide, one story a test.

use domain::{Adjustment, EventBody, Reason, Source};
use redis::Commands as _;
use reserver::{
    pack::{self, Asked, Origin},
    scripts::{Applied, Claimed, LaneRedis, Step},
};

use crate::books::{
    Books, RULES, adjust, cancel, configure, confirm, extend, fingerprint, key, lane, redis_url, release, reserve, set,
};

pub fn refusal(body: &EventBody) -> Option<Reason> {
    match body {
        EventBody::HoldRejected { reason, .. } | EventBody::CommandRefused { reason, .. } => Some(*reason),
        _ => None,
    }
}

#[test]
fn five_units_and_twenty_buyers_make_five_holds() {
    let mut books = Books::new();
    books.one(set("A", 5));
    let entries: Vec<_> = (0..20)
        .map(|buyer| {
            books.entry(reserve(
                &format!("key-{buyer}"),
                &format!("user-{buyer}"),
                &[("A", 1)],
                1_000,
            ))
        })
        .collect();
    let events = books.apply(&entries);
    let created = events
        .iter()
        .filter(|event| event.body == EventBody::HoldCreated)
        .count();
    let sold_out = events
        .iter()
        .filter(|event| refusal(&event.body) == Some(Reason::InsufficientStock))
        .count();
    assert_eq!((created, sold_out), (5, 15));
    books.assert_agree();
}

#[test]
fn a_cart_is_held_whole_or_not_at_all_and_every_short_line_is_named() {
    let mut books = Books::new();
    books.one(set("A", 5));
    books.one(set("B", 1));
    let event = books.one(reserve("cart", "user", &[("A", 6), ("B", 2), ("A", 1)], 1_000));
    let EventBody::HoldRejected {
        reason: Reason::InsufficientStock,
        shortages,
    } = &event.body
    else {
        panic!("{event:?}");
    };
    let named: Vec<_> = shortages
        .iter()
        .map(|short| (short.sku.as_str(), short.requested, short.available))
        .collect();
    assert_eq!(named, [("A", 7, 5), ("B", 2, 1)]);
    assert_eq!(
        books.one(reserve("cart", "user", &[("A", 5), ("B", 1)], 1_000)).body,
        EventBody::HoldCreated
    );
    books.assert_agree();
}

#[test]
fn a_key_gives_the_same_hold_again_and_another_body_is_an_error() {
    let mut books = Books::new();
    books.one(set("A", 5));
    let first = books.one(reserve("key", "user", &[("A", 2)], 1_000));
    let again = books.one(reserve("key", "user", &[("A", 1), ("A", 1)], 1_000));
    assert_eq!(again.body, EventBody::HoldReplayed);
    assert_eq!((first.hold_id, &first.hold), (again.hold_id, &again.hold));
    assert_eq!(
        again.hold.unwrap().fingerprint,
        fingerprint(&reserve("key", "user", &[("A", 2)], 1_000))
    );
    let other = books.one(reserve("key", "user", &[("A", 3)], 1_000));
    assert_eq!(refusal(&other.body), Some(Reason::IdempotencyKeyReused));
    assert_eq!(books.ledger.stock.values().next().unwrap().held, 2);
}

#[test]
fn safety_stock_and_purchase_limits_count_live_and_bought_units() {
    let mut books = Books::new();
    books.one(set("A", 10));
    books.one(configure("A", 4, Some(3)));
    assert_eq!(
        books.one(reserve("a", "ann", &[("A", 2)], 1_000)).body,
        EventBody::HoldCreated
    );
    assert_eq!(books.one(confirm("a")).body, EventBody::HoldConfirmed);
    let over = books.one(reserve("b", "ann", &[("A", 2)], 1_000));
    assert_eq!(refusal(&over.body), Some(Reason::LimitExceeded));
    assert_eq!(
        books.one(reserve("c", "ann", &[("A", 1)], 1_000)).body,
        EventBody::HoldCreated
    );
    assert_eq!(books.one(cancel("c")).body, EventBody::HoldCancelled);
    assert_eq!(
        books.one(reserve("d", "ann", &[("A", 1)], 1_000)).body,
        EventBody::HoldCreated
    );
    assert_eq!(
        books.one(reserve("e", "bob", &[("A", 3)], 1_000)).body,
        EventBody::HoldCreated
    );
    let safe = books.one(reserve("f", "eve", &[("A", 1)], 1_000));
    assert_eq!(
        refusal(&safe.body),
        Some(Reason::InsufficientStock),
        "four units are never sold"
    );
    books.assert_agree();
}

#[test]
fn a_release_before_the_deadline_moves_nothing_and_confirm_wins_after_it() {
    let mut books = Books::new();
    books.one(set("A", 2));
    books.one(reserve("a", "ann", &[("A", 1)], 1_000));
    books.one(reserve("b", "bob", &[("A", 1)], 1_000));
    books.now += 999;
    assert_eq!(refusal(&books.one(release("a")).body), Some(Reason::NotDue));
    books.now += 1;
    assert_eq!(books.one(release("a")).body, EventBody::HoldExpired);
    assert_eq!(refusal(&books.one(confirm("a")).body), Some(Reason::HoldExpired));
    books.now += 5_000;
    assert_eq!(books.one(confirm("b")).body, EventBody::HoldConfirmed);
    assert_eq!(refusal(&books.one(release("b")).body), Some(Reason::AlreadyConfirmed));
    assert_eq!(
        books.one(confirm("b")).body,
        EventBody::HoldReplayed,
        "the same payment again"
    );
    assert_eq!(
        books.one(reserve("c", "eve", &[("A", 1)], 1_000)).body,
        EventBody::HoldCreated
    );
    books.assert_agree();
}

#[test]
fn log_time_never_runs_backwards() {
    let mut books = Books::new();
    books.one(set("A", 1));
    books.now += 10_000;
    let first = books.one(reserve("a", "ann", &[("A", 1)], 1_000));
    books.now -= 5_000;
    let second = books.one(cancel("a"));
    assert_eq!(first.decided_at, second.decided_at);
}

#[test]
fn extend_moves_the_deadline_once_per_command_and_never_past_the_longest_life() {
    let mut books = Books::new();
    books.one(set("A", 1));
    books.one(reserve("a", "ann", &[("A", 1)], 1_000));
    books.now += 500;
    let entry = books.entry_named(key("extend-1"), extend("a", 60_000), None);
    let event = books.apply(&[entry]).remove(0);
    assert!(matches!(event.body, EventBody::HoldExtended { .. }));
    let deadline = event.hold.unwrap().expires_at;
    assert_eq!(deadline, books.now + 60_000);
    books.now += 500;
    let entry = books.entry_named(key("extend-1"), extend("a", 60_000), None);
    let again = books.apply(&[entry]).remove(0);
    assert_eq!(again.body, EventBody::HoldReplayed);
    assert_eq!(again.hold.unwrap().expires_at, deadline);
    let refused = books.one(extend("a", 3_600_000));
    assert_eq!(refusal(&refused.body), Some(Reason::LifetimeExceeded));
    assert_eq!(
        refused.hold.unwrap().expires_at,
        deadline,
        "a refused change never extends"
    );
    books.assert_agree();
}

#[test]
fn an_adjustment_counts_once_per_command_id_and_respects_what_is_committed() {
    let mut books = Books::new();
    for _ in 0..3 {
        let entry = books.entry_named(key("delivery-7"), adjust("A", Adjustment::Change(10), None), None);
        books.apply(&[entry]);
    }
    assert_eq!(books.ledger.stock.values().next().unwrap().on_hand, 10);
    let entry = books.entry_named(key("delivery-7"), adjust("A", Adjustment::Change(11), None), None);
    assert_eq!(
        refusal(&books.apply(&[entry])[0].body),
        Some(Reason::IdempotencyKeyReused)
    );
    books.one(reserve("a", "ann", &[("A", 6)], 1_000));
    assert_eq!(refusal(&books.one(set("A", 5)).body), Some(Reason::StockCommitted));
    assert_eq!(
        refusal(&books.one(adjust("A", Adjustment::Set(7), Some(9))).body),
        Some(Reason::VersionConflict)
    );
    assert!(matches!(
        books.one(adjust("A", Adjustment::Set(7), Some(10))).body,
        EventBody::StockAdjusted { change: -3, .. }
    ));
    assert_eq!(
        refusal(&books.one(adjust("B", Adjustment::Change(-1), None)).body),
        Some(Reason::InvalidRequest)
    );
    assert_eq!(
        refusal(&books.one(adjust("A", Adjustment::Set(1_000_000_000_001), None)).body),
        Some(Reason::InvalidRequest)
    );
    books.assert_agree();
}

#[test]
fn a_forwarded_command_is_applied_once_per_source_and_not_when_it_is_old() {
    let mut books = Books::new();
    books.one(set("A", 5));
    let source = Source {
        topic: "commands".to_owned(),
        partition: 3,
        offset: 9,
        log_time: books.now,
    };
    for turn in 0..2 {
        let entry = books.entry_from(adjust("A", Adjustment::Change(1), None), Some(source.clone()));
        let event = books.apply(&[entry]).remove(0);
        assert_eq!(refusal(&event.body), (turn == 1).then_some(Reason::AlreadyApplied));
    }
    let old = Source {
        offset: 10,
        log_time: books.now - RULES.remember_ms,
        ..source
    };
    let entry = books.entry_from(adjust("A", Adjustment::Change(1), None), Some(old));
    assert_eq!(refusal(&books.apply(&[entry])[0].body), Some(Reason::Stale));
}

#[test]
fn what_was_decided_answers_from_the_journal_byte_for_byte() {
    let mut books = Books::new();
    books.one(set("A", 5));
    let entries: Vec<_> = (0..3)
        .map(|n| books.entry(reserve(&format!("k{n}"), "ann", &[("A", 2)], 1_000)))
        .collect();
    let first = books.apply(&entries);
    let later = books.entry(cancel("k0"));
    let mut again = entries;
    again.push(later);
    let second = books.events(&again);
    assert_eq!(first, second[..3]);
    assert_eq!(second[3].body, EventBody::HoldCancelled);
}

#[test]
fn an_owner_that_was_overtaken_moves_nothing() {
    let mut books = Books::new();
    books.one(set("A", 5));
    let mut newer = LaneRedis::connect(&redis_url(), books.keys.clone()).expect("Redis answers");
    assert!(matches!(
        newer.claim(7, 0, 0, i64::MAX),
        Ok(Claimed::Taken { fence: 0, .. })
    ));
    let entry = books.entry(reserve("a", "ann", &[("A", 1)], 1_000));
    let packed = pack::batch(lane(), &[entry], &[], false, RULES);
    assert!(matches!(books.redis.apply(0, &packed), Ok(Applied::Fenced(7))));
    assert!(matches!(books.redis.claim(5, 0, 0, i64::MAX), Ok(Claimed::Newer(7))));
    assert_eq!(books.redis.begin(5).expect("begin"), Step::Newer(7));
}

#[test]
fn a_lane_that_is_behind_the_log_or_was_left_half_way_is_not_claimed() {
    let mut books = Books::new();
    books.one(set("A", 5));
    let refused = |claimed| matches!(claimed, Ok(Claimed::Refused(_)));
    assert!(
        refused(books.redis.claim(9, 1, 0, i64::MAX)),
        "the log has decided more than Redis"
    );
    assert!(
        refused(books.redis.claim(9, 0, 0, 0)),
        "Redis has decided a command that the log does not have: it belongs to another log"
    );
    assert!(
        refused(books.redis.claim(9, 0, 1, i64::MAX)),
        "the last decision was made by an owner that Redis never saw"
    );
    let mut redis = books.connection();
    let layout: String = redis.hget(books.keys.lane(), "layout").expect("Redis answers");
    let _: () = redis.hset(books.keys.lane(), "layout", "1").expect("Redis answers");
    assert!(
        refused(books.redis.claim(9, 0, 0, i64::MAX)),
        "values that another version wrote are not read"
    );
    let _: () = redis
        .hset_multiple(books.keys.lane(), &[("layout", &*layout), ("building", "1")])
        .expect("Redis answers");
    assert!(refused(books.redis.claim(9, 0, 0, i64::MAX)), "a torn lane");
    let entry = books.entry(cancel("a"));
    let packed = pack::batch(lane(), &[entry], &[], false, RULES);
    assert!(matches!(books.redis.apply(0, &packed), Ok(Applied::Fenced(_))));
}

#[test]
fn a_stock_key_that_its_own_index_names_but_is_missing_damages_the_lane() {
    let mut books = Books::new();
    books.one(set("A", 5));
    let keys = books.keys.generation(0);
    let _: () = books
        .connection()
        .del(keys.stock(&crate::books::tenant(), &crate::books::sku("A")))
        .expect("Redis answers");
    let entry = books.entry(reserve("a", "ann", &[("A", 1)], 1_000));
    let packed = pack::batch(lane(), &[entry], &[], false, RULES);
    assert!(
        matches!(books.redis.apply(0, &packed), Ok(Applied::Damaged(_))),
        "never unknown_sku"
    );
    assert!(
        matches!(books.redis.claim(9, 0, 0, i64::MAX), Ok(Claimed::Refused(_))),
        "it must be rebuilt"
    );
}

#[test]
fn a_batch_that_does_not_follow_the_fence_is_refused() {
    let mut books = Books::new();
    books.one(set("A", 5));
    let mut entry = books.entry(cancel("a"));
    (entry.previous, entry.offset) = (3, 4);
    let packed = pack::batch(lane(), &[entry], &[], false, RULES);
    assert!(matches!(books.redis.apply(0, &packed), Ok(Applied::Gap(0))));
}

/// Found by the simulation: an owner closed a hole at the lane's end in Redis and died before anybody heard of it; then a command
/// came. Nobody could follow that fence, and everybody took the lane as it was: it stood still for ever.
#[test]
fn a_hole_that_was_closed_unheard_damages_the_lane_when_a_command_follows() {
    let mut books = Books::new();
    books.one(set("A", 5));
    let mut hole = books.entry(cancel("a"));
    (hole.previous, hole.offset, hole.asked) = (0, 3, Asked::Skip);
    let packed = pack::batch(lane(), &[hole], &[], false, RULES);
    assert!(matches!(books.redis.apply(0, &packed), Ok(Applied::Outcomes(_))));
    assert!(matches!(
        books.redis.claim(5, 0, 0, i64::MAX),
        Ok(Claimed::Taken { fence: 3, .. })
    ));
    let mut command = books.entry(cancel("a"));
    (command.previous, command.offset) = (0, 4);
    let packed = pack::batch(lane(), &[command], &[], false, RULES);
    assert!(matches!(books.redis.apply(5, &packed), Ok(Applied::Damaged(_))));
    assert!(
        matches!(books.redis.claim(9, 0, 0, i64::MAX), Ok(Claimed::Refused(_))),
        "it must be rebuilt"
    );
}

/// Found by the simulation: as above, but the command came while that owner still decided, and its own decision was not heard of
/// either. What the journal said of it could follow nothing that the log has, and the lane halted for ever.
#[test]
fn a_hole_that_was_closed_unheard_damages_the_lane_when_the_command_after_it_was_decided_too() {
    let mut books = Books::new();
    books.one(set("A", 5));
    let mut hole = books.entry(cancel("a"));
    (hole.previous, hole.offset, hole.asked) = (0, 3, Asked::Skip);
    let mut command = books.entry(cancel("a"));
    (command.previous, command.offset) = (3, 4);
    let hash = command.hash;
    let packed = pack::batch(lane(), &[hole, command], &[], false, RULES);
    assert!(matches!(books.redis.apply(0, &packed), Ok(Applied::Outcomes(_))));
    assert!(matches!(
        books.redis.claim(5, 0, 0, i64::MAX),
        Ok(Claimed::Taken { fence: 4, .. })
    ));
    let mut command = books.entry(cancel("a"));
    (command.previous, command.offset, command.hash) = (0, 4, hash);
    let packed = pack::batch(lane(), &[command], &[], false, RULES);
    assert!(matches!(books.redis.apply(5, &packed), Ok(Applied::Damaged(_))));
    assert!(
        matches!(books.redis.claim(9, 0, 0, i64::MAX), Ok(Claimed::Refused(_))),
        "it must be rebuilt"
    );
}

/// Found by a flush under load: Redis' MessagePack knows no binary type, and holds are binary.
#[test]
fn a_rebuild_writes_values_of_any_bytes() {
    let mut books = Books::new();
    assert_eq!(books.redis.begin(3).expect("begin"), Step::Done);
    let key = books.keys.generation(3).journal();
    let value: Vec<u8> = (0..=255).collect();
    let writes = pack::writes(&[vec![b"SET".to_vec(), key.clone().into_bytes(), value.clone()]]);
    assert_eq!(books.redis.load(3, &writes).expect("load"), Step::Done);
    assert_eq!(
        books.redis.load(2, &writes).expect("load"),
        Step::Newer(3),
        "only under its own epoch"
    );
    assert_eq!(books.redis.finish(3, 9, 77, 0).expect("finish"), Step::Done);
    let found: Vec<u8> = books.connection().get(key).expect("Redis answers");
    assert_eq!(found, value);
    assert!(matches!(
        books.redis.claim(4, 9, 3, i64::MAX),
        Ok(Claimed::Taken {
            fence: 9,
            generation: 3
        })
    ));
    assert_eq!(
        books.redis.load(4, &writes).expect("load"),
        Step::Newer(4),
        "a whole lane takes no chunks"
    );
}

#[test]
fn a_full_redis_refuses_reservations_but_not_releases() {
    let mut books = Books::new();
    books.one(set("A", 5));
    books.one(reserve("a", "ann", &[("A", 1)], 1_000));
    let entries = [
        books.entry(reserve("b", "bob", &[("A", 1)], 1_000)),
        books.entry(cancel("a")),
    ];
    let packed = pack::batch(lane(), &entries, &[], true, RULES);
    let Ok(Applied::Outcomes(outcomes)) = books.redis.apply(0, &packed) else {
        panic!("applied")
    };
    let origin = Origin { lane: lane(), epoch: 0 };
    let event = |index: usize| pack::event(origin, &entries[index], &outcomes[index]).expect("it fits");
    assert_eq!(refusal(&event(0).body), Some(Reason::Busy));
    assert_eq!(event(1).body, EventBody::HoldCancelled);
}

#[test]
fn what_is_old_is_forgotten_and_its_key_may_be_used_again() {
    let mut books = Books::new();
    books.one(set("A", 1));
    books.one(reserve("a", "ann", &[("A", 1)], 1_000));
    books.one(cancel("a"));
    books.now += RULES.remember_ms - 1;
    assert_eq!(
        books.one(reserve("a", "ann", &[("A", 1)], 1_000)).body,
        EventBody::HoldReplayed
    );
    books.now += 1;
    assert_eq!(
        books.one(reserve("a", "ann", &[("A", 1)], 1_000)).body,
        EventBody::HoldCreated
    );
    books.one(cancel("a"));
    books.now += RULES.remember_ms;
    books.one(set("B", 1));
    let keys = books.keys.generation(0);
    let gone: bool = books
        .connection()
        .hexists(keys.holds(), &crate::books::hold_id("a").bytes())
        .expect("Redis answers");
    assert!(!gone, "swept");
}
