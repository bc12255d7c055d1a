//! A ledger into the keys of a new generation: the long part of a rebuild.
//!
//! Keys of one kind share a command, commands share a script call, and some calls are on their way at once: a million holds
//! are a few thousand calls, each short enough that Redis answers others in between.

use std::collections::BTreeMap;

use domain::{LaneState, Ledger, Sku, Tenant};
use plumbing::failpoint;
use schemas::{
    cells::{self, CommandCell, HoldCell, PartCell},
    keys::{GenerationKeys, LaneKeys, stretch_of},
};

use crate::{
    end::End,
    pack::{self, Rules},
    rebuild::{Progress, done},
    scripts::LaneRedis,
    world::LaneConnection,
};

/// Arguments of one command: Lua's `unpack` fails at 8,000.
const COMMAND_ARGUMENTS: usize = 400;
/// Bytes of one script call: about two milliseconds of Redis.
const CHUNK_BYTES: usize = 128 * 1024;

/// Log time when to forget, and the key's end.
type Forget = (i64, Vec<u8>);

/// Writes all keys of the ledger in the generation of an epoch.
pub(crate) fn load<C: LaneConnection>(
    redis: &mut LaneRedis<C>,
    keys: &LaneKeys,
    epoch: i64,
    ledger: &Ledger,
    state: &LaneState,
    rules: Rules,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(), End> {
    let keys = keys.generation(epoch);
    let mut loader = Loader {
        redis,
        epoch,
        writes: Vec::new(),
        bytes: 0,
        written: 0,
        total: total_of(ledger),
        progress,
    };
    loader.stock(ledger, &keys)?;
    let mut forget = loader.holds(ledger, &keys, rules.remember_ms)?;
    forget.extend(loader.parts(ledger, &keys, rules.remember_ms, state.log_time)?);
    forget.extend(loader.applied_once(ledger, &keys, rules)?);
    // The sweep ends at the first that must be kept.
    forget.sort_unstable();
    let mut list = Command::new(b"RPUSH", Some(keys.forget()));
    for entry in &forget {
        loader.add(&mut list, vec![pack::forget(entry.0, &entry.1)])?;
    }
    loader.end(list)?;
    loader.flush()?;
    done(redis.load_rest()?)
}

fn total_of(ledger: &Ledger) -> u64 {
    let sizes = [
        ledger.stock.len(),
        ledger.counted.len(),
        ledger.holds.len(),
        ledger.parts.len(),
        ledger.commands.len(),
        ledger.sources.len(),
        ledger.requests.len(),
    ];
    sizes.iter().sum::<usize>() as u64
}

/// A command that grows, and is sent when it is long.
struct Command {
    start: Vec<Vec<u8>>,
    arguments: Vec<Vec<u8>>,
}

impl Command {
    fn new(name: &[u8], key: Option<String>) -> Self {
        let mut start = vec![name.to_vec()];
        start.extend(key.map(String::into_bytes));
        Self {
            start,
            arguments: Vec::new(),
        }
    }
}

struct Loader<'a, C> {
    redis: &'a mut LaneRedis<C>,
    epoch: i64,
    writes: Vec<Vec<Vec<u8>>>,
    bytes: usize,
    written: u64,
    total: u64,
    progress: &'a (dyn Fn(Progress) + Sync),
}

impl<C: LaneConnection> Loader<'_, C> {
    fn add(&mut self, command: &mut Command, arguments: Vec<Vec<u8>>) -> Result<(), End> {
        command.arguments.extend(arguments);
        if command.arguments.len() >= COMMAND_ARGUMENTS {
            self.send(command)?;
        }
        Ok(())
    }

    fn end(&mut self, mut command: Command) -> Result<(), End> {
        self.send(&mut command)
    }

    fn send(&mut self, command: &mut Command) -> Result<(), End> {
        if command.arguments.is_empty() {
            return Ok(());
        }
        let mut write = command.start.clone();
        write.append(&mut command.arguments);
        self.bytes += write.iter().map(Vec::len).sum::<usize>();
        self.writes.push(write);
        if self.bytes >= CHUNK_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), End> {
        if self.writes.is_empty() {
            return Ok(());
        }
        let packed = pack::writes(&self.writes);
        self.writes.clear();
        self.bytes = 0;
        done(self.redis.load_next(self.epoch, &packed)?)?;
        failpoint::reach("rebuild.chunk_sent");
        Ok(())
    }

    fn wrote(&mut self) {
        self.written += 1;
        (self.progress)(Progress::Written(self.written, self.total));
    }

    fn stock(&mut self, ledger: &Ledger, keys: &GenerationKeys) -> Result<(), End> {
        let mut skus = Command::new(b"SADD", Some(keys.skus()));
        for ((tenant, sku), stock) in &ledger.stock {
            let mut counters = Command::new(b"HSET", Some(keys.stock(tenant, sku)));
            for (field, value) in cells::STOCK_FIELDS.iter().zip(cells::stock_values(stock)) {
                counters
                    .arguments
                    .extend([field.as_bytes().to_vec(), value.into_bytes()]);
            }
            self.end(counters)?;
            self.add(&mut skus, vec![format!("{tenant}/{sku}").into_bytes()])?;
            self.wrote();
        }
        self.end(skus)?;
        let mut limits: BTreeMap<(&Tenant, &Sku), Command> = BTreeMap::new();
        for ((tenant, sku, user_id), units) in &ledger.counted {
            let limit = limits
                .entry((tenant, sku))
                .or_insert_with(|| Command::new(b"HSET", Some(keys.limit(tenant, sku))));
            let pair = vec![user_id.as_str().as_bytes().to_vec(), units.to_string().into_bytes()];
            self.add(limit, pair)?;
            self.wrote();
        }
        limits.into_values().try_for_each(|limit| self.end(limit))
    }

    fn holds(&mut self, ledger: &Ledger, keys: &GenerationKeys, remember_ms: i64) -> Result<Vec<Forget>, End> {
        let mut forget = Vec::new();
        let mut holds = Command::new(b"HSET", Some(keys.holds()));
        let mut due = Command::new(b"ZADD", Some(keys.due()));
        for (hold_id, hold) in &ledger.holds {
            let cell = cells::pack(&HoldCell::from(hold));
            self.add(&mut holds, vec![hold_id.bytes().to_vec(), cell])?;
            let state = hold.terms.state;
            if state.is_live() {
                let deadline = hold.terms.expires_at.to_string();
                self.add(&mut due, vec![deadline.into_bytes(), hold_id.bytes().to_vec()])?;
            } else if state.is_final() {
                let name = [b"hold:", &hold_id.bytes()[..]].concat();
                forget.push((hold.terms.changed_at + remember_ms, name));
            }
            self.wrote();
        }
        self.end(holds)?;
        self.end(due)?;
        Ok(forget)
    }

    /// Parts of other lanes' carts, and units in carts that may not be decided yet.
    fn parts(
        &mut self,
        ledger: &Ledger,
        keys: &GenerationKeys,
        remember_ms: i64,
        log_time: i64,
    ) -> Result<Vec<Forget>, End> {
        let mut forget = Vec::new();
        let mut parts = Command::new(b"MSET", None);
        let mut keeping = Command::new(b"SADD", Some(keys.parts()));
        for (id, part) in &ledger.parts {
            let terms = &part.terms;
            let cell = cells::pack(&PartCell::from(part));
            self.add(&mut parts, vec![keys.part(*id).into_bytes(), cell])?;
            if terms.state.is_final() {
                let until = (terms.changed_at + remember_ms).max(terms.relay_until);
                forget.push((until, format!("part:{id}").into_bytes()));
            } else {
                self.add(&mut keeping, vec![id.to_string().into_bytes()])?;
            }
            self.wrote();
        }
        self.end(parts)?;
        self.end(keeping)?;
        for unit in ledger.relayed(log_time) {
            let mut relayed = Command::new(b"ZADD", Some(keys.relayed(unit.tenant, unit.sku)));
            let member = format!("{}:{}", unit.quantity, unit.part);
            relayed.arguments = vec![unit.relay_until.to_string().into_bytes(), member.into_bytes()];
            self.end(relayed)?;
        }
        Ok(forget)
    }

    /// Command ids, sources, and requests.
    fn applied_once(&mut self, ledger: &Ledger, keys: &GenerationKeys, rules: Rules) -> Result<Vec<Forget>, End> {
        let (mut forget, remember_ms) = (Vec::new(), rules.remember_ms);
        let mut applied = Command::new(b"MSET", None);
        for ((tenant, command_id), remembered) in &ledger.commands {
            let cell = CommandCell {
                fingerprint: cells::hex(&remembered.fingerprint),
                at: remembered.at,
            };
            let key = keys.command(tenant, command_id).into_bytes();
            self.add(&mut applied, vec![key, cells::pack(&cell)])?;
            let name = format!("command:{tenant}/{command_id}").into_bytes();
            forget.push((remembered.at + remember_ms, name));
            self.wrote();
        }
        for (source, at) in &ledger.sources {
            let cell = CommandCell {
                fingerprint: String::new(),
                at: *at,
            };
            let key = keys.source(source).into_bytes();
            self.add(&mut applied, vec![key, cells::pack(&cell)])?;
            let place = format!("{}/{}/{}", source.topic, source.partition, source.offset);
            forget.push((at + remember_ms, format!("source:{place}").into_bytes()));
            self.wrote();
        }
        self.end(applied)?;
        let mut stretches: BTreeMap<i64, Command> = BTreeMap::new();
        // The ledger has forgotten what is in older stretches than apply looks into.
        for (mark, at) in &ledger.requests {
            let stretch = stretch_of(*at, rules.request_ms);
            let requests = stretches
                .entry(stretch)
                .or_insert_with(|| Command::new(b"HSET", Some(keys.requests(stretch))));
            self.add(requests, vec![mark.bytes().to_vec(), at.to_string().into_bytes()])?;
            self.wrote();
        }
        stretches.into_values().try_for_each(|requests| self.end(requests))?;
        Ok(forget)
    }
}
