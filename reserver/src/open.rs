//! Opening a lane: own it in the log, then take it or rebuild it in Redis (rules 2 to 4 and 9 of the lane protocol).

use domain::{Event, EventBody, EventId, Lane, Tenant};
use plumbing::{
    failpoint,
    kafka::{consumer, producer::Record},
    stop::Stop,
};
use rdkafka::Message;
use schemas::{headers, keys::LaneKeys};

use crate::{
    Shared,
    end::End,
    guard, log,
    outbox::Relayed,
    rebuild,
    scripts::{Claimed, LaneRedis},
    tail::Tail,
    turn::{Turn, TurnParts},
    world::{LogReader as _, LogWriter as _, World},
};

/// A lane that is owned in the log: what comes next is to take it, or to rebuild it, in Redis.
pub(crate) struct Owned<W: World> {
    pub(crate) keys: LaneKeys,
    pub(crate) redis: LaneRedis<W::Redis>,
    pub(crate) reader: W::Reader,
    writer: W::Writer,
    pub(crate) epoch: i64,
    /// The fold up to our own `LaneOpened`.
    pub(crate) tail: Tail,
    forwards: Vec<Unforwarded>,
    commands_end: i64,
}

/// Opens the lane: on return this owner's `LaneOpened` is in the log, and Redis is what the log says.
///
/// `tail` is where an earlier turn of this process left the fold.
pub(crate) fn open<'a, W: World>(
    shared: &'a Shared<W>,
    lane: Lane,
    tail: Option<Tail>,
    stop: &Stop,
) -> Result<Turn<'a, W>, End> {
    let mut owned = own_in_log(shared, lane, tail, stop)?;
    failpoint::reach("reserver.opened");
    let (epoch, state) = (owned.epoch, owned.tail.state);
    let claimed = owned.redis.claim(
        epoch,
        state.last_command_offset,
        state.last_decision_epoch,
        owned.commands_end,
    )?;
    failpoint::reach("reserver.claimed");
    let (fence, generation) = match claimed {
        Claimed::Taken { fence, generation } => (fence, generation),
        Claimed::Newer(newer) => return Err(guard::newer_in_redis(shared, lane, &owned.reader, newer)?),
        Claimed::Refused(why) => {
            tracing::info!(
                lane = lane.number(),
                epoch,
                why,
                "lane.rebuilding: Redis is not what the log says"
            );
            rebuild::rebuild(shared, lane, &mut owned, stop, &|_| {})?;
            (state.last_command_offset, epoch)
        }
    };
    let Owned {
        mut redis,
        reader,
        writer,
        tail,
        forwards,
        ..
    } = owned;
    let journal = redis.journal_offsets(generation)?;
    guard::journal(&mut redis, lane, &state, (fence, generation), &journal)?;
    let decided = |offset: &i64| *offset <= state.last_command_offset;
    let trim = journal.into_iter().filter(decided).collect();
    tracing::info!(
        lane = lane.number(),
        epoch,
        decided = state.last_command_offset,
        fence,
        "lane.opened"
    );
    Turn::start(TurnParts {
        shared,
        lane,
        epoch,
        reader,
        writer,
        redis,
        tail,
        forwards,
        trim,
    })
}

/// Rule 2, and rule 9 where the logs alone show that something is lost.
pub(crate) fn own_in_log<W: World>(
    shared: &Shared<W>,
    lane: Lane,
    tail: Option<Tail>,
    stop: &Stop,
) -> Result<Owned<W>, End> {
    let keys = LaneKeys::new(&shared.redis_prefix, lane);
    let mut redis = LaneRedis::over(shared.world.redis()?, keys.clone())?;
    if let Some(policy) = redis.eviction_policy().filter(|policy| policy != "noeviction") {
        return Err(End::Halt(format!(
            "Redis has maxmemory-policy {policy}, which may drop stock: set it to noeviction"
        )));
    }
    let client = format!("holdfast-reserver-{lane}");
    let reader = shared.world.reader(&client)?;
    let writer = shared.world.writer(&client)?;

    let from = match tail {
        Some(tail) if is_newest(shared, lane, &reader, tail)? => tail,
        _ => find_start(shared, lane, &reader)?,
    };
    guard::events(shared, lane, &mut redis, &reader, from)?;
    let epoch = own(shared, lane, &writer)?;
    failpoint::reach("reserver.owned");
    let (read, forwards) = read_up_to(shared, lane, &reader, from, epoch, stop)?;
    if read.state.epoch != epoch {
        return Err(End::Lost(format!(
            "epoch {} came before our {epoch} was read",
            read.state.epoch
        )));
    }
    failpoint::reach("reserver.log_read");
    let commands_end = guard::commands(shared, lane, &reader, &read.state, stop)?;
    Ok(Owned {
        keys,
        redis,
        reader,
        writer,
        epoch,
        tail: read,
        forwards,
        commands_end,
    })
}

/// Whether the lane may begin where an earlier turn of this process ended: the log still goes back to there, and nobody has sent on
/// what comes after. Another owner since then has, and all of it would be read, and sent again, before anything is decided.
fn is_newest<W: World>(shared: &Shared<W>, lane: Lane, reader: &W::Reader, tail: Tail) -> Result<bool, End> {
    let (low, _) = reader.bounds(&shared.topics.events, lane.partition())?;
    let cursor = committed_cursor(shared, lane, reader)?;
    Ok(tail.next >= low && cursor.is_none_or(|cursor| cursor.next <= tail.next))
}

/// Where this process starts to read the lane's events: the forward cursor, else the beginning, else the checkpoint.
fn find_start<W: World>(shared: &Shared<W>, lane: Lane, reader: &W::Reader) -> Result<Tail, End> {
    let (low, high) = reader.bounds(&shared.topics.events, lane.partition())?;
    if let Some(cursor) = committed_cursor(shared, lane, reader)? {
        if cursor.next < low {
            return Err(End::Halt(format!(
                "the forward cursor of {}/{lane} is at {}, but the log starts at {low}: events that had to be forwarded \
                 may be gone. If none were, reset the group `{}` to {low}",
                shared.topics.events, cursor.next, shared.forwards_group
            )));
        }
        if cursor.next <= high {
            return Ok(cursor);
        }
        return Err(End::Halt(format!(
            "the forward cursor of {}/{lane} is at {}, beyond the log's end {high}: the topic was made anew. Delete the \
             group `{}` and the lanes' rows in Postgres if that was intended",
            shared.topics.events, cursor.next, shared.forwards_group
        )));
    }
    // Kafka forgets the cursor with its topic, so a topic that was made anew shows only beside what Postgres has of the old one.
    match rebuild::checkpoint(shared, lane)? {
        None if low == 0 => Ok(Tail::start()),
        Some(tail) if low == 0 && tail.next <= high => Ok(Tail::start()),
        Some(tail) if tail.next >= low && tail.next <= high => Ok(tail),
        Some(tail) => Err(End::Halt(format!(
            "Postgres' checkpoint of lane {lane} is {}, outside the log of {} ({low}..{high}): the topic was made anew, or this \
             Postgres belongs to another log. Delete the lanes' rows in Postgres and their keys in Redis if that was intended",
            tail.next, shared.topics.events
        ))),
        None => Err(End::Down(format!(
            "the log of {}/{lane} starts at {low} and Postgres does not say what was before",
            shared.topics.events
        ))),
    }
}

/// The forward cursor. Every lane also looks at that of lane 0, which says how many lanes there were: a lane that is new
/// because somebody added partitions would sell SKUs that live in another.
fn committed_cursor<W: World>(shared: &Shared<W>, lane: Lane, reader: &W::Reader) -> Result<Option<Tail>, End> {
    let topic = &shared.topics.events;
    let both = [0, lane.partition()];
    let wanted = if lane.partition() == 0 { &both[..1] } else { &both };
    let mut cursor = None;
    for found in reader.committed(topic, wanted)? {
        let Some((tail, lanes)) = Tail::from_metadata(found.next, &found.metadata) else {
            continue;
        };
        if lanes != i64::from(shared.lanes) {
            return Err(End::Halt(format!(
                "{topic} has {} partitions, but it was opened with {lanes} lanes: a SKU's lane depends on their number, \
                 which is fixed when the topics are made. Make topics with {lanes} partitions again, or move to new ones",
                shared.lanes
            )));
        }
        if found.partition == lane.partition() {
            cursor = Some(tail);
        }
    }
    Ok(cursor)
}

/// Writes our `LaneOpened` and returns its offset: our epoch.
fn own<W: World>(shared: &Shared<W>, lane: Lane, writer: &W::Writer) -> Result<i64, End> {
    let nonce = shared.world.nonce();
    let event = Event {
        event_id: EventId::from_uuid(nonce),
        request_id: String::new(),
        epoch: -1,
        command_offset: -1,
        previous_command_offset: -1,
        command_id: String::new(),
        tenant: Tenant::parse("default").expect("a legal tenant"),
        hold_id: None,
        decided_at: shared.world.now_ms(),
        source: None,
        hold: None,
        part: None,
        lines: Vec::new(),
        body: EventBody::LaneOpened {
            nonce,
            owner: shared.owner.clone(),
        },
    };
    let acknowledged = writer.send(Record {
        topic: &shared.topics.events,
        partition: Some(lane.partition()),
        key: None,
        value: Some(&shared.codec.encode_event(&event)),
        headers: &headers::of_event(&event, crate::SOURCE),
    })?;
    let position = shared
        .world
        .wait(acknowledged)
        .map_err(|error| End::Down(format!("Kafka did not take our LaneOpened: {error}")))?;
    metrics::gauge!("holdfast_lane_epoch", "lane" => lane.to_string()).set(position.offset as f64);
    Ok(position.offset)
}

/// An event that a forward is still to be made of.
#[derive(Debug, Clone)]
pub(crate) struct Unforwarded {
    /// The command that the event decides.
    pub(crate) command_offset: i64,
    /// What to send.
    pub(crate) what: What,
}

/// What a valid event sends to other lanes.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A copy of its command, to the lane where that belongs.
    Copy(Lane),
    /// What its decision has other lanes do.
    Relay(Box<Relayed>),
}

/// Reads the events up to and with our own `LaneOpened`. Reading the last decision before one's own record oversells.
fn read_up_to<W: World>(
    shared: &Shared<W>,
    lane: Lane,
    reader: &W::Reader,
    from: Tail,
    epoch: i64,
    stop: &Stop,
) -> Result<(Tail, Vec<Unforwarded>), End> {
    let mut tail = from;
    let mut forwards = Vec::new();
    let place = (shared.topics.events.as_str(), lane.partition(), from.next);
    log::read(&shared.world, reader, place, stop, |message| {
        let (_, verdict) = tail.read(message);
        if verdict == domain::Verdict::Valid
            && let Some(forward) = forward_of(shared, lane, message)?
        {
            forwards.push(forward);
        }
        Ok(message.offset() >= epoch)
    })?;
    if tail.next <= epoch {
        return Err(End::Down(format!("our LaneOpened at {epoch} cannot be read back yet")));
    }
    Ok((tail, forwards))
}

/// Events that something may have to be sent for.
const FORWARDING: [&str; 10] = [
    "CommandForwarded",
    "HoldPending",
    "HoldRejected",
    "HoldCancelled",
    "HoldExpired",
    "HoldConfirmed",
    "HoldShipped",
    "HoldUnallocated",
    "PartHeld",
    "PartRefused",
];

/// The copy that a valid event of this turn asks for.
pub(crate) fn copy_of<W: World>(
    shared: &Shared<W>,
    lane: Lane,
    message: &impl Message,
) -> Result<Option<Unforwarded>, End> {
    let is_copied = consumer::headers(message)
        .any(|(name, value)| name == "ce_type" && value == Some(b"holdfast.CommandForwarded"));
    if is_copied {
        forward_of(shared, lane, message)
    } else {
        Ok(None)
    }
}

/// The forward that a valid event asks for.
fn forward_of<W: World>(shared: &Shared<W>, lane: Lane, message: &impl Message) -> Result<Option<Unforwarded>, End> {
    let may_forward = consumer::headers(message)
        .find(|(name, _)| *name == "ce_type")
        .and_then(|(_, kind)| std::str::from_utf8(kind?).ok()?.strip_prefix("holdfast."))
        .is_some_and(|kind| FORWARDING.contains(&kind));
    if !may_forward {
        return Ok(None);
    }
    let event = rebuild::decode(shared, message.payload().unwrap_or_default())?;
    let EventBody::CommandForwarded { to_lane } = event.body else {
        return Ok(Relayed::of(lane, &event, None).map(|relayed| Unforwarded {
            command_offset: event.command_offset,
            what: What::Relay(Box::new(relayed)),
        }));
    };
    let to_lane = Lane::new(to_lane).filter(|lane| lane.number() < shared.lanes);
    let to_lane = to_lane.ok_or_else(|| End::Halt(format!("the event at {} forwards to no lane", message.offset())))?;
    Ok(Some(Unforwarded {
        command_offset: event.command_offset,
        what: What::Copy(to_lane),
    }))
}
