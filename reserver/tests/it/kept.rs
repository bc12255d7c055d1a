//! What a lane keeps of holds and requests in Redis, beyond what the stories look at.

use domain::{CommandBody, EventBody, Policy};
use redis::Commands as _;
use reserver::{
    pack,
    scripts::{Applied, Claimed},
};
use schemas::keys::stretch_of;

use crate::books::{Books, RULES, cancel, hold_id, lane, reserve, set};

fn with(policy: Policy, body: CommandBody) -> CommandBody {
    match body {
        CommandBody::Reserve(reserve) => CommandBody::Reserve(domain::Reserve { policy, ..reserve }),
        other => panic!("{other:?} is no Reserve"),
    }
}

/// Its key would be free again, and be another hold.
#[test]
fn a_hold_that_is_missing_damages_the_lane_also_after_its_end() {
    for ends in [false, true] {
        let mut books = Books::new();
        books.one(set("A", 5));
        books.one(reserve("a", "ann", &[("A", 1)], 1_000));
        books.one(reserve("b", "bob", &[("A", 1)], 1_000));
        if ends {
            books.one(cancel("a"));
        }
        let holds = books.keys.generation(0).holds();
        let gone: i64 = books
            .connection()
            .hdel(holds, &hold_id("a").bytes())
            .expect("Redis answers");
        assert_eq!(gone, 1);
        let entry = books.entry(reserve("a", "ann", &[("A", 2)], 1_000));
        let packed = pack::batch(lane(), &[entry], &[], false, RULES);
        assert!(matches!(books.redis.apply(0, &packed), Ok(Applied::Damaged(_))));
        let claimed = books.redis.claim(9, 0, 0, i64::MAX);
        assert!(matches!(claimed, Ok(Claimed::Refused(_))), "it must be rebuilt");
    }
}

/// Its lines are then not those of the command, and stand before the terms that came with it.
#[test]
fn a_hold_of_less_than_was_asked_for_is_kept_as_its_event_says() {
    for (policy, held) in [
        (Policy::PerLine, [("A", 2)].as_slice()),
        (Policy::UpTo, &[("A", 2), ("B", 1)]),
    ] {
        let mut books = Books::new();
        books.one(set("A", 5));
        books.one(set("B", 1));
        let asked = || with(policy, reserve("a", "ann", &[("A", 2), ("B", 3)], 1_000));
        let created = books.one(asked());
        assert_eq!(created.body, EventBody::HoldCreated);
        let lines: Vec<(&str, i64)> = created
            .lines
            .iter()
            .map(|line| (line.sku.as_str(), line.quantity))
            .collect();
        assert_eq!(lines, held);
        books.assert_agree();
        assert_eq!(books.one(asked()).body, EventBody::HoldReplayed);
        books.one(cancel("a"));
        books.assert_agree();
    }
}

/// They would never be dropped: apply looks into the last two stretches only.
#[test]
fn requests_of_older_stretches_of_log_time_leave_no_key() {
    let mut books = Books::new();
    books.one(set("A", 1));
    let begun = stretch_of(books.now, RULES.request_ms);
    let stretches = |books: &Books| -> Vec<bool> {
        let keys = books.keys.generation(0);
        (begun..begun + 6)
            .map(|stretch| {
                books
                    .connection()
                    .exists(keys.requests(stretch))
                    .expect("Redis answers")
            })
            .collect()
    };
    books.one(cancel("unknown"));
    assert_eq!(stretches(&books), [true, false, false, false, false, false]);
    // One batch over many stretches: what was refused at its start is too old at its end.
    let mut entries = Vec::new();
    for stretches_on in [1, 3, 1] {
        books.now += stretches_on * RULES.request_ms;
        entries.push(books.entry(cancel("unknown")));
    }
    books.apply(&entries);
    assert_eq!(stretches(&books), [false, false, false, false, true, true]);
    // A lane that was quiet for long drops both.
    books.now += 100 * RULES.request_ms;
    books.one(set("A", 2));
    assert_eq!(stretches(&books), [false; 6]);
}
