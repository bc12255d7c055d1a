//! A lane's thread: turn after turn, begun where the group says that the lane is this process' to own.

use std::{collections::BTreeSet, time::Duration};

use domain::Lane;
use plumbing::{backoff::Backoff, stop::Stop};
use tokio::sync::watch;

use crate::{Shared, end::End, open, tail::Tail, world::World};

/// How often a lane that is not ours looks whether it has become ours.
const HINT_POLL: Duration = Duration::from_millis(20);
/// How long a halted lane waits before it looks again whether somebody has mended it.
const HALT_PAUSE: Duration = Duration::from_secs(10);

/// Runs a lane until the process stops.
pub fn run<W: World>(shared: &Shared<W>, lane: Lane, assigned: &watch::Receiver<BTreeSet<i32>>, stop: &Stop) {
    let health = shared.health.component(format!("lane-{lane}"));
    // Each owner waits in its own way, so that two do not meet again and again.
    let (_, seed) = shared.world.nonce().as_u64_pair();
    let mut backoff = Backoff::seeded(Duration::from_millis(50), Duration::from_secs(2), seed);
    let mut tail = None::<Tail>;
    let ours = || assigned.borrow().contains(&lane.partition());
    while !stop.is_requested() {
        if !ours() {
            // Somebody else's lane does not make this process unready.
            if assigned.borrow().is_empty() {
                health.down("waiting for Kafka to assign lanes");
            } else {
                health.up();
            }
            shared.pause(stop, HINT_POLL);
            continue;
        }
        let end = match open::open(shared, lane, tail, stop) {
            Ok(mut turn) => {
                health.up();
                backoff.reset();
                let end = {
                    let _at_work = shared.turns.one_more();
                    turn.run(stop)
                };
                tail = turn.into_tail();
                end
            }
            Err(end) => end,
        };
        metrics::counter!("holdfast_lane_turns_ended_total", "why" => why(&end)).increment(1);
        match end {
            End::Stopped => break,
            End::Superseded(_) if !ours() => {
                tracing::info!(lane = lane.number(), "lane.handed_over: its next owner has opened it");
            }
            End::Lost(_) | End::Superseded(_) => {
                let reason = end.to_string();
                tracing::warn!(
                    lane = lane.number(),
                    reason,
                    "lane.lost: it is opened again from the log"
                );
                health.down(format!("opening again: {reason}"));
                shared.pause(stop, backoff.next_delay());
            }
            End::Down(reason) => {
                health.down(reason);
                shared.pause(stop, backoff.next_delay());
            }
            End::Halt(reason) => {
                tracing::error!(
                    lane = lane.number(),
                    reason,
                    "lane.halted: nothing is decided here until it is mended"
                );
                health.down(format!("halted: {reason}"));
                tail = None;
                shared.pause(stop, HALT_PAUSE);
            }
        }
    }
}

fn why(end: &End) -> &'static str {
    match end {
        End::Stopped => "stopped",
        End::Superseded(_) => "superseded",
        End::Lost(_) => "lost",
        End::Down(_) => "down",
        End::Halt(_) => "halted",
    }
}
