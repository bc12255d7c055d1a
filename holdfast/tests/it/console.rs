//! The console in a real browser, on the real engines: `tests/browser/console.mjs` tells the stories.

use std::{collections::BTreeMap, path::PathBuf};

use schemas::{Registry, topics};
use serde_json::json;
use tokio::process::Command;

use crate::{
    wire::{Wire, adjusting},
    world::{Setup, World, play},
};

#[test]
fn people_use_the_console_in_a_browser() {
    play(async {
        let world = Setup::new()
            .with("HOLDFAST_TOUR", true)
            .with("HOLDFAST_UNKNOWN_SCHEMA_SECONDS", 1)
            .start()
            .await;
        for (sku, units) in [("mug", 40), ("shirt", 20), ("last-one", 1)] {
            world.stock(sku, units).await;
        }
        bury_one_that_can_be_read_later(&world).await;
        let mut people = BTreeMap::new();
        for (name, role) in [("olga", "operator"), ("vera", "viewer")] {
            let (code, password, error) = world.run(&["console-user", "add", name, "--role", role]).await;
            assert_eq!(code, 0, "{error}");
            people.insert(name, password.trim().to_owned());
        }
        let browser = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
        assert!(
            browser.join("node_modules").is_dir(),
            "the browser's driver is missing: npm ci --prefix {} (./test does it)",
            browser.display()
        );
        let told = Command::new("node")
            .arg(browser.join("console.mjs"))
            .env("HOLDFAST_URL", &world.url)
            .env("HOLDFAST_PEOPLE", json!(people).to_string())
            .kill_on_drop(true)
            .output()
            .await
            .expect("node starts: apt-get install nodejs chromium");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        println!("{}", text(&told.stdout));
        assert!(
            told.status.success() && text(&told.stdout).trim_end().ends_with("all is well"),
            "{}\n{}",
            text(&told.stdout),
            text(&told.stderr)
        );
        world.assert_verified().await;
    });
}

/// Writes seven mugs under a schema id that the registry gives only after the record was buried.
async fn bury_one_that_can_be_read_later(world: &World) {
    let wire = Wire::of(world).await;
    let registry = Registry::new(world.connections.registry_url.expose()).expect("a registry");
    let schema = topics::COMMANDS.schema.expect("commands have a schema");
    let subject = format!("{}console-test", world.connections.topic_prefix);
    // The registry knows a text again, also of an earlier run: each of these is new to it.
    let run = plumbing::id::random();
    let variant = |number: i32| schema.replacen("\"doc\": \"", &format!("\"doc\": \"{run} {number}. "), 1);
    let first = registry.register(&subject, &variant(0)).await.expect("registered");
    // Other tests register too: the id may go to one of them, but it will be given.
    let id = first + 5;
    let mut value = wire.codec.encode_command_record(&adjusting("late", "mug", 7));
    value.splice(1..5, id.to_be_bytes());
    let lane = wire.lane_of("mug");
    let offset = wire.write_command_bytes(lane, "mug", Some(&value)).await;
    wire.decision(lane, offset).await;
    assert_eq!(wire.dead_letters().await.len(), 1);
    for number in 1.. {
        let given = registry.register(&subject, &variant(number)).await.expect("registered");
        assert!(given <= id, "the id went to another schema: run this test again");
        if given == id {
            return;
        }
    }
}
