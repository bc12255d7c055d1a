//! What Redis has of a lane, read without changing it. Blocks: it belongs on a thread of its own.
//!
//! Reads that must fit together go through one MULTI/EXEC together with the lane's own fields, so that each answer says at
//! which command (the fence) it was true, however busy the lane is.

use std::{collections::HashMap, time::Duration};

use anyhow::Context as _;
use domain::Lane;
use plumbing::config::Connections;
use redis::{Connection, Pipeline, Value};
use schemas::keys::{GenerationKeys, LaneKeys};

const TIMEOUT: Duration = Duration::from_secs(5);

/// The fields of a lane's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct LaneCell {
    /// The owner's epoch.
    pub epoch: i64,
    /// Which generation of keys is in use: the epoch that built it.
    pub generation: i64,
    /// The last command that was applied.
    pub fence: i64,
    /// Whether a rebuild has not finished, or a script was torn.
    pub building: bool,
}

const FIELDS: [&str; 4] = ["epoch", "generation", "fence", "building"];

impl LaneCell {
    fn parse(fields: &[Option<String>]) -> Option<Self> {
        let number = |index: usize| fields.get(index)?.as_deref()?.parse().ok();
        Some(Self {
            epoch: number(0)?,
            generation: number(1)?,
            fence: number(2)?,
            building: fields.get(3)?.as_deref().is_some_and(|mark| !matches!(mark, "" | "0")),
        })
    }
}

/// A connection that looks at lanes.
pub struct RedisLanes {
    connection: Connection,
    prefix: String,
}

impl std::fmt::Debug for RedisLanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RedisLanes({})", self.prefix)
    }
}

/// Opens a connection for commands that only look.
///
/// # Errors
/// Redis does not answer.
pub fn connect(connections: &Connections) -> anyhow::Result<Connection> {
    let place = || format!("Redis does not answer on {}", connections.redis_url);
    let client = plumbing::redis::client(connections.redis_url.expose()).with_context(place)?;
    let connection = client.get_connection_with_timeout(TIMEOUT).with_context(place)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    Ok(connection)
}

impl RedisLanes {
    /// Opens a connection.
    ///
    /// # Errors
    /// Redis does not answer.
    pub fn open(connections: &Connections) -> anyhow::Result<Self> {
        Ok(Self {
            connection: connect(connections)?,
            prefix: connections.redis_prefix.clone(),
        })
    }

    /// The keys of a lane.
    #[must_use]
    pub fn keys(&self, lane: Lane) -> LaneKeys {
        LaneKeys::new(&self.prefix, lane)
    }

    /// The lane's own fields; `None` when Redis has no such lane.
    ///
    /// # Errors
    /// Redis does not answer.
    pub fn lane(&mut self, lane: Lane) -> anyhow::Result<Option<LaneCell>> {
        let fields: Vec<Option<String>> = redis::cmd("HMGET")
            .arg(self.keys(lane).lane())
            .arg(&FIELDS)
            .query(&mut self.connection)
            .context("Redis does not answer")?;
        Ok(LaneCell::parse(&fields))
    }

    /// The answers to some reads and the lane's fields, all of one instant.
    ///
    /// # Errors
    /// Redis does not answer, or a key has another type than the read expects.
    pub fn at_once(&mut self, lane: Lane, reads: &Pipeline) -> anyhow::Result<(Option<LaneCell>, Vec<Value>)> {
        let mut transaction = redis::pipe();
        transaction.atomic();
        transaction.cmd("HMGET").arg(self.keys(lane).lane()).arg(&FIELDS);
        for read in reads.cmd_iter() {
            transaction.add_command(read.clone());
        }
        let mut answers: Vec<Value> = transaction
            .query(&mut self.connection)
            .context("Redis could not read a lane's keys")?;
        if answers.is_empty() {
            return Ok((None, answers));
        }
        let fields: Vec<Option<String>> = redis::from_redis_value(answers.remove(0))?;
        Ok((LaneCell::parse(&fields), answers))
    }

    /// Every key of one generation, each once, without the generation's own prefix.
    ///
    /// # Errors
    /// Redis does not answer.
    pub fn key_names(&mut self, lane: Lane, generation: i64) -> anyhow::Result<Vec<String>> {
        let keys = self.keys(lane);
        let base = base_of(&keys.generation(generation));
        let mut found: Vec<String> = Vec::new();
        self.scan(redis::cmd("SCAN"), &["MATCH", &keys.pattern()], |page| {
            found.extend(
                page.into_iter()
                    .filter_map(|key| text(key).strip_prefix(&base).map(str::to_owned)),
            );
        })?;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Members of a set, each at least once.
    ///
    /// # Errors
    /// Redis does not answer, or the key is no set.
    pub fn set_members(&mut self, key: &str) -> anyhow::Result<Vec<String>> {
        let mut members = Vec::new();
        let mut scan = redis::cmd("SSCAN");
        scan.arg(key);
        self.scan(scan, &[], |page| members.extend(page.into_iter().map(text)))?;
        Ok(members)
    }

    /// Members of a sorted set or fields of a hash, each at least once, without scores and values.
    ///
    /// # Errors
    /// Redis does not answer, or the key is of another type.
    pub fn pair_names(&mut self, command: &str, key: &str) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        let mut scan = redis::cmd(command);
        scan.arg(key);
        self.scan(scan, &[], |page| names.extend(page.into_iter().step_by(2)))?;
        Ok(names)
    }

    fn scan(&mut self, command: redis::Cmd, rest: &[&str], mut take: impl FnMut(Vec<Vec<u8>>)) -> anyhow::Result<()> {
        let mut cursor = String::from("0");
        loop {
            let mut page = command.clone();
            page.arg(&cursor).arg(rest).arg("COUNT").arg(1_000);
            let (next, names): (String, Vec<Vec<u8>>) = page
                .query(&mut self.connection)
                .context("Redis does not answer a scan")?;
            take(names);
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }
}

/// A name that should be text; what is not is shown as it can be.
pub fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What all keys of a generation begin with.
fn base_of(keys: &GenerationKeys) -> String {
    let journal = keys.journal();
    journal.strip_suffix("journal").unwrap_or(&journal).to_owned()
}

/// The fields of a hash from the answer to HGETALL.
///
/// # Errors
/// The answer is no hash of texts.
pub fn hash_of(answer: Value) -> anyhow::Result<HashMap<String, String>> {
    Ok(redis::from_redis_value(answer)?)
}

/// A time in milliseconds from a sorted set's score; `None` when there is no such member.
///
/// # Errors
/// The answer is no score.
pub fn score_of(answer: Value) -> anyhow::Result<Option<i64>> {
    let score: Option<f64> = redis::from_redis_value(answer)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "deadlines in milliseconds are far below 2^53"
    )]
    Ok(score.map(|score| score as i64))
}

/// The engine's facts (`INFO`) as a map.
///
/// # Errors
/// Redis does not answer.
pub fn info(connection: &mut Connection, section: &str) -> anyhow::Result<HashMap<String, String>> {
    let text: String = redis::cmd("INFO").arg(section).query(connection)?;
    Ok(text
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}
