//! The typed face of the Lua scripts: one lane, one epoch, one TCP connection.
//!
//! A disconnect or a response timeout ends the epoch; nothing here connects again or repeats a call, because a new
//! connection may reach another Redis, and a timed-out script may have run (docs/ARCHITECTURE.md, "Lanes").

use std::{sync::LazyLock, time::Duration};

use redis::{Connection, RedisError, RedisResult, Script, Value};
use schemas::keys::LaneKeys;

use crate::{pack, world::LaneConnection};

/// A script that takes longer is not waited for: its epoch ends.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How keys and values are laid out (schemas/src/keys.rs, cells.rs). A lane with another layout is rebuilt: count up whatever
/// a key or a cell changes.
const LAYOUT: i64 = 2;
/// Chunks of a rebuild that may be on their way: enough that Redis never waits for the next.
const LOADING_MAX: usize = 4;
/// Keys asked for in one step of the background removal.
const SCAN_COUNT: usize = 500;

static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/claim.lua")));
static BEGIN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/begin.lua")));
static LOAD: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/load.lua")));
static FINISH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/finish.lua")));
/// One script, in the order in which its pieces use each other.
static APPLY: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("lua/apply/start.lua"),
        include_str!("lua/apply/stock.lua"),
        include_str!("lua/apply/holds.lua"),
        include_str!("lua/apply/memory.lua"),
        include_str!("lua/apply/requests.lua"),
        include_str!("lua/apply/reserve.lua"),
        include_str!("lua/apply/carts.lua"),
        include_str!("lua/apply/steps.lua"),
        include_str!("lua/apply/shelf.lua"),
        include_str!("lua/apply/outcome.lua"),
        include_str!("lua/apply/write.lua"),
    ))
});
static DROP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/drop.lua")));

/// What a claim came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The lane is ours as it is.
    Taken {
        /// The last command that Redis has decided.
        fence: i64,
        /// The generation of its keys.
        generation: i64,
    },
    /// It must be rebuilt.
    Refused(String),
    /// Somebody with a newer epoch has it.
    Newer(i64),
}

/// What a step of a rebuild came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Done.
    Done,
    /// Somebody with a newer epoch has the lane.
    Newer(i64),
}

/// What an apply came to.
#[derive(Debug)]
pub enum Applied {
    /// One outcome per command, in order.
    Outcomes(Vec<Vec<u8>>),
    /// The lane is not ours any more.
    Fenced(i64),
    /// The batch does not follow the fence.
    Gap(i64),
    /// The lane contradicts itself and must be rebuilt.
    Damaged(String),
}

/// One lane's Redis for one epoch.
pub struct LaneRedis<C = Connection> {
    connection: C,
    keys: LaneKeys,
    /// Chunks of a rebuild whose answers have not come.
    loading: usize,
    /// Chunks of a rebuild that were loaded: a Redis that lost one of them on the way is not whole.
    chunks: i64,
}

/// A new connection; whoever answers too late loses it.
pub(crate) fn connect(url: &str) -> RedisResult<Connection> {
    let connection = plumbing::redis::client(url)?.get_connection_with_timeout(RESPONSE_TIMEOUT)?;
    connection.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    connection.set_write_timeout(Some(RESPONSE_TIMEOUT))?;
    Ok(connection)
}

impl LaneRedis {
    /// A lane over a new connection.
    ///
    /// # Errors
    /// [`RedisError`] when Redis does not answer.
    pub fn connect(url: &str, keys: LaneKeys) -> RedisResult<Self> {
        Self::over(connect(url)?, keys)
    }
}

impl<C: LaneConnection> LaneRedis<C> {
    /// A lane over a connection that nobody else uses.
    ///
    /// # Errors
    /// [`RedisError`] when Redis does not answer.
    pub(crate) fn over(connection: C, keys: LaneKeys) -> RedisResult<Self> {
        let mut lane = Self {
            connection,
            keys,
            loading: 0,
            chunks: 0,
        };
        redis::cmd("PING").exec(&mut lane.connection)?;
        Ok(lane)
    }

    /// The configured eviction policy; `None` where Redis does not tell.
    pub fn eviction_policy(&mut self) -> Option<String> {
        let answer: RedisResult<Vec<String>> = redis::cmd("CONFIG")
            .arg("GET")
            .arg("maxmemory-policy")
            .query(&mut self.connection);
        answer.ok()?.get(1).cloned()
    }

    /// The share of `maxmemory` in use; 0 where there is no limit.
    ///
    /// # Errors
    /// [`RedisError`] when Redis does not answer.
    pub fn memory_share(&mut self) -> RedisResult<f64> {
        let text: String = redis::cmd("INFO").arg("memory").query(&mut self.connection)?;
        let number = |name: &str| -> f64 {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .and_then(|number| number.trim().parse().ok())
                .unwrap_or(0.0)
        };
        let limit = number("maxmemory");
        Ok(if limit > 0.0 {
            number("used_memory") / limit
        } else {
            0.0
        })
    }

    fn run(&mut self, script: &Script, arguments: &[&[u8]]) -> RedisResult<Vec<Value>> {
        let mut invocation = script.key(self.keys.lane());
        for argument in arguments {
            invocation.arg(*argument);
        }
        invocation.invoke(&mut self.connection)
    }

    /// Takes the lane as it is under `epoch`, if it holds everything that the log says (rule 4).
    ///
    /// # Errors
    /// [`RedisError`] ends the epoch.
    pub fn claim(&mut self, epoch: i64, decided: i64, decision_epoch: i64, commands_end: i64) -> RedisResult<Claimed> {
        let arguments = [epoch, decided, decision_epoch, commands_end, LAYOUT].map(text);
        let reply = self.run(&CLAIM, &arguments.each_ref().map(Vec::as_slice))?;
        match status(&reply)? {
            "OK" => Ok(Claimed::Taken {
                fence: number(&reply, 1)?,
                generation: number(&reply, 2)?,
            }),
            "REFUSED" => Ok(Claimed::Refused(string(&reply, 1)?)),
            "NEWER" => Ok(Claimed::Newer(number(&reply, 1)?)),
            other => Err(unexpected(other)),
        }
    }

    /// Starts a rebuild in a new generation named by the epoch.
    ///
    /// # Errors
    /// [`RedisError`] ends the epoch.
    pub fn begin(&mut self, epoch: i64) -> RedisResult<Step> {
        let reply = self.run(&BEGIN, &[&text(epoch), &text(LAYOUT)])?;
        (self.chunks, self.loading) = (0, 0);
        LOAD.prepare_invoke().load(&mut self.connection)?;
        step(&reply)
    }

    /// Writes one chunk of a rebuild (MessagePack: arrays of a command's name and arguments).
    ///
    /// # Errors
    /// [`RedisError`] ends the epoch.
    pub fn load(&mut self, epoch: i64, writes: &[u8]) -> RedisResult<Step> {
        let reply = self.run(&LOAD, &[&text(epoch), writes])?;
        let step = step(&reply)?;
        self.chunks += i64::from(step == Step::Done);
        Ok(step)
    }

    /// As [`LaneRedis::load`], but waits only for a chunk some way before this one; [`LaneRedis::load_rest`] must follow the last.
    ///
    /// # Errors
    /// [`RedisError`] ends the epoch.
    pub fn load_next(&mut self, epoch: i64, writes: &[u8]) -> RedisResult<Step> {
        let mut call = redis::cmd("EVALSHA");
        call.arg(LOAD.get_hash()).arg(1).arg(self.keys.lane());
        call.arg(text(epoch)).arg(writes);
        self.connection.send(&call.get_packed_command())?;
        self.loading += 1;
        if self.loading < LOADING_MAX {
            Ok(Step::Done)
        } else {
            self.loaded()
        }
    }

    /// Waits for the chunks that are on their way.
    ///
    /// # Errors
    /// [`RedisError`] ends the epoch.
    pub fn load_rest(&mut self) -> RedisResult<Step> {
        let mut last = Step::Done;
        while self.loading > 0 && last == Step::Done {
            last = self.loaded()?;
        }
        Ok(last)
    }

    fn loaded(&mut self) -> RedisResult<Step> {
        let reply: Vec<Value> = redis::from_redis_value(self.connection.receive()?)?;
        self.loading -= 1;
        let step = step(&reply)?;
        self.chunks += i64::from(step == Step::Done);
        Ok(step)
    }

    /// Ends a rebuild of so many holds, if every chunk of it is there.
    ///
    /// # Errors
    /// [`RedisError`] ends the epoch.
    pub fn finish(&mut self, epoch: i64, fence: i64, log_time: i64, holds: i64) -> RedisResult<Step> {
        let arguments = [epoch, fence, log_time, self.chunks, holds].map(text);
        let reply = self.run(&FINISH, &arguments.each_ref().map(Vec::as_slice))?;
        step(&reply)
    }

    /// Decides a packed batch (rule 5).
    ///
    /// # Errors
    /// [`RedisError`] ends the epoch.
    pub fn apply(&mut self, epoch: i64, batch: &[u8]) -> RedisResult<Applied> {
        let reply = self.run(&APPLY, &[&text(epoch), batch])?;
        match status(&reply)? {
            "OK" => reply
                .into_iter()
                .skip(1)
                .map(bytes)
                .collect::<RedisResult<_>>()
                .map(Applied::Outcomes),
            "FENCED" => Ok(Applied::Fenced(number(&reply, 1)?)),
            "GAP" => Ok(Applied::Gap(number(&reply, 1)?)),
            "DAMAGED" => Ok(Applied::Damaged(string(&reply, 1)?)),
            other => Err(unexpected(other)),
        }
    }

    /// Whether the lane in Redis is still the one that this epoch owns: a quiet lane that was flushed must not wait for
    /// a command to be rebuilt.
    ///
    /// # Errors
    /// [`RedisError`] ends the epoch.
    pub fn is_ours(&mut self, epoch: i64) -> RedisResult<bool> {
        let key = self.keys.lane();
        let (owner, building): (Option<i64>, Option<String>) = redis::cmd("HMGET")
            .arg(key)
            .arg("epoch")
            .arg("building")
            .query(&mut self.connection)?;
        Ok(owner == Some(epoch) && building.is_none())
    }

    /// Command offsets that the journal still has.
    ///
    /// # Errors
    /// [`RedisError`] ends the epoch.
    pub fn journal_offsets(&mut self, generation: i64) -> RedisResult<Vec<i64>> {
        redis::cmd("HKEYS")
            .arg(self.keys.generation(generation).journal())
            .query(&mut self.connection)
    }

    /// The command that was decided before one, as the journal has it; `None` where it has no such entry.
    ///
    /// # Errors
    /// [`RedisError`] ends the epoch.
    pub(crate) fn journal_previous(&mut self, generation: i64, offset: i64) -> RedisResult<Option<i64>> {
        let entry: Option<Vec<u8>> = redis::cmd("HGET")
            .arg(self.keys.generation(generation).journal())
            .arg(offset)
            .query(&mut self.connection)?;
        Ok(entry.and_then(|entry| pack::previous_of(&entry)))
    }

    /// Whose the lane in Redis is; `None` where there is none.
    ///
    /// # Errors
    /// [`RedisError`] when Redis does not answer.
    pub(crate) fn owner(&mut self) -> RedisResult<Option<i64>> {
        redis::cmd("HGET")
            .arg(self.keys.lane())
            .arg("epoch")
            .query(&mut self.connection)
    }

    /// One step of the removal of older generations; the next cursor, 0 when all is seen.
    ///
    /// # Errors
    /// [`RedisError`] ends the epoch.
    pub fn drop_old(&mut self, epoch: i64, cursor: u64) -> RedisResult<u64> {
        let (next, keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(self.keys.pattern())
            .arg("COUNT")
            .arg(SCAN_COUNT)
            .query(&mut self.connection)?;
        if !keys.is_empty() {
            let epoch = text(epoch);
            let arguments: Vec<&[u8]> = std::iter::once(&*epoch).chain(keys.iter().map(Vec::as_slice)).collect();
            self.run(&DROP, &arguments)?;
        }
        Ok(next)
    }
}

fn text(number: i64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn unexpected(what: &str) -> RedisError {
    RedisError::from((
        redis::ErrorKind::UnexpectedReturnType,
        "unexpected reply of a script",
        what.to_owned(),
    ))
}

fn status(reply: &[Value]) -> RedisResult<&str> {
    match reply.first() {
        Some(Value::BulkString(status)) => std::str::from_utf8(status).map_err(|_| unexpected("status")),
        _ => Err(unexpected("no status")),
    }
}

fn bytes(value: Value) -> RedisResult<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        other => Err(unexpected(&format!("{other:?}"))),
    }
}

fn string(reply: &[Value], index: usize) -> RedisResult<String> {
    redis::from_redis_value(reply.get(index).cloned().unwrap_or(Value::Nil)).map_err(Into::into)
}

fn number(reply: &[Value], index: usize) -> RedisResult<i64> {
    string(reply, index)?.parse().map_err(|_| unexpected("a number"))
}

fn step(reply: &[Value]) -> RedisResult<Step> {
    match status(reply)? {
        "OK" => Ok(Step::Done),
        "NEWER" | "FENCED" => Ok(Step::Newer(number(reply, 1)?)),
        other => Err(unexpected(other)),
    }
}
