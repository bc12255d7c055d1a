//! Crashes under load: whoever dies, every request has one outcome and the books agree.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    load::{Fate, Load},
    world::{Setup, World, play, times},
};

/// A world with a process per role and some stock in every lane.
async fn shop(name: &str, units: i64) -> (Arc<World>, Vec<String>) {
    let world = Arc::new(Setup::new().apart().start().await);
    let skus: Vec<String> = (0..8).map(|number| format!("{name}-{number}")).collect();
    for sku in &skus {
        world.stock(sku, units).await;
    }
    (world, skus)
}

/// The books of the sale are what the buyers were told.
async fn assert_fates(world: &World, skus: &[String], units: i64, fates: &HashMap<String, Fate>) {
    let report = world.assert_verified().await;
    let told = |fate: Fate| fates.values().filter(|told| **told == fate).count() as u64;
    let holds = report.holds();
    let of = |state: &str| holds.get(state).copied().unwrap_or(0);
    assert_eq!(of("confirmed"), told(Fate::Confirmed), "{holds:?}");
    assert_eq!(of("cancelled"), told(Fate::Cancelled), "{holds:?}");
    assert_eq!(of("held"), told(Fate::Held), "{holds:?}");
    for sku in skus {
        let (on_hand, held, allocated, _) = world.counters(sku).await;
        assert!(on_hand == units && held + allocated <= units, "{sku}");
    }
}

async fn killed_under_load(role: &'static str) {
    let (world, skus) = shop(role, 100_000).await;
    let load = Load::start(&world, role, &skus, 16);
    for _ in 0..times(1, 5) {
        load.goes_on(200).await;
        world.kill(role).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.spawn(role).await;
        load.goes_on(200).await;
    }
    let fates = load.end().await;
    assert_fates(&world, &skus, 100_000, &fates).await;
}

#[test]
fn the_reserver_killed_under_load_loses_and_doubles_nothing() {
    play(async {
        killed_under_load("reserver").await;
    });
}

#[test]
fn the_ingress_killed_under_load_loses_and_doubles_nothing() {
    play(async {
        killed_under_load("ingress").await;
    });
}

#[test]
fn the_persister_killed_under_load_writes_every_row_exactly_once() {
    play(async {
        killed_under_load("persister").await;
    });
}

#[test]
fn the_expirer_killed_under_load_frees_every_unit_in_the_end() {
    play(async {
        let (world, skus) = shop("expire", 1_000).await;
        let hold_forty = async |ttl_seconds: i64| {
            for number in 0..40 {
                let mut body = World::wanting(&skus[number % 8], 1, "ann");
                body["ttl_seconds"] = ttl_seconds.into();
                assert_eq!(world.post("/v1/holds", &body).await.status, 201);
            }
        };
        hold_forty(1).await; // Some are released, some are not, when it dies.
        world.kill("expirer").await;
        hold_forty(2).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        for sku in &skus {
            assert!(
                world.counters(sku).await.1 >= 5,
                "nobody releases while the expirer is dead"
            );
        }
        world.spawn("expirer").await;
        world.spawn("expirer-2").await;
        for sku in &skus {
            world
                .eventually("the units come back", async || {
                    let counters = world.counters(sku).await;
                    if counters == (1_000, 0, 0, 1_000) {
                        Ok(())
                    } else {
                        Err(format!("{sku} {counters:?}"))
                    }
                })
                .await;
        }
        let report = world.assert_verified().await;
        assert_eq!(report.holds().get("expired"), Some(&80));
    });
}

/// I8: losing all of Redis changes no valid event.
#[test]
fn redis_flushed_under_load_is_rebuilt_from_the_log() {
    play(async {
        let (world, skus) = shop("flush", 100_000).await;
        let load = Load::start(&world, "flush", &skus, 16);
        for _ in 0..times(2, 10) {
            load.goes_on(200).await;
            flush(&world);
            load.goes_on(200).await;
        }
        let fates = load.end().await;
        assert_fates(&world, &skus, 100_000, &fates).await;
    });
}

/// A Redis that comes back with an older state (a lost append-only tail, a lagging replica) is not believed.
#[test]
fn a_lane_set_back_to_an_older_state_is_rebuilt_and_not_oversold() {
    play(async {
        let world = Arc::new(Setup::new().apart().start().await);
        world.stock("older", 10).await;
        let mut connection = plumbing::redis::client(world.connections.redis_url.expose())
            .expect("a URL")
            .get_connection()
            .expect("Redis answers");
        let pattern = format!("{}:*", world.connections.redis_prefix);
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg(&pattern)
            .query(&mut connection)
            .expect("Redis answers");
        let mut dump = Vec::new();
        for key in keys {
            let bytes: Vec<u8> = redis::cmd("DUMP")
                .arg(&key)
                .query(&mut connection)
                .expect("Redis answers");
            dump.push((key, bytes));
        }
        for buyer in 0..10 {
            assert_eq!(
                world.reserve(&format!("older-{buyer}"), "older", 1, "ann").await.status,
                201
            );
        }
        world.kill("reserver").await;
        let now: Vec<String> = redis::cmd("KEYS")
            .arg(&pattern)
            .query(&mut connection)
            .expect("Redis answers");
        let _: () = redis::cmd("DEL").arg(&now).query(&mut connection).expect("deleted");
        for (key, bytes) in dump {
            let _: () = redis::cmd("RESTORE")
                .arg(&key)
                .arg(0)
                .arg(bytes)
                .query(&mut connection)
                .expect("restored");
        }
        world.spawn("reserver").await;
        let answer = world
            .eventually("the lane decides again", async || {
                let answer = world.reserve("older-late", "older", 1, "bob").await;
                if answer.status == 202 {
                    Err(format!("{answer:?}"))
                } else {
                    Ok(answer)
                }
            })
            .await;
        assert_eq!(
            (answer.status, answer.code()),
            (409, "insufficient_stock"),
            "the set-back state had ten free units"
        );
        world.assert_verified().await;
    });
}

/// A paused owner that wakes up after another took its lanes: what it writes is void, and nothing is sold twice.
#[test]
fn a_reserver_paused_past_its_session_and_woken_again_changes_nothing() {
    play(async {
        let (world, skus) = shop("paused", 100_000).await;
        world.spawn("reserver-2").await;
        let load = Load::start(&world, "paused", &skus, 16);
        for paused in ["reserver", "reserver-2"] {
            load.goes_on(200).await;
            world.signal(paused, "STOP").await;
            tokio::time::sleep(Duration::from_secs(9)).await;
            load.goes_on(200).await;
            world.signal(paused, "CONT").await;
            load.goes_on(200).await;
        }
        let fates = load.end().await;
        assert_fates(&world, &skus, 100_000, &fates).await;
    });
}

/// SIGTERM: intake stops, what was published is read back, exit 0.
#[test]
fn roles_told_to_end_drain_and_exit_cleanly() {
    play(async {
        let (world, skus) = shop("term", 100_000).await;
        let load = Load::start(&world, "term", &skus, 8);
        for role in ["reserver", "persister", "expirer", "ingress"] {
            load.goes_on(100).await;
            world.signal(role, "TERM").await;
            assert_eq!(world.wait(role).await, 0, "{role}");
            world.spawn(role).await;
        }
        let fates = load.end().await;
        assert_fates(&world, &skus, 100_000, &fates).await;
    });
}

/// Found by `holdfast verify` after a flush at night: nobody asks, so nobody noticed.
#[test]
fn redis_flushed_while_nobody_asks_is_rebuilt_all_the_same() {
    play(async {
        let world = Setup::new().start().await;
        world.stock("night", 5).await;
        assert_eq!(world.reserve("night", "night", 2, "ann").await.status, 201);
        flush(&world);
        world
            .eventually("verify is clean again", async || {
                let report = holdfast::verify::run(&world.connections, holdfast::verify::Options::default()).await;
                let report = report.map_err(|error| error.to_string())?;
                if report.agrees() {
                    Ok(())
                } else {
                    Err(format!("{:?}", report.differences))
                }
            })
            .await;
    });
}

/// As FLUSHALL does, but only this world's keys: others use the same Redis.
pub fn flush(world: &World) {
    lose(world, "*");
}

/// Redis loses this world's keys of a pattern, in one script, so that none survives; how many that were.
pub fn lose(world: &World, pattern: &str) -> usize {
    let client = plumbing::redis::client(world.connections.redis_url.expose()).expect("a URL");
    let mut connection = client.get_connection().expect("Redis answers");
    redis::Script::new(
        "local keys = redis.call('KEYS', ARGV[1]) for _, key in ipairs(keys) do redis.call('DEL', key) end return #keys",
    )
    .arg(format!("{}:{pattern}", world.connections.redis_prefix))
    .invoke(&mut connection)
    .expect("Redis answers")
}
