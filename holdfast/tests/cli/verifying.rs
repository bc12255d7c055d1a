//! `verify` finds what is wrong, says where, and is silent when nothing is.

use domain::{Event, EventBody, EventId, Lane, LaneState, Sku};
use holdfast::verify::{self, Place, Report};
use schemas::keys::LaneKeys;

use crate::world::{World, err, hold_of, holdfast, out, sku_in, tenant, text};

fn says(report: &Report, place: Place, words: &str) {
    let found = report
        .differences
        .iter()
        .any(|difference| difference.place == place && difference.what.contains(words));
    assert!(found, "no {place:?} {words:?} in\n{}", verify::render::text(report));
}

fn says_nothing_of(report: &Report, place: Place) {
    let found = report.differences.iter().find(|difference| difference.place == place);
    assert_eq!(found, None, "\n{}", verify::render::text(report));
}

/// Opens a lane as a new owner; returns the epoch.
async fn open(world: &World, lane: u16) -> i64 {
    let nonce = plumbing::id::random();
    let opened = Event {
        event_id: EventId::from_uuid(nonce),
        request_id: String::new(),
        epoch: -1,
        command_offset: -1,
        previous_command_offset: -1,
        command_id: String::new(),
        tenant: tenant(),
        hold_id: None,
        decided_at: 0,
        source: None,
        hold: None,
        part: None,
        lines: Vec::new(),
        body: EventBody::LaneOpened {
            nonce,
            owner: text("test"),
        },
    };
    world.write_event(lane, &opened).await
}

/// An event like one of before, but deciding another command.
fn like(before: &Event, lane: u16, epoch: i64, command: i64, state: &LaneState) -> Event {
    Event {
        event_id: EventId::of(Lane::new(i32::from(lane)).expect("a lane"), epoch, command),
        epoch,
        command_offset: command,
        previous_command_offset: state.last_command_offset,
        decided_at: state.log_time,
        ..before.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_life_is_clean_for_the_library_and_the_binary() {
    let world = World::lived().await;
    let report = world.verify().await;
    assert!(report.agrees(), "{}", verify::render::text(&report));
    assert_eq!(report.holds()["held"], 1);
    assert_eq!(report.holds()["confirmed"], 1);
    assert_eq!(report.holds()["cancelled"], 1);
    assert_eq!(report.events()["HoldRejected"], 1);
    let verified = world.holdfast(&["verify", "--at-rest"]).await;
    assert_eq!(verified.status.code(), Some(0), "{}{}", out(&verified), err(&verified));
    assert!(out(&verified).contains("✓ the log, Redis and Postgres agree"));
    let verified = world.holdfast(&["verify", "--json"]).await;
    let json: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(json["differences"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversold_event_is_found() {
    let world = World::lived().await;
    let a = sku_in(0, "a");
    let (state, events) = world.fold(0).await;
    let created = events
        .iter()
        .rfind(|event| matches!(event.body, EventBody::HoldCreated))
        .unwrap();
    let command = world.reserve(&a, "one-too-many", 100, 600_000).await;
    let epoch = open(&world, 0).await;
    let mut oversold = like(created, 0, epoch, command, &state);
    let last = events.last().unwrap().lines[0].clone();
    oversold.hold_id = Some(hold_of(&a, "one-too-many"));
    oversold.lines[0].quantity = 100;
    oversold.lines[0].counted = last.counted + 100;
    oversold.lines[0].on_hand = last.on_hand;
    oversold.lines[0].held = last.held + 100;
    oversold.lines[0].allocated = last.allocated;
    oversold.lines[0].sku_version = last.sku_version + 1;
    world.write_event(0, &oversold).await;
    let report = world.verify().await;
    says(&report, Place::Log, "is oversold");
    says(&report, Place::Redis, "behind the log");
    says(&report, Place::Commands, "names another command id");
    says_nothing_of(&report, Place::Postgres); // It stands before that event.
    let verified = world.holdfast(&["verify"]).await;
    assert_eq!(verified.status.code(), Some(1), "{}", out(&verified));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_an_event_is_found() {
    let world = World::lived().await;
    let b = sku_in(1, "b");
    let (state, events) = world.fold(1).await;
    let forgotten = world.stock(&b, 1).await;
    let command = world.reserve(&b, "too-many-again", 50, 600_000).await;
    let epoch = open(&world, 1).await;
    let rejected = events
        .iter()
        .find(|event| matches!(event.body, EventBody::HoldRejected { .. }))
        .unwrap();
    world.write_event(1, &like(rejected, 1, epoch, command, &state)).await;
    let report = world.verify().await;
    says(
        &report,
        Place::Commands,
        &format!("command {forgotten} (AdjustStock) has no valid event"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_on_nothing_is_found() {
    let world = World::lived().await;
    let (state, events) = world.fold(1).await;
    let epoch = open(&world, 1).await;
    let rejected = events
        .iter()
        .find(|event| matches!(event.body, EventBody::HoldRejected { .. }))
        .unwrap();
    let nowhere = state.last_command_offset + 7;
    world.write_event(1, &like(rejected, 1, epoch, nowhere, &state)).await;
    let report = world.verify().await;
    says(&report, Place::Commands, "no readable record");
}

fn redis_keys(world: &World, lane: u16) -> (LaneKeys, schemas::keys::GenerationKeys, redis::Connection) {
    let keys = LaneKeys::new(
        &world.connections.redis_prefix,
        Lane::new(i32::from(lane)).expect("a lane"),
    );
    let mut redis = world.redis();
    let generation: i64 = redis::cmd("HGET")
        .arg(keys.lane())
        .arg("generation")
        .query(&mut redis)
        .expect("the lane is there");
    let generation = keys.generation(generation);
    (keys, generation, redis)
}

fn query(redis: &mut redis::Connection, command: &str, arguments: &[&str]) {
    let changed: i64 = redis::cmd(command).arg(arguments).query(redis).expect("Redis answers");
    assert!(changed != 0, "{command} {arguments:?} changed nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_of_redis_are_found_each() {
    let world = World::lived().await;
    let (a, b) = (sku_in(0, "a"), sku_in(1, "b"));
    let (_, keys, mut redis) = redis_keys(&world, 0);
    query(&mut redis, "HINCRBY", &[&keys.stock(&tenant(), &a), "held", "1"]);
    for (command, key, name) in [("ZREM", keys.due(), "held"), ("HDEL", keys.holds(), "paid")] {
        let hold = hold_of(&a, name).bytes();
        let changed: i64 = redis::cmd(command)
            .arg(&key)
            .arg(&hold)
            .query(&mut redis)
            .expect("Redis answers");
        assert_eq!(changed, 1, "{command} {key}");
    }
    query(&mut redis, "HINCRBY", &[&keys.limit(&tenant(), &a), "ann", "1"]);
    query(&mut redis, "HINCRBY", &[&keys.limit(&tenant(), &a), "bob", "1"]);
    query(&mut redis, "SADD", &[&keys.skus(), "default/never-stocked"]);
    let (_, keys, _) = redis_keys(&world, 1);
    query(&mut redis, "SREM", &[&keys.skus(), &format!("default/{b}")]);
    query(
        &mut redis,
        "RENAMENX",
        &[
            &keys.command(&tenant(), &crate::world::key("c-1")),
            &keys.command(&tenant(), &crate::world::key("c-x")),
        ]
        .map(|key| key.as_str())[..],
    );
    let report = world.verify().await;
    let held = hold_of(&a, "held");
    for words in [
        &format!("stock of default/{a}"),
        &format!("hold {held}: due at None"),
        &format!("hold {}: not in Redis, confirmed in the log", hold_of(&a, "paid")),
        &format!("units of default/{a} that ann has: 6 in Redis, 5 in the log"),
        &format!("units of default/{a} that bob has: 1 in Redis, 0 in the log"),
        "stock of default/never-stocked: is in Redis' set of SKUs, unknown to the log",
        &format!("stock of default/{b}: is missing in Redis' set of SKUs"),
        "command default/c-1: is not remembered in Redis",
        "command default/c-x: was never applied",
    ] {
        says(&report, Place::Redis, words);
    }
    assert_eq!(report.differences.len(), 9, "{}", verify::render::text(&report));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_everything_or_stands_elsewhere_is_found() {
    let world = World::lived().await;
    let (lane, _, mut redis) = redis_keys(&world, 0);
    query(&mut redis, "DEL", &[&lane.lane()]);
    let (lane, _, _) = redis_keys(&world, 1);
    query(&mut redis, "HINCRBY", &[&lane.lane(), "fence", "1"]);
    let report = world.verify().await;
    says(&report, Place::Redis, "does not have the lane");
    says(&report, Place::Redis, "the lane's owner does not publish");
    // Redis is disposable: an owner makes it good again, lane 1 when it meets the command that its journal lacks (I8).
    let roles = world.start();
    world.stock(&sku_in(1, "b"), 1).await;
    world.settle().await;
    roles.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_of_postgres_are_found_each() {
    let world = World::lived().await;
    let a: Sku = sku_in(0, "a");
    let mut postgres = world.postgres().await;
    for change in [
        format!("UPDATE stock SET on_hand = on_hand + 1 WHERE sku = '{a}'"),
        format!("UPDATE holds SET expires_at = expires_at + 1 WHERE hold_id = '{}'", hold_of(&a, "held")),
        "DELETE FROM orders".to_owned(),
        "UPDATE user_limits SET counted = 0".to_owned(),
        "UPDATE lanes SET log_time = log_time + 1 WHERE lane = 1".to_owned(),
        "DELETE FROM processed_events WHERE event_id = (SELECT max(event_id::text)::uuid FROM processed_events WHERE lane = 1)".to_owned(),
        format!("INSERT INTO stock_movements SELECT lane, command_offset + 1000, sku, tenant, event_id, event_offset, kind, 1, 0, 0, \
                 on_hand, held, allocated, version, reason, reference, actor, hold_id, decided_at FROM stock_movements WHERE sku = '{a}' LIMIT 1"),
    ] {
        let changed = sqlx::query(sqlx::AssertSqlSafe(change.as_str())).execute(&mut postgres).await.unwrap();
        assert!(changed.rows_affected() > 0, "{change}");
    }
    let report = world.verify().await;
    for words in [
        format!("stock of default/{a}"),
        format!("hold {}", hold_of(&a, "held")),
        format!("hold {} was confirmed and has no order", hold_of(&a, "paid")),
        format!("units of default/{a} that ann has"),
        "the lane's state at event".to_owned(),
        "processed events in Postgres".to_owned(),
        format!("movements of default/{a} add up to"),
    ] {
        says(&report, Place::Postgres, &words);
    }
    says_nothing_of(&report, Place::Redis);
    says_nothing_of(&report, Place::Log);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_decided_is_not_at_rest_and_what_does_not_answer_is_not_known() {
    let world = World::lived().await;
    world.stock(&sku_in(0, "a"), 1).await;
    let live = world.holdfast(&["verify"]).await;
    assert_eq!(live.status.code(), Some(0), "{}", out(&live));
    let rest = world.holdfast(&["verify", "--at-rest", "--timeout", "1"]).await;
    assert_eq!(rest.status.code(), Some(1), "{}", out(&rest));
    assert!(out(&rest).contains("is not decided"), "{}", out(&rest));
    let mut without_redis = world.connections.clone();
    without_redis.redis_url = "redis://127.0.0.1:1".into();
    let blind = holdfast(&without_redis, &["verify"]).await;
    assert_eq!(blind.status.code(), Some(2), "{}", out(&blind));
    assert!(err(&blind).contains("Redis does not answer"), "{}", err(&blind));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_beginning_is_gone_is_folded_from_the_checkpoint() {
    let world = World::lived().await;
    let events = world.topics.events.clone();
    let commands = world.topics.commands.clone();
    world
        .expire_records(&[(&events, 0, 3), (&commands, 0, 2), (&commands, 1, 1)])
        .await;
    let report = world.verify().await;
    assert!(report.agrees(), "{}", verify::render::text(&report));
    let notes = report.notes.join("\n");
    assert!(notes.contains("lane 0: the log begins at event 3"), "{notes}");
    assert!(notes.contains("lane 1: commands before offset 1 are gone"), "{notes}");
    // What Redis has is still compared, and what the checkpoint does not know is still found.
    let a = sku_in(0, "a");
    let (_, keys, mut redis) = redis_keys(&world, 0);
    query(&mut redis, "HINCRBY", &[&keys.stock(&tenant(), &a), "held", "1"]);
    says(&world.verify().await, Place::Redis, &format!("stock of default/{a}"));
    let tail = world
        .holdfast(&["tail", "--from-beginning", "--no-follow", "--lane", "0"])
        .await;
    assert!(tail.status.success(), "{}", err(&tail));
    assert!(err(&tail).contains("the log begins at event 3"), "{}", err(&tail));
    let lanes = world.holdfast(&["lanes"]).await;
    assert!(lanes.status.success(), "{}", err(&lanes));
    let shown = world.holdfast(&["show", &hold_of(&a, "paid").to_string()]).await;
    assert!(out(&shown).contains("HoldConfirmed"), "{}{}", out(&shown), err(&shown));
    assert!(!out(&shown).contains("void"), "{}", out(&shown));
}
