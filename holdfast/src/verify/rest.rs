//! Waiting until nothing moves: every readable command decided and published, Redis at the same command, the persister at
//! the end of the log. Blocks: it runs on a thread of its own.

use std::{
    thread,
    time::{Duration, Instant},
};

use domain::{Lane, LaneState};
use schemas::picture;

use super::{
    commands,
    lane::Engines,
    report::{Difference, Place},
};
use crate::{log::LogReader, redis_lane::RedisLanes};

const PAUSE: Duration = Duration::from_millis(100);

/// One lane that is watched.
struct Watched {
    lane: Lane,
    events: LogReader,
    state: LaneState,
    commands: LogReader,
    last_command: i64,
}

/// Waits until all lanes are at rest in two looks in a row; returns what still moves when the time is up.
///
/// # Errors
/// An engine does not answer.
pub fn wait(engines: &Engines, timeout: Duration) -> anyhow::Result<Vec<Difference>> {
    let begun = Instant::now();
    let mut redis = RedisLanes::open(&engines.connections)?;
    let mut lanes = Vec::new();
    for lane in Lane::all(engines.lanes) {
        lanes.push(watch(engines, lane)?);
    }
    let mut quiet_at: Option<Vec<(i64, i64)>> = None;
    loop {
        let mut moving = Vec::new();
        for watched in &mut lanes {
            if let Some(what) = watched.look(engines, &mut redis)? {
                moving.push(Difference {
                    lane: watched.lane.number(),
                    place: Place::Rest,
                    what,
                });
            }
        }
        let position: Vec<(i64, i64)> = lanes
            .iter()
            .map(|lane| (lane.last_command, lane.events.next_offset()))
            .collect();
        if moving.is_empty() {
            // A lane that was quiet may have had a command from another lane in the meantime.
            if quiet_at.as_ref() == Some(&position) {
                return Ok(Vec::new());
            }
            quiet_at = Some(position);
        } else {
            quiet_at = None;
            if begun.elapsed() > timeout {
                return Ok(moving);
            }
        }
        thread::sleep(PAUSE);
    }
}

fn watch(engines: &Engines, lane: Lane) -> anyhow::Result<Watched> {
    let checkpoint = engines.runtime.block_on(picture::checkpoint(&engines.pool, lane))?;
    let mut events = engines.events(lane, 0)?;
    let (first, _) = events.bounds()?;
    let mut state = LaneState::default();
    match checkpoint {
        Some(checkpoint) => {
            state = checkpoint.state;
            events.seek(checkpoint.next_event_offset);
        }
        None => events.seek(first),
    }
    let mut commands = engines.commands(lane, 0)?;
    let (first, end) = commands.bounds()?;
    commands.seek(first.max((state.last_command_offset + 1).min(end)));
    Ok(Watched {
        lane,
        events,
        state,
        commands,
        last_command: -1,
    })
}

impl Watched {
    /// What still moves, in a sentence; `None` when the lane is at rest.
    fn look(&mut self, engines: &Engines, redis: &mut RedisLanes) -> anyhow::Result<Option<String>> {
        if let Some(last) = commands::last_readable(&mut self.commands)? {
            self.last_command = last;
        }
        let state = &mut self.state;
        self.events.read_to_end(|record| {
            record.verdict(state);
            Ok(())
        })?;
        let decided = self.state.last_command_offset;
        if decided < self.last_command {
            return Ok(Some(format!(
                "command {} is not decided: the log decides up to {decided} (is a reserver running?)",
                self.last_command
            )));
        }
        if decided >= 0 {
            match redis.lane(self.lane)? {
                None => return Ok(Some("Redis does not have the lane".to_owned())),
                Some(cell) if cell.building => return Ok(Some("Redis is being rebuilt".to_owned())),
                Some(cell) if cell.fence != decided => {
                    return Ok(Some(format!(
                        "Redis stands at command {}, the log at {decided}",
                        cell.fence
                    )));
                }
                Some(_) => {}
            }
        }
        let checkpoint = engines
            .runtime
            .block_on(picture::checkpoint(&engines.pool, self.lane))?;
        let stored = checkpoint.map(|checkpoint| checkpoint.state).unwrap_or_default();
        if stored.last_command_offset != decided {
            return Ok(Some(format!(
                "Postgres stands at command {}, the log at {decided} (is a persister running?)",
                stored.last_command_offset
            )));
        }
        Ok(None)
    }
}
