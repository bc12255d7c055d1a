//! `tail`, `show`, `lanes`.

use domain::{Event, EventBody};
use serde_json::Value;

use crate::world::{World, err, hold_of, out, sku_in};

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

/// Writes what an owner of an epoch long gone would: a confirmation of a hold.
async fn zombie(world: &World) -> i64 {
    let (state, events) = world.fold(0).await;
    let confirmed = events
        .iter()
        .find(|event| matches!(event.body, EventBody::HoldConfirmed))
        .expect("a confirmation");
    let zombie = Event {
        epoch: state.epoch - 1,
        command_offset: state.last_command_offset + 1,
        previous_command_offset: state.last_command_offset,
        ..confirmed.clone()
    };
    world.write_event(0, &zombie).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_prints_what_is_valid_and_void_only_when_asked() {
    let world = World::lived().await;
    let offset = zombie(&world).await;
    let tail = world.holdfast(&["tail", "--from-beginning", "--no-follow"]).await;
    assert!(tail.status.success(), "{}", err(&tail));
    let events = lines(&out(&tail));
    assert_eq!(events.iter().filter(|event| event["type"] == "LaneOpened").count(), 2);
    assert_eq!(events.len(), 2 + 8, "{events:#?}");
    assert!(events.iter().all(|event| event.get("void").is_none()));
    let paid = events.iter().find(|event| event["type"] == "HoldConfirmed").unwrap();
    assert_eq!(paid["hold"]["payment_ref"], "pay-1");
    assert_eq!(paid["partition"], 0);

    let tail = world
        .holdfast(&["tail", "--from-beginning", "--no-follow", "--void", "--lane", "0"])
        .await;
    let events = lines(&out(&tail));
    let void: Vec<&Value> = events.iter().filter(|event| event["void"] == true).collect();
    assert_eq!(void.len(), 1);
    assert_eq!(void[0]["offset"], offset);
    assert!(events.iter().all(|event| event["partition"] == 0));

    let tail = world.holdfast(&["tail", "--from-beginning", "-n", "3"]).await;
    assert_eq!(lines(&out(&tail)).len(), 3);
    let tail = world.holdfast(&["tail", "--no-follow"]).await;
    assert_eq!(out(&tail), "", "nothing happens now");
    let tail = world.holdfast(&["tail", "--lane", "9"]).await;
    assert_eq!(tail.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn show_tells_a_holds_life_with_its_zombies() {
    let world = World::lived().await;
    let hold = hold_of(&sku_in(0, "a"), "paid").to_string();
    let shown = world.holdfast(&["show", &hold]).await;
    assert!(shown.status.success(), "{}{}", out(&shown), err(&shown));
    let story = out(&shown);
    for word in [
        "Reserve",
        "HoldCreated",
        "Confirm",
        "HoldConfirmed",
        "pay-1",
        "✓ the log, Redis and Postgres agree",
    ] {
        assert!(story.contains(word), "{word} is missing in\n{story}");
    }
    zombie(&world).await;
    let shown = world.holdfast(&["show", &hold, "--json"]).await;
    let life: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert!(shown.status.success());
    let counts: Vec<&str> = life["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["counts"].as_str())
        .collect();
    assert_eq!(counts, ["asked", "valid", "asked", "valid", "void"]);
    assert_eq!(life["redis"], life["postgres"]);
    assert_eq!(life["log"]["state"], "confirmed");

    let rejected = hold_of(&sku_in(1, "b"), "too-many").to_string();
    let shown = world.holdfast(&["show", &rejected]).await;
    assert!(shown.status.success(), "{}{}", out(&shown), err(&shown));
    assert!(out(&shown).contains("insufficient_stock"));
    let unknown = hold_of(&sku_in(1, "b"), "nobody").to_string();
    let shown = world.holdfast(&["show", &unknown]).await;
    assert_eq!(shown.status.code(), Some(1));
    let shown = world.holdfast(&["show", "no-id"]).await;
    assert_eq!(shown.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_say_who_owns_them_and_how_far_they_are() {
    let world = World::lived().await;
    world.stock(&sku_in(1, "b"), 1).await;
    let shown = world.holdfast(&["lanes", "--json"]).await;
    assert!(shown.status.success(), "{}", err(&shown));
    let lanes: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(lanes.as_array().unwrap().len(), 2);
    assert_eq!(lanes[0]["commands_lag"], 0);
    assert_eq!(lanes[1]["commands_lag"], 1);
    assert_eq!(lanes[0]["events_lag"], 0);
    assert_eq!(lanes[0]["redis"]["fence"], lanes[0]["last_decided"]);
    assert!(
        lanes[0]["owner"]
            .as_str()
            .unwrap()
            .ends_with(&std::process::id().to_string()),
        "{lanes}"
    );
    let shown = world.holdfast(&["lanes"]).await;
    assert!(out(&shown).contains("generation"));
}
