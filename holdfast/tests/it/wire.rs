//! The wire: Kafka as upstream services (and zombies) see it, beside the system under test.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
};

use domain::{Event, EventBody, HoldId, Key, Lane, LaneState, Sku, Tenant, Verdict};
use holdfast::log::{Decoder, LogReader, Record};
use plumbing::{
    kafka::producer::{self, Producer},
    task,
};
use schemas::{
    Codec, Topics, headers,
    records::{AdjustStock, CommandBody, Confirm, InventoryCommand, Reserve, ReserveLine},
};
use serde_json::Value;

use crate::world::World;

/// Where the examples of the documentation are.
pub const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples");
/// The CloudEvents source of what tests write.
const SOURCE: &str = "/holdfast/test";

/// Producers and readers on a world's topics.
pub struct Wire<'w> {
    pub world: &'w World,
    pub topics: Topics,
    pub codec: Codec,
    producer: Producer,
}

/// A record of the events topic, with what it counts for.
#[derive(Debug, Clone)]
pub struct Seen {
    pub record: Record,
    pub verdict: Verdict,
    /// `None` where the bytes are no event.
    pub event: Option<Event>,
}

impl<'w> Wire<'w> {
    pub async fn of(world: &'w World) -> Self {
        let decoder = Decoder::connect(&world.connections)
            .await
            .expect("the registry answers");
        Self {
            world,
            topics: Topics::with_prefix(&world.connections.topic_prefix),
            codec: decoder.codec().clone(),
            producer: Producer::new(&world.connections.kafka_brokers, "test", "0").expect("legal options"),
        }
    }

    /// Writes a record and returns its offset.
    pub async fn write(
        &self,
        topic: &str,
        lane: Lane,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&'static str, String)],
    ) -> i64 {
        let record = producer::Record {
            topic,
            partition: Some(lane.partition()),
            key,
            value,
            headers,
        };
        let acknowledged = self.producer.send(record).expect("queued");
        acknowledged.await.expect("acknowledged").offset
    }

    /// Writes bytes where commands are read.
    pub async fn write_command_bytes(&self, lane: Lane, key: &str, value: Option<&[u8]>) -> i64 {
        self.write(&self.topics.commands, lane, Some(key.as_bytes()), value, &[])
            .await
    }

    /// Writes a command, as an upstream service does: without headers.
    pub async fn write_command(&self, lane: Lane, command: &InventoryCommand) -> i64 {
        let bytes = self.codec.encode_command_record(command);
        self.write_command_bytes(lane, "key", Some(&bytes)).await
    }

    /// Writes an event, as only reservers and zombies do.
    pub async fn write_event(&self, lane: Lane, event: &Event) -> i64 {
        let headers = headers::of_event(event, SOURCE);
        let bytes = self.codec.encode_event(event);
        self.write(&self.topics.events, lane, None, Some(&bytes), &headers)
            .await
    }

    async fn read(&self, topic: &str, partition: i32) -> Vec<Record> {
        let (brokers, topic) = (self.world.connections.kafka_brokers.clone(), topic.to_owned());
        let reading = task::thread("read", move || {
            let mut log = LogReader::open(&brokers, &topic, partition, 0).expect("it opens");
            let mut records = Vec::new();
            log.read_to_end(|record| {
                records.push(record);
                Ok(())
            })
            .expect("it can be read");
            records
        });
        reading.await.expect("no panic")
    }

    /// All commands of a lane that were ever asked.
    pub async fn commands(&self, lane: Lane) -> Vec<Record> {
        self.read(&self.topics.commands, lane.partition()).await
    }

    /// All records of a lane's events, folded.
    pub async fn events(&self, lane: Lane) -> Vec<Seen> {
        let mut state = LaneState::default();
        let records = self.read(&self.topics.events, lane.partition()).await;
        let see = |record: Record| Seen {
            verdict: record.verdict(&mut state),
            event: self
                .codec
                .decode_event(record.value.as_deref().unwrap_or_default())
                .ok(),
            record,
        };
        records.into_iter().map(see).collect()
    }

    /// The valid events of a lane.
    pub async fn decisions(&self, lane: Lane) -> Vec<Event> {
        let seen = self.events(lane).await.into_iter();
        seen.filter(|seen| seen.verdict == Verdict::Valid)
            .map(|seen| seen.event.expect("a valid event can be read"))
            .collect()
    }

    /// The valid event of a command, once there is one.
    pub async fn decision(&self, lane: Lane, command: i64) -> Event {
        let found = self.world.eventually("the command is decided", async || {
            let decisions = self.decisions(lane).await;
            let found = decisions.into_iter().find(|event| event.command_offset == command);
            found.ok_or_else(|| format!("no event of command {command} in lane {lane}"))
        });
        found.await
    }

    /// Waits until each of these requests has its outcome, and returns their types. No request may have two.
    pub async fn outcomes(&self, requests: &BTreeSet<String>) -> BTreeMap<String, String> {
        let look = async || {
            let mut found = BTreeMap::new();
            for number in 0..self.world.lanes {
                for event in self.decisions(lane(i32::from(number))).await {
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
        self.world.eventually("each command has its outcome", look).await
    }

    pub async fn dead_letters(&self) -> Vec<Record> {
        self.read(&self.topics.dead_letters, 0).await
    }

    /// The offset of the next record of every lane of a topic.
    pub async fn ends(&self, topic: &str) -> Vec<i64> {
        let (brokers, topic) = (self.world.connections.kafka_brokers.clone(), topic.to_owned());
        let lanes = self.world.lanes;
        let asking = task::thread("ends", move || {
            let end = |lane: Lane| {
                let log = LogReader::open(&brokers, &topic, lane.partition(), 0).expect("it opens");
                log.bounds().expect("the broker answers").1
            };
            Lane::all(lanes).map(end).collect()
        });
        asking.await.expect("no panic")
    }

    pub fn lane_of(&self, sku: &str) -> Lane {
        Lane::of_sku(&Sku::parse(sku).expect("a SKU"), self.world.lanes)
    }

    /// Runs an example of the documentation: exit code, standard output, standard error.
    pub async fn python(&self, arguments: &[&str]) -> (i32, String, String) {
        let python = std::env::var_os("HOLDFAST_TEST_PYTHON").expect(
            "HOLDFAST_TEST_PYTHON names no Python with the packages of infra/python/requirements.txt: run the tests by \
             ./test, which makes one",
        );
        let connections = &self.world.connections;
        let output = tokio::process::Command::new(python)
            .args(arguments)
            .current_dir(EXAMPLES)
            .env("HOLDFAST_KAFKA_BROKERS", &connections.kafka_brokers.addresses)
            .env("HOLDFAST_REGISTRY_URL", connections.registry_url.expose())
            .env("HOLDFAST_TOPIC_PREFIX", &connections.topic_prefix)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .expect("HOLDFAST_TEST_PYTHON starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (
            output.status.code().unwrap_or(-1),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// What the documentation's reader takes for valid: (lane, offset, type).
    pub async fn python_reads(&self) -> Vec<(i64, i64, String)> {
        let brokers = &self.world.connections.kafka_brokers.addresses;
        let (code, out, error) = self.python(&["valid_events.py", brokers, &self.topics.events]).await;
        assert_eq!(code, 0, "{error}");
        in_order(&out, "lane", "ce_type")
    }

    /// What `holdfast tail` takes for valid: (lane, offset, type), without the LaneOpened.
    pub async fn tail_reads(&self) -> Vec<(i64, i64, String)> {
        let (code, out, error) = self.world.run(&["tail", "--from-beginning", "--no-follow"]).await;
        assert_eq!(code, 0, "{error}");
        let mut all = in_order(&out, "partition", "type");
        all.retain(|(_, _, kind)| kind != "LaneOpened");
        all
    }
}

/// JSON lines as (lane, offset, type), in order of the log.
fn in_order(lines: &str, lane: &str, kind: &str) -> Vec<(i64, i64, String)> {
    let mut all: Vec<_> = json_lines(lines)
        .iter()
        .map(|line| {
            let number = |name: &str| line[name].as_i64().expect("a number");
            let kind = line[kind].as_str().expect("a text").trim_start_matches("holdfast.");
            (number(lane), number("offset"), kind.to_owned())
        })
        .collect();
    all.sort();
    all
}

pub fn json_lines(text: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    text.lines().map(parse).collect()
}

/// A lane by its number.
pub fn lane(number: i32) -> Lane {
    Lane::new(number).expect("a lane")
}

pub fn hold_id(lane: Lane, key: &str) -> HoldId {
    let tenant = Tenant::parse("default").expect("a tenant");
    HoldId::of(lane, &tenant, &Key::parse("key", key).expect("a key"))
}

/// Why a command was refused.
pub fn refusal(event: &Event) -> &str {
    match &event.body {
        EventBody::CommandRefused { reason, .. } => reason.code(),
        other => panic!("no refusal: {other:?}"),
    }
}

/// A command under a request id of its own.
pub fn command(command_id: &str, body: CommandBody) -> InventoryCommand {
    InventoryCommand {
        command_id: command_id.to_owned(),
        request_id: plumbing::id::random().to_string(),
        tenant: "default".to_owned(),
        issued_at: 0,
        source: None,
        body,
    }
}

/// Adds units to a SKU.
pub fn adjusting(command_id: &str, sku: &str, change: i64) -> InventoryCommand {
    command(
        command_id,
        CommandBody::AdjustStock(AdjustStock {
            sku: sku.to_owned(),
            change: Some(change),
            set: None,
            expected_on_hand: None,
            reason: "delivery".to_owned(),
            reference: None,
            actor: "warehouse".to_owned(),
        }),
    )
}

/// Reserves one line.
pub fn reserving(key: &str, sku: &str, quantity: i64, user: &str) -> InventoryCommand {
    command(
        key,
        CommandBody::Reserve(Reserve {
            idempotency_key: key.to_owned(),
            user_id: user.to_owned(),
            lines: vec![ReserveLine {
                sku: sku.to_owned(),
                quantity,
            }],
            ttl_ms: None,
            policy: "all_or_nothing".to_owned(),
            external_ref: None,
        }),
    )
}

/// Confirms a hold.
pub fn confirming(hold_id: &str) -> InventoryCommand {
    command(
        hold_id,
        CommandBody::Confirm(Confirm {
            hold_id: hold_id.to_owned(),
            payment_ref: "payment-1".to_owned(),
        }),
    )
}
