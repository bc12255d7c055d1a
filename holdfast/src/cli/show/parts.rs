//! What the other lanes of a cart keep of it: in the log, in Redis, in Postgres, and what its home lane decided.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use domain::{HoldId, HoldState, Lane, PartState, ledger::LedgerPart};
use schemas::picture;
use serde::Serialize;
use sqlx::PgPool;

use super::sources::Log;

type Parts = BTreeMap<(i64, Lane), LedgerPart>;

/// One lane's part of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Part {
    pub(super) lane: u16,
    pub(super) attempt: i64,
    pub(super) lines: String,
    pub(super) log: Option<&'static str>,
    pub(super) redis: Option<&'static str>,
    pub(super) postgres: Option<&'static str>,
    #[serde(skip)]
    pub(super) problems: Vec<String>,
}

/// The parts in Postgres.
pub(super) async fn stored(pool: &PgPool, hold: HoldId) -> anyhow::Result<Parts> {
    let found = picture::find_parts(pool, hold).await;
    let found = found.context("Postgres does not answer")?.into_iter();
    Ok(found.map(|(lane, id, part)| ((id.attempt, lane), part)).collect())
}

/// Lays the three beside each other, and beside the home lane's decision.
pub(super) fn compare(named: &BTreeSet<(i64, Lane)>, log: &Log, redis: &Parts, postgres: &Parts) -> Vec<Part> {
    let of = |named: &(i64, Lane)| {
        let (attempt, lane) = *named;
        let (in_log, in_redis, in_postgres) = (log.parts.get(named), redis.get(named), postgres.get(named));
        // An attempt that is not the hold's any more is over.
        let home = log.hold.as_ref().filter(|hold| hold.terms.attempt == attempt);
        let state = |part: Option<&LedgerPart>| part.map(|part| part.terms.state);
        let is_kept = state(in_log).is_some_and(|state| !state.is_final());
        let mut problems = Vec::new();
        for (who, found) in [("Redis", in_redis), ("Postgres", in_postgres)] {
            // What nothing can change any more may be forgotten.
            if found != in_log && (found.is_some() || is_kept) {
                problems.push(format!(
                    "{who} has another part in lane {lane} than the log: look again"
                ));
            }
        }
        if let Some(expected) = owed(home.map(|hold| hold.terms.state), state(in_log)) {
            let is = state(in_log).map_or("not there", PartState::name);
            problems.push(format!(
                "the part in lane {lane} is {is}, not {}: what the home lane decided is on its way",
                expected.name()
            ));
        }
        let name = |part: Option<&LedgerPart>| state(part).map(PartState::name);
        Part {
            lane: lane.number(),
            attempt,
            lines: lines_of(in_log.or(in_postgres)),
            log: name(in_log),
            redis: name(in_redis),
            postgres: name(in_postgres),
            problems,
        }
    };
    named.iter().map(of).collect()
}

/// What a part is to become, where it is not what its home lane decided.
fn owed(home: Option<HoldState>, part: Option<PartState>) -> Option<PartState> {
    let is_over = part.is_none_or(PartState::is_final);
    match home {
        Some(HoldState::Pending) => None,
        Some(home) => PartState::under(home).filter(|expected| {
            let forgotten = part.is_none() && expected.is_final();
            part != Some(*expected) && !forgotten
        }),
        None => (!is_over).then_some(PartState::Undone),
    }
}

fn lines_of(part: Option<&LedgerPart>) -> String {
    let lines = part.map_or(&[][..], |part| &part.lines);
    let lines: Vec<String> = lines.iter().map(|(sku, units)| format!("{units} {sku}")).collect();
    lines.join(", ")
}
