//! `holdfast rebuild`: lanes restored from Postgres and the log, proved equal; and where the logs contradict what was decided, a
//! halt with a message instead of a guess.

use std::time::Instant;

use domain::Lane;
use plumbing::{config::Connections, kafka::consumer};
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{CommitMode, Consumer as _},
};
use schemas::{Topics, keys::LaneKeys};
use sqlx::Connection as _;

use crate::{
    crash::flush,
    wire::{Wire, lane, reserving},
    world::{Setup, World, play, times},
};

/// A postgres URL where nobody listens.
const NOWHERE: &str = "postgres://holdfast:holdfast@127.0.0.1:9/nothing";

/// A world that has sold something in lane 1, and whose roles have ended.
pub async fn sold() -> World {
    let world = Setup::new().start().await;
    let sku = world.sku_in(lane(1), "rebuilt");
    world.stock(&sku, 50).await;
    for number in 0..20 {
        let held = world.reserve(&format!("rebuilt-{number}"), &sku, 1, "ann").await;
        assert_eq!(held.status, 201, "{held:?}");
        match number % 4 {
            0 => assert_eq!(world.confirm(&held.hold_id()).await.status, 200),
            1 => assert_eq!(world.cancel(&held.hold_id()).await.status, 200),
            _ => {}
        }
    }
    let refused = world.reserve("rebuilt-too-many", &sku, 100, "ann").await;
    assert_eq!(refused.status, 409, "{refused:?}");
    world.assert_verified().await;
    world.signal("all", "TERM").await;
    assert_eq!(world.wait("all").await, 0);
    world
}

pub fn redis(connections: &Connections) -> redis::Connection {
    let client = plumbing::redis::client(connections.redis_url.expose()).expect("a URL");
    client.get_connection().expect("Redis answers")
}

pub fn admin(world: &World) -> AdminClient<DefaultClientContext> {
    let client = plumbing::kafka::client::admin(&world.connections.kafka_brokers, "test");
    client.create().expect("an admin")
}

/// Deletes a topic and makes it anew, empty.
async fn make_anew(world: &World, topic: &str, clock: &str) {
    let (admin, options) = (admin(world), AdminOptions::new());
    admin.delete_topics(&[topic], &options).await.expect("deleted");
    world
        .eventually("the topic is made anew", async || {
            let new = NewTopic::new(topic, i32::from(world.lanes), TopicReplication::Fixed(1))
                .set("message.timestamp.type", clock);
            match admin.create_topics([&new], &options).await.as_deref() {
                Ok([Ok(_)]) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
}

/// Deletes the records of lane 1 before an offset.
pub async fn delete_before(world: &World, topic: &str, offset: i64) {
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(topic, 1, Offset::Offset(offset))
        .expect("an offset");
    let deleted = admin(world).delete_records(&before, &AdminOptions::new()).await;
    deleted.expect("deleted");
}

/// Runs `holdfast rebuild 1` and returns its exit code and what it printed.
async fn rebuild(world: &World, more: &[&str]) -> (i32, String) {
    let (code, out, error) = world.run(&[&["rebuild", "1"], more].concat()).await;
    (code, out + &error)
}

/// It must not go on: exit code 1, and the message says what is wrong.
async fn halts(world: &World, because: &[&str]) {
    let (code, text) = rebuild(world, &[]).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("lane 1: halted: "), "{text}");
    for words in because {
        assert!(text.contains(words), "no {words:?} in: {text}");
    }
}

#[test]
fn a_lost_lane_is_rebuilt_on_command_from_postgres_or_from_the_log_alone() {
    play(async {
        let world = sold().await;
        for more in [&[][..], &["--postgres-url", NOWHERE]] {
            flush(&world);
            let (code, text) = rebuild(&world, more).await;
            assert_eq!(code, 0, "{text}");
            assert!(
                text.contains("lane 1: rebuilt with 20 holds") && text.contains("proved"),
                "{text}"
            );
        }
        // Where the log does not reach back and Postgres is away, nobody guesses.
        let topics = Topics::with_prefix(&world.connections.topic_prefix);
        delete_before(&world, &topics.events, 3).await;
        let (code, text) = rebuild(&world, &["--postgres-url", NOWHERE]).await;
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("Postgres does not"), "{text}");
        let (code, text) = rebuild(&world, &[]).await;
        assert_eq!(code, 0, "{text}");
        world.spawn("all").await;
        world.ready().await;
        world.assert_verified().await;
    });
}

/// An upgrade whose keys or values are laid out in another way needs nobody's help.
#[test]
fn a_lane_that_another_version_laid_out_is_rebuilt_by_its_next_owner() {
    play(async {
        let world = sold().await;
        let key = LaneKeys::new(&world.connections.redis_prefix, lane(1)).lane();
        let mut redis = redis(&world.connections);
        let mut ask = |words: &[&str]| -> Option<String> {
            let (command, rest) = words.split_first().expect("a command");
            redis::cmd(command)
                .arg(&key)
                .arg(rest)
                .query(&mut redis)
                .expect("Redis answers")
        };
        let before = ask(&["HGET", "generation"]).expect("a generation");
        let layout = ask(&["HGET", "layout"]).expect("a layout");
        ask(&["HSET", "layout", "1"]);
        world.spawn("all").await;
        world.ready().await;
        let again = world
            .reserve("rebuilt-2", &world.sku_in(lane(1), "rebuilt"), 1, "ann")
            .await;
        assert_eq!(again.status, 200, "the hold is known: {again:?}");
        assert_eq!(ask(&["HGET", "layout"]), Some(layout));
        assert_ne!(ask(&["HGET", "generation"]), Some(before));
        world.assert_verified().await;
    });
}

#[test]
fn a_lane_rebuilt_under_load_goes_on_and_a_proof_finds_what_is_wrong() {
    play(async {
        let world = Setup::new().start().await;
        let (sku, wire) = (world.sku_in(lane(1), "busy"), Wire::of(&world).await);
        world.stock(&sku, 10_000).await;
        for number in 0..200 {
            wire.write_command(lane(1), &reserving(&format!("busy-{number}"), &sku, 1, "ann"))
                .await;
        }
        let (code, text) = rebuild(&world, &[]).await;
        assert_eq!(code, 0, "{text}");
        let held = world.reserve("busy-after", &sku, 1, "ann").await;
        assert_eq!(held.status, 201, "{held:?}");
        world.assert_verified().await;
    });
}

#[test]
fn commands_that_were_decided_and_are_gone_halt_the_lane() {
    play(async {
        let world = sold().await;
        let topics = Topics::with_prefix(&world.connections.topic_prefix);
        make_anew(&world, &topics.commands, "LogAppendTime").await;
        halts(&world, &["is decided, but", "ends at 0", "made anew or cut"]).await;
        // Senders go on, and the topic grows past what was decided in the old one.
        let wire = Wire::of(&world).await;
        for number in 0..60 {
            wire.write_command(lane(1), &reserving(&format!("anew-{number}"), "anew", 1, "ann"))
                .await;
        }
        halts(&world, &["is younger than the decision on it", "has grown since"]).await;
    });
}

/// The last two decisions were acknowledged and read back, and the log has them no more; Postgres, which would show it, is away.
#[test]
fn a_log_that_has_lost_what_redis_saw_in_it_halts_the_lane() {
    play(async {
        let world = sold().await;
        let wire = Wire::of(&world).await;
        let seen = wire.events(lane(1)).await;
        make_anew(&world, &wire.topics.events, "CreateTime").await;
        for event in seen[..seen.len() - 2].iter().filter_map(|seen| seen.event.as_ref()) {
            wire.write_event(lane(1), event).await;
        }
        let nowhere = [("HOLDFAST_POSTGRES_URL", NOWHERE)];
        for _ in 0..2 {
            world.spawn_with("reserver", &nowhere).await;
            let halted = async || {
                let log = std::fs::read_to_string(world.log_of("reserver")).expect("a log");
                let because = "was decided and its event read back, but the log's last decision is";
                let found = log
                    .lines()
                    .any(|line| line.contains("lane.halted") && line.contains(because));
                found.then_some(()).ok_or(log)
            };
            world.eventually("the lane is halted", halted).await;
            world.signal("reserver", "TERM").await;
            world.wait("reserver").await;
        }
    });
}

#[test]
fn commands_that_are_gone_before_they_were_decided_halt_the_lane() {
    play(async {
        let world = sold().await;
        let wire = Wire::of(&world).await;
        let mut last = 0;
        for number in 0..5 {
            let command = reserving(&format!("late-{number}"), "late", 1, "ann");
            last = wire.write_command(lane(1), &command).await;
        }
        delete_before(&world, &wire.topics.commands, last).await;
        halts(&world, &["before they were decided", "must send them again"]).await;
    });
}

#[test]
fn an_events_topic_made_anew_halts_the_lane() {
    play(async {
        let world = sold().await;
        let topics = Topics::with_prefix(&world.connections.topic_prefix);
        make_anew(&world, &topics.events, "CreateTime").await;
        // The first owner in the new log is no newer than the old one in Redis; none of them may go on.
        for _ in 0..3 {
            halts(&world, &["checkpoint of lane 1", "outside the log", "made anew"]).await;
        }
    });
}

#[test]
fn a_forward_cursor_outside_the_log_halts_the_lane() {
    play(async {
        let world = sold().await;
        let topics = Topics::with_prefix(&world.connections.topic_prefix);
        let group = format!("{}holdfast.forwards", world.connections.topic_prefix);
        let reader = consumer::reader(&world.connections.kafka_brokers, "test", &group).expect("legal options");
        let commit = |next: i64| {
            let mut cursor = TopicPartitionList::new();
            let mut place = cursor.add_partition(&topics.events, 1);
            place.set_offset(Offset::Offset(next)).expect("an offset");
            place.set_metadata("v1 4 0 -1 -1 0");
            reader.commit(&cursor, CommitMode::Sync).expect("committed");
        };
        commit(1_000_000);
        halts(&world, &["forward cursor", "beyond the log's end", "made anew"]).await;
        commit(1);
        delete_before(&world, &topics.events, 3).await;
        halts(&world, &["forward cursor", "the log starts at 3", "may be gone"]).await;
    });
}

#[test]
fn a_redis_of_another_log_halts_the_lane() {
    play(async {
        let world = sold().await;
        let key = LaneKeys::new(&world.connections.redis_prefix, lane(1)).lane();
        let topics = Topics::with_prefix(&world.connections.topic_prefix);
        let end = Wire::of(&world).await.ends(&topics.events).await[1];
        redis::cmd("HSET")
            .arg(key)
            .arg(&["epoch", &end.to_string()])
            .exec(&mut redis(&world.connections))
            .expect("Redis answers");
        // No try makes the log longer, until it is as long as the other was.
        for _ in 0..3 {
            halts(&world, &["belongs to another log", "HOLDFAST_REDIS_PREFIX"]).await;
        }
    });
}

#[test]
fn another_number_of_partitions_halts_every_lane() {
    play(async {
        let world = sold().await;
        let topics = Topics::with_prefix(&world.connections.topic_prefix);
        for topic in [&topics.commands, &topics.events] {
            let more = NewPartitions::new(topic, 6);
            let grown = admin(&world).create_partitions([&more], &AdminOptions::new()).await;
            assert!(matches!(grown.as_deref(), Ok([Ok(_)])), "{grown:?}");
        }
        world
            .eventually("six partitions are seen", async || {
                let (code, text) = rebuild(&world, &[]).await;
                if code == 1 && text.contains("was opened with 4 lanes") {
                    Ok(())
                } else {
                    Err(text)
                }
            })
            .await;
    });
}

/// The figures of docs/RELIABILITY.md: `HOLDFAST_TEST_FULL=1 cargo test --release -p holdfast --test it -- rebuild::many --nocapture`.
#[test]
fn many_live_holds_are_rebuilt_from_postgres() {
    play(async {
        let world = Setup::new().prepare().await;
        for count in [times(2_000, 100_000), times(5_000, 1_000_000)] {
            plant(&world, Lane::new(1).expect("a lane"), count).await;
            let begun = Instant::now();
            let (code, text) = rebuild(&world, &["--unproved"]).await;
            assert_eq!(code, 0, "{text}");
            eprintln!("{count} holds: {:.1} s, {text}", begun.elapsed().as_secs_f64());
            assert!(text.contains(&format!("rebuilt with {count} holds")), "{text}");
        }
        let (code, text) = rebuild(&world, &[]).await;
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("proved"), "{text}");
    });
}

/// Writes rows as if the persister had: so many holds of one unit, over a hundred SKUs.
async fn plant(world: &World, lane: Lane, count: usize) {
    let lane = lane.number();
    let planting = format!(
        "TRUNCATE holds, hold_lines, user_limits, stock;
         INSERT INTO lanes (lane) VALUES ({lane}) ON CONFLICT DO NOTHING;
         INSERT INTO holds (hold_id, attempt, lane, tenant, state, user_id, idempotency_key, key_bits, fingerprint, created_at, \
             expires_at, changed_at, policy, command_offset) \
         SELECT ('{lane:03x}' || lpad(to_hex(i), 5, '0') || '-0000-8000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, i, {lane}, \
             'default', 'held', 'user-' || i, 'key-' || i, \
             ('00000000-0000-8000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, decode(repeat('ab', 32), 'hex'), 1000, \
             9000000000000, 1000, 'all_or_nothing', i FROM generate_series(1, {count}) AS i;
         INSERT INTO hold_lines (hold_id, attempt, sku, quantity, lane, tenant, created_at) \
             SELECT hold_id, attempt, 'sku-' || attempt % 100, 1, lane, tenant, created_at FROM holds;
         INSERT INTO user_limits (tenant, sku, user_id, lane, counted) \
             SELECT tenant, 'sku-' || attempt % 100, user_id, lane, 1 FROM holds;
         INSERT INTO stock (tenant, sku, lane, on_hand, held, allocated, version, changed_at) \
             SELECT tenant, 'sku-' || attempt % 100, {lane}, 1000000, count(*), 0, count(*), 1000 FROM holds \
             GROUP BY tenant, attempt % 100;
         ANALYZE;"
    );
    let mut postgres = sqlx::PgConnection::connect(world.connections.postgres_url.expose())
        .await
        .expect("Postgres answers");
    sqlx::raw_sql(sqlx::AssertSqlSafe(planting))
        .execute(&mut postgres)
        .await
        .expect("planted");
}
