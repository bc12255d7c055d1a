//! Guards: where the logs contradict the state, a lane halts and says what to do (rule 9), and a retry finds the same.

use std::time::Duration;

use domain::{Lane, LaneState};
use plumbing::stop::Stop;
use rdkafka::Message;

use crate::{
    Shared,
    end::End,
    log,
    scripts::LaneRedis,
    tail::Tail,
    world::{LaneConnection, LogReader as _, World},
};

/// Halts where the commands' log cannot be the one that was decided (rule 9); returns where it ends.
pub(crate) fn commands<W: World>(
    shared: &Shared<W>,
    lane: Lane,
    reader: &W::Reader,
    state: &LaneState,
    stop: &Stop,
) -> Result<i64, End> {
    let (low, high) = reader.bounds(&shared.topics.commands, lane.partition())?;
    let decided = state.last_command_offset;
    let topic = &shared.topics.commands;
    if decided >= high && decided >= 0 {
        return Err(End::Halt(format!(
            "command {decided} of lane {lane} is decided, but {topic} ends at {high}: the topic was made anew or cut. \
             Make the events topic anew too, or restore the commands"
        )));
    }
    if low > decided + 1 {
        return Err(End::Halt(format!(
            "commands {} to {} of lane {lane} are gone from {topic} before they were decided: retention is shorter than \
             the reserver was away. Their senders must send them again; then delete the lane's records up to {low} by a \
             decision of an operator",
            decided + 1,
            low - 1
        )));
    }
    if decided >= low && decided >= 0 {
        is_what_was_decided(shared, lane, reader, state, stop)?;
    }
    Ok(high)
}

/// A topic that was made anew, or cut, may have grown past the last decision since. Log time is no earlier than the
/// timestamp of any command that was decided, and what came in the place of one is younger.
fn is_what_was_decided<W: World>(
    shared: &Shared<W>,
    lane: Lane,
    reader: &W::Reader,
    state: &LaneState,
    stop: &Stop,
) -> Result<(), End> {
    let (topic, decided) = (shared.topics.commands.as_str(), state.last_command_offset);
    log::read(
        &shared.world,
        reader,
        (topic, lane.partition(), decided),
        stop,
        |message| {
            let timestamp = message.timestamp().to_millis().unwrap_or_default();
            if message.offset() == decided && timestamp > state.log_time {
                return Err(End::Halt(format!(
                    "command {decided} of {topic}/{lane} is younger than the decision on it: the topic was made anew or cut, and has \
                 grown since. Make the events topic anew too, or restore the commands"
                )));
            }
            Ok(true)
        },
    )
}

/// Before anything is written to the events' log: halts where it ends before what Redis or this process has seen of it. A
/// `LaneOpened` more with every try would hide that in the end.
pub(crate) fn events<W: World>(
    shared: &Shared<W>,
    lane: Lane,
    redis: &mut LaneRedis<W::Redis>,
    reader: &W::Reader,
    from: Tail,
) -> Result<(), End> {
    // In this order: whoever owns the lane in Redis has a `LaneOpened` in the log.
    let owner = redis.owner()?;
    let (_, high) = reader.bounds(&shared.topics.events, lane.partition())?;
    if let Some(owner) = owner.filter(|owner| *owner >= high) {
        return Err(of_another_log(shared, lane, owner, high));
    }
    if from.next > high {
        return Err(End::Halt(format!(
            "{} ends at {high}, but lane {lane} was read up to {}: the log has lost records that were acknowledged. Restore \
             them; or delete the lane's rows in Postgres and its keys in Redis, and restart, if what they say may be lost",
            shared.topics.events, from.next
        )));
    }
    Ok(())
}

/// Halts where Redis has forgotten outcomes that the log does not have: they were forgotten because the log had them.
/// Who has decided past the log's last decision still has the outcome of its own last one; a journal that is gone altogether
/// is damage of Redis, and leads to a rebuild.
pub(crate) fn journal<C: LaneConnection>(
    redis: &mut LaneRedis<C>,
    lane: Lane,
    state: &LaneState,
    (fence, generation): (i64, i64),
    offsets: &[i64],
) -> Result<(), End> {
    let decided = state.last_command_offset;
    let first = offsets.iter().copied().filter(|offset| *offset > decided).min();
    let (Some(first), true) = (first, offsets.contains(&fence)) else {
        return Ok(());
    };
    match redis.journal_previous(generation, first)? {
        Some(previous) if previous > decided => Err(End::Halt(format!(
            "command {previous} of lane {lane} was decided and its event read back, but the log's last decision is {decided}: the \
             log has lost records that were acknowledged. Restore them; or delete the lane's keys in Redis, which are rebuilt from \
             what is left, if what clients were told may be lost"
        ))),
        _ => Ok(()),
    }
}

/// A Redis that names a newer epoch: a newer owner, or a Redis of another log.
pub(crate) fn newer_in_redis<W: World>(
    shared: &Shared<W>,
    lane: Lane,
    reader: &W::Reader,
    newer: i64,
) -> Result<End, End> {
    shared.world.sleep(Duration::from_millis(100));
    let (_, high) = reader.bounds(&shared.topics.events, lane.partition())?;
    if newer >= high {
        return Ok(of_another_log(shared, lane, newer, high));
    }
    Ok(End::Lost(format!("Redis is owned by the newer epoch {newer}")))
}

fn of_another_log<W: World>(shared: &Shared<W>, lane: Lane, owner: i64, high: i64) -> End {
    End::Halt(format!(
        "Redis says that lane {lane} is owned by epoch {owner}, but {} ends at {high}: this Redis belongs to another \
         log. Point HOLDFAST_REDIS_URL or HOLDFAST_REDIS_PREFIX elsewhere, or delete the lane's keys: they are \
         rebuilt from the log",
        shared.topics.events
    ))
}
