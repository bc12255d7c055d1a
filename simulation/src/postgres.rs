//! A Postgres whose commit may be unknown, and the persisters that write it.
//!
//! The picture is the domain's own ledger, moved together with its checkpoint, as one transaction does.

use std::rc::Rc;

use domain::{Ledger, Verdict};
use schemas::picture::Checkpoint;

use crate::{
    kafka::Topic,
    mutants::Mutant,
    state::{Event, MS, Micros, SECOND, State},
};

/// Events in one transaction.
const BATCH: i64 = 16;
/// How many persisters there are: one of each lane at work, the other a zombie now and then.
pub(crate) const PERSISTERS: usize = 2;

#[derive(Default)]
pub(crate) struct Picture {
    /// None before a persister's first look at the lane.
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) ledger: Ledger,
}

pub(crate) struct Postgres {
    pub(crate) lanes: Vec<Picture>,
    pub(crate) down_until: Micros,
    /// Where each persister believes each lane to be; none: it must look.
    beliefs: Vec<Vec<Option<Checkpoint>>>,
}

/// What became of a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commit {
    Done,
    Failed,
    /// It was done, and nobody said so.
    Unknown,
}

impl Postgres {
    pub(crate) fn new(lanes: usize) -> Self {
        Self {
            lanes: (0..lanes).map(|_| Picture::default()).collect(),
            down_until: 0,
            beliefs: vec![vec![None; lanes]; PERSISTERS],
        }
    }
}

impl State {
    /// A persister takes its next step with a lane, and puts the one after it on the agenda.
    pub(crate) fn persist(&mut self, persister: usize, lane: usize) {
        let pause = match persister {
            0 => self.chance.from(20 * MS, 400 * MS),
            _ => self.chance.from(SECOND, 8 * SECOND),
        };
        self.after(pause, Event::Persist { persister, lane });
        if self.now < self.postgres.down_until {
            self.postgres.beliefs[persister][lane] = None;
            return;
        }
        let Some(believed) = self.postgres.beliefs[persister][lane] else {
            let picture = &mut self.postgres.lanes[lane];
            self.postgres.beliefs[persister][lane] = Some(*picture.checkpoint.get_or_insert_default());
            return;
        };
        let end = self
            .kafka
            .partition(Topic::Events, lane)
            .end()
            .min(believed.next_event_offset + BATCH);
        if believed.next_event_offset >= end {
            return;
        }
        let draw = self.chance.below(1_000);
        let commit = match draw {
            _ if draw < self.weather.commit_failed => Commit::Failed,
            _ if draw < self.weather.commit_failed + self.weather.commit_unknown => Commit::Unknown,
            _ => Commit::Done,
        };
        let moved = commit != Commit::Failed && self.write(lane, believed, end);
        // A commit that was not confirmed, or whose row count is not what it must be: look again before going on.
        self.postgres.beliefs[persister][lane] = if commit == Commit::Done && moved {
            self.postgres.lanes[lane].checkpoint
        } else {
            None
        };
    }

    /// The transaction: rows and checkpoint, if the checkpoint is still where the persister believes it to be.
    fn write(&mut self, lane: usize, believed: Checkpoint, end: i64) -> bool {
        let fenced = !self.breaks(Mutant::RowsWithoutFence);
        if fenced && self.postgres.lanes[lane].checkpoint != Some(believed) {
            return false;
        }
        let mut next = believed;
        for offset in believed.next_event_offset..end {
            let Some(record) = self.kafka.partition(Topic::Events, lane).record(offset).cloned() else {
                continue;
            };
            let verdict = record
                .stamp
                .map_or(Verdict::Void, |stamp| next.state.fold(offset, stamp));
            let counts = verdict == Verdict::Valid
                || self.breaks(Mutant::RowsOfVoid) && matches!(record.stamp, Some(domain::Stamp::Decision { .. }));
            if !counts {
                continue;
            }
            let event = Rc::new(self.decode(&record));
            if let Err(contradiction) = self.postgres.lanes[lane].ledger.apply(&event) {
                self.violate(format!("Postgres, lane {lane}, event {offset}: {contradiction}"));
            }
        }
        next.next_event_offset = end;
        self.postgres.lanes[lane].checkpoint = Some(next);
        true
    }
}
