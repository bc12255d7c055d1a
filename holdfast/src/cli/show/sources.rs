//! Where a hold's story comes from: the logs of its lanes, and Redis. Blocks: it runs on a thread of its own.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    Event, HoldId, HoldState, Lane, LaneState, PartId, Verdict, cart,
    ledger::{LedgerHold, LedgerPart},
};
use plumbing::config::Connections;
use redis::Value;
use schemas::{Topics, cells};

use super::{Entry, merge};
use crate::{
    json,
    log::{Decoder, LogReader, Record},
    redis_lane::RedisLanes,
};

/// What the log says of a hold.
#[derive(Default)]
pub(super) struct Log {
    pub(super) timeline: Vec<Entry>,
    pub(super) hold: Option<LedgerHold>,
    /// What each lane but the home lane keeps of each attempt.
    pub(super) parts: BTreeMap<(i64, Lane), LedgerPart>,
    /// The last decided command of each lane that was read.
    pub(super) last_decided: BTreeMap<Lane, i64>,
    /// The first command about the hold in each of these lanes.
    pub(super) first_asked: BTreeMap<Lane, i64>,
    /// The lanes of all its attempts.
    lanes: BTreeSet<Lane>,
}

impl Log {
    /// Reads the hold's home lane, and the other lanes of its carts: events all, commands from the first about it on.
    pub(super) fn read(
        connections: &Connections,
        hold: HoldId,
        attempt: Option<i64>,
        decoder: &Decoder,
    ) -> anyhow::Result<Self> {
        let mut found = Self::default();
        let home = hold.lane();
        let mut timelines = vec![found.read_lane(connections, hold, home, attempt, decoder)?];
        for lane in found.lanes.clone().into_iter().filter(|lane| *lane != home) {
            timelines.push(found.read_lane(connections, hold, lane, None, decoder)?);
        }
        found.first_asked.entry(home).or_insert(0);
        found.timeline = merge(timelines);
        Ok(found)
    }

    /// What one lane says of a hold, in the order of the story: a command stands before its event.
    fn read_lane(
        &mut self,
        connections: &Connections,
        hold: HoldId,
        lane: Lane,
        attempt: Option<i64>,
        decoder: &Decoder,
    ) -> anyhow::Result<Vec<Entry>> {
        let topics = Topics::with_prefix(&connections.topic_prefix);
        let open = |topic: &str| LogReader::open(&connections.kafka_brokers, topic, lane.partition(), 0);
        let (mut timeline, mut asked) = (Vec::new(), Vec::new());
        let mut events = open(&topics.events)?;
        let (first, _) = events.bounds()?;
        events.seek(first);
        let mut state = LaneState::default();
        let subject = hold.to_string();
        events.read_to_end(|record| {
            // The chain of a log whose beginning is gone cannot be checked to the first link: the first decision is believed.
            if first > 0 && state == LaneState::default() {
                state = believed(&record);
            }
            let verdict = record.verdict(&mut state);
            if record.header("ce_subject") == Some(&subject) {
                timeline.push(self.event(&topics.events, lane, &record, verdict, decoder)?);
                asked.extend(record.header("command").and_then(|offset| offset.parse::<i64>().ok()));
            }
            Ok(())
        })?;
        self.last_decided.insert(lane, state.last_command_offset);
        self.first_asked.extend(asked.iter().min().map(|first| (lane, *first)));
        let mut commands = open(&topics.commands)?;
        let (first, end) = commands.bounds()?;
        let from = asked.iter().copied().chain(attempt).min().unwrap_or(first);
        commands.seek(from.clamp(first, end));
        commands.read_to_end(|record| {
            let about = record.key.as_deref() == Some(subject.as_bytes())
                || record.header("ce_subject") == Some(&subject)
                || asked.contains(&record.offset);
            if about {
                let fields = match decoder.command(record.value.as_deref())? {
                    Ok(command) => json::command_fields(&command),
                    Err(error) => json::error_fields(error),
                };
                timeline.push(entry(&topics.commands, &record, "asked", None, fields));
            }
            Ok(())
        })?;
        timeline.sort_by_key(|entry| {
            (
                entry.command.unwrap_or(entry.offset),
                entry.command.is_some(),
                entry.offset,
            )
        });
        Ok(timeline)
    }

    fn event(
        &mut self,
        topic: &str,
        lane: Lane,
        record: &Record,
        verdict: Verdict,
        decoder: &Decoder,
    ) -> anyhow::Result<Entry> {
        let decoded = decoder.event(record.value.as_deref())?;
        let fields = match &decoded {
            Ok(event) => json::event_fields(event),
            Err(error) => json::error_fields(error),
        };
        if let (Ok(event), Verdict::Valid) = (&decoded, verdict) {
            self.fold(lane, event);
        }
        let counts = match verdict {
            Verdict::Void => "void",
            Verdict::Valid | Verdict::Opened => "valid",
        };
        let command = record.header("command").and_then(|offset| offset.parse().ok());
        Ok(entry(topic, record, counts, command, fields))
    }

    fn fold(&mut self, lane: Lane, event: &Event) {
        let lines = || {
            let lines = event.lines.iter();
            lines.map(|line| (line.sku.clone(), line.quantity)).collect()
        };
        if let Some(terms) = &event.hold {
            self.lanes
                .extend(terms.cart.iter().flat_map(|cart| cart::lanes_of(&cart.lines)));
            if terms.state != HoldState::Rejected {
                self.hold = Some(LedgerHold {
                    tenant: event.tenant.clone(),
                    terms: terms.clone(),
                    lines: lines(),
                });
            } else if terms.cart.is_some() {
                self.hold = None; // It was pending.
            }
        }
        // A part that is refused keeps nothing, and leaves nothing.
        if let (Some(terms), false) = (&event.part, matches!(event.body, domain::EventBody::PartRefused { .. })) {
            let part = LedgerPart {
                tenant: event.tenant.clone(),
                terms: terms.clone(),
                lines: lines(),
            };
            self.parts.insert((terms.attempt, lane), part);
        }
    }
}

fn entry(
    topic: &str,
    record: &Record,
    counts: &'static str,
    command: Option<i64>,
    fields: serde_json::Map<String, serde_json::Value>,
) -> Entry {
    Entry {
        topic: topic.to_owned(),
        partition: record.partition,
        offset: record.offset,
        time_ms: record.timestamp_ms,
        kind: record.type_name().unwrap_or("unknown").to_owned(),
        counts,
        command,
        source: record.header("ce_source").map(ToOwned::to_owned),
        trace_id: trace_id(record),
        fields,
    }
}

/// The second part of a `traceparent`.
fn trace_id(record: &Record) -> Option<String> {
    let parent = record.header(schemas::headers::TRACEPARENT)?;
    parent.split('-').nth(1).map(ToOwned::to_owned)
}

/// The state in front of a decision, if that decision is valid.
fn believed(record: &Record) -> LaneState {
    match record.stamp() {
        Some(domain::Stamp::Decision {
            epoch, previous, time, ..
        }) => LaneState {
            epoch,
            last_command_offset: previous,
            last_decision_epoch: epoch,
            log_time: time,
        },
        Some(domain::Stamp::Opened) | None => LaneState::default(),
    }
}

/// What Redis has of a hold.
pub(super) struct InRedis {
    pub(super) hold: Option<LedgerHold>,
    pub(super) due_at: Option<i64>,
    pub(super) fence: Option<i64>,
}

pub(super) fn read_redis(connections: &Connections, hold: HoldId) -> anyhow::Result<InRedis> {
    let mut redis = RedisLanes::open(connections)?;
    let lane: Lane = hold.lane();
    let nothing = InRedis {
        hold: None,
        due_at: None,
        fence: None,
    };
    let Some(cell) = redis.lane(lane)? else {
        return Ok(nothing);
    };
    let keys = redis.keys(lane).generation(cell.generation);
    let mut reads = redis::pipe();
    reads.cmd("HGET").arg(keys.holds()).arg(&hold.bytes());
    reads.cmd("ZSCORE").arg(keys.due()).arg(&hold.bytes());
    let (cell, answers) = redis.at_once(lane, &reads)?;
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or(Value::Nil);
    let bytes: Option<Vec<u8>> = redis::from_redis_value(next())?;
    Ok(InRedis {
        hold: bytes.map(|bytes| cells::read_hold(&bytes)).transpose()?,
        due_at: crate::redis_lane::score_of(next())?,
        fence: cell.map(|cell| cell.fence),
    })
}

/// What Redis has of a hold's parts, those of all attempts that the log or Postgres names.
pub(super) fn read_parts(
    connections: &Connections,
    hold_id: HoldId,
    named: &BTreeSet<(i64, Lane)>,
) -> anyhow::Result<BTreeMap<(i64, Lane), LedgerPart>> {
    let mut redis = RedisLanes::open(connections)?;
    let mut found = BTreeMap::new();
    for (attempt, lane) in named.iter().copied() {
        let Some(cell) = redis.lane(lane)? else { continue };
        let mut reads = redis::pipe();
        let key = redis
            .keys(lane)
            .generation(cell.generation)
            .part(PartId { hold_id, attempt });
        reads.cmd("GET").arg(key);
        let (_, answers) = redis.at_once(lane, &reads)?;
        let bytes: Option<Vec<u8>> = redis::from_redis_value(answers.into_iter().next().unwrap_or(Value::Nil))?;
        if let Some(bytes) = bytes {
            found.insert((attempt, lane), cells::read_part(&bytes)?);
        }
    }
    Ok(found)
}
