//! Where a running reserver finds that its log and its lane contradict each other, it halts that lane and says what to do (rule 9).
//! The contradictions that are met when a lane is opened are in `rebuild`.

use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use schemas::keys::LaneKeys;

use crate::{
    rebuild::{admin, delete_before, redis, sold},
    wire::{Wire, lane, reserving},
    world::{World, play},
};

/// Starts a reserver and waits until it has halted a lane for this reason.
async fn halts(world: &World, because: &str) {
    world.spawn("reserver").await;
    world
        .eventually("the lane is halted", async || {
            let log = std::fs::read_to_string(world.log_of("reserver")).expect("a log");
            let is_halted = log
                .lines()
                .any(|line| line.contains("lane.halted") && line.contains(because));
            is_halted
                .then_some(())
                .ok_or_else(|| format!("no lane is halted because {because:?}"))
        })
        .await;
}

/// Starts a reserver that dies at a fail point, and waits until it has.
async fn dies_at(world: &World, point: &str) {
    world.spawn_with("reserver", &[("HOLDFAST_FAIL_POINT", point)]).await;
    world.wait("reserver").await;
}

/// Decided as a forward, and its owner died before the copy was sent.
#[test]
fn a_command_that_must_be_sent_on_and_is_gone_halts_the_lane() {
    play(async {
        let world = sold().await;
        let (wire, sku) = (Wire::of(&world).await, world.sku_in(lane(2), "elsewhere"));
        let offset = wire.write_command(lane(1), &reserving("astray", &sku, 1, "ann")).await;
        dies_at(&world, "forwards.copy_read_back").await;
        delete_before(&world, &wire.topics.commands, offset + 1).await;
        let gone = format!(
            "command {offset} of {}/1 must be sent to its own lane",
            wire.topics.commands
        );
        halts(&world, &gone).await;
    });
}

/// Decided in Redis, and the log has another command there now.
#[test]
fn a_journal_entry_of_another_record_halts_the_lane() {
    play(async {
        let world = sold().await;
        let (wire, sku) = (Wire::of(&world).await, world.sku_in(lane(1), "other"));
        let offset = wire.write_command(lane(1), &reserving("other", &sku, 1, "ann")).await;
        dies_at(&world, "reserver.applied").await;

        let mut redis = redis(&world.connections);
        let keys = LaneKeys::new(&world.connections.redis_prefix, lane(1));
        let mut ask = |command: &str, key: &str, field: &str| -> Vec<u8> {
            let asked = redis::cmd(command).arg(key).arg(field).query(&mut redis);
            asked.expect("Redis answers")
        };
        let generation = String::from_utf8(ask("HGET", &keys.lane(), "generation")).expect("a number");
        let journal = keys.generation(generation.parse().expect("a number")).journal();
        let mut entry = ask("HGET", &journal, &offset.to_string());
        // The record's hash: the second number of eight bytes, behind the time.
        let is_long = |(at, byte): &(usize, &u8)| **byte == 0xcf && *at > 0;
        let time = entry.iter().enumerate().find(is_long).expect("a time").0;
        let hash = time + 9 + entry[time + 9..].iter().position(|byte| *byte == 0xcf).expect("a hash");
        entry[hash + 8] ^= 1;
        redis::cmd("HSET")
            .arg(journal)
            .arg(offset)
            .arg(entry)
            .exec(&mut redis)
            .expect("Redis answers");
        halts(&world, "is about another record than the one in the log").await;
    });
}

#[test]
fn a_command_without_log_append_time_halts_the_lane() {
    play(async {
        let world = sold().await;
        let (wire, sku) = (Wire::of(&world).await, world.sku_in(lane(1), "timeless"));
        let topic = ResourceSpecifier::Topic(&wire.topics.commands);
        let by_clients = AlterConfig::new(topic).set("message.timestamp.type", "CreateTime");
        let altered = admin(&world).alter_configs([&by_clients], &AdminOptions::new()).await;
        assert!(matches!(altered.as_deref(), Ok([Ok(_)])), "{altered:?}");
        wire.write_command(lane(1), &reserving("timeless", &sku, 1, "ann"))
            .await;
        halts(&world, "has no LogAppendTime: set message.timestamp.type").await;
    });
}
