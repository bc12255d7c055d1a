//! Rebuilding a lane in Redis from what lasts: Postgres' picture at its checkpoint, then the log's tail (rule 4, I8).

use crate::{
    Shared,
    end::End,
    guard, load, log,
    open::Owned,
    scripts::Step,
    tail::Tail,
    world::{LogReader as _, World},
};
use domain::{Event, Lane, LaneState, Ledger, Verdict};
use plumbing::{failpoint, stop::Stop};
use rdkafka::Message;
use schemas::codec::{DecodeError, Learned};

/// Postgres' checkpoint of the lane; `None` where it has none, or does not answer.
pub(crate) fn checkpoint<W: World>(shared: &Shared<W>, lane: Lane) -> Result<Option<Tail>, End> {
    match shared.world.checkpoint(lane) {
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

/// How far a rebuild has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many rows of Postgres' picture are read.
    Rows(usize),
    /// So many valid events of the log are applied to it.
    Events(u64),
    /// So many keys and members of so many are written to Redis.
    Written(u64, u64),
}

/// Rebuilds the lane in a new generation named by the epoch; returns how many holds it has.
pub(crate) fn rebuild<W: World>(
    shared: &Shared<W>,
    lane: Lane,
    owned: &mut Owned<W>,
    stop: &Stop,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<usize, End> {
    let started = shared.world.now();
    let (epoch, state) = (owned.epoch, owned.tail.state);
    if let Step::Newer(newer) = owned.redis.begin(epoch)? {
        return Err(guard::newer_in_redis(shared, lane, &owned.reader, newer)?);
    }
    failpoint::reach("rebuild.begun");
    let ledger = ledger_at(shared, lane, &owned.reader, epoch, &state, stop, progress)?;
    failpoint::reach("rebuild.ledger_read");
    let read_ms = (shared.world.now() - started).as_millis();
    let rules = shared.rules();
    load::load(&mut owned.redis, &owned.keys, epoch, &ledger, &state, rules, progress)?;
    failpoint::reach("rebuild.loaded");
    let holds = i64::try_from(ledger.holds.len()).expect("they are in memory");
    done(
        owned
            .redis
            .finish(epoch, state.last_command_offset, state.log_time, holds)?,
    )?;
    failpoint::reach("rebuild.finished");
    let elapsed = shared.world.now() - started;
    metrics::histogram!("holdfast_lane_rebuild_seconds").record(elapsed.as_secs_f64());
    tracing::info!(
        lane = lane.number(),
        epoch,
        skus = ledger.stock.len(),
        holds = ledger.holds.len(),
        read_ms,
        elapsed_ms = elapsed.as_millis(),
        "lane.rebuilt"
    );
    Ok(ledger.holds.len())
}

/// Ends the epoch unless the step was made under it.
pub(crate) fn done(step: Step) -> Result<(), End> {
    match step {
        Step::Done => Ok(()),
        Step::Newer(owner) => Err(End::Lost(format!(
            "the rebuild was overtaken, or Redis lost a part of it: it says that epoch {owner} owns the lane"
        ))),
    }
}

/// The ledger of all valid events up to our own `LaneOpened`.
fn ledger_at<W: World>(
    shared: &Shared<W>,
    lane: Lane,
    reader: &W::Reader,
    epoch: i64,
    state: &LaneState,
    stop: &Stop,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Ledger, End> {
    let remember_ms = shared.rules().remember_ms;
    let (mut tail, mut ledger) = picture_of(shared, lane, reader, remember_ms, progress)?;
    failpoint::reach("rebuild.picture_read");
    let mut applied = 0;
    if tail.next <= epoch {
        let place = (shared.topics.events.as_str(), lane.partition(), tail.next);
        log::read(&shared.world, reader, place, stop, |message| {
            let (_, verdict) = tail.read(message);
            if verdict == Verdict::Valid {
                let event = decode(shared, message.payload().unwrap_or_default())?;
                ledger.apply(&event).map_err(|contradiction| {
                    End::Halt(format!(
                        "lane {lane}, event offset {}: {contradiction}",
                        message.offset()
                    ))
                })?;
                applied += 1;
                progress(Progress::Events(applied));
            }
            Ok(message.offset() >= epoch)
        })?;
    }
    let same = tail.state.epoch == state.epoch
        && tail.state.last_command_offset == state.last_command_offset
        && tail.state.last_decision_epoch == state.last_decision_epoch;
    if !same && tail.next > epoch && tail.state.epoch <= epoch {
        return Err(End::Halt(format!(
            "Postgres' picture of lane {lane} goes on to {:?}, and the log to {state:?}: the log has lost records that were \
             acknowledged, or this Postgres belongs to another. Restore them; or delete the lane's rows in Postgres, if what \
             they say may be lost",
            tail.state
        )));
    }
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
fn picture_of<W: World>(
    shared: &Shared<W>,
    lane: Lane,
    reader: &W::Reader,
    remember_ms: i64,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(Tail, Ledger), End> {
    let (low, high) = reader.bounds(&shared.topics.events, lane.partition())?;
    let mut rows = 0;
    let found = shared.world.picture(lane, remember_ms, |more| {
        rows += more;
        progress(Progress::Rows(rows));
    });
    match found {
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
pub(crate) fn decode<W: World>(shared: &Shared<W>, bytes: &[u8]) -> Result<Event, End> {
    loop {
        match shared.codec.decode_event(bytes) {
            Ok(event) => return Ok(event),
            Err(DecodeError::UnknownSchema(id)) => match shared.world.wait(shared.codec.learn(id)) {
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
