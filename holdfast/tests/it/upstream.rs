//! Upstream: services that produce commands to Kafka are served like HTTP clients, and what they write wrong harms nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use domain::{EventBody, EventId, Lane, Reason};
use futures::future::join_all;
use plumbing::{kafka::client, task};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use schemas::records::{CommandBody, InventoryCommand};
use serde_json::{Value, json};

use crate::{
    wire::{Wire, adjusting, confirming, hold_id, json_lines, lane, reserving},
    world::{PATIENCE, Setup, World, times},
};

/// Runs `docs/examples/reserve.py`, whose service prints the outcome of what it asks.
async fn service(wire: &Wire<'_>, arguments: &[&str]) -> Value {
    let mut all = vec!["reserve.py"];
    all.extend(arguments);
    let (code, out, error) = wire.python(&all).await;
    assert_eq!(code, 0, "{arguments:?}: {out}{error}");
    json_lines(&out).pop().expect("an outcome")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_service_adjusts_reserves_and_confirms_over_kafka_and_http_sees_the_same() {
    let world = World::shared().await;
    let wire = &Wire::of(world).await;
    // SKUs of every lane: a partitioner of another kind would have to be lucky four times.
    for number in 0..4 {
        let sku = &world.sku_in(lane(number), "python");
        let adjusted = service(
            wire,
            &["adjust", sku, "10", &format!("delivery-{sku}"), "delivery", "warehouse"],
        )
        .await;
        assert_eq!(
            (&adjusted["type"], &adjusted["lane"]),
            (&json!("StockAdjusted"), &json!(number)),
            "{adjusted}"
        );
        assert_eq!(adjusted["lines"][0]["on_hand"], 10);
        let sent_on = wire.decisions(lane(number)).await.into_iter();
        let sent_on = sent_on
            .filter(|event| event.request_id == adjusted["request_id"])
            .count();
        assert_eq!(sent_on, 1, "the partitioner knows the lane: nothing was sent on");
    }

    let sku = &world.sku_in(lane(2), "python");
    let reserved = service(wire, &["reserve", sku, "3", "ann", "python-order"]).await;
    assert_eq!(reserved["type"], "HoldCreated", "{reserved}");
    let hold = reserved["hold_id"].as_str().expect("a hold").to_owned();
    assert_eq!(hold, hold_id(lane(2), "python-order").to_string());
    let seen = world.get(&format!("/v1/holds/{hold}")).await;
    assert_eq!(
        (seen.status, seen.state(), &seen.body["user_id"]),
        (200, "held", &json!("ann")),
        "{seen:?}"
    );

    let replayed = world.reserve("python-order", sku, 3, "ann").await;
    assert_eq!(
        (replayed.status, replayed.hold_id()),
        (200, hold.clone()),
        "one key, one hold: {replayed:?}"
    );
    assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
    let again = service(wire, &["reserve", sku, "3", "ann", "python-order"]).await;
    assert_eq!(
        (&again["type"], &again["hold_id"]),
        (&json!("HoldReplayed"), &json!(hold))
    );
    let other = service(wire, &["reserve", sku, "4", "ann", "python-order"]).await;
    assert_eq!(
        (&other["type"], &other["body"]["reason"]),
        (&json!("CommandRefused"), &json!("idempotency_key_reused"))
    );
    let too_many = service(wire, &["reserve", sku, "8", "bob", "python-bob"]).await;
    assert_eq!(
        (&too_many["type"], &too_many["body"]["reason"]),
        (&json!("HoldRejected"), &json!("insufficient_stock"))
    );
    assert_eq!(
        too_many["body"]["shortages"],
        json!([{"sku": sku, "requested": 8, "available": 7}])
    );
    assert_eq!(world.counters(sku).await, (10, 3, 0, 7));

    let confirmed = service(wire, &["confirm", &hold, "payment-1"]).await;
    assert_eq!(
        (&confirmed["type"], &confirmed["lane"]),
        (&json!("HoldConfirmed"), &json!(2))
    );
    let seen = world.confirm(&hold).await;
    assert_eq!((seen.status, seen.state()), (200, "confirmed"), "{seen:?}");
    let refused = service(wire, &["cancel", &hold]).await;
    assert_eq!(
        (&refused["type"], &refused["body"]["reason"]),
        (&json!("CommandRefused"), &json!("already_confirmed"))
    );
    assert_eq!(world.counters(sku).await, (10, 0, 3, 7));
}

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
    // Every refusal has its line.
    for reason in Reason::ALL {
        assert!(
            page.contains(&format!("`{}`", reason.code())),
            "docs/upstream.md does not know `{}`",
            reason.code()
        );
    }
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
async fn one_adjustment_sent_fifty_times_over_http_and_kafka_also_to_wrong_lanes_counts_once() {
    let world = World::shared().await;
    let wire = &Wire::of(world).await;
    for round in 0..times(2, 10) {
        let (sku, id) = (format!("often-{round}"), format!("often-id-{round}"));
        let (sku, id) = (sku.as_str(), id.as_str());
        let over_http = async || {
            let body = json!({"sku": sku, "change": 7, "reason": "delivery"});
            let request = world
                .posting("/v1/stock/adjustments", &body)
                .header("Idempotency-Key", id);
            let answer = world.request(request.header("X-Actor", "warehouse")).await;
            assert_eq!((answer.status, &answer.body["on_hand"]), (200, &json!(7)), "{answer:?}");
            answer.header("idempotent-replayed").is_none()
        };
        // Every lane in turn: three of four are wrong.
        let over_kafka = async |number: i32| {
            let command = adjusting(id, sku, 7);
            wire.write_command(lane(number % 4), &command).await;
            command.request_id
        };
        let (first, requests) = tokio::join!(
            join_all((0..25).map(|_| over_http())),
            join_all((0..25).map(over_kafka)),
        );
        let requests: BTreeSet<String> = requests.into_iter().collect();
        let ends = outcomes(wire, &requests).await;
        let applied_over_kafka = ends.values().filter(|name| *name == "StockAdjusted").count();
        let applied_over_http = first.iter().filter(|first| **first).count();
        assert_eq!(applied_over_kafka + applied_over_http, 1, "{ends:?}");
        assert!(
            ends.values()
                .all(|name| name == "StockAdjusted" || name == "StockReplayed"),
            "{ends:?}"
        );
        assert_eq!(world.counters(sku).await, (7, 0, 0, 7));
    }
}

/// Waits until each of these requests has its outcome, and returns their types. No request may have two.
async fn outcomes(wire: &Wire<'_>, requests: &BTreeSet<String>) -> BTreeMap<String, String> {
    let look = async || {
        let mut found = BTreeMap::new();
        for number in 0..wire.world.lanes {
            for event in wire.decisions(lane(i32::from(number))).await {
                let is_sent_on = matches!(event.body, EventBody::CommandForwarded { .. });
                if !is_sent_on && requests.contains(&event.request_id) {
                    let twice = found.insert(event.request_id.clone(), event.body.name().to_owned());
                    assert_eq!(twice, None, "{event:?}");
                }
            }
        }
        if found.len() == requests.len() {
            Ok(found)
        } else {
            Err(format!("{} of {}", found.len(), requests.len()))
        }
    };
    wire.world.eventually("each command has its outcome", look).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hold_commands_in_a_wrong_lane_find_their_hold_and_copies_are_not_sent_on_again() {
    let world = World::shared().await;
    let wire = &Wire::of(world).await;
    let sku = &world.sku_in(lane(1), "astray");
    world.stock(sku, 5).await;
    let reserve = reserving("astray-key", sku, 2, "ann");
    wire.write_command(lane(3), &reserve).await;
    let hold = hold_id(lane(1), "astray-key").to_string();
    let confirm = confirming(&hold);
    outcomes(wire, &BTreeSet::from([reserve.request_id])).await;
    wire.write_command(lane(0), &confirm).await;
    let ends = outcomes(wire, &BTreeSet::from([confirm.request_id])).await;
    assert_eq!(ends.into_values().collect::<Vec<_>>(), ["HoldConfirmed"]);
    assert_eq!(world.get(&format!("/v1/holds/{hold}")).await.state(), "confirmed");

    // A lane that does not exist, and a cart of two lanes.
    let nowhere = confirming("fffa2774-9426-80a8-b1c5-ca7e69a1d0a8");
    let offset = wire.write_command(lane(2), &nowhere).await;
    assert_eq!(refusal(&wire.decision(lane(2), offset).await), "hold_not_found");
    let mut cart = reserving("astray-cart", sku, 1, "ann");
    if let CommandBody::Reserve(reserve) = &mut cart.body {
        reserve.lines.push(schemas::records::ReserveLine {
            sku: world.sku_in(lane(2), "astray"),
            quantity: 1,
        });
    }
    let offset = wire.write_command(lane(1), &cart).await;
    assert_eq!(refusal(&wire.decision(lane(1), offset).await), "several_lanes");
}

fn refusal(event: &domain::Event) -> &str {
    match &event.body {
        EventBody::CommandRefused { reason, .. } => reason.code(),
        other => panic!("no refusal: {other:?}"),
    }
}

/// A producer whose commands count together or not at all.
struct Transactions {
    producer: BaseProducer,
    topic: String,
}

impl Transactions {
    fn of(wire: &Wire<'_>) -> Self {
        let connections = &wire.world.connections;
        let producer: BaseProducer = client::producer(&connections.kafka_brokers, "test-transactions", "0")
            .set("transactional.id", format!("{}test", connections.topic_prefix))
            .create()
            .expect("legal options");
        producer.init_transactions(PATIENCE).expect("the broker answers");
        Self {
            producer,
            topic: wire.topics.commands.clone(),
        }
    }

    fn send(&self, lane: Lane, values: &[Vec<u8>]) {
        for value in values {
            let record = BaseRecord::<str, [u8]>::to(&self.topic)
                .partition(lane.partition())
                .payload(value);
            self.producer.send(record).expect("queued");
        }
        self.producer.flush(PATIENCE).expect("written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_committed_transactions_are_decided_and_aborted_ones_were_never_asked() {
    let world = Setup::new().with("HOLDFAST_SKIP_SECONDS", 2).start().await;
    let wire = &Wire::of(&world).await;
    let sku = &world.sku_in(lane(2), "transacted");
    let transactions = Transactions::of(wire);
    let encode = |commands: &[InventoryCommand]| -> Vec<Vec<u8>> {
        commands
            .iter()
            .map(|command| wire.codec.encode_command_record(command))
            .collect()
    };
    let (mut asked, mut never) = (BTreeSet::new(), BTreeSet::new());
    let mut transactions = Some(transactions);
    // Lengths of transactions: aborted ones in a row, at the start, and longer than a batch.
    let rounds = [
        (3, false),
        (2, true),
        (1, false),
        (200, false),
        (4, true),
        (300, true),
        (1, false),
        (1, true),
        (5, false),
    ];
    for round in 0..times(1, 5) {
        for (step, (length, commits)) in rounds.into_iter().enumerate() {
            let name = |n: usize| format!("transacted-{round}-{step}-{n}");
            let commands: Vec<_> = (0..length).map(|n| adjusting(&name(n), sku, 1)).collect();
            let ids = commands.iter().map(|command| command.request_id.clone());
            if commits {
                asked.extend(ids)
            } else {
                never.extend(ids)
            }
            let (owned, values) = (transactions.take().expect("given back"), encode(&commands));
            let working = task::thread("transaction", move || {
                owned.producer.begin_transaction().expect("it begins");
                owned.send(lane(2), &values);
                if commits {
                    owned.producer.commit_transaction(PATIENCE).expect("committed");
                } else {
                    owned.producer.abort_transaction(PATIENCE).expect("aborted");
                }
                owned
            });
            transactions = Some(working.await.expect("no panic"));
            let plain = adjusting(&name(length), sku, 1);
            wire.write_command(lane(2), &plain).await;
            asked.insert(plain.request_id);
        }
    }
    let ends = outcomes(wire, &asked).await;
    assert!(ends.values().all(|name| name == "StockAdjusted"));
    let units = asked.len() as i64;
    assert_eq!(world.counters(sku).await, (units, 0, 0, units));

    // An open transaction holds its lane back, and no other; then it counts.
    let (owned, held_back) = (
        transactions.take().expect("given back"),
        adjusting("transacted-open", sku, 1),
    );
    let values = encode(&[held_back]);
    let working = task::thread("transaction", move || {
        owned.producer.begin_transaction().expect("it begins");
        owned.send(lane(2), &values);
        owned
    });
    let owned = working.await.expect("no panic");
    let waiting = world.posting(
        "/v1/stock/adjustments",
        &json!({"sku": sku, "change": 1, "reason": "test"}),
    );
    let waiting = world.request(waiting.header("Prefer", "wait=1")).await;
    assert_eq!(waiting.status, 202, "{waiting:?}");
    world.stock(&world.sku_in(lane(1), "transacted"), 1).await;
    // Longer than HOLDFAST_SKIP_SECONDS: what an open transaction holds is no hole.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let working = task::thread("transaction", move || owned.producer.commit_transaction(PATIENCE));
    working.await.expect("no panic").expect("committed");
    world
        .eventually("both are decided", async || match world.counters(sku).await {
            (on_hand, ..) if on_hand == units + 2 => Ok(()),
            counters => Err(format!("{counters:?}")),
        })
        .await;

    // The end of the lane is a hole (the last commit's marker): it is closed by a decision of its own.
    world
        .eventually("the hole at the end is closed", async || {
            let end = wire.ends(&wire.topics.commands).await[2];
            let last = wire.decisions(lane(2)).await.pop().expect("many");
            let closed = matches!(last.body, EventBody::OffsetsSkipped) && last.command_offset == end - 1;
            if closed {
                Ok(())
            } else {
                Err(format!("{last:?}, the log ends at {end}"))
            }
        })
        .await;
    let decisions = wire.decisions(lane(2)).await;
    assert!(
        decisions.iter().all(|event| !never.contains(&event.request_id)),
        "an aborted command was decided"
    );
    world.stock(sku, 5_000).await;
    world.assert_verified().await;
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
    let brokers = &world.connections.kafka_brokers;
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
