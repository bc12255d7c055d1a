//! Lanes rebuilt in Redis on an operator's word (`holdfast rebuild`), by the same steps as an owner that finds Redis lost.
//!
//! It owns the lane in the log first, as any owner does: a reserver that runs steps aside, comes back with a newer epoch, and then
//! takes what was built, or builds the rest itself. Either way the lane is whole afterwards.

use std::sync::Arc;

use domain::Lane;
use plumbing::{config::Connections, service::Context, stop::Stop, task};

use crate::{Options, Shared, end::End, open, rebuild, rebuild::Progress, shared_by_lanes, world::World};

/// What became of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// It is rebuilt, in the generation of this epoch, with so many holds.
    Rebuilt {
        /// The epoch.
        epoch: i64,
        /// Holds that the lane remembers.
        holds: usize,
    },
    /// A reserver that runs has it again, and sees to it.
    Overtaken(String),
    /// The logs contradict the state (rule 9): somebody must look, and the text says where.
    Halted(String),
    /// Something that it needs does not answer.
    Down(String),
}

/// Rebuilds lanes, one after the other; `None` when asked to stop.
///
/// # Errors
/// A lane that does not exist, or a client that refuses its options.
pub async fn restore(
    connections: Connections,
    options: Options,
    context: Context,
    lanes: Vec<Lane>,
    progress: impl Fn(Lane, Progress) + Send + Sync + 'static,
) -> anyhow::Result<Option<Vec<(Lane, Restored)>>> {
    let stop = context.stop.clone();
    let Some(shared) = shared_by_lanes(connections, options, context).await? else {
        return Ok(None);
    };
    let lanes = if lanes.is_empty() {
        Lane::all(shared.lanes).collect()
    } else {
        lanes
    };
    if let Some(lane) = lanes.iter().find(|lane| lane.number() >= shared.lanes) {
        anyhow::bail!("there is no lane {lane}: there are {}", shared.lanes);
    }
    let shared = Arc::new(shared);
    let restored = task::thread("restore", move || {
        let one = |lane: Lane| (lane, restore_lane(&shared, lane, &stop, &|step| progress(lane, step)));
        lanes.into_iter().map(one).collect()
    });
    Ok(Some(restored.await?))
}

fn restore_lane<W: World>(
    shared: &Shared<W>,
    lane: Lane,
    stop: &Stop,
    progress: &(dyn Fn(Progress) + Sync),
) -> Restored {
    let rebuilt = open::own_in_log(shared, lane, None, stop).and_then(|mut owned| {
        let holds = rebuild::rebuild(shared, lane, &mut owned, stop, progress)?;
        Ok((owned.epoch, holds))
    });
    match rebuilt {
        Ok((epoch, holds)) => Restored::Rebuilt { epoch, holds },
        Err(End::Halt(why)) => Restored::Halted(why),
        Err(end @ (End::Lost(_) | End::Superseded(_))) => Restored::Overtaken(end.to_string()),
        Err(end @ (End::Down(_) | End::Stopped)) => Restored::Down(end.to_string()),
    }
}
