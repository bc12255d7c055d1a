//! Those around the reservers: who sends commands, the ingress that answers them, the expirer.
//!
//! They are simple on purpose. What they are for is to send every kind of command, more than once and to the wrong lane, and
//! to keep what they were told for the judge.

use std::{collections::BTreeMap, rc::Rc};

use domain::{
    Command, CommandBody, Event as Decided, EventBody, HoldId, HoldState, Key, Lane, LaneState, Sku, SkuPolicy, Tenant,
    Verdict,
};
use plumbing::kafka::producer::{Position, ProduceError};
use rdkafka::message::OwnedHeaders;
use schemas::Codec;

use crate::{
    kafka::{Append, Record, Topic},
    plot::Way,
    state::{Event, MS, Micros, SECOND, State},
};

/// How often the expirer looks around.
const EXPIRER: Micros = 400 * MS;

/// A record that somebody is going to send.
#[derive(Clone)]
pub(crate) struct Planned {
    pub(crate) lane: usize,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

/// What a client was told.
pub(crate) struct Told {
    pub(crate) lane: usize,
    pub(crate) event_offset: i64,
    pub(crate) event: Rc<Decided>,
}

/// A hold that ends by itself.
struct Due {
    lane: usize,
    at_ms: i64,
    attempt: i64,
    pending: bool,
    asked_at: Micros,
}

/// Where ingress is with one lane.
#[derive(Clone, Default)]
struct Tail {
    next: i64,
    state: LaneState,
}

pub(crate) struct Clients {
    pub(crate) codec: Option<Codec>,
    pub(crate) planned: Vec<Planned>,
    pub(crate) writer: usize,
    pub(crate) skus: Vec<Sku>,
    pub(crate) told: Vec<Told>,
    tails: Vec<Tail>,
    due: BTreeMap<HoldId, Due>,
    released: u64,
}

impl Clients {
    pub(crate) fn new(lanes: usize) -> Self {
        Self {
            codec: None,
            planned: Vec::new(),
            writer: 0,
            skus: Vec::new(),
            told: Vec::new(),
            tails: vec![Tail::default(); lanes],
            due: BTreeMap::new(),
            released: 0,
        }
    }

    /// Whether no hold is left that ends by itself.
    pub(crate) fn nothing_due(&self) -> bool {
        self.due.is_empty()
    }

    pub(crate) fn next_event(&self, lane: usize) -> i64 {
        self.tails[lane].next
    }
}

impl State {
    pub(crate) fn codec(&self) -> &Codec {
        self.clients
            .codec
            .as_ref()
            .expect("it is there before the story begins")
    }

    /// The event of a record, decoded once.
    pub(crate) fn decode(&self, record: &Record) -> Rc<Decided> {
        let decode = || {
            let bytes = record.value.as_deref().unwrap_or_default();
            Rc::new(
                self.codec()
                    .decode_event(bytes)
                    .expect("a lane writes events that can be read"),
            )
        };
        record.event.get_or_init(decode).clone()
    }

    /// Sends a command of the story.
    pub(crate) fn send(&mut self, number: usize) {
        let Planned { lane, key, value } = self.clients.planned[number].clone();
        self.send_command(lane, key, value);
    }

    /// One more command for every SKU. What a Redis has lost under a quiet lane shows with the next command that looks at it,
    /// and not before.
    pub(crate) fn nudge(&mut self) {
        let lanes = u16::try_from(self.lanes).expect("few lanes");
        for sku in self.clients.skus.clone() {
            self.clients.released += 1;
            let id = Key::parse("command_id", &format!("nudge-{}", self.clients.released)).expect("short");
            let lane = usize::from(Lane::of_sku(&sku, lanes).number());
            let policy = SkuPolicy {
                safety_stock: 0,
                max_per_user: None,
            };
            let command = Command {
                command_id: id.clone(),
                request_id: id.clone(),
                tenant: Tenant::parse("default").expect("a legal tenant"),
                issued_at: self.wall_ms(),
                source: None,
                body: CommandBody::ConfigureSku { sku, policy },
            };
            let value = self.codec().encode_command(&command);
            self.send_command(lane, None, Some(value));
        }
    }

    fn send_command(&mut self, lane: usize, key: Option<Vec<u8>>, value: Option<Vec<u8>>) {
        let nobody = |_: Result<Position, ProduceError>| {};
        let append = Append {
            topic: Topic::Commands,
            partition: lane,
            key,
            value,
            headers: OwnedHeaders::new(),
            task: None,
            done: Some(Box::new(nobody)),
        };
        self.produce(self.clients.writer, append, Way::Free);
    }

    /// Ingress reads a lane on to its end.
    pub(crate) fn read_tail(&mut self, lane: usize) {
        let end = self.kafka.events[lane].end();
        for offset in self.clients.tails[lane].next..end {
            let Some(record) = self.kafka.events[lane].record(offset).cloned() else {
                continue;
            };
            let tail = &mut self.clients.tails[lane];
            tail.next = offset + 1;
            let verdict = record
                .stamp
                .map_or(Verdict::Void, |stamp| tail.state.fold(offset, stamp));
            if verdict == Verdict::Valid {
                self.answer_of(lane, offset, &record);
                self.note_due(lane, &record);
            }
        }
    }

    /// Answers whoever waits for a decision.
    pub(crate) fn answer_of(&mut self, lane: usize, event_offset: i64, record: &Rc<Record>) {
        let event = self.decode(record);
        let answers = !matches!(event.body, EventBody::CommandForwarded { .. } | EventBody::HoldPending);
        if answers && !event.request_id.is_empty() {
            self.clients.told.push(Told {
                lane,
                event_offset,
                event,
            });
        }
    }

    fn note_due(&mut self, lane: usize, record: &Rc<Record>) {
        let event = self.decode(record);
        let (Some(hold_id), Some(terms)) = (event.hold_id, &event.hold) else {
            return;
        };
        if usize::from(hold_id.lane().number()) != lane {
            return;
        }
        if terms.state.is_live() {
            let due = Due {
                lane,
                at_ms: terms.expires_at,
                attempt: terms.attempt,
                pending: terms.state == HoldState::Pending,
                asked_at: 0,
            };
            self.clients.due.insert(hold_id, due);
        } else {
            self.clients.due.remove(&hold_id);
        }
    }

    /// The expirer asks for what is due by its own clock, and asks again.
    pub(crate) fn expire(&mut self) {
        let (now, now_ms) = (self.now, self.wall_ms());
        let mut asked = Vec::new();
        for (hold_id, due) in &mut self.clients.due {
            if due.at_ms <= now_ms && (due.asked_at == 0 || due.asked_at + SECOND <= now) {
                due.asked_at = now;
                asked.push((*hold_id, due.lane, due.pending.then_some(due.attempt)));
            }
        }
        for (hold_id, lane, attempt) in asked {
            self.clients.released += 1;
            let id = Key::parse("command_id", &format!("expirer-{}", self.clients.released)).expect("short");
            let command = Command {
                command_id: id.clone(),
                request_id: id,
                tenant: Tenant::parse("default").expect("a legal tenant"),
                issued_at: now_ms,
                source: None,
                body: CommandBody::Release { hold_id, attempt },
            };
            let value = self.codec().encode_command(&command);
            self.send_command(lane, Some(hold_id.to_string().into_bytes()), Some(value));
        }
        self.after(EXPIRER, Event::Expirer);
    }
}

/// The lane of a command, by its body.
pub(crate) fn home_of(body: &CommandBody, lanes: u16) -> Lane {
    reserver::pack::lanes_of(body, lanes)[0]
}
