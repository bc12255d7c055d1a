//! Transactional producers: what is committed is decided, what is aborted was never asked, and offsets have holes.

use std::{collections::BTreeSet, time::Duration};

use domain::{EventBody, Lane};
use plumbing::{kafka::client, task};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use schemas::records::InventoryCommand;
use serde_json::json;

use crate::{
    wire::{Wire, adjusting, lane},
    world::{PATIENCE, Setup, times},
};

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
    let ends = wire.outcomes(&asked).await;
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
