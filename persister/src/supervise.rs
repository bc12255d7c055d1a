//! Which lanes this persister works on: those that the group assigns, each in a task of its own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use domain::Lane;
use plumbing::{
    kafka::group,
    service::DRAIN_DEADLINE,
    stop::Stopper,
    task::{self, Task, Tasks},
};

use crate::{Shared, lane, watch};

/// A lane's task, and how to end it.
struct Working {
    stopper: Stopper,
    task: Task<anyhow::Result<()>>,
    revoked: bool,
}

/// Works until the stop, then drains.
pub(crate) async fn all(shared: Arc<Shared>, prune_days: u32) -> anyhow::Result<()> {
    let mut tasks = Tasks::<anyhow::Error>::new(&shared.context.stop);
    let (lag, lag_stop) = (shared.clone(), tasks.stop().clone());
    tasks.thread("lag", move || watch::lag(&lag, &lag_stop));
    let stop = tasks.stop().clone();
    tasks.spawn("tables", watch::tables(shared.clone(), prune_days, stop.clone()));
    tasks.spawn("lanes", lanes(shared, stop));
    tasks.join_all(DRAIN_DEADLINE).await
}

async fn lanes(shared: Arc<Shared>, stop: plumbing::stop::Stop) -> anyhow::Result<()> {
    let (mut assigned, member) = group::join(
        &shared.brokers,
        "holdfast-persister",
        &shared.group_id,
        &shared.events,
        stop.clone(),
    )?;
    let mut working: BTreeMap<Lane, Working> = BTreeMap::new();
    while !stop.is_requested() {
        let wanted: Vec<Lane> = assigned
            .borrow_and_update()
            .iter()
            .copied()
            .filter_map(Lane::new)
            .collect();
        follow(&shared, &stop, &mut working, &wanted);
        reap(&mut working).await?;
        // A task that ended by itself is found within a second.
        let next = tokio::time::timeout(Duration::from_secs(1), assigned.changed());
        if let Some(Ok(Err(_))) = stop.unless_requested(next).await {
            break; // The member's thread is gone; it ends only with the stop, or by a panic, which is below.
        }
    }
    for (_, lane) in working {
        lane.stopper.stop();
        lane.task.await??;
    }
    member.await?;
    Ok(())
}

/// Starts what is assigned and stops what is not, without waiting for either.
fn follow(shared: &Arc<Shared>, stop: &plumbing::stop::Stop, working: &mut BTreeMap<Lane, Working>, wanted: &[Lane]) {
    for (lane, lane_work) in working.iter_mut() {
        if !wanted.contains(lane) && !lane_work.revoked {
            tracing::info!(%lane, "the lane goes to another persister");
            lane_work.stopper.stop();
            lane_work.revoked = true;
        }
    }
    for lane in wanted {
        if working.get(lane).is_some_and(|known| !known.revoked) {
            continue;
        }
        // It came back before its last turn had ended: the new turn waits for that.
        let before = working.remove(lane).map(|known| known.task);
        let (stopper, lane_stop) = stop.child();
        let (shared, lane) = (shared.clone(), *lane);
        let task = task::spawn(format!("lane {lane}"), async move {
            if let Some(before) = before {
                before.await??;
            }
            lane::live(lane, shared, lane_stop).await
        });
        working.insert(
            lane,
            Working {
                stopper,
                task,
                revoked: false,
            },
        );
    }
}

/// Forgets lanes that have ended; one that ended without being asked has failed.
async fn reap(working: &mut BTreeMap<Lane, Working>) -> anyhow::Result<()> {
    let ended: Vec<Lane> = working
        .iter()
        .filter(|(_, lane)| lane.task.is_finished())
        .map(|(lane, _)| *lane)
        .collect();
    for lane in ended {
        if let Some(ended) = working.remove(&lane) {
            ended.task.await??;
        }
    }
    Ok(())
}
