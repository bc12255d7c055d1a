//! Zombies: owners of the past whose records come late. What they decided never happened, for anybody who reads the log.

use std::time::Duration;

use domain::{Event, EventBody, EventId, Lane, Reason, Text, Verdict};
use futures::future::join_all;
use schemas::headers;
use sqlx::Connection as _;

use crate::{
    load::Load,
    wire::{Wire, lane},
    world::{Setup, World, times},
};

/// What Postgres says of a lane but for its position.
async fn rows(world: &World, lane: Lane) -> Vec<String> {
    let url = world.connections.postgres_url.expose();
    let mut connection = sqlx::PgConnection::connect(url).await.expect("Postgres answers");
    let mut all = Vec::new();
    for (table, order) in [
        ("stock", "sku"),
        ("holds", "hold_id, attempt"),
        ("hold_lines", "hold_id, attempt, sku"),
        ("stock_movements", "command_offset"),
        ("processed_events", "event_id"),
        ("remembered_commands", "command_id"),
    ] {
        let query = format!("SELECT to_jsonb({table})::text FROM {table} WHERE lane = {lane} ORDER BY {order}");
        let found: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .fetch_all(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{table}: {error}"));
        all.push(format!("{table}: {found:?}"));
    }
    all
}

/// Waits until the persister has read everything that the lane's events have now.
async fn persisted(wire: &Wire<'_>, lane: Lane) {
    let end = wire.ends(&wire.topics.events).await[usize::from(lane.number())];
    let url = wire.world.connections.postgres_url.expose();
    let mut connection = sqlx::PgConnection::connect(url).await.expect("Postgres answers");
    for _ in 0..600 {
        let position: Option<i64> = sqlx::query_scalar("SELECT next_event_offset FROM lanes WHERE lane = $1")
            .bind(lane.partition() as i16)
            .fetch_optional(&mut connection)
            .await
            .expect("Postgres answers");
        if position >= Some(end) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the persister does not reach event {end} of lane {lane}");
}

/// A decision under another epoch, chained to another command: what a zombie or a forger may write.
fn forged(event: &Event, lane: Lane, epoch: i64, command: i64, previous: i64, body: EventBody) -> Event {
    Event {
        event_id: EventId::of(lane, epoch, command),
        epoch,
        command_offset: command,
        previous_command_offset: previous,
        body,
        ..event.clone()
    }
}

/// The epoch and last valid command of a lane.
async fn head(wire: &Wire<'_>, lane: Lane) -> (i64, i64) {
    let seen = wire.events(lane).await;
    let opened = seen
        .iter()
        .rev()
        .find(|seen| seen.verdict == Verdict::Opened)
        .expect("somebody opened it");
    let last = seen.iter().rev().find(|seen| seen.verdict == Verdict::Valid);
    let last = last.map_or(-1, |seen| seen.event.as_ref().expect("it can be read").command_offset);
    (opened.record.offset, last)
}

/// Kills the reserver and starts another, which takes over once the group has noticed.
async fn another_owner(world: &World, sku: &str) {
    world.kill("reserver").await;
    world.spawn("reserver").await;
    let decides = async || match world.set(sku, 10).await {
        answer if answer.status == 200 => Ok(()),
        answer => Err(format!("{answer:?}")),
    };
    world.eventually("the lane decides again", decides).await;
}

/// Every reader leaves these offsets out, and all readers take the same for valid.
async fn assert_void(wire: &Wire<'_>, lane: Lane, offsets: &[i64]) {
    for seen in wire.events(lane).await {
        if offsets.contains(&seen.record.offset) {
            assert_eq!(seen.verdict, Verdict::Void, "{seen:?}");
        }
    }
    let tail = wire.tail_reads().await;
    assert_eq!(
        wire.python_reads().await,
        tail,
        "the documentation's reader and `holdfast tail` read the same"
    );
    let lane = i64::from(lane.partition());
    let read = tail.iter().filter(|(of, ..)| *of == lane).map(|(_, offset, _)| offset);
    assert!(read.clone().count() > 0);
    assert_eq!(
        read.filter(|offset| offsets.contains(offset)).count(),
        0,
        "tail leaves them out"
    );
    let (code, out, error) = wire
        .world
        .run(&["tail", "--from-beginning", "--no-follow", "--void"])
        .await;
    assert_eq!(code, 0, "{error}");
    let marked = crate::wire::json_lines(&out).into_iter().filter(|line| {
        let is_ours = line["offset"].as_i64().is_some_and(|offset| offsets.contains(&offset));
        line["partition"] == lane && is_ours && line["void"] == true
    });
    assert_eq!(marked.count(), offsets.len(), "tail --void marks them");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_owner_of_the_past_writes_never_happened_for_anybody() {
    let world = Setup::new().apart().start().await;
    let wire = &Wire::of(&world).await;
    let lane = lane(2);
    let sku = &world.sku_in(lane, "zombie");
    world.stock(sku, 10).await;
    let hold = world.reserve("zombie-held", sku, 3, "ann").await.hold_id();
    let (old_epoch, _) = head(wire, lane).await;
    another_owner(&world, sku).await;
    assert_eq!(world.reserve("zombie-other", sku, 1, "bob").await.status, 201);
    let (epoch, last) = head(wire, lane).await;
    assert!(epoch > old_epoch, "another owner has opened the lane");
    persisted(wire, lane).await;
    let before = rows(&world, lane).await;

    let decisions = wire.decisions(lane).await;
    let held = decisions
        .iter()
        .find(|event| event.hold_id.is_some_and(|id| id.to_string() == hold))
        .expect("it is held");
    let next = last + 1;
    let confirmed = |epoch, command, previous| {
        let mut event = forged(held, lane, epoch, command, previous, EventBody::HoldConfirmed);
        event.lines[0].held = 0;
        event.lines[0].allocated = 3;
        event
    };
    let mut offsets = Vec::new();
    // The old owner goes on where the log is now; decides again what is decided; makes up an epoch, and a lane without one.
    for event in [
        confirmed(old_epoch, next, last),
        forged(
            held,
            lane,
            old_epoch,
            held.command_offset,
            held.previous_command_offset,
            EventBody::HoldCancelled,
        ),
        confirmed(old_epoch, next + 1, next),
        confirmed(epoch + 1_000_000, next, last),
        confirmed(-1, next, last),
        confirmed(0, next, last - 1),
        Event {
            body: EventBody::OffsetsSkipped,
            ..confirmed(old_epoch, next + 100, last)
        },
    ] {
        offsets.push(wire.write_event(lane, &event).await);
    }
    // No reserver's headers: none at all, no type, no time, no numbers; and no value.
    let event = confirmed(epoch, next, last);
    let (bytes, all) = (wire.codec.encode_event(&event), headers::of_event(&event, "/test"));
    let without = |name: &str| {
        all.iter()
            .filter(|(found, _)| *found != name)
            .cloned()
            .collect::<Vec<_>>()
    };
    let with = |name: &'static str, value: &str| [without(name), vec![(name, value.to_owned())]].concat();
    for headers in [
        vec![],
        without("ce_type"),
        without("time"),
        without("epoch"),
        without("previous"),
        without("command"),
        with("epoch", "x"),
        with("previous", ""),
        with("command", "1.5"),
        with("time", "now"),
    ] {
        offsets.push(
            wire.write(&wire.topics.events, lane, None, Some(&bytes), &headers)
                .await,
        );
        offsets.push(wire.write(&wire.topics.events, lane, None, None, &headers).await);
    }

    persisted(wire, lane).await;
    assert_eq!(rows(&world, lane).await, before, "Postgres has not changed");
    let seen = world.get(&format!("/v1/holds/{hold}")).await;
    assert_eq!(seen.state(), "held", "{seen:?}");
    assert_eq!(world.counters(sku).await, (10, 4, 0, 6));
    assert_void(wire, lane, &offsets).await;
    assert_eq!(
        head(wire, lane).await,
        (epoch, last),
        "the owner has not been disturbed"
    );
    assert_eq!(world.confirm(&hold).await.state(), "confirmed");
    assert_eq!(world.counters(sku).await, (10, 1, 3, 6));
    world.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_answers_no_client_who_waits() {
    let world = &Setup::new().apart().start().await;
    let wire = &Wire::of(world).await;
    let lane = lane(1);
    let sku = &world.sku_in(lane, "waiting");
    world.stock(sku, 10).await;
    let (old_epoch, _) = head(wire, lane).await;
    another_owner(world, sku).await;
    let (epoch, last) = head(wire, lane).await;
    assert!(epoch > old_epoch);
    // Nobody decides now; a client asks, and waits.
    world.kill("reserver").await;
    let asking = async {
        let request = world
            .posting("/v1/holds", &World::wanting(sku, 2, "ann"))
            .header("Prefer", "wait=30");
        let answer = world.request(request.header("Idempotency-Key", "waiting")).await;
        (answer, wire.decisions(lane).await)
    };
    let lying = async {
        let asked = world.eventually("the command is in the log", async || {
            let mut commands = wire.commands(lane).await.into_iter();
            let found = commands.rfind(|record| record.type_name() == Some("Reserve"));
            found.ok_or_else(|| "not yet".to_owned())
        });
        let asked = asked.await;
        let command = wire
            .codec
            .decode_command(asked.value.as_deref().expect("a value"))
            .expect("it can be read");
        let event = wire.decisions(lane).await.pop().expect("there are some");
        let refused = EventBody::CommandRefused {
            reason: Reason::HoldNotFound,
            message: Text::parse("message", "a lie").expect("legal"),
        };
        // The second as the owner that is gone would: but not where the chain is.
        for (epoch, previous) in [(old_epoch, last), (epoch, last - 1), (-1, last)] {
            let mut lie = forged(&event, lane, epoch, asked.offset, previous, refused.clone());
            lie.request_id = command.request_id.to_string();
            wire.write_event(lane, &lie).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(
            wire.decisions(lane).await.last().map(|event| event.command_offset),
            Some(last)
        );
        world.spawn("reserver").await;
    };
    let ((answer, decisions), ()) = tokio::join!(asking, lying);
    assert_eq!(
        (answer.status, answer.state()),
        (201, "held"),
        "the truth, when it was there: {answer:?}"
    );
    assert!(decisions.last().is_some_and(|event| event.command_offset > last));
    assert_eq!(world.counters(sku).await, (10, 2, 0, 8));
    world.assert_verified().await;
}

/// A `LaneOpened` that no reserver of ours wrote.
async fn open(wire: &Wire<'_>, lane: Lane) -> i64 {
    let event = wire
        .events(lane)
        .await
        .remove(0)
        .event
        .expect("the first is a LaneOpened");
    let nonce = plumbing::id::random();
    let opened = Event {
        event_id: EventId::from_uuid(nonce),
        body: EventBody::LaneOpened {
            nonce,
            owner: Text::parse("owner", "somebody else").expect("legal"),
        },
        ..event
    };
    wire.write_event(lane, &opened).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_lane_is_opened_by_another_steps_aside_and_opens_it_again() {
    let world = Setup::new().start().await;
    let wire = &Wire::of(&world).await;
    let sku = &world.sku_in(lane(3), "opened");
    world.stock(sku, 1_000).await;
    for round in 0..times(3, 20) {
        let theirs = open(wire, lane(3)).await;
        let answer = world.reserve(&format!("opened-{round}"), sku, 1, "ann").await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let (epoch, _) = head(wire, lane(3)).await;
        assert!(epoch > theirs, "taken over again: {epoch} > {theirs}");
    }
    // The owner writes one decision under an epoch that is its own, but not where the chain is: as if it had lost one.
    let (epoch, last) = head(wire, lane(3)).await;
    let event = wire.decisions(lane(3)).await.pop().expect("there are some");
    let lost = forged(&event, lane(3), epoch, last + 2, last + 1, event.body.clone());
    let offset = wire.write_event(lane(3), &lost).await;
    assert_eq!(world.reserve("opened-after", sku, 1, "ann").await.status, 201);
    let rounds = times(3, 20) as i64;
    assert_eq!(world.counters(sku).await, (1_000, rounds + 1, 0, 1_000 - rounds - 1));
    assert_void(wire, lane(3), &[offset]).await;
    world.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_that_others_open_again_and_again_under_load_lose_and_double_nothing() {
    let world = std::sync::Arc::new(Setup::new().start().await);
    let wire = &Wire::of(&world).await;
    let skus: Vec<String> = (0..4).map(|number| world.sku_in(lane(number), "fought")).collect();
    for sku in &skus {
        world.stock(sku, 200).await;
    }
    let load = Load::start(&world, "fought", &skus, 16);
    for _ in 0..times(4, 30) {
        load.goes_on(40).await;
        join_all((0..4).map(|number| open(wire, lane(number)))).await;
    }
    load.goes_on(40).await;
    let fates = load.end().await;
    let report = world.assert_verified().await;
    let opened: u64 = report.lanes.iter().map(|lane| lane.opened).sum();
    assert!(
        opened >= 2 * 4 * times(4, 30) as u64,
        "each was opened by them, and again by us: {opened}"
    );
    assert!(fates.len() > 100);
    assert_eq!(wire.python_reads().await, wire.tail_reads().await);
}

/// Before anybody has opened a lane, nobody decides in it.
#[tokio::test(flavor = "multi_thread")]
async fn decisions_before_the_first_owner_never_happened() {
    let model = World::shared().await;
    let event = Wire::of(model).await.decisions(lane(0)).await.remove(0);
    let world = Setup::new().prepare().await;
    let wire = &Wire::of(&world).await;
    let mut offsets = Vec::new();
    for epoch in [-1, 0, 5] {
        let early = forged(&event, lane(0), epoch, 0, -1, event.body.clone());
        offsets.push(wire.write_event(lane(0), &early).await);
    }
    world.spawn("all").await;
    world.ready().await;
    assert_eq!(world.counters(&world.sku_in(lane(0), "ready")).await, (1, 0, 0, 1));
    assert_void(wire, lane(0), &offsets).await;
    world.assert_verified().await;
}
