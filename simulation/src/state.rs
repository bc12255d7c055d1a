//! The state of a simulated world: its clock, its agenda, its tasks, and the engines.
//!
//! Nothing happens but what stands on the agenda, earliest first; whoever waits has put its own waking there. So a seed
//! decides everything, and the same seed is the same story.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex},
};

use crate::{
    chance::Chance,
    clients::Clients,
    faults::{Fault, Weather},
    kafka::{Append, Done, Kafka},
    mutants::Mutant,
    plot::Plot,
    postgres::Postgres,
    redis::Redis,
};
use plumbing::kafka::producer::{Position, ProduceError};

/// Time in microseconds since the story began.
pub(crate) type Micros = u64;
/// A millisecond.
pub(crate) const MS: Micros = 1_000;
/// A second.
pub(crate) const SECOND: Micros = 1_000 * MS;
/// The wall clock at the beginning, in milliseconds.
pub(crate) const BEGIN_MS: i64 = 1_700_000_000_000;

/// What stands on the agenda.
pub(crate) enum Event {
    /// A task goes on, if it still waits where it waited.
    Resume { task: usize, token: u64 },
    /// A record reaches its partition.
    Append(Box<Append>),
    /// A writer learns the fate of a record.
    Fate(Done, Result<Position, ProduceError>),
    /// A request reaches Redis.
    Execute(u64),
    /// A process starts in the place of one that ended.
    Start,
    /// A process hears which lanes are its own.
    Assigned { process: usize },
    /// Something goes wrong.
    Fault(Fault),
    /// Somebody sends the command of this number of the story.
    Send(usize),
    /// Ingress reads on.
    Tail(usize),
    /// The expirer looks around.
    Expirer,
    /// A persister goes on with a lane.
    Persist { persister: usize, lane: usize },
    /// A Redis that was replaced ends for those who still talk to it.
    RedisEnds(usize),
    /// Redis takes connections again.
    RedisUp,
}

struct Due {
    at: Micros,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A lane's thread of a process.
pub(crate) struct Task {
    pub(crate) process: usize,
    /// Counts its waits: a waking that is meant for an earlier one is too late.
    pub(crate) token: u64,
    /// The last epoch that it opened.
    pub(crate) epoch: i64,
    /// Its last connection to Redis.
    pub(crate) connection: Option<usize>,
    /// Where its events ended when it wrote that `LaneOpened`.
    pub(crate) end_when_opened: i64,
    /// Commands of decisions that were acknowledged since the last script call.
    pub(crate) acknowledged: Vec<i64>,
}

/// A reserver.
pub(crate) struct Process {
    pub(crate) tasks: Vec<usize>,
    pub(crate) alive: bool,
    /// Stopped by a signal until then.
    pub(crate) paused_until: Micros,
    pub(crate) assigned: tokio::sync::watch::Sender<std::collections::BTreeSet<i32>>,
    pub(crate) stopper: plumbing::stop::Stopper,
    pub(crate) health: plumbing::health::Health,
}

/// Everything but the lanes' threads themselves.
pub(crate) struct State {
    pub(crate) now: Micros,
    pub(crate) chance: Chance,
    pub(crate) lanes: usize,
    pub(crate) kafka: Kafka,
    pub(crate) redis: Redis,
    pub(crate) postgres: Postgres,
    pub(crate) clients: Clients,
    pub(crate) tasks: Vec<Task>,
    pub(crate) processes: Vec<Process>,
    /// Which process the group gives each lane to.
    pub(crate) owners: Vec<usize>,
    pub(crate) weather: Weather,
    pub(crate) plot: Plot,
    pub(crate) mutant: Option<Mutant>,
    /// Tasks whose futures got what they wait for.
    pub(crate) rung: Arc<Mutex<Vec<usize>>>,
    /// The first thing that was seen and must not be.
    pub(crate) violation: Option<String>,
    /// A digest of all that happened: two runs of a seed have the same.
    pub(crate) digest: u64,
    /// Records on their way, and fates that their writers do not know yet.
    pub(crate) under_way: usize,
    agenda: BinaryHeap<Reverse<Due>>,
    order: u64,
}

fn is_under_way(event: &Event) -> bool {
    matches!(event, Event::Append(_) | Event::Fate(..))
}

impl State {
    pub(crate) fn new(chance: Chance, lanes: usize, weather: Weather, mutant: Option<Mutant>) -> Self {
        Self {
            now: 0,
            chance,
            lanes,
            kafka: Kafka::new(lanes),
            redis: Redis::new(),
            postgres: Postgres::new(lanes),
            clients: Clients::new(lanes),
            tasks: Vec::new(),
            processes: Vec::new(),
            owners: vec![0; lanes],
            weather,
            plot: Plot::default(),
            mutant,
            rung: Arc::default(),
            violation: None,
            digest: 0,
            under_way: 0,
            agenda: BinaryHeap::new(),
            order: 0,
        }
    }

    /// Puts something on the agenda.
    pub(crate) fn at(&mut self, at: Micros, event: Event) {
        self.order += 1;
        self.under_way += usize::from(is_under_way(&event));
        let due = Due {
            at: at.max(self.now),
            order: self.order,
            event,
        };
        self.agenda.push(Reverse(due));
    }

    /// The same, after a while.
    pub(crate) fn after(&mut self, delay: Micros, event: Event) {
        self.at(self.now + delay, event);
    }

    /// Takes the next thing from the agenda and sets the clock.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let Reverse(Due { at, event, .. }) = self.agenda.pop()?;
        self.now = at;
        self.under_way -= usize::from(is_under_way(&event));
        Some(event)
    }

    /// Nobody sends any more, and what was sent is lost.
    pub(crate) fn freeze(&mut self) {
        let agenda = std::mem::take(&mut self.agenda);
        let stays = |due: &Reverse<Due>| match due.0.event {
            Event::Append(_) | Event::Send(_) | Event::Expirer | Event::Start | Event::Fault(_) => false,
            Event::Resume { .. }
            | Event::Fate(..)
            | Event::Execute(_)
            | Event::Assigned { .. }
            | Event::Tail(_)
            | Event::Persist { .. }
            | Event::RedisEnds(_)
            | Event::RedisUp => true,
        };
        self.agenda = agenda.into_iter().filter(stays).collect();
        let under_way = |due: &&Reverse<Due>| is_under_way(&due.0.event);
        self.under_way = self.agenda.iter().filter(under_way).count();
    }

    /// Wakes a task now, wherever it waits.
    pub(crate) fn wake(&mut self, task: usize) {
        let token = self.tasks[task].token;
        self.at(self.now, Event::Resume { task, token });
    }

    /// Wakes the tasks whose futures are ready.
    pub(crate) fn wake_rung(&mut self) {
        let rung = std::mem::take(&mut *self.rung.lock().expect("nobody panics here"));
        for task in rung {
            self.wake(task);
        }
    }

    /// The wall clock, in milliseconds.
    pub(crate) fn wall_ms(&self) -> i64 {
        BEGIN_MS + i64::try_from(self.now / MS).expect("stories are short")
    }

    /// Whether a rule is left out.
    pub(crate) fn breaks(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Takes something that happened into the digest.
    pub(crate) fn note(&mut self, what: u64) {
        self.digest = (self.digest.rotate_left(5) ^ what ^ self.now).wrapping_mul(0x2545_f491_4f6c_dd1d);
    }

    /// Says what must not be; the first one counts.
    pub(crate) fn violate(&mut self, what: impl Into<String>) {
        if self.violation.is_none() {
            self.violation = Some(what.into());
        }
    }
}
