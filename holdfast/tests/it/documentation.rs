//! What the documentation for upstream teams shows is what happens.

use std::collections::BTreeMap;

use domain::{EventId, Reason};
use serde_json::{Value, json};

use crate::{
    wire::{Wire, hold_id, lane},
    world::{World, play},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_shows_the_examples_that_are_tested() {
    let read = |path: &str| {
        let path = format!("{}/../docs/{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let page = read("upstream.md");
    for example in ["examples/reserve.py", "examples/valid_events.py"] {
        assert!(
            page.contains(&format!("```python\n{}```", read(example))),
            "docs/upstream.md shows another {example}"
        );
    }
    let line = "kcat -C -b 127.0.0.1:19092 -t inventory.events.v1 -f '%p %o %k %h\\n'";
    assert!(page.contains(line), "the line that the test below runs");
    // Every refusal has its line.
    for reason in Reason::ALL {
        assert!(
            page.contains(&format!("`{}`", reason.code())),
            "docs/upstream.md does not know `{}`",
            reason.code()
        );
    }
}

/// What `/docs` and a generated client know is what is served, by whatever role, and what the pages promise.
#[test]
fn the_description_of_the_api_has_every_call_of_every_role() {
    play(async {
        let world = World::shared().await;
        let described = world.get("/openapi.json").await.body;
        let paths = described["paths"].as_object().expect("paths");
        let nowhere = "000e2be4-9d35-8aa6-a571-1a9ffd9d8aab";
        for (path, calls) in paths {
            for (method, call) in calls.as_object().expect("calls") {
                let at = path.replace("{sku}", "never-stocked").replace("{hold_id}", nowhere);
                let request = world.client.request(
                    method.to_uppercase().parse().expect("a method"),
                    format!("{}{at}", world.url),
                );
                let answer = world.request(request).await;
                let is_served = !matches!(answer.code(), "not_found" | "method_not_allowed");
                assert!(is_served, "{method} {path}: {answer:?}");
                let status = answer.status.to_string();
                assert!(
                    call["responses"][&status].is_object(),
                    "{method} {path} says nothing of {status}"
                );
                assert!(
                    call["summary"].is_string() && call["operationId"].is_string(),
                    "{method} {path}"
                );
            }
        }
        let known: Vec<String> = paths.keys().map(|path| without_names(path)).collect();
        for page in [
            "README.md",
            "docs/checkout.md",
            "docs/fulfilment.md",
            "docs/live-stock.md",
        ] {
            let text = std::fs::read_to_string(format!("{}/../{page}", env!("CARGO_MANIFEST_DIR"))).expect(page);
            let mentioned = text.match_indices("/v1/").map(|(at, _)| {
                let end = text[at..].find(|letter: char| !(letter.is_alphanumeric() || "/_{}<>".contains(letter)));
                without_names(&text[at..][..end.unwrap_or(text.len() - at)].replace(['<', '>'], "{}"))
            });
            for path in mentioned {
                assert!(
                    known.contains(&path),
                    "{page} has {path}, which the description does not know: {known:?}"
                );
            }
        }
    });
}

/// A path whose variable segments are `{}`.
fn without_names(path: &str) -> String {
    let segments = path.split('/');
    let shown = segments.map(|segment| if segment.contains('{') { "{}" } else { segment });
    shown.collect::<Vec<_>>().join("/")
}

/// The functions of `docs/ids.md` find the page's own examples, and all ids that we make.
#[tokio::test(flavor = "multi_thread")]
async fn ids_can_be_computed_as_the_documentation_says() {
    let world = World::shared().await;
    let wire = Wire::of(world).await;
    let page = std::fs::read_to_string(format!("{}/../docs/ids.md", env!("CARGO_MANIFEST_DIR"))).expect("docs/ids.md");
    let (_, code) = page.split_once("```python\n").expect("a Python example");
    let (code, _) = code.split_once("```").expect("it ends");
    let compute = async |function: &str, cases: Value| -> Vec<Value> {
        let asking =
            format!("import json, sys\nprint(json.dumps([{function}(*case) for case in json.loads(sys.argv[1])]))");
        let (status, out, error) = wire
            .python(&["-c", &format!("{code}\n{asking}"), &cases.to_string()])
            .await;
        assert_eq!(status, 0, "{error}");
        serde_json::from_str(&out).expect("a list")
    };
    let keys: Vec<String> = (0..100)
        .map(|n| "~key/".repeat(n % 40).replace('~', &n.to_string()) + "x")
        .collect();
    let numbers: Vec<i32> = (0..100).map(|n| n * 41 % 4_096).collect();
    let cases: Vec<_> = numbers
        .iter()
        .zip(&keys)
        .map(|(number, key)| json!([number, "default", key]))
        .collect();
    let ours: Vec<_> = numbers
        .iter()
        .zip(&keys)
        .map(|(n, key)| json!(hold_id(lane(*n), key).to_string()))
        .collect();
    assert_eq!(compute("hold_id", json!(cases)).await, ours);
    let of_holds = compute("lane_of_hold", ours.iter().map(|id| json!([id])).collect()).await;
    assert_eq!(of_holds, numbers.iter().map(|number| json!(number)).collect::<Vec<_>>());

    let offset = |n: i32| i64::from(n) * 12_345_678_901;
    let cases: Vec<_> = numbers.iter().map(|n| json!([n, offset(*n) / 7, offset(*n)])).collect();
    let ours = numbers
        .iter()
        .map(|n| json!(EventId::of(lane(*n), offset(*n) / 7, offset(*n)).to_string()));
    assert_eq!(compute("event_id", json!(cases)).await, ours.collect::<Vec<_>>());
    let skus: Vec<String> = (0..100)
        .map(|n| "a.B_9~-".repeat(9)[..=n % 60].to_owned() + &n.to_string())
        .collect();
    let ours: Vec<_> = skus.iter().map(|sku| json!(wire.lane_of(sku).number())).collect();
    assert_eq!(
        compute(
            "lane_of_sku",
            skus.iter().map(|sku| json!([sku, world.lanes])).collect()
        )
        .await,
        ours
    );

    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && line.ends_with("` |"))
        .map(|line| {
            let cells: Vec<&str> = line
                .trim_matches(['|', ' '])
                .split('|')
                .map(|cell| cell.trim().trim_matches('`'))
                .collect();
            assert_eq!(cells.len(), 4, "{line}");
            cells
        });
    let (holds, events): (Vec<_>, Vec<_>) = rows.partition(|row| row[1].parse::<i64>().is_err());
    assert_eq!((holds.len(), events.len()), (4, 3), "the golden examples");
    let number = |text: &str| text.parse::<i64>().expect("a number");
    let cases = holds
        .iter()
        .map(|row| json!([number(row[0]), row[1], row[2]]))
        .collect();
    assert_eq!(
        compute("hold_id", cases).await,
        holds.iter().map(|row| json!(row[3])).collect::<Vec<_>>()
    );
    let cases = events
        .iter()
        .map(|row| json!([number(row[0]), number(row[1]), number(row[2])]))
        .collect();
    assert_eq!(
        compute("event_id", cases).await,
        events.iter().map(|row| json!(row[3])).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_shows_keys_types_and_ids_of_the_flow() {
    let world = World::shared().await;
    let wire = &Wire::of(world).await;
    let sku = &world.sku_in(lane(0), "kcat");
    world.stock(sku, 5).await;
    let hold = world.reserve("kcat-key", sku, 2, "ann").await.hold_id();
    world.confirm(&hold).await;
    let events = kcat(world, &wire.topics.events).await;
    let line = |lines: &str, kind: &str, key: &str| {
        let kind = format!("ce_type=holdfast.{kind},");
        let found = lines
            .lines()
            .find(|line| line.contains(&kind) && line.split(' ').nth(2) == Some(key));
        found
            .unwrap_or_else(|| panic!("no {kind} of {key}:\n{lines}"))
            .to_owned()
    };
    let created = line(&events, "HoldCreated", sku);
    let cells: Vec<&str> = created.splitn(4, ' ').collect();
    let offset: i64 = cells[1].parse().expect("an offset");
    let seen = wire
        .events(lane(0))
        .await
        .into_iter()
        .find(|seen| seen.record.offset == offset)
        .expect("it is there");
    let event = seen.event.expect("it can be read");
    let headers: BTreeMap<&str, &str> = cells[3].split(',').filter_map(|pair| pair.split_once('=')).collect();
    assert_eq!(cells[0], "0", "the partition is the lane");
    for (name, value) in [
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", event.event_id.to_string()),
        ("ce_type", "holdfast.HoldCreated".to_owned()),
        ("ce_subject", hold.clone()),
        ("epoch", event.epoch.to_string()),
        ("previous", event.previous_command_offset.to_string()),
        ("command", event.command_offset.to_string()),
    ] {
        assert_eq!(headers.get(name), Some(&value.as_str()), "{name} in {created}");
    }
    line(&events, "StockAdjusted", sku);
    line(&events, "HoldConfirmed", &hold);
    let commands = kcat(world, &wire.topics.commands).await;
    assert!(line(&commands, "Reserve", sku).contains(&format!("ce_subject={hold}")));
    line(&commands, "Confirm", &hold);
}

/// The line of the documentation, to the end of the log.
async fn kcat(world: &World, topic: &str) -> String {
    let brokers = &world.connections.kafka_brokers.addresses;
    let output = tokio::process::Command::new("kcat")
        .args([
            "-C",
            "-b",
            brokers,
            "-t",
            topic,
            "-f",
            "%p %o %k %h\\n",
            "-o",
            "beginning",
            "-e",
            "-q",
        ])
        .output()
        .await
        .expect("kcat is installed (./run and ./test do it)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
