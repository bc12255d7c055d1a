//! `show`.

use anyhow::Context as _;
use clap::Args;
use domain::{HoldId, HoldState, Lane, LaneState, Verdict, ledger::LedgerHold};
use plumbing::{config::Connections, task};
use redis::Value;
use schemas::{
    Topics, cells,
    picture::{self, StoredHold},
};
use serde::Serialize;
use sqlx::PgPool;

use super::{Outcome, table, time_text};
use crate::{
    json,
    log::{Decoder, LogReader, Record},
    redis_lane::RedisLanes,
};

/// Everything that is known of one hold: its records, Redis, Postgres, and whether they agree.
#[derive(Args, Debug)]
pub struct Show {
    /// The hold's id
    #[arg(value_parser = |text: &str| HoldId::parse(text))]
    hold: HoldId,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connections: Connections,
}

/// One record of the hold's life.
#[derive(Debug, Serialize)]
struct Entry {
    topic: String,
    partition: i32,
    offset: i64,
    time_ms: Option<i64>,
    #[serde(rename = "type")]
    kind: String,
    /// `asked` for a command; `valid` or `void` for an event.
    counts: &'static str,
    /// The command that an event decides.
    command: Option<i64>,
    fields: serde_json::Map<String, serde_json::Value>,
}

/// A hold as one side has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Side {
    state: &'static str,
    attempt: i64,
    user_id: String,
    lines: String,
    expires_at: i64,
    changed_at: i64,
    payment_ref: Option<String>,
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Life {
    hold_id: String,
    lane: u16,
    timeline: Vec<Entry>,
    log: Option<Side>,
    redis: Option<Side>,
    redis_due_at: Option<i64>,
    postgres: Option<Side>,
    movements: Vec<Movement>,
    order: Option<String>,
    agreement: Vec<String>,
}

#[derive(Debug, Serialize, sqlx::FromRow)]
struct Movement {
    kind: String,
    sku: String,
    held_change: i64,
    allocated_change: i64,
    event_offset: i64,
    decided_at: i64,
}

impl Show {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        let decoder = Decoder::connect(&self.connections).await?;
        let pool = plumbing::postgres::connect_lazy(&self.connections.postgres_url, "holdfast show", 2)?;
        let stored = picture::find_hold(&pool, self.hold)
            .await
            .context("Postgres does not answer")?;
        let (hold, connections) = (self.hold, self.connections.clone());
        let from = stored.as_ref().map(|stored| stored.hold.terms.attempt);
        let (log, redis) = task::thread("show", move || {
            let log = Log::read(&connections, hold, from, &decoder)?;
            anyhow::Ok((log, read_redis(&connections, hold)?))
        })
        .await??;
        let life = life(&pool, self.hold, log, redis, stored).await?;
        let nowhere = life.timeline.is_empty() && life.redis.is_none() && life.postgres.is_none();
        if nowhere {
            anyhow::bail!("hold {} is neither in the log nor in Redis nor in Postgres", self.hold);
        }
        if self.json {
            super::print(&format!("{}\n", serde_json::to_string_pretty(&life)?));
        } else {
            super::print(&render(&life));
        }
        Ok(if life.agreement.is_empty() {
            Outcome::Fine
        } else {
            Outcome::NotInOrder
        })
    }
}

/// What the log says of a hold.
struct Log {
    timeline: Vec<Entry>,
    hold: Option<LedgerHold>,
    last_decided: i64,
}

impl Log {
    /// Reads the hold's lane: its events all, its commands from the hold's Reserve on.
    fn read(connections: &Connections, hold: HoldId, attempt: Option<i64>, decoder: &Decoder) -> anyhow::Result<Self> {
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
            fields,
        });
    }
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
struct InRedis {
    hold: Option<LedgerHold>,
    due_at: Option<i64>,
    fence: Option<i64>,
}

fn read_redis(connections: &Connections, hold: HoldId) -> anyhow::Result<InRedis> {
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

async fn life(
    pool: &PgPool,
    hold: HoldId,
    log: Log,
    redis: InRedis,
    stored: Option<StoredHold>,
) -> anyhow::Result<Life> {
    let movements: Vec<Movement> = sqlx::query_as(
        "SELECT kind, sku, held_change, allocated_change, event_offset, decided_at FROM stock_movements \
          WHERE lane = $1 AND command_offset >= $2 AND hold_id = $3 ORDER BY command_offset, sku",
    )
    .bind(i16::try_from(hold.lane().number())?)
    .bind(stored.as_ref().map_or(0, |stored| stored.hold.terms.attempt))
    .bind(hold.uuid())
    .fetch_all(pool)
    .await?;
    let order: Option<(Option<String>, i64)> =
        sqlx::query_as("SELECT payment_ref, ordered_at FROM orders WHERE hold_id = $1")
            .bind(hold.uuid())
            .fetch_optional(pool)
            .await?;
    let checkpoint = picture::checkpoint(pool, hold.lane()).await?;
    let (in_log, in_redis) = (log.hold.as_ref().map(side), redis.hold.as_ref().map(side));
    let in_postgres = stored.as_ref().map(|stored| side(&stored.hold));
    let live = |side: &Option<Side>| {
        side.as_ref()
            .is_some_and(|side| matches!(side.state, "held" | "confirmed"))
    };
    let mut agreement = Vec::new();
    if in_redis != in_log && (in_redis.is_some() || live(&in_log)) {
        agreement.push(apart("Redis", redis.fence, log.last_decided));
    }
    let rejected = in_log.is_none() && in_postgres.as_ref().is_some_and(|side| side.state == "rejected");
    if in_postgres != in_log && !rejected {
        let decided = checkpoint.map(|checkpoint| checkpoint.state.last_command_offset);
        agreement.push(apart("Postgres", decided, log.last_decided));
    }
    Ok(Life {
        hold_id: hold.to_string(),
        lane: hold.lane().number(),
        timeline: log.timeline,
        log: in_log,
        redis: in_redis,
        redis_due_at: redis.due_at,
        postgres: in_postgres,
        movements,
        order: order.map(|(payment_ref, at)| format!("{} at {}", payment_ref.unwrap_or_default(), time_text(at))),
        agreement,
    })
}

fn apart(who: &str, at: Option<i64>, last_decided: i64) -> String {
    match at {
        Some(at) if at != last_decided => {
            format!("{who} differs from the log; it stands at command {at}, the log at {last_decided}: look again")
        }
        Some(_) => format!("{who} differs from the log at the same command"),
        None => format!("{who} does not have the lane"),
    }
}

fn side(hold: &LedgerHold) -> Side {
    let terms = &hold.terms;
    let lines: Vec<String> = hold.lines.iter().map(|(sku, units)| format!("{units} {sku}")).collect();
    Side {
        state: terms.state.name(),
        attempt: terms.attempt,
        user_id: terms.user_id.to_string(),
        lines: lines.join(", "),
        expires_at: terms.expires_at,
        changed_at: terms.changed_at,
        payment_ref: terms.payment_ref.as_ref().map(ToString::to_string),
        reason: terms.reason.as_ref().map(ToString::to_string),
    }
}

fn render(life: &Life) -> String {
    let mut out = format!("hold {}, lane {}\n\n", life.hold_id, life.lane);
    let mut timeline = table(&["time", "topic", "offset", "type", "", "what"]);
    for entry in &life.timeline {
        timeline.add_row([
            entry.time_ms.map(time_text).unwrap_or_default(),
            format!("{}[{}]", entry.topic, entry.partition),
            entry.offset.to_string(),
            entry.kind.clone(),
            entry.counts.to_owned(),
            gist(entry),
        ]);
    }
    out += &format!("{timeline}\n\n");
    let mut sides = table(&["", "state", "user", "lines", "expires", "changed", "payment", "reason"]);
    for (name, side) in [("log", &life.log), ("Redis", &life.redis), ("Postgres", &life.postgres)] {
        let Some(side) = side else {
            sides.add_row([name, "-"]);
            continue;
        };
        sides.add_row([
            name.to_owned(),
            side.state.to_owned(),
            side.user_id.clone(),
            side.lines.clone(),
            time_text(side.expires_at),
            time_text(side.changed_at),
            side.payment_ref.clone().unwrap_or_default(),
            side.reason.clone().unwrap_or_default(),
        ]);
    }
    out += &format!("{sides}\n");
    if !life.movements.is_empty() {
        let mut movements = table(&["movement", "SKU", "held", "allocated", "event", "decided"]);
        for movement in &life.movements {
            movements.add_row([
                movement.kind.clone(),
                movement.sku.clone(),
                format!("{:+}", movement.held_change),
                format!("{:+}", movement.allocated_change),
                movement.event_offset.to_string(),
                time_text(movement.decided_at),
            ]);
        }
        out += &format!("\n{movements}\n");
    }
    if let Some(order) = &life.order {
        out += &format!("\norder: {order}\n");
    }
    if life.agreement.is_empty() {
        out += "\n✓ the log, Redis and Postgres agree\n";
    }
    for problem in &life.agreement {
        out += &format!("\n✗ {problem}\n");
    }
    out
}

/// The few words of a record that make the story readable.
fn gist(entry: &Entry) -> String {
    const TELLING: [&str; 9] = [
        "user_id",
        "idempotency_key",
        "ttl_ms",
        "payment_ref",
        "reason",
        "message",
        "command",
        "shortages",
        "error",
    ];
    let mut words: Vec<String> = entry
        .command
        .map(|offset| format!("decides {offset}"))
        .into_iter()
        .collect();
    words.extend(TELLING.iter().filter_map(|name| match entry.fields.get(*name)? {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) if text.is_empty() => None,
        serde_json::Value::String(text) => Some(format!("{name} {text}")),
        other => Some(format!("{name} {other}")),
    }));
    words.join(", ")
}
