//! `show`.

mod parts;
mod sources;
mod tell;

use anyhow::Context as _;
use clap::Args;
use domain::{HoldId, HoldState, Lane, ledger::LedgerHold};
use plumbing::{config::Connections, task};
use schemas::picture::{self, StoredHold};
use serde::Serialize;
use sqlx::PgPool;

use super::{Outcome, time_text};
use crate::log::Decoder;
use parts::Part;
use sources::{InRedis, Log};

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
    /// Who wrote the record: `/holdfast/ingress` for an HTTP request.
    source: Option<String>,
    /// The trace that it belongs to, where traces are exported (W3C Trace Context).
    trace_id: Option<String>,
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
    remaining_ms: Option<i64>,
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
    /// What the other lanes of a cart keep of it.
    parts: Vec<Part>,
    movements: Vec<Movement>,
    order: Option<String>,
    agreement: Vec<String>,
}

#[derive(Debug, Serialize, sqlx::FromRow)]
struct Movement {
    lane: i16,
    kind: String,
    sku: String,
    on_hand_change: i64,
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
        let stored_parts = parts::stored(&pool, self.hold).await?;
        let (hold, connections) = (self.hold, self.connections.clone());
        let from = stored.as_ref().map(|stored| stored.hold.terms.attempt);
        let (log, redis, parts) = task::thread("show", move || {
            let log = Log::read(&connections, hold, from, &decoder)?;
            let named = log.parts.keys().chain(stored_parts.keys()).copied().collect();
            let in_redis = sources::read_parts(&connections, hold, &named)?;
            let parts = parts::compare(&named, &log, &in_redis, &stored_parts);
            anyhow::Ok((log, sources::read_redis(&connections, hold)?, parts))
        })
        .await??;
        let life = life(&pool, self.hold, log, redis, stored, parts).await?;
        let nowhere = life.timeline.is_empty() && life.redis.is_none() && life.postgres.is_none();
        if nowhere {
            anyhow::bail!("hold {} is neither in the log nor in Redis nor in Postgres", self.hold);
        }
        if self.json {
            super::print(&format!("{}\n", serde_json::to_string_pretty(&life)?));
        } else {
            super::print(&tell::render(&life));
        }
        Ok(if life.agreement.is_empty() {
            Outcome::Fine
        } else {
            Outcome::NotInOrder
        })
    }
}

async fn life(
    pool: &PgPool,
    hold: HoldId,
    log: Log,
    redis: InRedis,
    stored: Option<StoredHold>,
    parts: Vec<Part>,
) -> anyhow::Result<Life> {
    let attempt = stored.as_ref().map(|stored| stored.hold.terms.attempt);
    let mut movements: Vec<Movement> = Vec::new();
    for (lane, first) in &log.first_asked {
        let from = attempt.filter(|_| *lane == hold.lane()).unwrap_or(*first);
        movements.extend(moved(pool, hold, *lane, from).await?);
    }
    movements.sort_by_key(|movement| movement.decided_at);
    let order: Option<(Option<String>, i64)> =
        sqlx::query_as("SELECT payment_ref, ordered_at FROM orders WHERE hold_id = $1 ORDER BY attempt DESC LIMIT 1")
            .bind(hold.uuid())
            .fetch_optional(pool)
            .await?;
    let checkpoint = picture::checkpoint(pool, hold.lane()).await?;
    let (in_log, in_redis) = (log.hold.as_ref().map(side), redis.hold.as_ref().map(side));
    let in_postgres = stored.as_ref().map(|stored| side(&stored.hold));
    let live = |side: &Option<Side>| {
        side.as_ref()
            .and_then(|side| HoldState::from_name(side.state))
            .is_some_and(|state| !state.is_final())
    };
    let last_decided = log.last_decided.get(&hold.lane()).copied().unwrap_or(-1);
    let mut agreement: Vec<String> = parts.iter().flat_map(|part| part.problems.clone()).collect();
    if in_redis != in_log && (in_redis.is_some() || live(&in_log)) {
        agreement.push(apart("Redis", redis.fence, last_decided));
    }
    let rejected = in_log.is_none() && in_postgres.as_ref().is_some_and(|side| side.state == "rejected");
    if in_postgres != in_log && !rejected {
        let decided = checkpoint.map(|checkpoint| checkpoint.state.last_command_offset);
        agreement.push(apart("Postgres", decided, last_decided));
    }
    Ok(Life {
        hold_id: hold.to_string(),
        lane: hold.lane().number(),
        timeline: log.timeline,
        log: in_log,
        redis: in_redis,
        redis_due_at: redis.due_at,
        postgres: in_postgres,
        parts,
        movements,
        order: order.map(|(payment_ref, at)| format!("{} at {}", payment_ref.unwrap_or_default(), time_text(at))),
        agreement,
    })
}

/// What a hold moved in a lane, from a command on.
async fn moved(pool: &PgPool, hold: HoldId, lane: Lane, from: i64) -> anyhow::Result<Vec<Movement>> {
    let query = "SELECT lane, kind, sku, on_hand_change, held_change, allocated_change, event_offset, decided_at \
                   FROM stock_movements WHERE lane = $1 AND command_offset >= $2 AND hold_id = $3 \
                  ORDER BY command_offset, sku";
    let movements = sqlx::query_as(query)
        .bind(picture::lane_number(lane))
        .bind(from)
        .bind(hold.uuid());
    Ok(movements.fetch_all(pool).await?)
}

/// The stories of several lanes as one, by time; where two records have the same, the event that caused the command is first.
fn merge(timelines: Vec<Vec<Entry>>) -> Vec<Entry> {
    let mut lanes: Vec<_> = timelines.into_iter().map(|lane| lane.into_iter().peekable()).collect();
    let mut merged = Vec::new();
    loop {
        let first = |entry: &Entry| (entry.time_ms, entry.command.is_none());
        let heads = lanes.iter_mut().enumerate();
        let heads = heads.filter_map(|(place, lane)| Some((first(lane.peek()?), place)));
        let Some((_, place)) = heads.min() else { return merged };
        merged.extend(lanes[place].next());
    }
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
    let all_lines = hold.all_lines();
    let lines: Vec<String> = all_lines.iter().map(|(sku, units)| format!("{units} {sku}")).collect();
    Side {
        state: terms.state.name(),
        attempt: terms.attempt,
        user_id: terms.user_id.to_string(),
        lines: lines.join(", "),
        expires_at: terms.expires_at,
        changed_at: terms.changed_at,
        payment_ref: terms.payment_ref.as_ref().map(ToString::to_string),
        reason: terms.reason.as_ref().map(ToString::to_string),
        remaining_ms: terms.remaining_ms,
    }
}
