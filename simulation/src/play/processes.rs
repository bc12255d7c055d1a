//! Processes of a story: they start, end, die, and hear which lanes are theirs.

use std::collections::BTreeSet;

use corosensei::{Coroutine, stack::DefaultStack};
use domain::{Lane, Text};
use plumbing::{health::Health, stop};
use reserver::Shared;
use schemas::Topics;
use tokio::sync::watch;

use super::{Play, STACK_BYTES, Thread};
use crate::{
    faults::Fault,
    process::Port,
    state::{Event, MS, Process, SECOND, State, Task},
    story,
};

impl Play<'_> {
    /// A thread has ended by itself: its process was told to end.
    pub(super) fn returned(&mut self, task: usize) {
        self.bury(task);
        let mut state = self.state.borrow_mut();
        let process = state.tasks[task].process;
        let over = state.processes[process]
            .tasks
            .iter()
            .all(|task| self.threads[*task].is_none());
        if over && state.processes[process].alive {
            state.processes[process].alive = false;
            let away = state.chance.from(10 * MS, 2 * SECOND);
            state.after(away, Event::Start);
        }
    }

    pub(super) fn bury(&mut self, task: usize) {
        if let Some(mut thread) = self.threads[task].take() {
            // Its destructors run; they ask nothing of the world.
            thread.force_unwind();
            self.stage.stacks.push(thread.into_stack());
        }
    }

    pub(super) fn kill_one(&mut self) {
        let victim = self.state.borrow_mut().victim();
        if let Some(process) = victim {
            self.kill_of(process);
        }
    }

    pub(super) fn kill_of(&mut self, process: usize) {
        if !self.state.borrow().processes[process].alive {
            return;
        }
        self.kill(process);
        let mut state = self.state.borrow_mut();
        let (away, noticed) = (
            state.chance.from(10 * MS, 3 * SECOND),
            state.chance.from(100 * MS, 6 * SECOND),
        );
        state.after(away, Event::Start);
        state.after(noticed, Event::Fault(Fault::Regroup));
    }

    pub(super) fn kill(&mut self, process: usize) {
        tracing::debug!(target: "story", process, "killed");
        self.state.borrow_mut().processes[process].alive = false;
        let tasks = self.state.borrow().processes[process].tasks.clone();
        for task in tasks {
            self.bury(task);
        }
    }

    pub(super) fn start(&mut self) {
        let process = self.state.borrow().processes.len();
        let (assigned, hint) = watch::channel(BTreeSet::new());
        let (stopper, stop) = stop::pair();
        let health = Health::new();
        let lanes = self.state.borrow().lanes;
        let first = self.threads.len();
        self.state.borrow_mut().processes.push(Process {
            tasks: (first..first + lanes).collect(),
            alive: true,
            paused_until: 0,
            assigned,
            stopper,
            health: health.clone(),
        });
        for lane in 0..lanes {
            let task = first + lane;
            self.state.borrow_mut().tasks.push(Task {
                process,
                token: 0,
                epoch: -1,
                connection: None,
                end_when_opened: -1,
                acknowledged: Vec::new(),
            });
            let thread = self.thread(process, task, lane, &health, hint.clone(), stop.clone());
            self.threads.push(Some(thread));
            self.state.borrow_mut().wake(task);
        }
        self.state.borrow_mut().regroup();
    }

    fn thread(
        &mut self,
        process: usize,
        task: usize,
        lane: usize,
        health: &Health,
        hint: watch::Receiver<BTreeSet<i32>>,
        stop: stop::Stop,
    ) -> Thread {
        let stack = self.stage.stacks.pop();
        let stack = stack.unwrap_or_else(|| DefaultStack::new(STACK_BYTES).expect("memory for a stack"));
        let (state, health, codec) = (self.state.clone(), health.clone(), self.stage.codec.clone());
        let (begun, lanes) = (self.stage.begun, self.state.borrow().lanes);
        let batch = self.batch;
        Coroutine::with_stack(stack, move |yielder, ()| {
            let shared = Shared {
                world: Port {
                    state,
                    yielder,
                    task,
                    epoch_of_time: begun,
                },
                options: story::options(batch),
                redis_prefix: "hf".to_owned(),
                topics: Topics::with_prefix(""),
                forwards_group: reserver::forwards_group(""),
                lanes: u16::try_from(lanes).expect("few lanes"),
                codec,
                owner: Text::parse("owner", &format!("process-{process}")).expect("short"),
                health,
                turns: reserver::Turns::default(),
            };
            let lane = Lane::new(i32::try_from(lane).expect("few lanes")).expect("few lanes");
            reserver::run_lane(&shared, lane, &hint, &stop);
        })
    }
}

/// A process hears which lanes the group gives it now.
pub(super) fn assigned(state: &State, process: usize) {
    let own = (0..state.lanes).filter(|lane| state.owners[*lane] == process);
    let own = own.map(|lane| i32::try_from(lane).expect("few lanes"));
    state.processes[process].assigned.send_replace(own.collect());
}
