//! A lane that moves to another reserver: whoever has it decides until the next owner has opened it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use domain::Lane;
use plumbing::{kafka::group, stop};
use schemas::Topics;

use crate::{
    load::Load,
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
        let opened = async |process: &str, what: &str| {
            let text = std::fs::read_to_string(world.log_of(process)).unwrap_or_default();
            text.matches(what).count()
        };
        world
            .eventually("the second has opened its share", async || {
                match opened("reserver-2", "lane.opened").await {
                    2 => Ok(()),
                    lanes => Err(format!("{lanes} lanes")),
                }
            })
            .await;
        assert_eq!(opened("reserver", "lane.handed_over").await, 2);
        world.signal("reserver", "TERM").await;
        assert_eq!(world.wait("reserver").await, 0, "ended well");
        assert_eq!(
            opened("reserver", "lane.handed_over").await,
            4,
            "it left no lane to nobody"
        );
        load.goes_on(50).await;
        load.end().await;
        world.assert_verified().await;
    });
}
