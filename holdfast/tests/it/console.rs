//! The console in a real browser, on the real engines: `tests/browser/console.mjs` tells the stories.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::IntoResponse as _,
    routing::post,
};
use plumbing::stop;
use schemas::{Registry, topics};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    wire::{Wire, adjusting},
    world::{Setup, World, free_port, play},
};

#[test]
fn people_use_the_console_in_a_browser() {
    play(async {
        let (_stopper, stop) = stop::pair();
        let (outside, serving) = plumbing::http::serve("127.0.0.1:0".parse().expect("an address"), outside(), stop)
            .await
            .expect("bound");
        let _serving = plumbing::task::spawn("outside", serving);
        let carrier = format!("http://{outside}/carrier");
        let world = Setup::new()
            .with("HOLDFAST_TOUR", true)
            .with("HOLDFAST_UNKNOWN_SCHEMA_SECONDS", 1)
            .with("HOLDFAST_RECONCILE_SECONDS", 1)
            .with("HOLDFAST_FULFILLER_CARRIER", &carrier)
            .with("HOLDFAST_FULFILLER_TICK_MS", 50)
            .with("HOLDFAST_FULFILLER_WAIT_MS", 50)
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{outside}/"))
            .start()
            .await;
        for (sku, units) in [
            ("mug", 40),
            ("shirt", 20),
            ("last-one", 1),
            ("last-two", 1),
            ("last-three", 1),
        ] {
            world.stock(sku, units).await;
        }
        bury_one_that_can_be_read_later(&world).await;
        bury_one_that_a_person_can_correct(&world).await;
        let mut people = BTreeMap::new();
        for (name, role) in [("anna", "admin"), ("olga", "operator"), ("vera", "viewer")] {
            people.insert(name, add(&world, name, role).await);
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
            .env("HOLDFAST_CARRIER", &carrier)
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

/// Makes a user; their password.
async fn add(world: &World, name: &str, role: &str) -> String {
    let (code, password, error) = world.run(&["console-user", "add", name, "--role", role]).await;
    assert_eq!(code, 0, "{error}");
    password.trim().to_owned()
}

/// What is not Holdfast's: a carrier that may be on strike (PUT says so), and a collector of traces.
fn outside() -> Router {
    let carrier = post(take).put(strike).with_state(Arc::<AtomicBool>::default());
    Router::new()
        .route("/carrier", carrier)
        .route("/v1/traces", post(|| async {}))
}

async fn strike(State(is_down): State<Arc<AtomicBool>>, Json(asked): Json<Value>) {
    is_down.store(asked["isDown"] == true, Ordering::Relaxed);
}

async fn take(State(is_down): State<Arc<AtomicBool>>, headers: HeaderMap) -> axum::response::Response {
    if is_down.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "on strike").into_response();
    }
    let key = headers["idempotency-key"].to_str().expect("text");
    Json(json!({"reference": format!("parcel {key}")})).into_response()
}

/// Three mugs in words that no service of ours writes.
async fn bury_one_that_a_person_can_correct(world: &World) {
    let wire = Wire::of(world).await;
    let lane = wire.lane_of("mug");
    let text = br#"{"sku":"mug","units":3}"#;
    let offset = wire.write_command_bytes(lane, "mug", Some(text)).await;
    wire.decision(lane, offset).await;
    assert_eq!(wire.dead_letters().await.len(), 2);
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

/// A process that serves the console and nothing else, before an API that wants a token.
#[test]
fn the_console_alone_speaks_to_an_api_elsewhere() {
    play(async {
        let mut setup = Setup::new().with("HOLDFAST_TOKEN", "a-token-of-the-api");
        setup.processes = vec!["ingress", "reserver", "persister"];
        let world = setup.prepare().await;
        for process in ["ingress", "reserver", "persister"] {
            world.spawn(process).await;
        }
        let password = add(&world, "olga", "operator").await;
        let port = free_port();
        world
            .spawn_with("console", &[("HOLDFAST_CONSOLE_ADDR", &format!("127.0.0.1:{port}"))])
            .await;
        let url = format!("http://127.0.0.1:{port}/console");
        let page = world
            .eventually("the page, from the bare address", async || {
                let page = world.client.get(format!("http://127.0.0.1:{port}/")).send().await;
                page.map_err(|error| error.to_string())
            })
            .await;
        assert!(
            page.headers()["content-security-policy"]
                .to_str()
                .expect("text")
                .contains("default-src 'none'")
        );
        assert_eq!(
            world
                .request(world.client.get(format!("{url}/api/v1/stock")))
                .await
                .status,
            401
        );

        let login = json!({"name": "olga", "password": password});
        let inside = world
            .eventually("a login", async || {
                let answer = world
                    .request(world.client.post(format!("{url}/api/login")).json(&login))
                    .await;
                (answer.status == 200)
                    .then_some(answer.clone())
                    .ok_or(format!("{answer:?}"))
            })
            .await;
        assert_eq!(inside.body["tour"], json!(false), "{inside:?}");
        let cookie = inside
            .header("set-cookie")
            .expect("a session")
            .split(';')
            .next()
            .expect("a part")
            .to_owned();
        let mark = inside.body["csrf"].as_str().expect("a mark").to_owned();
        let as_olga = |request: reqwest::RequestBuilder| request.header("cookie", &cookie).header("x-csrf", &mark);
        let adjusting = || {
            let body = json!({"sku": "alone", "set": 4, "reason": "delivery"});
            let request = world.client.post(format!("{url}/api/v1/stock/adjustments")).json(&body);
            as_olga(request.header("prefer", "wait=30").header("idempotency-key", "alone-1"))
        };
        let adjusted = world
            .eventually("an adjustment", async || {
                let answer = world.request(adjusting()).await;
                (answer.status == 200)
                    .then_some(answer.clone())
                    .ok_or(format!("{answer:?}"))
            })
            .await;
        assert_eq!(adjusted.body["on_hand"], 4);
        let lanes = world
            .request(as_olga(world.client.get(format!("{url}/api/lanes"))))
            .await;
        assert!(lanes.body[0]["owner"].is_string(), "{lanes:?}");
        let sale = world
            .request(as_olga(world.client.post(format!("{url}/api/tour/sale"))))
            .await;
        assert_eq!(sale.status, 403, "no tour is offered: {sale:?}");
    });
}
