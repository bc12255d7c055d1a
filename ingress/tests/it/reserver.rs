//! The reserver, played by the test: commands come one by one, and each gets the event that the test wants.

use std::time::Duration;

use domain::{
    Command, CommandBody, Event, EventBody, EventId, EventLine, Fingerprint, HoldId, HoldState, HoldTerms, Lane,
    Reason, Reserve, Shortage, SkuPolicy, Tenant, Text, limits,
};
use plumbing::{
    kafka::{
        consumer,
        producer::{Producer, Record},
    },
    stop::{self, Stopper},
    task::{self, Task},
};
use rdkafka::Message;
use schemas::{Codec, headers};
use tokio::sync::mpsc;

use crate::world::{LANES, World};

/// A command as it stands in the log.
#[derive(Debug, Clone)]
pub struct Asked {
    pub lane: Lane,
    pub offset: i64,
    pub key: String,
    pub headers: Vec<(String, String)>,
    pub command: Command,
}

impl Asked {
    pub fn reserve(&self) -> &Reserve {
        match &self.command.body {
            CommandBody::Reserve(reserve) => reserve,
            other => panic!("not a Reserve: {other:?}"),
        }
    }

    pub fn hold_id(&self) -> HoldId {
        match &self.command.body {
            CommandBody::Reserve(reserve) => HoldId::of(self.lane, &self.command.tenant, &reserve.idempotency_key),
            other => other.hold_id().unwrap(),
        }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// The terms of a Reserve's hold.
    pub fn terms(&self, state: HoldState) -> HoldTerms {
        let reserve = self.reserve();
        let created_at = plumbing::time::now_ms();
        HoldTerms {
            attempt: self.offset,
            state,
            user_id: reserve.user_id.clone(),
            idempotency_key: reserve.idempotency_key.clone(),
            fingerprint: Fingerprint::of_reserve(reserve),
            created_at,
            expires_at: created_at + reserve.ttl_ms.unwrap_or(limits::HOLD_TTL_MS_DEFAULT),
            changed_at: created_at,
            policy: reserve.policy,
            external_ref: reserve.external_ref.clone(),
            payment_ref: None,
            reason: None,
            remaining_ms: None,
            cart: None,
            asked: Vec::new(),
        }
    }

    /// The lines of a Reserve, with 100 of each on hand.
    pub fn lines(&self, sku_version: i64) -> Vec<EventLine> {
        let lines = self.reserve().lines.as_slice().iter();
        lines
            .map(|line| EventLine {
                sku: line.sku.clone(),
                quantity: line.quantity.units(),
                counted: line.quantity.units(),
                on_hand: 100,
                held: line.quantity.units(),
                allocated: 0,
                sku_version,
            })
            .collect()
    }
}

#[derive(Debug, Clone, Copy)]
struct Owned {
    epoch: i64,
    previous: i64,
}

pub struct Reserver {
    producer: Producer,
    codec: Codec,
    events: String,
    lanes: Vec<Owned>,
    commands: mpsc::UnboundedReceiver<Asked>,
    stopper: Stopper,
    reading: Task<()>,
}

impl Reserver {
    /// Opens all lanes and reads all commands.
    pub async fn own_all(world: &World) -> Self {
        let brokers = &world.connections.kafka_brokers;
        let producer = Producer::new(brokers, "test-reserver", "0").unwrap();
        let (sender, commands) = mpsc::unbounded_channel();
        let (stopper, stop) = stop::pair();
        let reader = consumer::reader(brokers, "test-reserver", "test").unwrap();
        let (topic, codec) = (world.topics.commands.clone(), world.codec.clone());
        let reading = task::thread("test-reserver", move || {
            let from: Vec<_> = (0..i32::from(LANES)).map(|lane| (topic.as_str(), lane, 0)).collect();
            consumer::assign(&reader, &from).unwrap();
            while !stop.is_requested() {
                let Some(Ok(message)) = reader.poll(Duration::from_millis(50)) else {
                    continue;
                };
                let asked = Asked {
                    lane: Lane::new(message.partition()).unwrap(),
                    offset: message.offset(),
                    key: String::from_utf8(message.key().unwrap().to_vec()).unwrap(),
                    headers: consumer::headers(&message)
                        .map(|(name, value)| {
                            let value = value.unwrap_or_default().to_vec();
                            (name.to_owned(), String::from_utf8(value).unwrap())
                        })
                        .collect(),
                    command: codec.decode_command(message.payload().unwrap()).unwrap(),
                };
                if sender.send(asked).is_err() {
                    return;
                }
            }
        });
        let mut reserver = Self {
            producer,
            codec: world.codec.clone(),
            events: world.topics.events.clone(),
            lanes: vec![
                Owned {
                    epoch: -1,
                    previous: -1
                };
                usize::from(LANES)
            ],
            commands,
            stopper,
            reading,
        };
        for lane in Lane::all(LANES) {
            reserver.open(lane).await;
        }
        reserver
    }

    /// Begins a new epoch of a lane.
    pub async fn open(&mut self, lane: Lane) {
        let nonce = plumbing::id::random();
        let event = Event {
            event_id: EventId::from_uuid(nonce),
            request_id: String::new(),
            epoch: -1,
            command_offset: -1,
            previous_command_offset: -1,
            command_id: String::new(),
            tenant: Tenant::parse("default").unwrap(),
            hold_id: None,
            decided_at: 0,
            source: None,
            hold: None,
            part: None,
            lines: Vec::new(),
            body: EventBody::LaneOpened {
                nonce,
                owner: Text::parse("owner", "test").unwrap(),
            },
        };
        let epoch = self.write(lane, &event).await;
        self.lanes[usize::from(lane.number())].epoch = epoch;
    }

    /// The next command of any lane.
    pub async fn next(&mut self) -> Asked {
        tokio::time::timeout(Duration::from_secs(10), self.commands.recv())
            .await
            .expect("a command comes within 10 s")
            .unwrap()
    }

    /// The event of a command, valid where the lane stands now.
    pub fn event(&self, asked: &Asked, body: EventBody) -> Event {
        let owned = self.lanes[usize::from(asked.lane.number())];
        Event {
            event_id: EventId::of(asked.lane, owned.epoch, asked.offset),
            request_id: asked.command.request_id.to_string(),
            epoch: owned.epoch,
            command_offset: asked.offset,
            previous_command_offset: owned.previous,
            command_id: asked.command.command_id.to_string(),
            tenant: asked.command.tenant.clone(),
            hold_id: match &asked.command.body {
                CommandBody::AdjustStock { .. } | CommandBody::ConfigureSku { .. } => None,
                _ => Some(asked.hold_id()),
            },
            decided_at: plumbing::time::now_ms(),
            source: None,
            hold: None,
            part: None,
            lines: Vec::new(),
            body,
        }
    }

    /// Writes an event with another codec's schema id, for instance; returns its offset.
    pub async fn write_as(&self, codec: &Codec, lane: Lane, event: &Event) -> i64 {
        let value = codec.encode_event(event);
        let headers = headers::of_event(event, "/test");
        let record = Record {
            topic: &self.events,
            partition: Some(lane.partition()),
            key: None,
            value: Some(&value),
            headers: &headers,
        };
        self.producer.send(record).unwrap().await.unwrap().offset
    }

    /// Writes an event, valid or not, and does not count it as decided; returns its offset.
    pub async fn write(&self, lane: Lane, event: &Event) -> i64 {
        self.write_as(&self.codec, lane, event).await
    }

    /// Writes an event that counts.
    pub async fn decide(&mut self, asked: &Asked, event: Event) -> i64 {
        let offset = self.write(asked.lane, &event).await;
        self.count(asked);
        offset
    }

    /// The command is decided.
    pub fn count(&mut self, asked: &Asked) {
        self.lanes[usize::from(asked.lane.number())].previous = asked.offset;
    }

    /// A hold comes to be, or is rejected.
    pub fn created(&self, asked: &Asked) -> Event {
        Event {
            hold: Some(asked.terms(HoldState::Held)),
            part: None,
            lines: asked.lines(2),
            ..self.event(asked, EventBody::HoldCreated)
        }
    }

    pub fn rejected(&self, asked: &Asked, reason: Reason, available: i64) -> Event {
        let lines = asked.reserve().lines.as_slice().iter();
        let shortages = lines
            .map(|line| Shortage {
                sku: line.sku.clone(),
                requested: line.quantity.units(),
                available,
                retry: false,
            })
            .collect();
        Event {
            hold: Some(asked.terms(HoldState::Rejected)),
            part: None,
            lines: asked.lines(if reason == Reason::UnknownSku { 0 } else { 2 }),
            ..self.event(asked, EventBody::HoldRejected { reason, shortages })
        }
    }

    pub fn refused(&self, asked: &Asked, reason: Reason) -> Event {
        let message = Text::parse("message", "").unwrap();
        self.event(asked, EventBody::CommandRefused { reason, message })
    }

    /// The hold of an earlier event, changed.
    pub fn changed(
        &self,
        asked: &Asked,
        before: &Event,
        body: EventBody,
        change: impl FnOnce(&mut HoldTerms),
    ) -> Event {
        let mut hold = before.hold.clone().unwrap();
        change(&mut hold);
        Event {
            hold: Some(hold),
            part: None,
            lines: before.lines.clone(),
            ..self.event(asked, body)
        }
    }

    /// Stock of a SKU as an adjustment or a policy leaves it.
    pub fn stocked(&self, asked: &Asked, on_hand: i64, sku_version: i64) -> Event {
        let fingerprint = Fingerprint::from_bytes(&[7; 32]).unwrap();
        let (sku, body) = match &asked.command.body {
            CommandBody::AdjustStock {
                sku,
                reason,
                reference,
                actor,
                ..
            } => (
                sku,
                EventBody::StockAdjusted {
                    change: on_hand,
                    reason: reason.clone(),
                    reference: reference.clone(),
                    actor: actor.clone(),
                    fingerprint,
                },
            ),
            CommandBody::ConfigureSku { sku, policy } => (
                sku,
                EventBody::SkuConfigured {
                    policy: *policy,
                    fingerprint,
                },
            ),
            other => panic!("not about stock: {other:?}"),
        };
        Event {
            lines: vec![EventLine {
                sku: sku.clone(),
                quantity: 0,
                counted: 0,
                on_hand,
                held: 3,
                allocated: 2,
                sku_version,
            }],
            ..self.event(asked, body)
        }
    }

    pub async fn stop(self) {
        self.stopper.stop();
        self.reading.await.unwrap();
    }
}

/// What a policy's command says.
pub fn policy_of(asked: &Asked) -> SkuPolicy {
    match &asked.command.body {
        CommandBody::ConfigureSku { policy, .. } => *policy,
        other => panic!("no policy: {other:?}"),
    }
}
