//! Where a hold's story comes from: its lane's log, and Redis. Blocks: it runs on a thread of its own.

use domain::{HoldId, HoldState, Lane, LaneState, Verdict, ledger::LedgerHold};
use plumbing::config::Connections;
use redis::Value;
use schemas::{Topics, cells};

use super::Entry;
use crate::{
    json,
    log::{Decoder, LogReader, Record},
    redis_lane::RedisLanes,
};

/// What the log says of a hold.
pub(super) struct Log {
    pub(super) timeline: Vec<Entry>,
    pub(super) hold: Option<LedgerHold>,
    pub(super) last_decided: i64,
}

impl Log {
    /// Reads the hold's lane: its events all, its commands from the hold's Reserve on.
    pub(super) fn read(
        connections: &Connections,
        hold: HoldId,
        attempt: Option<i64>,
        decoder: &Decoder,
    ) -> anyhow::Result<Self> {
        let topics = Topics::with_prefix(&connections.topic_prefix);
        let open = |topic: &str| LogReader::open(&connections.kafka_brokers, topic, hold.lane().partition(), 0);
        let mut found = Self {
            timeline: Vec::new(),
            hold: None,
            last_decided: -1,
        };
        let mut asked = Vec::new();
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
                found.event(&topics.events, &record, verdict, decoder)?;
                asked.extend(record.header("command").and_then(|offset| offset.parse::<i64>().ok()));
            }
            Ok(())
        })?;
        found.last_decided = state.last_command_offset;
        let mut commands = open(&topics.commands)?;
        let (first, end) = commands.bounds()?;
        let from = asked.iter().copied().chain(attempt).min().unwrap_or(first);
        commands.seek(from.clamp(first, end));
        commands.read_to_end(|record| {
            let about = record.key.as_deref() == Some(subject.as_bytes())
                || record.header("ce_subject") == Some(&subject)
                || asked.contains(&record.offset);
            if about {
                found.command(&topics.commands, &record, decoder)?;
            }
            Ok(())
        })?;
        // In the order of the story: a command stands before its event.
        found.timeline.sort_by_key(|entry| {
            (
                entry.command.unwrap_or(entry.offset),
                entry.command.is_some(),
                entry.offset,
            )
        });
        Ok(found)
    }

    fn event(&mut self, topic: &str, record: &Record, verdict: Verdict, decoder: &Decoder) -> anyhow::Result<()> {
        let decoded = decoder.event(record.value.as_deref())?;
        let fields = match &decoded {
            Ok(event) => json::event_fields(event),
            Err(error) => json::error_fields(error),
        };
        if let (Ok(event), Verdict::Valid) = (&decoded, verdict)
            && let Some(terms) = &event.hold
            && terms.state != HoldState::Rejected
        {
            self.hold = Some(LedgerHold {
                tenant: event.tenant.clone(),
                terms: terms.clone(),
                lines: event
                    .lines
                    .iter()
                    .map(|line| (line.sku.clone(), line.quantity))
                    .collect(),
            });
        }
        let counts = match verdict {
            Verdict::Void => "void",
            Verdict::Valid | Verdict::Opened => "valid",
        };
        let command = record.header("command").and_then(|offset| offset.parse().ok());
        self.entry(topic, record, counts, command, fields);
        Ok(())
    }

    fn command(&mut self, topic: &str, record: &Record, decoder: &Decoder) -> anyhow::Result<()> {
        let fields = match decoder.command(record.value.as_deref())? {
            Ok(command) => json::command_fields(&command),
            Err(error) => json::error_fields(error),
        };
        self.entry(topic, record, "asked", None, fields);
        Ok(())
    }

    fn entry(
        &mut self,
        topic: &str,
        record: &Record,
        counts: &'static str,
        command: Option<i64>,
        fields: serde_json::Map<String, serde_json::Value>,
    ) {
        self.timeline.push(Entry {
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
        });
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
    reads.cmd("GET").arg(keys.hold(hold));
    reads.cmd("ZSCORE").arg(keys.due()).arg(hold.to_string());
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
