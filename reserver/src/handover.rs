//! The end of a process whose lanes others will have: it leaves the group first and decides on, until they have opened them.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use plumbing::{
    config::Brokers,
    kafka::{consumer, group},
};

/// The others hear within a heartbeat that we left, and open their lanes; a lane that none of them can open is not waited for.
const HANDOVER: Duration = Duration::from_secs(5);
/// How often is looked whether it is done.
const LOOK: Duration = Duration::from_millis(50);

/// How many lanes have a turn of this process right now.
#[derive(Debug, Default)]
pub struct Turns(AtomicUsize);

/// One of them, until it is dropped.
pub(crate) struct AtWork<'a>(&'a Turns);

impl Turns {
    pub(crate) fn one_more(&self) -> AtWork<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        AtWork(self)
    }

    fn none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until every turn has ended because another owner opened its lane; not where nobody else is in the group, or nobody says.
pub(crate) fn wait(brokers: &Brokers, group_id: &str, turns: &Turns) {
    let Ok(reader) = consumer::reader(brokers, "holdfast-reserver-handover", group_id) else {
        return;
    };
    let until = Instant::now() + HANDOVER;
    while !turns.none() && Instant::now() < until && group::members(&reader, group_id).is_ok_and(|others| others > 0) {
        thread::sleep(LOOK);
    }
}
