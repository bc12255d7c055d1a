//! One data set of a Redis, and the commands on it that the reserver and its scripts use.

mod list;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

/// A value. Copies of a data set share what neither of them has changed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Held {
    Text(Vec<u8>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    List(VecDeque<Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Sorted(BTreeMap<Vec<u8>, f64>),
}

/// All keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Data(pub(crate) BTreeMap<Rc<[u8]>, Rc<Held>>);

/// What a command answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Nil,
    Okay,
    Number(i64),
    Text(Vec<u8>),
    List(Vec<Answer>),
    Error(String),
}

/// Commands that change something; after these a script may be cut off.
pub(crate) fn writes(command: &str) -> bool {
    matches!(
        command,
        "HSET"
            | "HDEL"
            | "HINCRBY"
            | "SADD"
            | "SREM"
            | "MSET"
            | "SET"
            | "DEL"
            | "UNLINK"
            | "ZADD"
            | "ZREM"
            | "ZREMRANGEBYSCORE"
            | "RPUSH"
            | "LTRIM"
            | "HMSET"
    )
}

type Arguments<'a> = &'a [Vec<u8>];

fn wrong(what: &str) -> Answer {
    Answer::Error(format!("ERR {what}"))
}

fn wrong_type() -> Answer {
    Answer::Error("WRONGTYPE Operation against a key holding the wrong kind of value".to_owned())
}

fn number(text: &[u8]) -> Option<f64> {
    match text {
        b"+inf" | b"inf" => Some(f64::INFINITY),
        b"-inf" => Some(f64::NEG_INFINITY),
        _ => std::str::from_utf8(text).ok()?.parse().ok(),
    }
}

fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// An end of a range of scores, and whether it is left out.
fn bound(text: &[u8]) -> Option<(f64, bool)> {
    match text.strip_prefix(b"(") {
        Some(rest) => Some((number(rest)?, true)),
        None => Some((number(text)?, false)),
    }
}

fn within(score: f64, low: (f64, bool), high: (f64, bool)) -> bool {
    (score > low.0 || score == low.0 && !low.1) && (score < high.0 || score == high.0 && !high.1)
}

/// A score as Redis prints it.
fn printed(score: f64) -> Vec<u8> {
    format!("{score}").into_bytes()
}

fn text_or_nil(value: Option<&Vec<u8>>) -> Answer {
    value.map_or(Answer::Nil, |value| Answer::Text(value.clone()))
}

fn counted(n: usize) -> Answer {
    Answer::Number(i64::try_from(n).expect("few"))
}

impl Data {
    /// Whether a set or a sorted set has a member.
    pub(crate) fn names(&self, index: &[u8], member: &[u8]) -> bool {
        match self.0.get(index).map(|held| &**held) {
            Some(Held::Set(set)) => set.contains(member),
            Some(Held::Sorted(sorted)) => sorted.contains_key(member),
            _ => false,
        }
    }

    /// Carries out a command.
    pub(crate) fn run(&mut self, command: &str, arguments: Arguments<'_>) -> Answer {
        let Some(key) = arguments.first() else {
            return wrong("wrong number of arguments");
        };
        let rest = &arguments[1..];
        match command {
            "GET" | "SET" | "MGET" | "MSET" | "DEL" | "UNLINK" | "EXISTS" => self.run_on_keys(command, arguments),
            "HGET" | "HMGET" | "HSET" | "HMSET" | "HDEL" | "HINCRBY" | "HKEYS" | "HGETALL" | "HEXISTS" | "HLEN" => {
                self.run_on_hash(command, key, rest)
            }
            "SADD" | "SREM" | "SISMEMBER" | "SMEMBERS" | "SMISMEMBER" | "SCARD" => self.run_on_set(command, key, rest),
            "ZADD" | "ZREM" | "ZSCORE" | "ZMSCORE" | "ZRANGEBYSCORE" | "ZREMRANGEBYSCORE" | "ZCARD" => {
                self.run_on_sorted(command, key, rest)
            }
            "RPUSH" | "LINDEX" | "LRANGE" | "LTRIM" | "LLEN" => self.run_on_list(command, key, rest),
            other => wrong(&format!(
                "the simulated Redis does not know {other}: see simulation/src/redis/data.rs"
            )),
        }
    }

    fn run_on_keys(&mut self, command: &str, arguments: Arguments<'_>) -> Answer {
        let get = |data: &Self, key: &Vec<u8>| match data.0.get(&key[..]).map(|held| &**held) {
            None => Answer::Nil,
            Some(Held::Text(text)) => Answer::Text(text.clone()),
            Some(_) => wrong_type(),
        };
        match (command, arguments) {
            ("GET", [key]) => get(self, key),
            ("MGET", keys) => Answer::List(
                keys.iter()
                    .map(|key| match get(self, key) {
                        Answer::Error(_) => Answer::Nil,
                        found => found,
                    })
                    .collect(),
            ),
            ("SET", [key, value]) => {
                self.0.insert(key.as_slice().into(), Rc::new(Held::Text(value.clone())));
                Answer::Okay
            }
            ("MSET", pairs) if pairs.len() % 2 == 0 => {
                for pair in pairs.chunks(2) {
                    self.0
                        .insert(pair[0].as_slice().into(), Rc::new(Held::Text(pair[1].clone())));
                }
                Answer::Okay
            }
            ("DEL" | "UNLINK", keys) => counted(keys.iter().filter(|key| self.0.remove(&key[..]).is_some()).count()),
            ("EXISTS", keys) => counted(keys.iter().filter(|key| self.0.contains_key(&key[..])).count()),
            _ => wrong("wrong number of arguments"),
        }
    }

    /// The value of a key for a change, made when there is none; nothing empty stays.
    fn change<T>(&mut self, key: &[u8], empty: Held, change: impl FnOnce(&mut Held) -> T) -> T {
        let held = self.0.entry(key.into()).or_insert_with(|| Rc::new(empty));
        let changed = change(Rc::make_mut(held));
        let gone = match &**held {
            Held::Text(_) => false,
            Held::Hash(hash) => hash.is_empty(),
            Held::List(list) => list.is_empty(),
            Held::Set(set) => set.is_empty(),
            Held::Sorted(sorted) => sorted.is_empty(),
        };
        if gone {
            self.0.remove(key);
        }
        changed
    }

    fn run_on_hash(&mut self, command: &str, key: &[u8], rest: Arguments<'_>) -> Answer {
        let none = BTreeMap::new();
        let hash = match self.0.get(key).map(|held| &**held) {
            None => &none,
            Some(Held::Hash(hash)) => hash,
            Some(_) => return wrong_type(),
        };
        match (command, rest) {
            ("HGET", [field]) => text_or_nil(hash.get(field)),
            ("HMGET", fields) => Answer::List(fields.iter().map(|field| text_or_nil(hash.get(field))).collect()),
            ("HKEYS", []) => Answer::List(hash.keys().cloned().map(Answer::Text).collect()),
            ("HLEN", []) => counted(hash.len()),
            ("HEXISTS", [field]) => counted(usize::from(hash.contains_key(field))),
            ("HGETALL", []) => Answer::List(
                hash.iter()
                    .flat_map(|(field, value)| [Answer::Text(field.clone()), Answer::Text(value.clone())])
                    .collect(),
            ),
            ("HSET" | "HMSET", pairs) if pairs.len() % 2 == 0 && !pairs.is_empty() => {
                let added = self.change(key, Held::Hash(BTreeMap::new()), |held| {
                    let Held::Hash(hash) = held else {
                        unreachable!("just seen")
                    };
                    let fresh = |pair: &&[Vec<u8>]| hash.insert(pair[0].clone(), pair[1].clone()).is_none();
                    pairs.chunks(2).filter(fresh).count()
                });
                if command == "HSET" {
                    counted(added)
                } else {
                    Answer::Okay
                }
            }
            ("HDEL", fields) if !fields.is_empty() => self.change(key, Held::Hash(BTreeMap::new()), |held| {
                let Held::Hash(hash) = held else {
                    unreachable!("just seen")
                };
                counted(fields.iter().filter(|field| hash.remove(*field).is_some()).count())
            }),
            ("HINCRBY", [field, by]) => {
                let before = hash.get(field).map_or(Some(0), |text| integer(text));
                let (Some(before), Some(by)) = (before, integer(by)) else {
                    return wrong("hash value is not an integer");
                };
                let after = before + by;
                self.change(key, Held::Hash(BTreeMap::new()), |held| {
                    let Held::Hash(hash) = held else {
                        unreachable!("just seen")
                    };
                    hash.insert(field.clone(), after.to_string().into_bytes());
                });
                Answer::Number(after)
            }
            _ => wrong("wrong number of arguments"),
        }
    }

    fn run_on_set(&mut self, command: &str, key: &[u8], rest: Arguments<'_>) -> Answer {
        let none = BTreeSet::new();
        let set = match self.0.get(key).map(|held| &**held) {
            None => &none,
            Some(Held::Set(set)) => set,
            Some(_) => return wrong_type(),
        };
        match (command, rest) {
            ("SISMEMBER", [member]) => counted(usize::from(set.contains(member))),
            ("SMISMEMBER", members) => Answer::List(
                members
                    .iter()
                    .map(|member| counted(usize::from(set.contains(member))))
                    .collect(),
            ),
            ("SMEMBERS", []) => Answer::List(set.iter().cloned().map(Answer::Text).collect()),
            ("SCARD", []) => counted(set.len()),
            ("SADD" | "SREM", members) if !members.is_empty() => {
                let adds = command == "SADD";
                self.change(key, Held::Set(BTreeSet::new()), |held| {
                    let Held::Set(set) = held else {
                        unreachable!("just seen")
                    };
                    let changed = |member: &&Vec<u8>| {
                        if adds {
                            set.insert((*member).clone())
                        } else {
                            set.remove(*member)
                        }
                    };
                    counted(members.iter().filter(changed).count())
                })
            }
            _ => wrong("wrong number of arguments"),
        }
    }

    fn run_on_sorted(&mut self, command: &str, key: &[u8], rest: Arguments<'_>) -> Answer {
        let none = BTreeMap::new();
        let sorted = match self.0.get(key).map(|held| &**held) {
            None => &none,
            Some(Held::Sorted(sorted)) => sorted,
            Some(_) => return wrong_type(),
        };
        let score = |member: &Vec<u8>| {
            sorted
                .get(member)
                .map_or(Answer::Nil, |score| Answer::Text(printed(*score)))
        };
        match (command, rest) {
            ("ZSCORE", [member]) => score(member),
            ("ZMSCORE", members) => Answer::List(members.iter().map(score).collect()),
            ("ZCARD", []) => counted(sorted.len()),
            ("ZADD", pairs) if pairs.len() % 2 == 0 && !pairs.is_empty() => {
                let Some(pairs) = pairs
                    .chunks(2)
                    .map(|pair| Some((pair[1].clone(), number(&pair[0])?)))
                    .collect()
                else {
                    return wrong("value is not a valid float");
                };
                let pairs: Vec<(Vec<u8>, f64)> = pairs;
                self.change(key, Held::Sorted(BTreeMap::new()), |held| {
                    let Held::Sorted(sorted) = held else {
                        unreachable!("just seen")
                    };
                    counted(
                        pairs
                            .into_iter()
                            .filter(|(member, score)| sorted.insert(member.clone(), *score).is_none())
                            .count(),
                    )
                })
            }
            ("ZREM", members) if !members.is_empty() => self.change(key, Held::Sorted(BTreeMap::new()), |held| {
                let Held::Sorted(sorted) = held else {
                    unreachable!("just seen")
                };
                counted(members.iter().filter(|member| sorted.remove(*member).is_some()).count())
            }),
            ("ZRANGEBYSCORE", [low, high, limit @ ..]) => {
                let (Some(low), Some(high)) = (bound(low), bound(high)) else {
                    return wrong("min or max is not a float");
                };
                let (skip, take) = match limit {
                    [_, skip, take] => (integer(skip).unwrap_or(0), integer(take).unwrap_or(-1)),
                    _ => (0, -1),
                };
                let mut found: Vec<_> = sorted.iter().filter(|(_, score)| within(**score, low, high)).collect();
                found.sort_by(|a, b| a.1.total_cmp(b.1).then(a.0.cmp(b.0)));
                let take = usize::try_from(take).unwrap_or(usize::MAX);
                let found = found.into_iter().skip(usize::try_from(skip).unwrap_or(0)).take(take);
                Answer::List(found.map(|(member, _)| Answer::Text(member.clone())).collect())
            }
            ("ZREMRANGEBYSCORE", [low, high]) => {
                let (Some(low), Some(high)) = (bound(low), bound(high)) else {
                    return wrong("min or max is not a float");
                };
                self.change(key, Held::Sorted(BTreeMap::new()), |held| {
                    let Held::Sorted(sorted) = held else {
                        unreachable!("just seen")
                    };
                    let before = sorted.len();
                    sorted.retain(|_, score| !within(*score, low, high));
                    counted(before - sorted.len())
                })
            }
            _ => wrong("wrong number of arguments"),
        }
    }
}
