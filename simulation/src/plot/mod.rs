//! Plots: what goes wrong exactly between two steps of a lane, and not at some time.
//!
//! Most rules of a lane are for what comes between two steps of its owner: a script that has run before its outcomes are
//! published, a record on its way while the next owner opens the lane. At random times such moments hardly ever meet. A plot
//! is a short list of beats, in order: a step, whose, and what happens there. Each family below is the frame of one kind of
//! trouble; a seed draws the rest.

mod family;

use crate::{
    chance::Chance,
    faults::Fault,
    redis::Harm,
    state::{Event, MS, Micros, State},
};

pub(crate) use family::Family;

/// A script of the reserver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    Claim,
    Begin,
    Load,
    Finish,
    Drop,
    Apply,
}

impl Script {
    /// The script of a text.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let named = [
            ("claim", Self::Claim),
            ("begin", Self::Begin),
            ("load", Self::Load),
            ("finish", Self::Finish),
            ("drop", Self::Drop),
            ("apply", Self::Apply),
        ];
        let found = named.into_iter().find(|(name, _)| is_named(text, name));
        found.map(|(_, script)| script)
    }
}

/// Whether a script's text has this name in its head.
pub(crate) fn is_named(text: &str, name: &str) -> bool {
    let head = |mark: &str| text.contains(&format!("\n-- {name}{mark}"));
    head(":") || head(".lua:")
}

/// A step of a lane's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A script is on its way to Redis.
    Asked(Script),
    /// A script was carried out and said yes; its owner does not know yet.
    Ran(Script),
    /// The same, of an apply that closes a hole at the lane's end.
    Skipped,
    /// A script stopped half-way.
    Torn,
    /// A `LaneOpened` is on its way.
    Opening,
    /// A `LaneOpened` is in the log.
    Opened,
    /// The outcomes of a batch are on their way.
    Publishing,
    /// A valid decision is in the log; nobody knows yet.
    Published,
}

/// Whose step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Anybody,
    /// Not whose the beat before was.
    Another,
}

/// What happens.
#[derive(Debug, Clone, Copy)]
enum Deed {
    /// What is on its way stays there until somebody releases it, or for so long.
    Hold(Micros),
    /// What is held arrives.
    Release,
    /// What is on its way never arrives.
    Lose,
    /// Whose step it is stops for a while.
    Pause(Micros),
    /// Whose step it is dies.
    Kill,
    /// The lane is given to somebody else; whose step it is hears of that after a while.
    Pass(Micros),
    Redis(Harm),
    /// Offsets without a record at the commands' end.
    Hole,
}

#[derive(Debug, Clone)]
struct Beat {
    step: Step,
    who: Who,
    /// How many such steps go by before.
    after: u64,
    deeds: Vec<Deed>,
}

/// The beats of a story, played once or more.
#[derive(Default)]
pub(crate) struct Plot {
    beats: Vec<Beat>,
    at: usize,
    gone_by: u64,
    rounds: u64,
    /// Whose the last beat was.
    last: Option<usize>,
    /// What somebody has held back.
    held: Vec<Event>,
    /// Connections and writers with something of theirs held: what they send later comes later.
    pub(crate) held_connections: Vec<usize>,
    pub(crate) held_writers: Vec<usize>,
}

/// What becomes of what is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Free,
    Held,
    Lost,
}

impl Plot {
    /// A plot of a family.
    pub(crate) fn drawn(chance: &mut Chance, family: Family) -> Self {
        Self {
            beats: family.beats(chance),
            rounds: chance.below(3),
            ..Self::default()
        }
    }

    /// Takes the next beat, if this is its step.
    fn take(&mut self, step: Step, task: usize) -> Option<Vec<Deed>> {
        let next = self.beats.get(self.at)?;
        let whose = next.who == Who::Anybody || self.last.is_some_and(|last| last != task);
        if next.step != step || !whose {
            return None;
        }
        if self.gone_by < next.after {
            self.gone_by += 1;
            return None;
        }
        let deeds = next.deeds.clone();
        self.last = Some(task);
        self.gone_by = 0;
        self.at += 1;
        if self.at == self.beats.len() && self.rounds > 0 {
            self.rounds -= 1;
            self.at = 0;
        }
        Some(deeds)
    }

    pub(crate) fn hold(&mut self, event: Event) {
        self.held.push(event);
    }

    /// Nothing more happens.
    pub(crate) fn end(&mut self) {
        self.beats.clear();
    }
}

impl State {
    /// A step is taken: what the plot has in store for it happens.
    pub(crate) fn reach(&mut self, step: Step, task: usize) -> Way {
        let Some(deeds) = self.plot.take(step, task) else {
            return Way::Free;
        };
        tracing::debug!(target: "story", ms = self.now / MS, task, ?step, ?deeds, "beat");
        let mut way = Way::Free;
        for deed in deeds {
            match deed {
                Deed::Hold(longest) => {
                    way = Way::Held;
                    self.after(longest, Event::Fault(Fault::Release));
                }
                Deed::Lose => way = Way::Lost,
                other => self.do_deed(other, task),
            }
        }
        way
    }

    fn do_deed(&mut self, deed: Deed, task: usize) {
        let process = self.tasks[task].process;
        match deed {
            Deed::Hold(_) | Deed::Lose => {}
            // What is held on this very step arrives, too.
            Deed::Release => self.at(self.now, Event::Fault(Fault::Release)),
            Deed::Pause(pause) => self.pause(process, pause),
            Deed::Kill => self.at(self.now, Event::Fault(Fault::KillOf(process))),
            Deed::Pass(deaf) => {
                let others: Vec<usize> = (0..self.processes.len())
                    .filter(|at| {
                        *at != process && self.processes[*at].alive && self.processes[*at].paused_until <= self.now
                    })
                    .collect();
                if others.is_empty() {
                    return;
                }
                let lane = self.lane_of(task);
                let next = self.chance.one_of(&others);
                self.owners[lane] = next;
                for other in others {
                    let latency = self.chance.latency();
                    self.after(latency, Event::Assigned { process: other });
                }
                self.after(deaf, Event::Assigned { process });
            }
            Deed::Redis(harm) => self.harm_redis(harm),
            Deed::Hole => {
                let (lane, width) = (self.lane_of(task), 1 + self.chance.index(3));
                self.kafka.commands[lane].slots.extend((0..width).map(|_| None));
            }
        }
    }

    fn lane_of(&self, task: usize) -> usize {
        let process = &self.processes[self.tasks[task].process];
        task - process.tasks[0]
    }

    /// What was held arrives, in the order in which it was sent.
    pub(crate) fn release(&mut self) {
        self.plot.held_connections.clear();
        self.plot.held_writers.clear();
        for event in std::mem::take(&mut self.plot.held) {
            self.at(self.now, event);
        }
    }
}
