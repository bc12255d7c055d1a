//! The kinds of Redis cells that are compared: which there are, how each is read, and what it has to be.

use std::collections::HashMap;

use anyhow::Context as _;
use domain::{
    HoldId, Key, Lane, Millis, PartId, PartTerms, RequestMark, Sku, Tenant, UserId,
    ledger::{LedgerHold, LedgerPart},
    limits,
};
use redis::{Pipeline, Value};
use schemas::{
    cells,
    keys::{GenerationKeys, stretch_of},
};

use super::{
    books::Books,
    redis::union,
    report::{Differences, Place},
};
use crate::redis_lane::{LaneCell, RedisLanes, hash_of, score_of, text};

/// One thing that Redis and the log must agree on.
#[derive(Debug, Clone)]
pub enum Subject {
    /// Counters and policy of a SKU, and its place in the set of SKUs.
    Stock(Tenant, Sku),
    /// A hold, and its place among those that are due.
    Hold(HoldId),
    /// A part of another lane's cart, and its place among those that keep units.
    Part(PartId),
    /// Units that a user has of a SKU.
    Limit(Tenant, Sku, UserId),
    /// An applied command id.
    Command(Tenant, Key),
    /// An applied source, by the rest of its key, with the log time when it was applied where the log said so before.
    Source(String, Option<Millis>),
    /// A request that was refused, and the stretch of log time when.
    Request(RequestMark, i64),
}

/// Everything to compare in a lane.
#[derive(Debug)]
pub struct Subjects {
    /// The subjects.
    pub list: Vec<Subject>,
}

impl Subjects {
    /// What Redis has and what the log says, each once.
    ///
    /// # Errors
    /// Redis does not answer.
    pub fn find(
        lane: Lane,
        cell: &LaneCell,
        redis: &mut RedisLanes,
        books: &Books,
        differences: &mut Differences,
    ) -> anyhow::Result<Self> {
        let keys = redis.keys(lane).generation(cell.generation);
        let mut found = Found::default();
        for name in redis.key_names(lane, cell.generation)? {
            if found.take(&name).is_none() {
                differences.note(Place::Redis, format!("Redis has a key that belongs to nothing: {name}"));
            }
        }
        found.stock.extend(
            redis
                .set_members(&keys.skus())?
                .iter()
                .filter_map(|name| tenant_and_sku(name)),
        );
        let mut holds = Vec::new();
        for (command, key) in [("HSCAN", keys.holds()), ("ZSCAN", keys.due())] {
            for name in redis.pair_names(command, &key)? {
                match HoldId::from_bytes(&name) {
                    Ok(hold_id) => holds.push(hold_id),
                    Err(invalid) => differences.note(Place::Redis, format!("{key}: {invalid}")),
                }
            }
        }
        let mut limits = Vec::new();
        for (tenant, sku) in &found.limits {
            for user in redis.pair_names("HSCAN", &keys.limit(tenant, sku))? {
                match UserId::parse(&text(user)) {
                    Ok(user) => limits.push((tenant.clone(), sku.clone(), user)),
                    Err(invalid) => differences.note(Place::Redis, format!("purchases of {sku}: {invalid}")),
                }
            }
        }
        let ledger = &books.pages.ledger;
        let mut list = Vec::new();
        let named = |(tenant, sku): (Tenant, Sku)| Subject::Stock(tenant, sku);
        union(found.stock, ledger.stock.keys().cloned(), named, &mut list);
        union(holds, ledger.holds.keys().copied(), Subject::Hold, &mut list);
        union(found.parts, ledger.parts.keys().copied(), Subject::Part, &mut list);
        let named = |(tenant, sku, user)| Subject::Limit(tenant, sku, user);
        union(limits, ledger.counted.keys().cloned(), named, &mut list);
        let named = |(tenant, id)| Subject::Command(tenant, id);
        union(found.commands, ledger.commands.keys().cloned(), named, &mut list);
        let applied: HashMap<String, Millis> = ledger.sources.iter().map(|(key, at)| (source_name(key), *at)).collect();
        let named = |name: String| {
            let at = applied.get(&name).copied();
            Subject::Source(name, at)
        };
        union(found.sources, applied.keys().cloned(), named, &mut list);
        let mut requests = Vec::new();
        for stretch in found.requests {
            for mark in redis.pair_names("HSCAN", &keys.requests(stretch))? {
                match RequestMark::from_bytes(&mark) {
                    Ok(mark) => requests.push((mark, stretch)),
                    Err(invalid) => differences.note(Place::Redis, format!("requests: {invalid}")),
                }
            }
        }
        let now = books.pages.state.log_time.max(plumbing::time::now_ms());
        let remembered = ledger.requests.iter().filter(|(_, at)| is_remembered(**at, now));
        let remembered = remembered.map(|(mark, at)| (*mark, stretch(*at)));
        let named = |(mark, stretch)| Subject::Request(mark, stretch);
        union(requests, remembered, named, &mut list);
        Ok(Self { list })
    }
}

#[derive(Default)]
struct Found {
    stock: Vec<(Tenant, Sku)>,
    parts: Vec<PartId>,
    limits: Vec<(Tenant, Sku)>,
    commands: Vec<(Tenant, Key)>,
    sources: Vec<String>,
    requests: Vec<i64>,
}

impl Found {
    /// Sorts a key into its kind; `None` when it has none.
    fn take(&mut self, name: &str) -> Option<()> {
        match name.split_once(':') {
            Some(("stock", rest)) => self.stock.push(tenant_and_sku(rest)?),
            Some(("part", rest)) => self.parts.push(part_id(rest)?),
            // Only a hint for refusals: units in carts that were pending a moment ago.
            Some(("relayed", rest)) => drop(tenant_and_sku(rest)?),
            Some(("limit", rest)) => self.limits.push(tenant_and_sku(rest)?),
            Some(("command", rest)) => {
                let (tenant, id) = rest.split_once('/')?;
                self.commands
                    .push((Tenant::parse(tenant).ok()?, Key::parse("command_id", id).ok()?));
            }
            Some(("source", rest)) => self.sources.push(rest.to_owned()),
            Some(("requests", rest)) => self.requests.push(rest.parse().ok()?),
            Some(_) => return None,
            None if matches!(name, "journal" | "skus" | "holds" | "due" | "parts" | "forget") => {}
            None => return None,
        }
        Some(())
    }
}

fn part_id(name: &str) -> Option<PartId> {
    let (hold_id, attempt) = name.split_once('/')?;
    Some(PartId {
        hold_id: HoldId::parse(hold_id).ok()?,
        attempt: attempt.parse().ok()?,
    })
}

fn tenant_and_sku(name: &str) -> Option<(Tenant, Sku)> {
    let (tenant, sku) = name.split_once('/')?;
    Some((Tenant::parse(tenant).ok()?, Sku::parse(sku).ok()?))
}

fn source_name(source: &domain::Source) -> String {
    format!("{}/{}/{}", source.topic, source.partition, source.offset)
}

impl Subject {
    /// Adds the reads of this subject: always as many as [`Subject::compare`] takes.
    pub fn read(&self, keys: &GenerationKeys, reads: &mut Pipeline) {
        match self {
            Self::Stock(tenant, sku) => {
                reads.cmd("HGETALL").arg(keys.stock(tenant, sku));
                reads.cmd("SISMEMBER").arg(keys.skus()).arg(format!("{tenant}/{sku}"));
            }
            Self::Hold(hold_id) => {
                reads.cmd("HGET").arg(keys.holds()).arg(&hold_id.bytes());
                reads.cmd("ZSCORE").arg(keys.due()).arg(&hold_id.bytes());
            }
            Self::Part(id) => {
                reads.cmd("GET").arg(keys.part(*id));
                reads.cmd("SISMEMBER").arg(keys.parts()).arg(id.to_string());
            }
            Self::Limit(tenant, sku, user) => {
                reads.cmd("HGET").arg(keys.limit(tenant, sku)).arg(user.as_str());
            }
            Self::Command(tenant, id) => {
                reads.cmd("GET").arg(keys.command(tenant, id));
            }
            Self::Source(name, _) => {
                let source = keys.source(&domain::Source {
                    topic: String::new(),
                    partition: 0,
                    offset: 0,
                    log_time: 0,
                });
                let base = source.strip_suffix("/0/0").unwrap_or(&source);
                reads.cmd("EXISTS").arg(format!("{base}{name}"));
            }
            Self::Request(mark, stretch) => {
                reads.cmd("HGET").arg(keys.requests(*stretch)).arg(&mark.bytes());
            }
        }
    }

    /// Compares the answers with the books, which stand at the same command.
    ///
    /// # Errors
    /// An answer is of another type than it should be.
    pub fn compare(
        &self,
        answers: &mut impl Iterator<Item = Value>,
        books: &Books,
        remember_ms: Millis,
        differences: &mut Differences,
    ) -> anyhow::Result<()> {
        let mut answer = || answers.next().context("Redis gave fewer answers than questions");
        let log_time = books.pages.state.log_time;
        // Forgotten at any moment from then on.
        let may_be_gone = |at: Millis| at.saturating_add(remember_ms) <= log_time;
        // Postgres prunes what was applied once by the wall clock, and a rebuild begins there.
        let now = log_time.max(plumbing::time::now_ms());
        let may_be_pruned = |at: Millis| at.saturating_add(remember_ms) <= now;
        let ledger = &books.pages.ledger;
        let problem = match self {
            Self::Stock(tenant, sku) => {
                let (fields, member) = (hash_of(answer()?)?, redis::from_redis_value(answer()?)?);
                stock_problem(&fields, member, ledger.stock.get(&(tenant.clone(), sku.clone())))
            }
            Self::Hold(hold_id) => {
                let (cell, due): (Option<Vec<u8>>, Option<i64>) =
                    (redis::from_redis_value(answer()?)?, score_of(answer()?)?);
                hold_problem(cell.as_deref(), due, ledger.holds.get(hold_id), may_be_gone)
            }
            Self::Part(id) => {
                let (cell, kept): (Option<Vec<u8>>, bool) =
                    (redis::from_redis_value(answer()?)?, redis::from_redis_value(answer()?)?);
                let gone = |terms: &PartTerms| may_be_gone(terms.changed_at) && terms.relay_until <= log_time;
                part_problem(cell.as_deref(), kept, ledger.parts.get(id), gone)
            }
            Self::Limit(tenant, sku, user) => {
                let units: Option<i64> = redis::from_redis_value(answer()?)?;
                let key = (tenant.clone(), sku.clone(), user.clone());
                let (units, counted) = (units.unwrap_or(0), ledger.counted.get(&key).copied().unwrap_or(0));
                (units != counted).then(|| format!("{units} in Redis, {counted} in the log"))
            }
            Self::Command(tenant, id) => {
                let cell: Option<Vec<u8>> = redis::from_redis_value(answer()?)?;
                let log = ledger.commands.get(&(tenant.clone(), id.clone()));
                match (cell.map(|bytes| cells::read_command(&bytes)), log) {
                    (None, Some(log)) if may_be_pruned(log.at) => None,
                    (None, Some(_)) => Some("is not remembered in Redis".to_owned()),
                    (Some(Ok(redis)), Some(log)) => (redis != *log).then(|| differ(&redis, log)),
                    (Some(Err(invalid)), _) => Some(invalid.to_string()),
                    (Some(Ok(redis)), None) => (!may_be_pruned(redis.at)).then(|| "was never applied".to_owned()),
                    (None, None) => None,
                }
            }
            Self::Source(name, at) => {
                let exists: bool = redis::from_redis_value(answer()?)?;
                // Only one that came in the meantime has to be looked for.
                let since = || ledger.sources.iter().find(|(source, _)| source_name(source) == *name);
                match at.or_else(|| since().map(|(_, at)| *at)) {
                    Some(at) => (!exists && !may_be_pruned(at)).then(|| "is not remembered in Redis".to_owned()),
                    None => exists.then(|| "was never applied".to_owned()),
                }
            }
            Self::Request(mark, of) => {
                let redis: Option<Millis> = redis::from_redis_value(answer()?)?;
                // It may have been refused again long after.
                let log = ledger.requests.get(mark).copied().filter(|at| stretch(*at) == *of);
                match (redis, log) {
                    (Some(redis), Some(log)) => (redis != log).then(|| differ(&redis, &log)),
                    (None, Some(log)) => is_remembered(log, now).then(|| "is not remembered in Redis".to_owned()),
                    (Some(redis), None) => is_remembered(redis, now).then(|| "was never refused".to_owned()),
                    (None, None) => None,
                }
            }
        };
        if let Some(problem) = problem {
            differences.note(Place::Redis, format!("{}: {problem}", self.name()));
        }
        Ok(())
    }

    fn name(&self) -> String {
        match self {
            Self::Stock(tenant, sku) => format!("stock of {tenant}/{sku}"),
            Self::Hold(hold_id) => format!("hold {hold_id}"),
            Self::Part(id) => format!("part {id}"),
            Self::Limit(tenant, sku, user) => format!("units of {tenant}/{sku} that {user} has"),
            Self::Command(tenant, id) => format!("command {tenant}/{id}"),
            Self::Source(name, _) => format!("source {name}"),
            Self::Request(mark, _) => format!("request {mark}"),
        }
    }
}

fn stretch(at: Millis) -> i64 {
    stretch_of(at, limits::REMEMBER_REQUEST_MS)
}

fn is_remembered(refused_at: Millis, now: Millis) -> bool {
    refused_at + limits::REMEMBER_REQUEST_MS > now
}

/// "one in Redis, other in the log".
pub(super) fn differ(redis: &impl std::fmt::Debug, log: &impl std::fmt::Debug) -> String {
    format!("{redis:?} in Redis, {log:?} in the log")
}

fn stock_problem(fields: &HashMap<String, String>, member: bool, log: Option<&domain::Stock>) -> Option<String> {
    let redis = match (!fields.is_empty()).then(|| cells::read_stock(fields)).transpose() {
        Ok(redis) => redis,
        Err(invalid) => return Some(invalid.to_string()),
    };
    match (redis, log) {
        (Some(redis), Some(log)) if redis != *log => Some(differ(&redis, log)),
        (Some(_), Some(_)) => (!member).then(|| "is missing in Redis' set of SKUs".to_owned()),
        (Some(redis), None) => Some(format!("{redis:?} in Redis, unknown to the log")),
        (None, Some(log)) => Some(format!("not in Redis, {log:?} in the log")),
        (None, None) => member.then(|| "is in Redis' set of SKUs, unknown to the log".to_owned()),
    }
}

fn part_problem(
    cell: Option<&[u8]>,
    kept: bool,
    log: Option<&LedgerPart>,
    may_be_gone: impl Fn(&PartTerms) -> bool,
) -> Option<String> {
    let redis = match cell.map(cells::read_part).transpose() {
        Ok(redis) => redis,
        Err(invalid) => return Some(invalid.to_string()),
    };
    let is_gone = |part: &LedgerPart| part.terms.state.is_final() && may_be_gone(&part.terms);
    match (&redis, log) {
        (Some(redis), Some(log)) if redis != log => return Some(differ(redis, log)),
        (Some(redis), None) if !is_gone(redis) => return Some(format!("{redis:?} in Redis, unknown to the log")),
        (None, Some(log)) if !is_gone(log) => return Some(format!("not in Redis, {log:?} in the log")),
        (Some(_) | None, Some(_) | None) => {}
    }
    let keeps = log.is_some_and(|part| !part.terms.state.is_final());
    (kept != keeps).then(|| format!("among those that keep units in Redis: {kept}, in the log: {keeps}"))
}

fn hold_problem(
    cell: Option<&[u8]>,
    due: Option<i64>,
    log: Option<&LedgerHold>,
    may_be_gone: impl Fn(Millis) -> bool,
) -> Option<String> {
    let ended = |hold: &LedgerHold| hold.terms.state.is_final();
    let redis = match cell.map(cells::read_hold).transpose() {
        Ok(redis) => redis,
        Err(invalid) => return Some(invalid.to_string()),
    };
    match (&redis, log) {
        (Some(redis), Some(log)) if redis != log => return Some(differ(redis, log)),
        (Some(redis), None) if !(ended(redis) && may_be_gone(redis.terms.changed_at)) => {
            return Some(format!(
                "{} in Redis, never created in the log",
                redis.terms.state.name()
            ));
        }
        (None, Some(log)) if !(ended(log) && may_be_gone(log.terms.changed_at)) => {
            return Some(format!("not in Redis, {} in the log", log.terms.state.name()));
        }
        (Some(_) | None, Some(_) | None) => {}
    }
    let deadline = log
        .filter(|hold| hold.terms.state.is_live())
        .map(|hold| hold.terms.expires_at);
    (due != deadline).then(|| format!("due at {due:?} in Redis, at {deadline:?} in the log"))
}
