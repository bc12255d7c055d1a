//! Requests: on their way, carried out, and what their senders hear.

use redis::{RedisResult, Value};

use super::{Call, HISTORY, broken, data::Answer, lua::Host};
use crate::{
    mutants::{self, Mutant},
    plot::{Script, Step, Way},
    state::{Event, MS, SECOND, State},
};

impl State {
    /// Sends a request; the reply is under the returned number, or never comes.
    pub(crate) fn call_redis(&mut self, task: usize, connection: usize, request: Vec<Vec<u8>>) -> u64 {
        self.redis.calls_made += 1;
        let id = self.redis.calls_made;
        self.redis.calls.insert(
            id,
            Call {
                connection,
                task,
                request,
                reply: None,
            },
        );
        let step = self.script_of(id).map(Step::Asked);
        let way = step.map_or(Way::Free, |step| self.reach(step, task));
        if way == Way::Held || self.plot.held_connections.contains(&connection) {
            self.plot.held_connections.push(connection);
            self.plot.hold(Event::Execute(id));
            return id;
        }
        if way == Way::Lost {
            return id;
        }
        let mut latency = self.chance.latency();
        if self.chance.permille(self.weather.redis_hangs) {
            latency += self.chance.from(SECOND, 9 * SECOND);
        }
        let last = &mut self.redis.connections[connection].last;
        *last = (*last).max(self.now + latency);
        let arrives = *last;
        self.at(arrives, Event::Execute(id));
        id
    }

    /// The script that a request calls, if its Redis knows it.
    fn script_of(&self, call: u64) -> Option<Script> {
        let call = self.redis.calls.get(&call)?;
        let digest = std::str::from_utf8(call.request.get(1)?).ok()?;
        let instance = self.redis.connections[call.connection].instance;
        let known = self.redis.instances[instance].scripts.contains(digest);
        self.redis.kinds.get(digest).copied().filter(|_| known)
    }

    /// A request reaches its Redis, whether or not its sender still waits.
    pub(crate) fn execute(&mut self, id: u64, host: &Host) {
        let Some(call) = self.redis.calls.get(&id) else { return };
        let (connection, task) = (call.connection, call.task);
        let instance = self.redis.connections[connection].instance;
        // A request that was sent before its connection broke may still be read by a server that lives.
        let dropped = !self.redis.connections[connection].open
            && (!self.redis.instances[instance].alive || self.chance.permille(500));
        if dropped {
            return;
        }
        let request = call.request.clone();
        let answer = self.carry_out(instance, task, &request, host);
        self.note(u64::try_from(request.len()).unwrap_or(0) + 7 * u64::from(matches!(answer, Answer::Error(_))));
        if self.chance.permille(self.weather.replies_lost) {
            // The connection is cut under the reply.
            self.redis.connections[connection].open = false;
        }
        let reply = if self.redis.connections[connection].open {
            value_of(answer)
        } else {
            Err(broken())
        };
        if let Some(call) = self.redis.calls.get_mut(&id) {
            call.reply.get_or_insert(reply);
        }
        let token = self.tasks[task].token;
        let latency = self.chance.latency();
        self.after(latency, Event::Resume { task, token });
    }

    fn carry_out(&mut self, instance: usize, task: usize, request: &[Vec<u8>], host: &Host) -> Answer {
        let word = |at: usize| {
            request
                .get(at)
                .map(|word| String::from_utf8_lossy(word).to_ascii_uppercase())
                .unwrap_or_default()
        };
        match (word(0).as_str(), word(1).as_str()) {
            ("PING", _) => Answer::Text(b"PONG".to_vec()),
            ("CONFIG", "GET") => Answer::List(vec![
                Answer::Text(b"maxmemory-policy".to_vec()),
                Answer::Text(b"noeviction".to_vec()),
            ]),
            ("INFO", _) => {
                let full = self.weather.full || self.chance.permille(self.weather.seems_full);
                let used = if full { 95 } else { 10 };
                Answer::Text(format!("# Memory\r\nused_memory:{used}\r\nmaxmemory:100\r\n").into_bytes())
            }
            ("SCRIPT", "LOAD") => {
                let text = String::from_utf8_lossy(&request[2]).into_owned();
                let digest = redis::Script::new(&text).get_hash().to_owned();
                if !self.redis.texts.contains_key(&digest) {
                    self.redis
                        .texts
                        .insert(digest.clone(), mutants::script(self.mutant, &text));
                    if let Some(kind) = Script::of(&text) {
                        self.redis.kinds.insert(digest.clone(), kind);
                    }
                    self.redis.originals.push(text);
                }
                self.redis.instances[instance].scripts.insert(digest.clone());
                Answer::Text(digest.into_bytes())
            }
            ("EVALSHA", _) => self.run_script(instance, task, request, host),
            ("SCAN", _) => {
                let prefix = request[3].strip_suffix(b"*").unwrap_or(&request[3]);
                let keys = self.redis.instances[instance].data.0.keys();
                let found = keys
                    .filter(|key| key.starts_with(prefix))
                    .map(|key| Answer::Text(key.to_vec()));
                Answer::List(vec![Answer::Text(b"0".to_vec()), Answer::List(found.collect())])
            }
            ("HGET", _) if self.breaks(Mutant::GoOnWithLostEvents) => Answer::Nil,
            ("HMGET", _) if self.breaks(Mutant::NeverLookAtQuietLane) && request.len() == 4 => Answer::List(vec![
                Answer::Text(self.tasks[task].epoch.to_string().into_bytes()),
                Answer::Nil,
            ]),
            (command, _) => self.redis.instances[instance].data.run(command, &request[1..]),
        }
    }

    fn run_script(&mut self, instance: usize, task: usize, request: &[Vec<u8>], host: &Host) -> Answer {
        let digest = String::from_utf8_lossy(&request[1]).into_owned();
        if !self.redis.instances[instance].scripts.contains(&digest) {
            return Answer::Error("NOSCRIPT No matching script. Please use EVAL.".to_owned());
        }
        let text = self.redis.texts[&digest].clone();
        let keys: usize = String::from_utf8_lossy(&request[2]).parse().unwrap_or(0);
        let (keys, arguments) = request[3..].split_at(keys);
        let mut arguments = arguments.to_vec();
        if self.breaks(Mutant::TrimOnAcknowledgement) || self.breaks(Mutant::TrimUnread) {
            // What is trimmed: whatever was acknowledged, for `apply` as it is changed in `mutants`.
            let acknowledged = std::mem::take(&mut self.tasks[task].acknowledged);
            arguments.extend(acknowledged.iter().map(|offset| offset.to_string().into_bytes()));
        }
        let kind = self.redis.kinds.get(&digest).copied();
        let cut = self.redis.cut.take_if(|_| kind == Some(Script::Apply));
        let server = &mut self.redis.instances[instance];
        let before = server.data.clone();
        let answer = host.run(&text, (keys, &arguments), &mut server.data, cut);
        if server.data != before {
            server.history.push_back(before);
            if server.history.len() > HISTORY {
                server.history.pop_front();
            }
        }
        if tracing::enabled!(tracing::Level::DEBUG) {
            let name = text
                .lines()
                .find_map(|line| line.strip_prefix("-- ")?.split_once(':'))
                .map_or("", |(name, _)| name);
            let status = match &answer {
                Answer::List(parts) => format!("{:?}", parts.first()),
                other => format!("{other:?}"),
            };
            tracing::debug!(target: "story", ms = self.now / MS, task, instance, name, status, "script");
        }
        let closes_hole = || {
            arguments
                .get(1)
                .is_some_and(|batch| batch.windows(5).any(|word| word == b"\xa4skip"))
        };
        match (&answer, kind) {
            (Answer::Error(_), Some(_)) => _ = self.reach(Step::Torn, task),
            (Answer::List(parts), Some(kind)) if parts.first() == Some(&Answer::Text(b"OK".to_vec())) => {
                if kind == Script::Apply && closes_hole() {
                    _ = self.reach(Step::Skipped, task);
                }
                _ = self.reach(Step::Ran(kind), task);
            }
            _ => {}
        }
        answer
    }
}

fn value_of(answer: Answer) -> RedisResult<Value> {
    Ok(match answer {
        Answer::Nil => Value::Nil,
        Answer::Okay => Value::Okay,
        Answer::Number(number) => Value::Int(number),
        Answer::Text(text) => Value::BulkString(text),
        Answer::List(answers) => Value::Array(answers.into_iter().map(value_of).collect::<RedisResult<_>>()?),
        // As the client reads an error from the wire.
        Answer::Error(error) => {
            let line = format!("-{}\r\n", error.replace(['\r', '\n'], " "));
            return redis::parse_redis_value(line.as_bytes())?.extract_error();
        }
    })
}
