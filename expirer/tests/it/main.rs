//! The expirer on the real engines: what is due comes back at its deadline and never before it, what Redis forgot comes
//! back too, and of two live holds of one key one stays.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic where it stands"
)]

mod proxy;
mod world;

use std::{collections::HashSet, time::Duration};

use domain::CommandBody;
use plumbing::{config::SecretUrl, time};
use redis::AsyncTypedCommands;
use world::{World, eventually, hold_id, lane};

async fn a_moment(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Within 250 ms in the median, never before, once each; again only when the lane has decided it and it is still due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_due_hold_is_released_at_its_deadline_and_never_before() {
    let world = World::new().await;
    let expirer = world.expirer().ready().await;
    let mut deadlines = Vec::new();
    let now = time::now_ms();
    for number in 0..30_i32 {
        let keys = world.lane(lane(number % 3), 7, -1).await;
        let id = hold_id(number % 3, "shop", &format!("key-{number}"));
        let expires_at = now + 200 + i64::from(number) * 37;
        world.place(&keys, id, "shop", expires_at).await;
        deadlines.push((id, expires_at));
    }
    let later = hold_id(0, "shop", "later");
    let keys = world.keys(lane(0)).generation(7);
    world.place(&keys, later, "shop", now + 3_600_000).await;

    eventually("all are released", async || world.seen().len() >= deadlines.len()).await;
    a_moment(300).await; // Time for doubles: the lane has decided nothing, so there must be none.
    let seen = world.seen();
    assert_eq!(seen.len(), deadlines.len());
    let mut delays = Vec::new();
    for (id, expires_at) in &deadlines {
        let release = seen.iter().find(|seen| seen.hold_id() == *id).expect("released");
        assert!(release.is_release());
        assert_eq!(
            (release.command.tenant.as_str(), release.key.as_str()),
            ("shop", id.to_string().as_str())
        );
        assert_eq!(release.partition, id.lane().partition());
        assert!(
            release.broker_ms >= *expires_at,
            "{} ms early",
            expires_at - release.broker_ms
        );
        delays.push(release.broker_ms - expires_at);
    }
    delays.sort_unstable();
    println!("release delays in ms: {delays:?}");
    assert!(delays[delays.len() / 2] <= 100, "delays in ms: {delays:?}");
    let ids: HashSet<_> = seen.iter().map(|seen| seen.command.request_id.clone()).collect();
    assert_eq!(ids.len(), seen.len(), "a fresh id each");

    // Lane 1 has decided its releases (too early by its clock): again. The others have not.
    world.lane(lane(1), 7, 1_000).await;
    eventually("lane 1 is asked again", async || {
        let again = world.seen().split_off(deadlines.len());
        let ids: HashSet<_> = again.iter().map(|seen| seen.hold_id()).collect();
        assert!(again.iter().all(|seen| seen.partition == 1));
        ids.len() == 10
    })
    .await;
    // It gives them back: silence.
    let keys = world.keys(lane(1)).generation(7);
    for (id, _) in deadlines.iter().filter(|(id, _)| id.lane() == lane(1)) {
        world.unplace(&keys, *id).await;
    }
    a_moment(100).await;
    let settled = world.seen().len();
    a_moment(300).await;
    assert_eq!(world.seen().len(), settled);
    expirer.stop().await;
    world.end().await;
}

/// A lane that is being rebuilt is left alone; then its new generation counts, and the old one no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_is_rebuilt_is_watched_in_its_new_generation() {
    let world = World::new().await;
    let expirer = world.expirer().ready().await;
    let (old, new) = (hold_id(2, "shop", "old"), hold_id(2, "shop", "new"));
    let lane_key = world.keys(lane(2)).lane();
    let mut redis = world.redis.clone();
    redis.hset(&lane_key, "building", "1").await.unwrap();
    let keys = world.lane(lane(2), 3, -1).await;
    world.place(&keys, old, "shop", time::now_ms()).await;
    a_moment(200).await;
    assert!(world.seen().is_empty(), "{:?}", world.seen());

    let keys = world.lane(lane(2), 9, -1).await;
    world.place(&keys, new, "shop", time::now_ms()).await;
    redis.hdel(&lane_key, "building").await.unwrap();
    eventually("the new one is released", async || !world.seen().is_empty()).await;
    a_moment(100).await;
    let ids: Vec<_> = world.seen().iter().map(|seen| seen.hold_id()).collect();
    assert_eq!(ids, [new]);
    expirer.stop().await;
    world.end().await;
}

/// Redis goes away and comes back: the role says so meanwhile, and goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_by_itself_when_redis_comes_back() {
    let world = World::new().await;
    let (_, engine) = world.connections.redis_url.expose().rsplit_once('/').unwrap();
    let proxy = proxy::Proxy::start(engine).await;
    let mut connections = world.connections.clone();
    connections.redis_url = SecretUrl::from(format!("redis://{}", proxy.addr()));
    let expirer = world.expirer_with(connections).ready().await;
    let keys = world.lane(lane(0), 1, -1).await;

    proxy.set_open(false);
    eventually("it is not ready without Redis", async || !expirer.health.is_ready()).await;
    let id = hold_id(0, "shop", "meanwhile");
    world.place(&keys, id, "shop", time::now_ms()).await;
    a_moment(200).await;
    assert!(world.seen().is_empty());

    proxy.set_open(true);
    eventually("it is released", async || {
        world.seen().iter().any(|seen| seen.hold_id() == id)
    })
    .await;
    eventually("it is ready again", async || expirer.health.is_ready()).await;
    expirer.stop().await;
    world.end().await;
}

/// What only Postgres knows comes back too, whether Redis knows the lane or not; what has ended or is not due does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweep_finds_what_redis_has_forgotten() {
    let world = World::new().await;
    let now = time::now_ms();
    let (overdue, ended, fresh) = (
        hold_id(1, "shop", "a"),
        hold_id(1, "shop", "b"),
        hold_id(1, "shop", "c"),
    );
    world.store(overdue, "held", now - 60_000, now - 10_000, 1).await;
    world.store(ended, "expired", now - 60_000, now - 10_000, 2).await;
    world.store(fresh, "held", now, now + 60_000, 3).await;
    let expirer = world.expirer().ready().await;
    eventually("the overdue hold is released", async || !world.seen().is_empty()).await;
    a_moment(1_500).await; // Another sweep, which does not repeat it yet.
    let seen = world.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].is_release() && seen[0].hold_id() == overdue && seen[0].command.tenant.as_str() == "shop");
    expirer.stop().await;
    world.end().await;
}

/// I3: one key alive in two lanes: the later hold is cancelled, a confirmed one never.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_live_holds_of_one_key_the_later_is_cancelled() {
    let world = World::new().await;
    let (now, due) = (time::now_ms(), time::now_ms() + 600_000);
    let id = |number, key: &str| hold_id(number, "shop", key);
    // There before the expirer starts: the later by time, though in the lower lane.
    world.store(id(0, "before"), "held", now + 1, due, 1).await;
    world.store(id(1, "before"), "held", now, due, 1).await;
    world.store(id(1, "alone"), "held", now, due, 2).await;
    let expirer = world.expirer().ready().await;
    let cancelled = || -> Vec<_> {
        let seen = world.seen();
        for seen in &seen {
            let CommandBody::Cancel { reason, .. } = &seen.command.body else {
                panic!("{seen:?}")
            };
            assert_eq!(reason.as_str(), "idempotency_key_reused");
            assert_eq!(seen.partition, seen.hold_id().lane().partition());
        }
        seen.iter().map(|seen| seen.hold_id()).collect()
    };
    eventually("the later one is cancelled", async || !cancelled().is_empty()).await;
    assert_eq!(cancelled(), [id(0, "before")]);
    world.set_state(id(0, "before"), "cancelled").await;

    // New ones: at the same moment, so the higher lanes are later.
    for number in [2, 0, 1] {
        world.store(id(number, "race"), "held", now, due, 10).await;
        a_moment(150).await;
    }
    eventually("all but one are cancelled", async || {
        cancelled().contains(&id(1, "race")) && cancelled().contains(&id(2, "race"))
    })
    .await;
    assert!(!cancelled().contains(&id(0, "race")));
    world.set_state(id(1, "race"), "cancelled").await;
    // Its buyer was faster than the cancel: the paid one stays, so the other has to go.
    world.set_state(id(2, "race"), "confirmed").await;
    eventually("the unpaid one is cancelled", async || {
        cancelled().contains(&id(0, "race"))
    })
    .await;
    world.set_state(id(0, "race"), "cancelled").await;

    // The first was looked at alone; the other one is paid already when it is first seen.
    world.store(id(0, "late"), "held", now, due, 30).await;
    a_moment(400).await;
    world.store(id(1, "late"), "confirmed", now + 1, due, 30).await;
    eventually("the unpaid one is cancelled", async || {
        cancelled().contains(&id(0, "late"))
    })
    .await;
    world.set_state(id(0, "late"), "cancelled").await;

    world.store(id(0, "paid"), "confirmed", now + 5, due, 20).await;
    world.store(id(2, "paid"), "confirmed", now, due, 20).await;
    a_moment(400).await;
    assert!(
        !cancelled()
            .iter()
            .any(|cancelled| [id(0, "paid"), id(2, "paid"), id(1, "alone")].contains(cancelled))
    );
    expirer.stop().await;
    world.end().await;
}
