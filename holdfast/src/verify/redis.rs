//! Redis against the log, key by key, also while the lane is busy (I5).
//!
//! The keys are read in portions, each in one transaction with the lane's fence. Then the log is read up to that fence, and
//! the portion is compared with what the log says at exactly that command. So a difference is never a question of timing.

use std::{collections::HashSet, thread, time::Duration};

use domain::{Lane, Millis};
use redis::{Pipeline, Value};

use super::{
    books::Books,
    cells::{Subject, Subjects},
    report::{Differences, Place},
};
use crate::redis_lane::{LaneCell, RedisLanes};

/// Keys that are read in one transaction: Redis serves nobody else meanwhile.
const PORTION: usize = 200;
/// How often a lane that moves under the comparison (a new owner, a rebuild) is begun again.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);
/// How long the log may take to say what Redis has applied.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(10);

/// How one comparison of a lane ended.
enum Compared {
    /// With the lane as it was.
    Done(LaneCell),
    /// The lane moved under it: begin again.
    Moved(String),
    /// It cannot be compared, and a difference says why.
    Apart(LaneCell),
}

/// Compares a lane in Redis with its books, which are read on as far as Redis has come.
///
/// # Errors
/// Redis, Kafka or the registry does not answer.
pub fn compare(
    lane: Lane,
    redis: &mut RedisLanes,
    books: &mut Books,
    remember_ms: Millis,
    differences: &mut Differences,
) -> anyhow::Result<Option<LaneCell>> {
    if nothing_to_compare(lane, redis, books)? {
        return Ok(None);
    }
    let mut moved = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            thread::sleep(PAUSE);
        }
        match attempt_once(lane, redis, books, remember_ms, differences)? {
            Compared::Done(cell) | Compared::Apart(cell) => return Ok(Some(cell)),
            Compared::Moved(why) => moved = why,
        }
    }
    differences.note(Place::Redis, moved);
    redis.lane(lane)
}

/// A lane that nobody ever used: no decision in the log, and Redis has none either.
fn nothing_to_compare(lane: Lane, redis: &mut RedisLanes, books: &Books) -> anyhow::Result<bool> {
    Ok(books.pages.state.last_command_offset < 0 && redis.lane(lane)?.is_none())
}

fn attempt_once(
    lane: Lane,
    redis: &mut RedisLanes,
    books: &mut Books,
    remember_ms: Millis,
    differences: &mut Differences,
) -> anyhow::Result<Compared> {
    let Some(begun) = redis.lane(lane)? else {
        return Ok(Compared::Moved(
            "Redis does not have the lane: it is rebuilt when an owner comes".to_owned(),
        ));
    };
    if let Some(why) = unfit(&begun, &begun, books) {
        return Ok(Compared::Moved(why));
    }
    let subjects = Subjects::find(lane, &begun, redis, books, differences)?;
    let keys = redis.keys(lane).generation(begun.generation);
    let mut last = begun;
    let found = differences.count();
    for portion in subjects.list.chunks(PORTION) {
        let mut reads = redis::pipe();
        for subject in portion {
            subject.read(&keys, &mut reads);
        }
        match portion_at(lane, redis, &reads, &begun, books, differences)? {
            Portion::Answers(cell, answers) => {
                last = cell;
                let mut answers = answers.into_iter();
                for subject in portion {
                    subject.compare(&mut answers, books, remember_ms, differences)?;
                }
            }
            // What differed so far was true at its instant, but a lane that is rebuilt mends itself: only what stays counts.
            Portion::Moved(why) if differences.count() == found => return Ok(Compared::Moved(why)),
            Portion::Moved(why) => {
                differences.note(Place::Redis, why);
                return Ok(Compared::Apart(last));
            }
            Portion::Apart(cell) => return Ok(Compared::Apart(cell)),
        }
    }
    Ok(Compared::Done(last))
}

enum Portion {
    Answers(LaneCell, Vec<Value>),
    Moved(String),
    Apart(LaneCell),
}

/// Reads a portion, and the log up to the command at which the portion was true.
fn portion_at(
    lane: Lane,
    redis: &mut RedisLanes,
    reads: &Pipeline,
    begun: &LaneCell,
    books: &mut Books,
    differences: &mut Differences,
) -> anyhow::Result<Portion> {
    let (cell, answers) = redis.at_once(lane, reads)?;
    let Some(cell) = cell else {
        return Ok(Portion::Moved("Redis lost the lane while it was compared".to_owned()));
    };
    if let Some(why) = unfit(begun, &cell, books) {
        return Ok(Portion::Moved(why));
    }
    let published = books.read_to_command(cell.fence, PUBLISHED_WITHIN, differences)?;
    let decided = books.pages.state.last_command_offset;
    if !published {
        differences.note(
            Place::Redis,
            format!(
                "Redis has applied up to command {} but after {} s the log decides only up to {decided}: \
                 the lane's owner does not publish (is a reserver running?)",
                cell.fence,
                PUBLISHED_WITHIN.as_secs()
            ),
        );
        return Ok(Portion::Apart(cell));
    }
    if decided != cell.fence {
        differences.note(
            Place::Redis,
            format!(
                "Redis stands at command {}, which the log never decided by itself (it goes on at {decided})",
                cell.fence
            ),
        );
        return Ok(Portion::Apart(cell));
    }
    Ok(Portion::Answers(cell, answers))
}

/// Why a lane cannot be compared now; it may mend by itself.
fn unfit(begun: &LaneCell, now: &LaneCell, books: &Books) -> Option<String> {
    let decided = books.pages.state.last_command_offset;
    if now.building {
        Some(format!(
            "Redis is being rebuilt (generation {}) and does not finish",
            now.generation
        ))
    } else if now.generation != begun.generation {
        Some(format!(
            "Redis was rebuilt while it was compared (generation {} after {})",
            now.generation, begun.generation
        ))
    } else if now.fence < decided {
        Some(format!(
            "Redis is behind the log: it stands at command {}, the log decides up to {decided}",
            now.fence
        ))
    } else {
        None
    }
}

/// Both sides' names of one kind, each once.
pub(super) fn union<T: Eq + std::hash::Hash + Ord + Clone>(
    redis: impl IntoIterator<Item = T>,
    log: impl IntoIterator<Item = T>,
    wrap: impl Fn(T) -> Subject,
    list: &mut Vec<Subject>,
) {
    let names: HashSet<T> = redis.into_iter().chain(log).collect();
    let mut names: Vec<T> = names.into_iter().collect();
    names.sort_unstable();
    list.extend(names.into_iter().map(wrap));
}
