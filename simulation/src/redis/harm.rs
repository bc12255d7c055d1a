//! What befalls Redis.

use std::{collections::HashSet, rc::Rc};

use super::{Instance, broken, data::Held};
use crate::state::{Event, MS, SECOND, State};

/// A key, or a hold in one.
type Thing = (Rc<[u8]>, Option<Vec<u8>>);

/// What befalls Redis.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Harm {
    /// It restarts without its last changes; connections break.
    Restart(usize),
    /// It is set back, under living connections.
    SetBack(usize),
    /// All keys are gone, under living connections.
    Flush,
    /// A copy that lacks the last changes takes over; the old one goes on for those connected to it.
    Failover(usize),
    /// The endpoint names another instance that still lives.
    FailBack,
    /// All connections break.
    CutConnections,
    /// No script is known any more.
    FlushScripts,
    /// The next apply stops half-way, after so many writes.
    CutScript(u64),
    /// One key of a lane's generation is gone, or one hold.
    LoseKey,
}

impl State {
    pub(crate) fn harm_redis(&mut self, harm: Harm) {
        let endpoint = self.redis.endpoint;
        self.redis.has_lost |= matches!(
            harm,
            Harm::Restart(_) | Harm::SetBack(_) | Harm::Flush | Harm::Failover(_) | Harm::CutScript(_) | Harm::LoseKey
        );
        self.redis.set_back |= matches!(harm, Harm::SetBack(_) | Harm::LoseKey);
        match harm {
            Harm::Restart(lost) => {
                self.redis.instances[endpoint].set_back(lost);
                self.redis.instances[endpoint].scripts.clear();
                self.break_connections(|instance| instance == endpoint);
                self.redis.down = true;
                let away = self.chance.from(10 * MS, 2 * SECOND);
                self.after(away, Event::RedisUp);
            }
            Harm::SetBack(lost) => self.redis.instances[endpoint].set_back(lost),
            Harm::Flush => {
                let instance = &mut self.redis.instances[endpoint];
                instance.history.push_back(std::mem::take(&mut instance.data));
            }
            Harm::Failover(lag) => {
                let mut copy = Instance {
                    data: self.redis.instances[endpoint].data.clone(),
                    history: self.redis.instances[endpoint].history.clone(),
                    scripts: HashSet::new(),
                    alive: true,
                };
                copy.set_back(lag);
                self.redis.instances.push(copy);
                self.redis.endpoint = self.redis.instances.len() - 1;
                let lives_on = self.chance.from(100 * MS, 8 * SECOND);
                self.after(lives_on, Event::RedisEnds(endpoint));
            }
            Harm::FailBack => {
                let others: Vec<usize> = (0..self.redis.instances.len())
                    .filter(|at| *at != endpoint && self.redis.instances[*at].alive)
                    .collect();
                if !others.is_empty() {
                    self.redis.endpoint = self.chance.one_of(&others);
                }
            }
            Harm::CutConnections => self.break_connections(|_| true),
            Harm::FlushScripts => self.redis.instances[endpoint].scripts.clear(),
            Harm::CutScript(writes) => self.redis.cut = Some(writes),
            Harm::LoseKey => self.lose_key(endpoint),
        }
    }

    fn lose_key(&mut self, instance: usize) {
        // Only what an index of the lane names, or its number of holds counts: nothing else can be missed.
        let data = &mut self.redis.instances[instance].data;
        let named = |key: &[u8]| {
            let text = String::from_utf8_lossy(key);
            let within = |mark: &str, index: &str| {
                let (base, name) = text.split_once(mark)?;
                Some(data.names(format!("{base}:{index}").as_bytes(), name.as_bytes()))
            };
            let marks = [(":stock:", "skus"), (":part:", "parts")];
            marks.iter().any(|(mark, index)| within(mark, index) == Some(true))
        };
        let keys = data.0.keys().filter(|key| named(key));
        let mut things: Vec<Thing> = keys.map(|key| (key.clone(), None)).collect();
        for (key, held) in data.0.iter().filter(|(key, _)| key.ends_with(b":holds")) {
            if let Held::Hash(holds) = &**held {
                things.extend(holds.keys().map(|hold| (key.clone(), Some(hold.clone()))));
            }
        }
        if !things.is_empty() {
            let (key, hold) = &things[self.chance.index(things.len())];
            let name = format!("{} {:?}", String::from_utf8_lossy(key), hold);
            tracing::debug!(target: "story", name, "a key or a hold is lost");
            match hold {
                Some(hold) => drop(data.run("HDEL", &[key.to_vec(), hold.clone()])),
                None => {
                    self.redis.lost.insert(String::from_utf8_lossy(key).into_owned());
                    data.0.remove(key);
                }
            }
        }
    }

    /// A Redis that was replaced ends; nobody may still be led to it.
    pub(crate) fn redis_ends(&mut self, instance: usize) {
        if instance != self.redis.endpoint {
            self.redis.instances[instance].alive = false;
            self.break_connections(|of| of == instance);
        }
    }

    fn break_connections(&mut self, of: impl Fn(usize) -> bool) {
        let mut broken_ones = HashSet::new();
        for (id, connection) in self.redis.connections.iter_mut().enumerate() {
            if connection.open && of(connection.instance) {
                connection.open = false;
                broken_ones.insert(id);
            }
        }
        let mut woken = Vec::new();
        for call in self.redis.calls.values_mut() {
            if broken_ones.contains(&call.connection) {
                // A reply that was under way is lost, too.
                call.reply = Some(Err(broken()));
                woken.push(call.task);
            }
        }
        woken.sort_unstable();
        for task in woken {
            self.wake(task);
        }
    }
}
