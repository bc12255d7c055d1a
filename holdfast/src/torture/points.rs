//! Exact kills: every named place between two steps, where a process that is armed with it ends as if killed.

use std::time::Duration;

use anyhow::Context as _;

use super::{
    Inflicted,
    dice::Dice,
    faults::{self, Fault},
    load::Desk,
    system::System,
};

/// A fail point of a role that the torture runs (`plumbing::failpoint`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Its name.
    pub name: &'static str,
    /// The role whose process passes it.
    pub role: &'static str,
    /// What has just happened there.
    pub what: &'static str,
}

const fn point(name: &'static str, role: &'static str, what: &'static str) -> Point {
    Point { name, role, what }
}

/// All of them, along the road of a request.
pub const POINTS: &[Point] = &[
    point("ingress.waiting", "ingress", "a waiter is registered, nothing is sent"),
    point("ingress.sent", "ingress", "a command is handed to the producer"),
    point("ingress.acknowledged", "ingress", "a command is in the log"),
    point(
        "ingress.event_read",
        "ingress",
        "a valid event is read, nobody is answered",
    ),
    point(
        "ingress.answered",
        "ingress",
        "the answer is known, the client has none",
    ),
    point("reserver.owned", "reserver", "LaneOpened is acknowledged"),
    point("reserver.log_read", "reserver", "the events up to it are read"),
    point("reserver.opened", "reserver", "the logs agree, Redis was not asked"),
    point("reserver.claimed", "reserver", "Redis has answered the claim"),
    point(
        "reserver.buried",
        "reserver",
        "an unreadable command is a dead letter, and not decided",
    ),
    point(
        "reserver.applied",
        "reserver",
        "the script has decided a batch, nothing is published",
    ),
    point("producer.queued_one", "reserver", "one event of a batch is queued"),
    point("reserver.published", "reserver", "all events of a batch are queued"),
    point(
        "reserver.read_back",
        "reserver",
        "an event is valid, nothing follows from it yet",
    ),
    point(
        "reserver.drained",
        "reserver",
        "told to end, all is read back, the cursor is not committed",
    ),
    point(
        "forwards.copy_decided",
        "reserver",
        "a misrouted command is decided, not published",
    ),
    point(
        "forwards.copy_read_back",
        "reserver",
        "that event is valid, no copy is sent",
    ),
    point(
        "forwards.copy_sent",
        "reserver",
        "the copy is queued, the cursor has not passed it",
    ),
    point(
        "forwards.cursor_committed",
        "reserver",
        "the cursor is on its way to the broker",
    ),
    point(
        "forwards.relay_decided",
        "reserver",
        "a step of a cart over lanes is decided, not published",
    ),
    point(
        "forwards.relay_read_back",
        "reserver",
        "that event is valid, the next lane is not asked",
    ),
    point("forwards.relay_sent", "reserver", "the next lane's command is queued"),
    point(
        "forwards.acknowledged",
        "reserver",
        "a command for another lane is in the log, the cursor has not passed its event",
    ),
    point("rebuild.begun", "reserver", "a new generation is begun"),
    point(
        "rebuild.picture_read",
        "reserver",
        "Postgres' rows are read, the log behind them is not",
    ),
    point("rebuild.ledger_read", "reserver", "what to write is known"),
    point("rebuild.chunk_sent", "reserver", "a part of the keys is on its way"),
    point(
        "rebuild.loaded",
        "reserver",
        "all keys are written, the lane is not released",
    ),
    point(
        "rebuild.finished",
        "reserver",
        "the lane is whole, nothing was decided in it",
    ),
    point("persister.checkpoint_read", "persister", "a lane's offset is read"),
    point(
        "persister.offset_moved",
        "persister",
        "within a transaction, the lane's offset is moved",
    ),
    point("persister.events_noted", "persister", "within it, event ids are noted"),
    point(
        "persister.holds_written",
        "persister",
        "within it, holds are written and their lines are not",
    ),
    point(
        "persister.rows_written",
        "persister",
        "all rows are written, nothing is committed",
    ),
    point(
        "persister.committed",
        "persister",
        "it is committed, the persister does not know",
    ),
    point("expirer.due_seen", "expirer", "a hold is found due"),
    point("expirer.hold_read", "expirer", "whose it is is known, nothing is sent"),
    point("expirer.release_sent", "expirer", "its release is queued"),
    point("expirer.release_acknowledged", "expirer", "its release is in the log"),
];

/// How long a process may take until it passes its point: a dead member is believed to live for six seconds.
const REACHED_WITHIN: Duration = Duration::from_secs(60);

/// Kills a process at each point whose name begins with one of `prefixes` (all, where there is none), so often.
///
/// # Errors
/// A process does not start.
pub async fn run(
    system: &mut System,
    desk: &Desk,
    prefixes: &[String],
    rounds: u32,
    dice: &mut Dice,
) -> anyhow::Result<Vec<Inflicted>> {
    let mut inflicted = Vec::new();
    let chosen = |point: &&Point| prefixes.is_empty() || prefixes.iter().any(|prefix| point.name.starts_with(prefix));
    let all: Vec<&Point> = POINTS.iter().filter(chosen).collect();
    for _ in 0..rounds {
        for (index, point) in all.iter().enumerate() {
            let (begun_us, in_flight) = (desk.now_us(), desk.in_flight());
            reach(system, desk, **point, dice)
                .await
                .with_context(|| format!("fail point {}", point.name))?;
            inflicted.push(Inflicted {
                fault: Fault::Point,
                on: point.name.to_owned(),
                at_s: begun_us as f64 / 1e6,
                lasted_s: (desk.now_us() - begun_us) as f64 / 1e6,
                in_flight,
                pause_ms: 0,
            });
            // The next armed process of its role is its successor: so a dead member of a group is waited for once.
            let is_last = all.get(index + 1).is_none_or(|next| next.role != point.role);
            if is_last && system.of_role(point.role).is_empty() {
                system.spawn(&format!("{}-1", point.role))?;
            }
        }
    }
    Ok(inflicted)
}

/// One kill: the role's process is replaced by one that is armed, which works until it ends there.
async fn reach(system: &mut System, desk: &Desk, point: Point, dice: &mut Dice) -> anyhow::Result<()> {
    let name = format!("{}-1", point.role);
    if !system.of_role(point.role).is_empty() {
        system.end(&name).await?;
    }
    if point.name.starts_with("rebuild.") {
        faults::inflict(Fault::LoseKeys, system, dice).await?;
    }
    system.spawn_armed(&name, point.name)?;
    let begun = tokio::time::Instant::now();
    let mut told_to_end = false;
    while begun.elapsed() < REACHED_WITHIN {
        if system.has_ended(&name)? {
            return Ok(());
        }
        if point.name == "reserver.drained" && !told_to_end && desk.decided_since(begun.elapsed()) {
            system.signal(&name, "TERM").await?;
            told_to_end = true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    system.ended.push(format!(
        "{name} did not pass {} within {} s",
        point.name,
        REACHED_WITHIN.as_secs()
    ));
    system.kill(&name).await
}
