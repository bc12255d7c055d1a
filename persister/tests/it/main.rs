//! The persister on the real engines: the rows are what the valid events add up to, each counted once.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic where it stands"
)]

#[path = "../../../expirer/tests/it/proxy.rs"]
mod proxy;
mod reads;
mod shop;
mod world;

use domain::{Event, HoldState, Lane, LaneState};
use schemas::{headers, picture};
use shop::{Shop, sku};
use world::{SOURCE, World, eventually};

const LANE: i32 = 0;

/// A lane with an owner, and some stock.
async fn opened(world: &World, seed: u64) -> Shop {
    let mut shop = Shop::new(LANE, seed);
    shop.epoch = world.write(shop.lane, &[shop.opened()]).await;
    shop
}

fn decide(shop: &mut Shop, count: usize) -> Vec<Event> {
    (0..count).map(|_| shop.random()).collect()
}

/// What the valid events add up to, as a lane remembers it.
fn remembered(shop: &Shop, remember_ms: i64) -> domain::Ledger {
    let mut ledger = shop.ledger.clone();
    // Far from the limits of i64, so that log time minus the span does not wrap.
    ledger.forget(shop.decided_at, remember_ms.min(1 << 60));
    ledger
}

/// I6, I2: rows are the fold of the valid events; a zombie's records and garbage only move the offset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_the_fold_of_the_valid_events() {
    let world = World::new(1).await;
    let persister = world.persister("a", 50);
    let mut shop = opened(&world, 1).await;
    let mut valid = 0;
    for _ in 0..3 {
        let events = decide(&mut shop, 100);
        valid += events.len() as i64;
        world.write(shop.lane, &events).await;
        // The old owner wakes up behind a new one: what it decides is void, though its bodies are fine.
        let mut zombie = Shop::new(LANE, 99);
        (zombie.epoch, zombie.last) = (shop.epoch, shop.last);
        shop.epoch = world.write(shop.lane, &[shop.opened()]).await;
        let late = [
            zombie.adjust(sku(0), 1_000),
            zombie.reserve("zombie", "zombie", &[(sku(0), 1)]),
        ];
        world.write(shop.lane, &late).await;
        world.write_bytes(shop.lane, b"garbage", &[]).await;
    }
    let last = world.write(shop.lane, &[shop.refuse()]).await;
    valid += 1;
    world.reaches(shop.lane, last + 1).await;

    assert_eq!(world.ledger(shop.lane, i64::MAX).await, remembered(&shop, i64::MAX));
    let short = 60_000;
    assert_eq!(world.ledger(shop.lane, short).await, remembered(&shop, short));
    assert_eq!(world.count("processed_events").await, valid);
    let confirmed = shop.ledger.holds.values().filter(|hold| hold.terms.state.is_sold());
    assert_eq!(world.count("orders").await, confirmed.count() as i64);
    assert_eq!(world.count("required_refunds").await, shop.refunds);
    // This shop has one lane: nothing of it is ever pending.
    let here = |state: &HoldState| !matches!(state, HoldState::Rejected | HoldState::Pending);
    for state in HoldState::ALL.into_iter().filter(here) {
        let met = shop.ledger.holds.values().any(|hold| hold.terms.state == state);
        assert!(met, "the story has a hold that is {}", state.name());
    }
    let checkpoint = picture::checkpoint(&world.pool, shop.lane).await.unwrap().unwrap();
    assert_eq!(checkpoint.state.last_command_offset, shop.last);
    assert_eq!(checkpoint.state.epoch, shop.epoch);

    // The movements of a SKU add up to its counters.
    let sums = "(SELECT 1 FROM stock LEFT JOIN (SELECT tenant, sku, sum(on_hand_change) AS on_hand, sum(held_change) AS held, \
                sum(allocated_change) AS allocated FROM stock_movements GROUP BY tenant, sku) AS moved USING (tenant, sku) \
                WHERE (stock.on_hand, stock.held, stock.allocated) IS DISTINCT FROM \
                (coalesce(moved.on_hand, 0), coalesce(moved.held, 0), coalesce(moved.allocated, 0))) AS wrong";
    assert_eq!(world.count(sums).await, 0);
    for refused in [
        "DELETE FROM stock_movements",
        "UPDATE stock_movements SET on_hand = 0",
        "TRUNCATE stock_movements",
    ] {
        let error = sqlx::query(refused).execute(&world.pool).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    persister.stop().await;
    world.end().await;
}

/// Restarted in the middle of a load, and the topic read twice from its start: every row once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_stand_once_after_restarts_and_a_second_reading() {
    let world = World::new(1).await;
    let mut shop = opened(&world, 2).await;
    let events = decide(&mut shop, 600);
    let first = world.write(shop.lane, &events).await;
    let end = first + events.len() as i64;

    // Killed: its runtime goes, whatever it was doing.
    for target in [first + 50, first + 200] {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let killed = {
            let _inside = runtime.enter();
            world.persister("a", 7)
        };
        world.reaches(shop.lane, target).await;
        runtime.shutdown_background();
        killed.threads_end();
    }
    let persister = world.persister("b", 1_000);
    world.reaches(shop.lane, end).await;
    persister.stop().await;
    assert_eq!(world.ledger(shop.lane, i64::MAX).await, remembered(&shop, i64::MAX));
    let counts = world.counts().await;

    let state = LaneState::default();
    sqlx::query(
        "UPDATE lanes SET next_event_offset = 0, epoch = $1, last_command_offset = $1, last_decision_epoch = $1, log_time = 0",
    )
    .bind(state.epoch)
    .execute(&world.pool)
    .await
    .unwrap();
    let more = decide(&mut shop, 20);
    world.write(shop.lane, &more).await;
    let persister = world.persister("c", 100);
    world.reaches(shop.lane, end + 20).await;
    persister.stop().await;
    assert_eq!(world.ledger(shop.lane, i64::MAX).await, remembered(&shop, i64::MAX));
    let again = world.counts().await;
    assert_eq!(again[0], counts[0] + 20, "processed events");
    world.end().await;
}

/// Two on one lane: the offset decides who writes, and nothing is written twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_persisters_on_one_lane_do_no_harm() {
    let world = World::new(1).await;
    let mut shop = opened(&world, 3).await;
    // Of two groups, so that both are told to work on the lane.
    let both = [world.persister("left", 5), world.persister("right", 5)];
    let mut end = 0;
    for _ in 0..6 {
        let events = decide(&mut shop, 80);
        end = world.write(shop.lane, &events).await + events.len() as i64;
    }
    world.reaches(shop.lane, end).await;
    for persister in both {
        persister.stop().await;
    }
    assert_eq!(world.ledger(shop.lane, i64::MAX).await, remembered(&shop, i64::MAX));
    assert_eq!(world.count("processed_events").await, 480);
    world.end().await;
}

/// A valid event is never skipped, and a checkpoint outside the log is never jumped: the lane halts and says what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_halts_where_it_cannot_go_on_and_goes_on_when_it_can() {
    let world = World::new(2).await;
    let mut shop = opened(&world, 4).await;
    let events = [shop.adjust(sku(1), 5), shop.refuse()];
    let first = world.write(shop.lane, &events[..1]).await;
    // Its headers say that it counts; its body cannot be read.
    world
        .write_bytes(shop.lane, b"\0nonsense", &headers::of_event(&events[1], SOURCE))
        .await;
    let other = Lane::new(1).unwrap();
    sqlx::query("INSERT INTO lanes (lane, next_event_offset) VALUES (1, 1000)")
        .execute(&world.pool)
        .await
        .unwrap();

    let persister = world.persister("a", 100);
    world.reaches(shop.lane, first + 1).await;
    eventually("lane 0 is halted", async || {
        persister
            .reason("lane-0")
            .is_some_and(|why| why.contains("a valid event cannot be read"))
            || persister
                .reason("lane-0")
                .is_some_and(|why| why.contains("the registry has no schema"))
    })
    .await;
    eventually("lane 1 is halted", async || {
        persister
            .reason("lane-1")
            .is_some_and(|why| why.contains("Restore the topic"))
    })
    .await;
    assert!(!persister.health.is_ready());
    assert_eq!(world.position(shop.lane).await, first + 1);
    assert_eq!(world.position(other).await, 1_000);

    sqlx::query("UPDATE lanes SET next_event_offset = 0 WHERE lane = 1")
        .execute(&world.pool)
        .await
        .unwrap();
    let mut second = Shop::new(1, 5);
    second.epoch = world.write(other, &[second.opened()]).await;
    let stocked = second.adjust(sku(2), 3);
    let offset = world.write(other, &[stocked]).await;
    world.reaches(other, offset + 1).await;
    eventually("lane 1 is well again", async || persister.reason("lane-1").is_none()).await;
    persister.stop().await;
    world.end().await;
}

/// Postgres away, at start or in the middle of a load: the role says so, and the rows catch up by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_catch_up_when_postgres_comes_back() {
    let world = World::new(1).await;
    let url = world.connections.postgres_url.expose().to_owned();
    let (login, place) = url.rsplit_once('@').unwrap();
    let (engine, database) = place.split_once('/').unwrap();
    let proxy = proxy::Proxy::start(engine).await;
    let mut connections = world.connections.clone();
    connections.postgres_url = format!("{login}@{}/{database}", proxy.addr()).into();

    proxy.set_open(false);
    let persister = world.persister_with(connections, "a", 20);
    let mut shop = opened(&world, 8).await;
    eventually("it waits for Postgres", async || persister.reason("postgres").is_some()).await;
    let mut end = world.write(shop.lane, &decide(&mut shop, 50)).await + 50;
    for _ in 0..3 {
        proxy.set_open(true);
        world.reaches(shop.lane, end).await;
        eventually("it is ready", async || persister.health.is_ready()).await;
        // Shut while it works.
        end = world.write(shop.lane, &decide(&mut shop, 200)).await + 200;
        tokio::time::sleep(std::time::Duration::from_millis(shop.dice(60))).await;
        proxy.set_open(false);
        eventually("it is not ready", async || persister.reason("postgres").is_some()).await;
    }
    proxy.set_open(true);
    world.reaches(shop.lane, end).await;
    assert_eq!(world.ledger(shop.lane, i64::MAX).await, remembered(&shop, i64::MAX));
    assert_eq!(world.count("processed_events").await, 650);
    persister.stop().await;
    world.end().await;
}

/// What is behind every retention goes, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_behind_the_retention_are_pruned() {
    let world = World::new(1).await;
    let mut shop = opened(&world, 9).await;
    let events = decide(&mut shop, 30);
    let end = world.write(shop.lane, &events).await + 30;
    let persister = world.persister("a", 100);
    world.reaches(shop.lane, end).await;
    persister.stop().await;
    let old = plumbing::time::now_ms() - 41 * 86_400_000;
    let query = "UPDATE processed_events SET decided_at = $1 WHERE event_offset <= 10";
    sqlx::query(query).bind(old).execute(&world.pool).await.unwrap();
    let query = "INSERT INTO remembered_sources SELECT lane, 'old', 0, generate_series(1, 7), $1, $1 FROM lanes";
    sqlx::query(query).bind(old).execute(&world.pool).await.unwrap();
    let persister = world.persister("b", 100);
    eventually("the old ones are gone", async || {
        world.count("processed_events").await == 20 && world.count("remembered_sources WHERE topic = 'old'").await == 0
    })
    .await;
    persister.stop().await;
    assert_eq!(world.ledger(shop.lane, i64::MAX).await, remembered(&shop, i64::MAX));
    world.end().await;
}

/// A backlog of four lanes is written whole, and how fast is printed (`--release --nocapture` for a number that says
/// something; more holds with HOLDFAST_TEST_FULL).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_of_all_lanes_is_written_whole() {
    let holds = if std::env::var_os("HOLDFAST_TEST_FULL").is_some() {
        20_000
    } else {
        500
    };
    let world = World::new(4).await;
    let mut ends = Vec::new();
    for number in 0..4 {
        let mut shop = Shop::new(number, 7);
        shop.epoch = world.write(shop.lane, &[shop.opened()]).await;
        // A SKU lives in one lane: lanes never wait for each other's rows.
        let of_lane = |item| sku(item * 4 + number as u64);
        let mut events: Vec<Event> = (0..5).map(|item| shop.adjust(of_lane(item), 1_000_000)).collect();
        for hold in 0..holds {
            let (key, user) = (format!("key-{hold}"), format!("user-{hold}"));
            events.push(shop.reserve(&key, &user, &[(of_lane(hold as u64 % 5), 1)]));
        }
        let first = world.write(shop.lane, &events).await;
        ends.push((shop.lane, first + events.len() as i64));
    }
    let started = std::time::Instant::now();
    let persister = world.persister("a", 1_000);
    let mut first_commit = None;
    for (lane, end) in ends {
        while world.position(lane).await < end {
            if first_commit.is_none() && world.position(lane).await > 0 {
                first_commit = Some(started.elapsed());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    assert_eq!(world.count("holds").await, 4 * holds as i64);
    let busy = started.elapsed() - first_commit.unwrap_or_default();
    println!(
        "{} holds in {busy:?}: {:.0} a second",
        4 * holds,
        (4 * holds) as f64 / busy.as_secs_f64()
    );
    for line in persister
        .metrics()
        .lines()
        .filter(|line| line.contains("sum") || line.contains("count"))
    {
        println!("{line}");
    }
    persister.stop().await;
    world.end().await;
}
