//! Rebuilding a lane in Redis from what lasts: Postgres' picture at its checkpoint, then the log's tail (rule 4, I8).

use std::time::Instant;

use crate::{
    Shared,
    end::End,
    log, pack,
    scripts::{LaneRedis, Step},
    tail::Tail,
};
use domain::{Event, Lane, LaneState, Ledger, Verdict};
use plumbing::{
    kafka::consumer::{self, Reader},
    stop::Stop,
};
use rdkafka::Message;
use schemas::{
    cells::{self, CommandCell, HoldCell, PartCell},
    codec::{DecodeError, Learned},
    keys::{GenerationKeys, LaneKeys},
    picture,
};

/// A chunk is one script call: small enough that Redis answers others in between.
const CHUNK_WRITES: usize = 1_000;

/// Postgres' checkpoint of the lane; `None` where it has none, or does not answer.
pub(crate) fn checkpoint(shared: &Shared, lane: Lane) -> Result<Option<Tail>, End> {
    match shared.runtime.block_on(picture::checkpoint(&shared.postgres, lane)) {
        Ok(found) => Ok(found.map(|found| Tail {
            next: found.next_event_offset,
            state: found.state,
        })),
        Err(error) => {
            tracing::debug!(%error, "no checkpoint from Postgres");
            Ok(None)
        }
    }
}

/// Rebuilds the lane in a new generation named by the epoch.
#[expect(clippy::too_many_arguments, reason = "the parts of a turn that is not whole yet")]
pub(crate) fn rebuild(
    shared: &Shared,
    lane: Lane,
    redis: &mut LaneRedis,
    reader: &Reader,
    epoch: i64,
    state: &LaneState,
    keys: &LaneKeys,
    stop: &Stop,
) -> Result<(), End> {
    let started = Instant::now();
    done(redis.begin(epoch)?)?;
    let ledger = ledger_at(shared, lane, reader, epoch, state, stop)?;
    let mut chunk = Chunk {
        redis,
        epoch,
        writes: Vec::with_capacity(CHUNK_WRITES),
    };
    let keys = keys.generation(epoch);
    let mut forget = load(&mut chunk, &ledger, &keys, shared.rules().remember_ms)?;
    forget.extend(load_carts(
        &mut chunk,
        &ledger,
        &keys,
        shared.rules().remember_ms,
        state.log_time,
    )?);
    forget.sort();
    for entry in &forget {
        chunk.write(&[b"RPUSH", keys.forget().as_bytes(), &cells::pack(entry)])?;
    }
    chunk.flush()?;
    done(redis.finish(epoch, state.last_command_offset, state.log_time)?)?;
    metrics::histogram!("holdfast_lane_rebuild_seconds").record(started.elapsed().as_secs_f64());
    tracing::info!(
        lane = lane.number(),
        epoch,
        skus = ledger.stock.len(),
        holds = ledger.holds.len(),
        elapsed_ms = started.elapsed().as_millis(),
        "lane.rebuilt"
    );
    Ok(())
}

fn done(step: Step) -> Result<(), End> {
    match step {
        Step::Done => Ok(()),
        Step::Newer(owner) => Err(End::Lost(format!(
            "the rebuild was overtaken, or Redis lost a part of it: it says that epoch {owner} owns the lane"
        ))),
    }
}

/// The ledger of all valid events up to our own `LaneOpened`.
fn ledger_at(
    shared: &Shared,
    lane: Lane,
    reader: &Reader,
    epoch: i64,
    state: &LaneState,
    stop: &Stop,
) -> Result<Ledger, End> {
    let remember_ms = shared.rules().remember_ms;
    let (mut tail, mut ledger) = picture_of(shared, lane, reader, remember_ms)?;
    if tail.next <= epoch {
        log::read(
            reader,
            &shared.topics.events,
            lane.partition(),
            tail.next,
            stop,
            |message| {
                let (_, verdict) = tail.read(message);
                if verdict == Verdict::Valid {
                    let event = decode(shared, message.payload().unwrap_or_default())?;
                    ledger.apply(&event).map_err(|contradiction| {
                        End::Halt(format!(
                            "lane {lane}, event offset {}: {contradiction}",
                            message.offset()
                        ))
                    })?;
                }
                Ok(message.offset() >= epoch)
            },
        )?;
    }
    let same = tail.state.epoch == state.epoch
        && tail.state.last_command_offset == state.last_command_offset
        && tail.state.last_decision_epoch == state.last_decision_epoch;
    if !same {
        return Err(End::Lost(format!(
            "the log went on while it was read: {:?} is not {state:?}",
            tail.state
        )));
    }
    ledger.forget(state.log_time, remember_ms);
    Ok(ledger)
}

/// Postgres' picture; without Postgres, the empty beginning of the log if the log still has it.
fn picture_of(shared: &Shared, lane: Lane, reader: &Reader, remember_ms: i64) -> Result<(Tail, Ledger), End> {
    let (low, high) = consumer::bounds(reader, &shared.topics.events, lane.partition())?;
    match shared
        .runtime
        .block_on(picture::load(&shared.postgres, lane, remember_ms))
    {
        Ok(Some((found, ledger))) => {
            let tail = Tail {
                next: found.next_event_offset,
                state: found.state,
            };
            if tail.next < low || tail.next > high {
                return Err(End::Halt(format!(
                    "Postgres' checkpoint of lane {lane} is {}, outside the log of {} ({low}..{high}): this Postgres \
                     belongs to another log, or events were deleted before they were persisted",
                    tail.next, shared.topics.events
                )));
            }
            Ok((tail, ledger))
        }
        Ok(None) if low == 0 => Ok((Tail::start(), Ledger::default())),
        Err(error) if low == 0 => {
            tracing::info!(%error, lane = lane.number(), "lane.rebuilding without Postgres, from the log's beginning");
            Ok((Tail::start(), Ledger::default()))
        }
        Ok(None) => Err(End::Down(format!(
            "the log starts at {low} and Postgres has no picture of lane {lane}"
        ))),
        Err(error) => Err(End::Down(format!(
            "the log starts at {low} and Postgres does not answer: {error}"
        ))),
    }
}

/// Decodes one of our own events; whatever prevents it is waited for.
pub(crate) fn decode(shared: &Shared, bytes: &[u8]) -> Result<Event, End> {
    loop {
        match shared.codec.decode_event(bytes) {
            Ok(event) => return Ok(event),
            Err(DecodeError::UnknownSchema(id)) => match shared.runtime.block_on(shared.codec.learn(id)) {
                Ok(Learned::Schema) => {}
                Ok(Learned::NoSuchSchema) => {
                    return Err(End::Halt(format!(
                        "a valid event has schema id {id}, which the registry does not know"
                    )));
                }
                Err(error) => return Err(End::Down(error.to_string())),
            },
            Err(error) => return Err(End::Halt(format!("a valid event cannot be read: {error}"))),
        }
    }
}

struct Chunk<'a> {
    redis: &'a mut LaneRedis,
    epoch: i64,
    writes: Vec<Vec<Vec<u8>>>,
}

impl Chunk<'_> {
    fn write(&mut self, parts: &[&[u8]]) -> Result<(), End> {
        self.writes.push(parts.iter().map(|part| part.to_vec()).collect());
        if self.writes.len() < CHUNK_WRITES {
            Ok(())
        } else {
            self.flush()
        }
    }

    fn flush(&mut self) -> Result<(), End> {
        if self.writes.is_empty() {
            return Ok(());
        }
        let packed = pack::writes(&self.writes);
        self.writes.clear();
        done(self.redis.load(self.epoch, &packed)?)
    }
}

/// Log time when to forget, and the key's end.
type Forget = Vec<(i64, String)>;

fn load(chunk: &mut Chunk<'_>, ledger: &Ledger, keys: &GenerationKeys, remember_ms: i64) -> Result<Forget, End> {
    for ((tenant, sku), stock) in &ledger.stock {
        let key = keys.stock(tenant, sku);
        let values = cells::stock_values(stock);
        let mut parts: Vec<&[u8]> = vec![b"HSET", key.as_bytes()];
        for (field, value) in cells::STOCK_FIELDS.iter().zip(&values) {
            parts.extend([field.as_bytes(), value.as_bytes()]);
        }
        chunk.write(&parts)?;
        chunk.write(&[b"SADD", keys.skus().as_bytes(), format!("{tenant}/{sku}").as_bytes()])?;
    }
    for ((tenant, sku, user_id), units) in &ledger.counted {
        let (key, units) = (keys.limit(tenant, sku), units.to_string());
        chunk.write(&[b"HSET", key.as_bytes(), user_id.as_str().as_bytes(), units.as_bytes()])?;
    }
    let mut forget = Forget::new();
    for (hold_id, hold) in &ledger.holds {
        chunk.write(&[
            b"SET",
            keys.hold(*hold_id).as_bytes(),
            &cells::pack(&HoldCell::from(hold)),
        ])?;
        let state = hold.terms.state;
        if state.is_live() {
            let deadline = hold.terms.expires_at.to_string();
            chunk.write(&[
                b"ZADD",
                keys.due().as_bytes(),
                deadline.as_bytes(),
                hold_id.to_string().as_bytes(),
            ])?;
        } else if state.is_final() {
            forget.push((hold.terms.changed_at + remember_ms, format!("hold:{hold_id}")));
        }
    }
    for ((tenant, command_id), remembered) in &ledger.commands {
        let cell = CommandCell {
            fingerprint: cells::hex(&remembered.fingerprint),
            at: remembered.at,
        };
        chunk.write(&[b"SET", keys.command(tenant, command_id).as_bytes(), &cells::pack(&cell)])?;
        forget.push((remembered.at + remember_ms, format!("command:{tenant}/{command_id}")));
    }
    for (source, at) in &ledger.sources {
        let cell = CommandCell {
            fingerprint: String::new(),
            at: *at,
        };
        chunk.write(&[b"SET", keys.source(source).as_bytes(), &cells::pack(&cell)])?;
        forget.push((
            at + remember_ms,
            format!("source:{}/{}/{}", source.topic, source.partition, source.offset),
        ));
    }
    Ok(forget)
}

/// Parts of other lanes' carts, and units in carts that may not be decided yet.
fn load_carts(
    chunk: &mut Chunk<'_>,
    ledger: &Ledger,
    keys: &GenerationKeys,
    remember_ms: i64,
    log_time: i64,
) -> Result<Forget, End> {
    let mut forget = Forget::new();
    for (id, part) in &ledger.parts {
        let terms = &part.terms;
        chunk.write(&[b"SET", keys.part(*id).as_bytes(), &cells::pack(&PartCell::from(part))])?;
        if terms.state.is_final() {
            let until = (terms.changed_at + remember_ms).max(terms.relay_until);
            forget.push((until, format!("part:{id}")));
        } else {
            chunk.write(&[b"SADD", keys.parts().as_bytes(), id.to_string().as_bytes()])?;
        }
    }
    for unit in ledger.relayed(log_time) {
        let member = format!("{}:{}", unit.quantity, unit.part);
        let (key, deadline) = (keys.relayed(unit.tenant, unit.sku), unit.relay_until.to_string());
        chunk.write(&[b"ZADD", key.as_bytes(), deadline.as_bytes(), member.as_bytes()])?;
    }
    Ok(forget)
}
