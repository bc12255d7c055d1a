//! A lane that moves to another reserver: whoever has it decides until the next owner has opened it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use domain::Lane;
use plumbing::{kafka::group, stop};
use schemas::Topics;

use crate::{
    load::Load,
    wire::{Wire, adjusting, lane},
    world::{Setup, World, play},
};

/// The lanes' group, as `reserver::run` names it.
fn group_of(world: &World) -> String {
    format!("{}holdfast.reserver", world.connections.topic_prefix)
}

async fn at_least_one(world: &World, assigned: &tokio::sync::watch::Receiver<BTreeSet<i32>>) -> Vec<Lane> {
    world
        .eventually("a lane is assigned", async || {
            let lanes: Vec<Lane> = assigned.borrow().iter().filter_map(|lane| Lane::new(*lane)).collect();
            if lanes.is_empty() {
                Err("none yet".to_owned())
            } else {
                Ok(lanes)
            }
        })
        .await
}

/// How often a process has said something.
fn told(world: &World, process: &str, what: &str) -> usize {
    let text = std::fs::read_to_string(world.log_of(process)).unwrap_or_default();
    text.matches(what).count()
}

async fn says_times(world: &World, process: &str, what: &str, times: usize) {
    let look = async || match told(world, process, what) {
        told if told == times => Ok(()),
        told => Err(format!("{told} of {times} times `{what}`")),
    };
    world.eventually("the process says so", look).await;
}

/// The group is a hint: a member that is given lanes and never opens them stops nobody.
#[test]
fn a_lane_is_decided_until_its_next_owner_opens_it() {
    play(async {
        let world = Setup::new().apart().start().await;
        let skus: Vec<String> = Lane::all(world.lanes).map(|lane| world.sku_in(lane, "moved")).collect();
        for sku in &skus {
            world.stock(sku, 10).await;
        }
        let (stopper, stop) = stop::pair();
        let commands = Topics::with_prefix(&world.connections.topic_prefix).commands;
        let brokers = &world.connections.kafka_brokers;
        let (assigned, member) =
            group::join(brokers, "stranger", &group_of(&world), &commands, stop).expect("options are fine");
        let lanes = at_least_one(&world, &assigned).await;
        for lane in lanes {
            let sku = &skus[usize::from(lane.number())];
            let held = world.reserve(&format!("of-{sku}"), sku, 1, "ann").await;
            assert_eq!(held.status, 201, "lane {lane} belongs to nobody else yet: {held:?}");
        }
        // It is told to end while nobody will ever open those lanes: it decides on, but only so long.
        world.signal("reserver", "TERM").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let held = world.reserve("while-it-ends", &skus[0], 1, "ann").await;
        assert_eq!(held.status, 201, "lane 0 belongs to nobody else yet: {held:?}");
        assert_eq!(world.wait("reserver").await, 0, "ended well");
        stopper.stop();
        member.await.expect("the stranger ends");
        world.spawn("reserver").await;
        world.assert_verified().await;
    });
}

#[test]
fn a_reserver_told_to_end_decides_until_others_have_opened_its_lanes() {
    play(async {
        let world = Arc::new(Setup::new().apart().start().await);
        let skus: Vec<String> = Lane::all(world.lanes)
            .map(|lane| world.sku_in(lane, "handed"))
            .collect();
        for sku in &skus {
            world.stock(sku, 100_000).await;
        }
        let load = Load::start(&world, "handed", &skus, 8);
        load.goes_on(50).await;
        world.spawn("reserver-2").await;
        says_times(&world, "reserver-2", "lane.opened", 2).await;
        assert_eq!(told(&world, "reserver", "lane.handed_over"), 2);
        world.signal("reserver", "TERM").await;
        assert_eq!(world.wait("reserver").await, 0, "ended well");
        assert_eq!(
            told(&world, "reserver", "lane.handed_over"),
            4,
            "it left no lane to nobody"
        );
        load.goes_on(50).await;
        load.end().await;
        world.assert_verified().await;
    });
}

/// Found by torture: a lane that came back to its first owner was read from where that one had left it, and whatever it had sent on
/// since then was sent again, record by record, before anything was decided.
#[test]
fn a_lane_that_comes_back_sends_nothing_on_that_others_have_sent() {
    play(async {
        let world = Setup::new().apart().start().await;
        let wire = Wire::of(&world).await;
        let lanes = i32::from(world.lanes);
        world.spawn("reserver-2").await;
        says_times(&world, "reserver-2", "lane.opened", 2).await;
        // Each lane has these of the next lane's: it sends them on.
        let mut sent = BTreeSet::new();
        for number in 0..lanes {
            let sku = world.sku_in(lane((number + 1) % lanes), "lost");
            for round in 0..5 {
                let command = adjusting(&format!("lost-{number}-{round}"), &sku, 1);
                sent.insert(command.request_id.clone());
                wire.write_command(lane(number), &command).await;
            }
        }
        wire.outcomes(&sent).await;
        // Whoever sent them on says so at the broker within a second.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = wire.ends(&wire.topics.commands).await;
        world.signal("reserver-2", "TERM").await;
        assert_eq!(world.wait("reserver-2").await, 0, "ended well");
        says_times(&world, "reserver", "lane.opened", usize::from(world.lanes) + 2).await;
        world.stock("later", 1).await;
        let after = wire.ends(&wire.topics.commands).await;
        let (before, after): (i64, i64) = (before.iter().sum(), after.iter().sum());
        assert_eq!(
            after,
            before + 1,
            "the adjustment of `later`, and nothing sent on twice"
        );
        world.assert_verified().await;
    });
}
