//! Playing a story: the agenda from its first entry to the moment when all has settled, and then the judge.

mod loss;
mod processes;

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    time::Instant,
};

use corosensei::{Coroutine, CoroutineResult, stack::DefaultStack};
use schemas::{Codec, Registry};

use crate::{
    chance::Chance,
    faults::{Fault, Weather},
    judge,
    mutants::{self, Mutant},
    plot::{Family, Plot},
    postgres::PERSISTERS,
    redis::{Harm, lua::Host},
    state::{Event, MS, Micros, SECOND, State},
    story::Pace,
};
use loss::{Loss, loss_of};
use processes::assigned;

/// A lane must decide all that is sent within so long after the healing.
const BOUND: Micros = 60 * SECOND;
/// What has settled must stay so for this long before it is judged: what is done once a second is done by then.
const STILL: Micros = 3 * SECOND;
/// Nobody looks more often.
const LOOK: Micros = 500 * MS;
/// Deep enough for a rebuild in a debug build.
const STACK_BYTES: usize = 512 * 1024;

type Thread = Coroutine<(), (), (), DefaultStack>;

/// What one process needs to play stories, one after the other: made once.
pub struct Stage {
    host: Host,
    codec: Codec,
    stacks: Vec<DefaultStack>,
    begun: Instant,
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

impl Stage {
    /// An empty stage.
    ///
    /// # Panics
    /// Never: the registry is never asked.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new("http://127.0.0.1:1").expect("a legal URL");
        Self {
            host: Host::new(),
            codec: Codec::with_ids(registry, 1, 2),
            stacks: Vec::new(),
            begun: Instant::now(),
        }
    }
}

/// How a story ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// What must not be and was; none: every promise was kept.
    pub violation: Option<String>,
    /// A digest of all that happened.
    pub digest: u64,
    /// How long it was, in simulated milliseconds.
    pub length_ms: u64,
    /// Commands that were decided.
    pub decided: u64,
    /// Decisions that are void.
    pub void: u64,
    /// Turns on lanes.
    pub turns: u64,
}

/// Plays the story of a seed; `mutant`: without one of the rules. A panic of the code under test is a broken promise.
pub fn play(stage: &mut Stage, seed: u64, mutant: Option<Mutant>) -> Ending {
    match catch_unwind(AssertUnwindSafe(|| play_story(stage, seed, mutant))) {
        Ok(ending) => ending,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let text = text.unwrap_or_default();
            if text.contains(mutants::CHANGED) {
                resume_unwind(panic);
            }
            *stage = Stage::new();
            Ending {
                violation: Some(format!("panic: {text}")),
                ..Ending::default()
            }
        }
    }
}

fn play_story(stage: &mut Stage, seed: u64, mutant: Option<Mutant>) -> Ending {
    let mut chance = Chance::of(seed);
    let family = Family::of(seed);
    let loss = match family {
        Some(_) => None,
        None => loss_of(&mut chance, mutant),
    };
    // What another lane sends would cover the loss.
    let lanes = if loss.is_some() || chance.permille(500) { 1 } else { 2 };
    let calm = family.is_none() && chance.permille(30);
    let mut weather = if calm {
        Weather::fair()
    } else {
        Weather::of(&mut chance, family)
    };
    if matches!(loss, Some(Fault::LoseEvents)) {
        // What is decided again is decided otherwise.
        weather.seems_full = 1_000;
    }
    let mut state = State::new(chance, lanes, weather, mutant);
    state.clients.codec = Some(stage.codec.clone());
    let storm = state.chance.from(2 * SECOND, 9 * SECOND);
    let pace = match family {
        Some(Family::LostSkip) => Pace::Silence,
        Some(_) if state.chance.permille(700) => Pace::Bursts,
        _ => Pace::Any,
    };
    state.plan_commands(storm, pace);
    match family {
        Some(family) => {
            state.plot = Plot::drawn(&mut state.chance, family);
            if state.chance.permille(300) {
                state.plan_faults(storm, 4);
            }
        }
        None if !calm => state.plan_faults(storm, 14),
        None => {}
    }
    state.at(storm, Event::Fault(loss.unwrap_or(Fault::Heal)));
    state.begin();
    let mut play = Play {
        stage,
        batch: state.chance.one_of(&[1, 2, 128]),
        epilogue: state.chance.permille(100),
        state: Rc::new(RefCell::new(state)),
        threads: Vec::new(),
        storm,
        loss: None,
        settled_at: None,
    };
    play.run();
    play.end()
}

impl State {
    /// Puts on the agenda who is there from the beginning.
    fn begin(&mut self) {
        for lane in 0..self.lanes {
            for persister in 0..PERSISTERS {
                self.at(0, Event::Persist { persister, lane });
            }
        }
        self.at(0, Event::Expirer);
        for _ in 0..2 + self.chance.index(2) {
            self.at(0, Event::Start);
        }
    }
}

struct Play<'s> {
    stage: &'s mut Stage,
    state: Rc<RefCell<State>>,
    threads: Vec<Option<Thread>>,
    storm: Micros,
    /// The most commands in one script call.
    batch: u16,
    /// What was lost of a log on purpose.
    loss: Option<Loss>,
    /// Whether a quiet lane's Redis is emptied in the end.
    epilogue: bool,
    /// Since when all has settled.
    settled_at: Option<Micros>,
}

impl Play<'_> {
    fn run(&mut self) {
        while let Some(event) = self.next() {
            self.happen(event);
            let mut state = self.state.borrow_mut();
            state.wake_rung();
            if state.violation.is_some() {
                return;
            }
            drop(state);
            if self.is_over() {
                if !std::mem::take(&mut self.epilogue) || self.loss.is_some() {
                    return;
                }
                let mut state = self.state.borrow_mut();
                state.harm_redis(Harm::Flush);
                (self.storm, self.settled_at) = (state.now, None);
            }
        }
    }

    fn next(&self) -> Option<Event> {
        self.state.borrow_mut().next()
    }

    fn is_over(&self) -> bool {
        let now = self.state.borrow().now;
        match self.loss {
            Some(loss) => now >= self.storm + loss.length(),
            None => self.settled_at.is_some_and(|since| now >= since + STILL),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Resume { task, token } => return self.resume(task, token),
            Event::Start => return self.start(),
            Event::Fault(Fault::Kill) => return self.kill_one(),
            Event::Fault(Fault::KillOf(process)) => return self.kill_of(process),
            Event::Fault(Fault::Heal) => return self.heal(),
            Event::Fault(Fault::Look) => return self.look(),
            Event::Fault(fault @ (Fault::CutCommands | Fault::LoseCommands | Fault::LoseEvents)) => {
                return self.lose(fault);
            }
            Event::Execute(call) => return self.state.borrow_mut().execute(call, &self.stage.host),
            _ => {}
        }
        let mut state = self.state.borrow_mut();
        match event {
            Event::Append(append) => {
                // What a dead process had sent may still arrive, or not.
                let orphan = append
                    .task
                    .is_some_and(|task| !state.processes[state.tasks[task].process].alive);
                if !(orphan && state.chance.permille(500)) {
                    state.append(*append);
                }
            }
            Event::Fate(done, result) => {
                drop(state);
                done(result);
            }
            Event::Assigned { process } => assigned(&state, process),
            Event::Fault(Fault::End) => {
                if let Some(process) = state.victim() {
                    state.processes[process].stopper.stop();
                    let noticed = state.chance.from(100 * MS, SECOND);
                    state.after(noticed, Event::Fault(Fault::Regroup));
                }
            }
            Event::Fault(fault) => state.befall(fault),
            Event::Send(number) => state.send(number),
            Event::Tail(lane) => state.read_tail(lane),
            Event::Expirer => state.expire(),
            Event::Persist { persister, lane } => state.persist(persister, lane),
            Event::RedisEnds(instance) => state.redis_ends(instance),
            Event::RedisUp => state.redis.down = false,
            Event::Resume { .. } | Event::Start | Event::Execute(_) => unreachable!("done above"),
        }
    }

    /// A lane's thread goes on, unless it waits for something else by now, is stopped, or dead.
    fn resume(&mut self, task: usize, token: u64) {
        {
            let mut state = self.state.borrow_mut();
            if state.tasks[task].token != token {
                return;
            }
            let paused_until = state.processes[state.tasks[task].process].paused_until;
            if paused_until > state.now {
                return state.at(paused_until, Event::Resume { task, token });
            }
        }
        let Some(thread) = &mut self.threads[task] else { return };
        match thread.resume(()) {
            CoroutineResult::Yield(()) => {}
            CoroutineResult::Return(()) => self.returned(task),
        }
    }

    fn heal(&mut self) {
        let mut state = self.state.borrow_mut();
        state.heal();
        if state.chance.permille(500) {
            state.regroup();
        }
        if state.redis.set_back && self.loss.is_none() {
            state.after(SECOND, Event::Fault(Fault::Nudge));
            state.after(3 * SECOND, Event::Fault(Fault::Look));
        } else {
            state.after(LOOK, Event::Fault(Fault::Look));
        }
    }

    /// Looks whether all is decided, read, persisted and over.
    fn look(&mut self) {
        if self.loss.is_some() {
            return;
        }
        let mut state = self.state.borrow_mut();
        match judge::unsettled(&state) {
            None => {
                self.settled_at.get_or_insert(state.now);
            }
            Some(what) if state.now > self.storm + BOUND => {
                state.violate(format!("{} s after the healing: {what}", BOUND / SECOND));
            }
            Some(_) => self.settled_at = None,
        }
        state.after(LOOK, Event::Fault(Fault::Look));
    }

    fn end(mut self) -> Ending {
        let violation = {
            let mut state = self.state.borrow_mut();
            state.violation.take()
        };
        let violation = violation.or_else(|| match self.loss {
            Some(loss) => loss.judge(&self.state.borrow()).err(),
            None => judge::judge(&self.state.borrow(), &self.stage.host).err(),
        });
        for task in 0..self.threads.len() {
            self.bury(task);
        }
        let state = self.state.borrow();
        let records = || state.kafka.events.iter().flat_map(|lane| lane.slots.iter().flatten());
        let count = |verdict| records().filter(|record| record.verdict == verdict).count() as u64;
        Ending {
            violation,
            digest: state.digest,
            length_ms: state.now / MS,
            decided: count(domain::Verdict::Valid),
            void: count(domain::Verdict::Void),
            turns: count(domain::Verdict::Opened),
        }
    }
}
