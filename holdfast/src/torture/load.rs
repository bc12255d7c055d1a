//! Buyers who write down what they ask and what they are told, over HTTP, and an upstream service that produces to Kafka.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{Adjustment, Command, CommandBody, Key, Lane, Line, Lines, Quantity, Reserve, Sku, Tenant, Text, UserId};
use plumbing::{
    config::Brokers,
    kafka::producer::{Producer, Record},
    task::{self, Task},
};
use reqwest::Method;
use schemas::{Codec, Topics, headers};
use serde_json::{Value, json};

use super::{dice::Dice, system::LANES};
use crate::check::history::{Call, Op, Reply};

/// A client waits so long for an answer; then it does not know.
const PATIENCE: Duration = Duration::from_secs(8);

/// What all clients share.
#[derive(Debug)]
pub struct Desk {
    /// Where the ingresses are.
    pub urls: Vec<String>,
    /// What is sold.
    pub skus: Vec<String>,
    client: reqwest::Client,
    begun: Instant,
    ops: Mutex<Vec<Op>>,
    closing: AtomicBool,
    closed: AtomicBool,
    waiting: AtomicUsize,
}

impl Desk {
    /// Opens it.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub fn open(urls: Vec<String>, skus: Vec<String>) -> anyhow::Result<Arc<Self>> {
        let client = plumbing::tls::plain_client().timeout(PATIENCE).build()?;
        Ok(Arc::new(Self {
            urls,
            skus,
            client,
            begun: Instant::now(),
            ops: Mutex::default(),
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        }))
    }

    /// Microseconds since it was opened.
    #[must_use]
    pub fn now_us(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// Requests that have no answer yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether anybody who asked within the last so much time has a decided answer.
    #[must_use]
    pub fn decided_since(&self, ago: Duration) -> bool {
        !self.lanes_decided_since(ago).is_empty()
    }

    /// Whether every lane has decided what was asked within the last so much time.
    #[must_use]
    pub fn all_decide(&self, ago: Duration) -> bool {
        self.lanes_decided_since(ago).len() == usize::from(LANES)
    }

    fn lanes_decided_since(&self, ago: Duration) -> BTreeSet<Lane> {
        let since_us = self.now_us() - i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
        let ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        // Answers are in the order in which they came: none before that moment was asked after it.
        ops.iter()
            .rev()
            .take_while(|op| op.returned_us > since_us)
            .filter(|op| op.invoked_us > since_us && op.reply != Reply::Unknown && op.call != Call::Send)
            .filter_map(|op| Some(Lane::of_sku(&Sku::parse(&op.sku).ok()?, LANES)))
            .collect()
    }

    /// Nobody begins anything new; what was begun is asked for until it is decided.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Nobody asks any more.
    pub fn give_up(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// All that was asked and answered so far.
    #[must_use]
    pub fn history(&self) -> Vec<Op> {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, op: Op) {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).push(op);
    }

    /// Asks until it is decided; `None` when the desk closed before that.
    pub async fn ask(&self, op: &Op, dice: &mut Dice, path: &str, body: &Value) -> Option<Reply> {
        loop {
            let url = format!("{}{path}", dice.of(&self.urls));
            let keyed = matches!(op.call, Call::Reserve | Call::Adjust);
            let mut request = self.client.request(Method::POST, url).json(body);
            if keyed {
                request = request.header("Idempotency-Key", &op.key);
            }
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let invoked_us = self.now_us();
            let reply = answer(request).await;
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.note(Op {
                invoked_us,
                returned_us: self.now_us(),
                reply: reply.clone(),
                ..op.clone()
            });
            match &reply {
                Reply::Unknown if self.closed.load(Ordering::Relaxed) => return None,
                Reply::Unknown => tokio::time::sleep(Duration::from_millis(100)).await,
                Reply::Done { .. } | Reply::Refused { .. } => return Some(reply),
            }
        }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Reply {
    let Ok(response) = request.send().await else {
        return Reply::Unknown;
    };
    let status = response.status().as_u16();
    let replayed = response.headers().contains_key("idempotent-replayed");
    let body: Value = response.json().await.unwrap_or_default();
    match status {
        200 | 201 => Reply::Done {
            hold_id: body["hold_id"].as_str().map(ToOwned::to_owned),
            replayed,
        },
        202 | 429 | 500.. => Reply::Unknown,
        _ => Reply::Refused {
            code: body["code"].as_str().unwrap_or_default().to_owned(),
            early: body.get("as_of").is_some_and(|as_of| !as_of.is_null()),
        },
    }
}

/// Starts a buyer: holds, pays or gives back or forgets, and now and then brings stock.
pub fn buyer(desk: Arc<Desk>, name: String, mut dice: Dice) -> Task<()> {
    task::spawn(name.clone(), async move {
        let mut number = 0;
        while !desk.closing.load(Ordering::Relaxed) {
            number += 1;
            buy(&desk, format!("{name}-{number}"), &mut dice).await;
        }
    })
}

async fn buy(desk: &Desk, key: String, dice: &mut Dice) {
    let op = Op {
        call: if dice.percent(5) { Call::Adjust } else { Call::Reserve },
        sku: dice.of(&desk.skus).clone(),
        quantity: i64::try_from(dice.between(1, 3)).unwrap_or(1),
        user: format!("user-{key}"),
        key,
        invoked_us: 0,
        returned_us: 0,
        reply: Reply::Unknown,
    };
    if op.call == Call::Adjust {
        let body = json!({"sku": op.sku, "change": op.quantity, "reason": "delivery"});
        desk.ask(&op, dice, "/v1/stock/adjustments", &body).await;
        return;
    }
    let ttl_seconds = dice.between(2, 15);
    let lines = json!([{"sku": op.sku, "quantity": op.quantity}]);
    let body = json!({"lines": lines, "user_id": op.user, "ttl_seconds": ttl_seconds});
    let reply = desk.ask(&op, dice, "/v1/holds", &body).await;
    let Some(Reply::Done {
        hold_id: Some(hold_id), ..
    }) = reply
    else {
        return;
    };
    let (call, path, body) = match dice.between(1, 10) {
        1..=4 => (Call::Confirm, "confirm", json!({"payment_ref": op.key})),
        5..=7 => (Call::Cancel, "cancel", json!({})),
        _ => return,
    };
    let op = Op { call, ..op };
    desk.ask(&op, dice, &format!("/v1/holds/{hold_id}/{path}"), &body).await;
}

/// Starts an upstream service: adjustments and holds, some in the wrong lane, some unreadable.
///
/// # Errors
/// Kafka's client refuses its options.
pub fn upstream(
    desk: Arc<Desk>,
    brokers: &Brokers,
    topics: Topics,
    codec: Codec,
    mut dice: Dice,
) -> anyhow::Result<Task<()>> {
    let producer = Producer::new(brokers, "holdfast-torture", "0")?;
    Ok(task::spawn("upstream", async move {
        let mut number = 0;
        while !desk.closing.load(Ordering::Relaxed) {
            number += 1;
            send(&desk, &producer, &topics, &codec, number, &mut dice).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }))
}

async fn send(desk: &Desk, producer: &Producer, topics: &Topics, codec: &Codec, number: usize, dice: &mut Dice) {
    let (sku, key) = (dice.of(&desk.skus).clone(), format!("upstream-{number}"));
    let other = dice.of(&desk.skus).clone();
    let asked = match dice.between(1, 10) {
        1..=5 => adjusting(&sku),
        6..=8 => reserving(&key, &[&sku]),
        // A cart, whose lines may live in two lanes.
        _ => reserving(&key, &[&sku, &other]),
    };
    let Some(command) = asked.and_then(|body| command(&key, body)) else {
        return;
    };
    let (garbage, misrouted) = (dice.percent(2), dice.percent(10));
    let home = Sku::parse(&sku).map_or(0, |sku| Lane::of_sku(&sku, LANES).partition());
    let partition = if misrouted { (home + 1) % i32::from(LANES) } else { home };
    let value = if garbage {
        b"no command".to_vec()
    } else {
        codec.encode_command(&command)
    };
    let headers = headers::of_command(&key, "/holdfast/torture", command.body.name(), &sku);
    let invoked_us = desk.now_us();
    let sent = producer.send(Record {
        topic: &topics.commands,
        partition: Some(partition),
        key: Some(sku.as_bytes()),
        value: Some(&value),
        headers: &headers,
    });
    let acknowledged = match sent {
        Ok(sent) => sent.await.is_ok(),
        Err(_) => false,
    };
    if garbage {
        return;
    }
    desk.note(Op {
        call: Call::Send,
        key,
        sku,
        quantity: 1,
        user: "upstream".to_owned(),
        invoked_us,
        returned_us: desk.now_us(),
        reply: if acknowledged {
            Reply::Done {
                hold_id: None,
                replayed: false,
            }
        } else {
            Reply::Unknown
        },
    });
}

fn adjusting(sku: &str) -> Option<CommandBody> {
    Some(CommandBody::AdjustStock {
        sku: Sku::parse(sku).ok()?,
        adjustment: Adjustment::Change(1),
        expected_on_hand: None,
        reason: Text::parse("reason", "delivery").ok()?,
        reference: None,
        actor: Text::parse("actor", "upstream").ok()?,
    })
}

fn reserving(key: &str, skus: &[&str]) -> Option<CommandBody> {
    let quantity = Quantity::parse(1).ok()?;
    let line = |sku: &&str| {
        Some(Line {
            sku: Sku::parse(sku).ok()?,
            quantity,
        })
    };
    Some(CommandBody::Reserve(Reserve {
        idempotency_key: Key::parse("key", key).ok()?,
        user_id: UserId::parse("upstream").ok()?,
        lines: Lines::parse(skus.iter().map(line).collect::<Option<_>>()?).ok()?,
        ttl_ms: Some(5_000),
        policy: domain::Policy::AllOrNothing,
        external_ref: None,
    }))
}

fn command(key: &str, body: CommandBody) -> Option<Command> {
    let id = Key::parse("key", key).ok()?;
    Some(Command {
        command_id: id.clone(),
        request_id: id,
        tenant: Tenant::parse("default").ok()?,
        issued_at: 0,
        source: None,
        body,
    })
}
