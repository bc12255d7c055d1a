//! A Redis that loses its tail, restarts, is set back, and fails over to a lagging copy while the old one still answers.
//!
//! There may be several instances: new connections reach the one that the endpoint names, old connections stay with the
//! one that they were made to. Scripts are the real ones, run by a real Lua (`lua`) on a small data set (`data`).

pub(crate) mod data;
mod harm;
pub(crate) mod lua;
mod msgpack;
mod serve;

use std::collections::{HashMap, HashSet, VecDeque};

use redis::{RedisError, RedisResult, Value};

use crate::{
    plot::{Script, is_named},
    state::{Micros, SECOND},
};
use data::Data;

pub(crate) use harm::Harm;

/// A script that takes longer is not waited for (`reserver/src/scripts.rs`).
pub(crate) const RESPONSE_TIMEOUT: Micros = 5 * SECOND;
/// States of the past that an instance may be set back to.
const HISTORY: usize = 24;

/// One server.
#[derive(Default)]
pub(crate) struct Instance {
    pub(crate) data: Data,
    /// What it was before each of the last changes, oldest first.
    history: VecDeque<Data>,
    scripts: HashSet<String>,
    alive: bool,
}

struct Connection {
    instance: usize,
    open: bool,
    /// When its last request arrives: they arrive in order.
    last: Micros,
}

/// A request that somebody waits for.
struct Call {
    connection: usize,
    task: usize,
    request: Vec<Vec<u8>>,
    reply: Option<RedisResult<Value>>,
}

pub(crate) struct Redis {
    pub(crate) instances: Vec<Instance>,
    /// Where new connections go.
    pub(crate) endpoint: usize,
    /// Whether anything takes new connections.
    pub(crate) down: bool,
    connections: Vec<Connection>,
    calls: HashMap<u64, Call>,
    calls_made: u64,
    /// Scripts by their digest, as they are run.
    texts: HashMap<String, String>,
    /// Which is which, by digest.
    kinds: HashMap<String, Script>,
    /// The same, as they were loaded.
    originals: Vec<String>,
    /// The next script that writes is cut off after so many writes.
    pub(crate) cut: Option<u64>,
    /// Single keys that were lost.
    pub(crate) lost: HashSet<String>,
    /// Whether anything was lost.
    pub(crate) has_lost: bool,
    /// Whether something was lost that only the next command shows.
    pub(crate) set_back: bool,
}

/// What a broken connection looks like to its owner.
pub(crate) fn broken() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()
}

/// What a reply that does not come looks like.
pub(crate) fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// The words of a packed command.
pub(crate) fn words(packed: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = packed;
    let mut number = |mark: u8| {
        let end = rest.iter().position(|byte| *byte == b'\r').expect("a line ends");
        let (line, after) = rest.split_at(end);
        assert_eq!(line[0], mark, "the client speaks RESP");
        let number: usize = std::str::from_utf8(&line[1..])
            .ok()
            .and_then(|text| text.parse().ok())
            .expect("a number");
        let taken = after[2..].get(..number).map(<[u8]>::to_vec).unwrap_or_default();
        rest = if mark == b'$' {
            &after[2 + number + 2..]
        } else {
            &after[2..]
        };
        (number, taken)
    };
    let (count, _) = number(b'*');
    (0..count).map(|_| number(b'$').1).collect()
}

impl Redis {
    pub(crate) fn new() -> Self {
        Self {
            instances: vec![Instance {
                alive: true,
                ..Instance::default()
            }],
            endpoint: 0,
            down: false,
            connections: Vec::new(),
            calls: HashMap::new(),
            calls_made: 0,
            texts: HashMap::new(),
            kinds: HashMap::new(),
            originals: Vec::new(),
            cut: None,
            lost: HashSet::new(),
            has_lost: false,
            set_back: false,
        }
    }

    /// The data that new connections see.
    pub(crate) fn data(&self) -> &Data {
        &self.instances[self.endpoint].data
    }

    /// A new connection to the endpoint; none while it is down.
    pub(crate) fn connect(&mut self) -> Option<usize> {
        if self.down {
            return None;
        }
        self.connections.push(Connection {
            instance: self.endpoint,
            open: true,
            last: 0,
        });
        Some(self.connections.len() - 1)
    }

    pub(crate) fn close(&mut self, connection: usize) {
        self.connections[connection].open = false;
    }

    pub(crate) fn is_open(&self, connection: usize) -> bool {
        self.connections[connection].open
    }

    /// Takes the reply of a call, if it came. One that did not may still be carried out.
    pub(crate) fn take(&mut self, call: u64) -> Option<RedisResult<Value>> {
        self.calls.get(&call)?.reply.as_ref()?;
        self.calls.remove(&call)?.reply
    }

    /// The text of a script that somebody has loaded, as it is in the reserver.
    pub(crate) fn original(&self, name: &str) -> Option<&str> {
        let found = self.originals.iter().find(|text| is_named(text, name));
        found.map(String::as_str)
    }
}

impl Instance {
    /// Goes back by so many changes.
    fn set_back(&mut self, changes: usize) {
        let kept = self.history.len().saturating_sub(changes);
        if let Some(data) = self.history.get(kept) {
            self.data = data.clone();
            self.history.truncate(kept);
        }
    }
}
