//! Tasks and threads: named, waited for, and a panic is an error that somebody gets.
//!
//! A bare `tokio::spawn` loses a panic, and its work at shutdown, without a word. Here each spawn gives a [`Task`] to
//! await, and [`Tasks`] is the set that a role runs: the first failure stops the others, and nobody outlives the deadline.

use std::any::Any;
use std::borrow::Cow;
use std::fmt::Display;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::stop::{Stop, Stopper};

/// Why a task has no output.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// It panicked: a fault in the program.
    #[error("{name} panicked: {message}")]
    Panicked {
        /// The task.
        name: Cow<'static, str>,
        /// What the panic said.
        message: String,
    },
    /// It was aborted, or its runtime is gone.
    #[error("{name} was aborted")]
    Aborted {
        /// The task.
        name: Cow<'static, str>,
    },
    /// These did not end within the deadline after a stop.
    #[error("{names} did not end within {deadline_ms} ms of the stop")]
    Late {
        /// The tasks, separated by commas.
        names: String,
        /// The deadline that they missed.
        deadline_ms: u128,
    },
}

/// A spawned task or thread; its future gives the output. Dropping it lets the work go on unseen.
#[derive(Debug)]
#[must_use = "await it, or give it to `Tasks`: its panic is lost otherwise"]
pub struct Task<T> {
    name: Cow<'static, str>,
    work: Work<T>,
}

#[derive(Debug)]
enum Work<T> {
    Task(tokio::task::JoinHandle<T>),
    Thread(oneshot::Receiver<thread::Result<T>>),
}

/// Spawns a task on the runtime. Its log lines carry the name.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns tasks")]
pub fn spawn<T, F>(name: impl Into<Cow<'static, str>>, future: F) -> Task<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let name = name.into();
    let span = tracing::error_span!("task", name = %name);
    Task {
        work: Work::Task(tokio::spawn(future.instrument(span))),
        name,
    }
}

/// Spawns one of very many tasks that are polled for every request: its log lines say themselves whom they are about, for a name
/// would be entered and left at each poll.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns tasks")]
pub fn spawn_one_of_many<F>(future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    drop(tokio::spawn(future));
}

/// Spawns a thread of the operating system, for work that blocks for long (a poll loop). Its log lines carry the name.
pub fn thread<T, F>(name: impl Into<Cow<'static, str>>, work: F) -> Task<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let name = name.into();
    let (done, outcome) = oneshot::channel();
    let span = tracing::error_span!("thread", name = %name);
    thread::Builder::new()
        .name(name.to_string())
        .spawn(move || {
            let result = span.in_scope(|| catch_unwind(AssertUnwindSafe(work)));
            // Nobody waits any more: the output has nowhere to go, and the hook has logged a panic.
            drop(done.send(result));
        })
        .expect("names here hold no NUL, and a process without threads left cannot work anyway");
    Task {
        work: Work::Thread(outcome),
        name,
    }
}

impl<T> Task<T> {
    /// The name that it was spawned with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has it ended, in whatever way?
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.work {
            Work::Task(handle) => handle.is_finished(),
            Work::Thread(outcome) => !outcome.is_empty() || outcome.is_terminated(),
        }
    }

    /// Ends a task at its next await; awaiting it gives [`Error::Aborted`]. A thread goes on: it has to watch a [`Stop`].
    pub fn abort(&self) {
        if let Work::Task(handle) = &self.work {
            handle.abort();
        }
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let panic = match &mut self.work {
            Work::Task(handle) => match ready!(Pin::new(handle).poll(cx)) {
                Ok(output) => return Poll::Ready(Ok(output)),
                Err(error) => error.try_into_panic().ok(),
            },
            Work::Thread(outcome) => match ready!(Pin::new(outcome).poll(cx)) {
                Ok(Ok(output)) => return Poll::Ready(Ok(output)),
                Ok(Err(panic)) => Some(panic),
                Err(_gone) => None,
            },
        };
        let name = self.name.clone();
        Poll::Ready(Err(match panic {
            Some(panic) => Error::Panicked {
                name,
                message: panic_message(&*panic),
            },
            None => Error::Aborted { name },
        }))
    }
}

/// What a panic said, if it said it in text.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
        .to_owned()
}

/// The tasks of one role. Those of one kind of error, such as `anyhow::Error` or the role's own.
#[derive(Debug)]
pub struct Tasks<E> {
    running: FuturesUnordered<Task<Result<(), E>>>,
    stopper: Stopper,
    stop: Stop,
}

impl<E> Tasks<E>
where
    E: From<Error> + Display + Send + 'static,
{
    /// An empty set under a child of `stop`: when one task fails, the set stops and the rest of the process does not.
    #[must_use]
    pub fn new(stop: &Stop) -> Self {
        let (stopper, stop) = stop.child();
        Self {
            running: FuturesUnordered::new(),
            stopper,
            stop,
        }
    }

    /// The stop that the tasks of this set must watch.
    #[must_use]
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Spawns a task into the set.
    pub fn spawn<F>(&mut self, name: impl Into<Cow<'static, str>>, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        self.add(spawn(name, future));
    }

    /// Spawns a thread into the set. It has to watch [`Tasks::stop`] at least every few 100 ms.
    pub fn thread<F>(&mut self, name: impl Into<Cow<'static, str>>, work: F)
    where
        F: FnOnce() -> Result<(), E> + Send + 'static,
    {
        self.add(thread(name, work));
    }

    /// Puts a task that runs already into the set.
    pub fn add(&mut self, task: Task<Result<(), E>>) {
        self.running.push(task);
    }

    /// Waits until all have ended. An error or a panic of one stops the others; after any stop they have `deadline` to
    /// end, then tasks are aborted (a thread cannot be) and [`Error::Late`] names them.
    ///
    /// # Errors
    /// The first failure. Later ones are logged here.
    pub async fn join_all(mut self, deadline: Duration) -> Result<(), E> {
        let stop = self.stop.clone();
        let overdue = async {
            stop.requested().await;
            tokio::time::sleep(deadline).await;
        };
        tokio::pin!(overdue);
        let mut first = Ok(());
        loop {
            let ended = tokio::select! {
                ended = self.running.next() => ended,
                () = &mut overdue => return first.and(Err(self.abort_late(deadline).into())),
            };
            let Some(ended) = ended else { return first };
            let Err(error) = ended.map_err(E::from).flatten() else {
                continue;
            };
            if first.is_ok() {
                first = Err(error);
                self.stopper.stop();
            } else {
                tracing::error!("another task failed as well: {error:#}");
            }
        }
    }

    fn abort_late(&self, deadline: Duration) -> Error {
        let late: Vec<_> = self.running.iter().map(Task::name).collect();
        let names = late.join(", ");
        tracing::error!(tasks = %names, "tasks are aborted: they did not end within {} ms of the stop", deadline.as_millis());
        self.running.iter().for_each(Task::abort);
        Error::Late {
            names,
            deadline_ms: deadline.as_millis(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::stop;

    const SOON: Duration = Duration::from_secs(10);

    #[derive(Debug, PartialEq, thiserror::Error)]
    enum Fault {
        #[error("broken: {0}")]
        Broken(&'static str),
        #[error(transparent)]
        Task(#[from] Error),
    }

    #[tokio::test]
    async fn outputs_and_panics_of_tasks_and_threads_arrive() {
        assert_eq!(spawn("sum", async { 1 + 1 }).await, Ok(2));
        assert_eq!(thread("sum", || 1 + 1).await, Ok(2));
        let panicked = |message: &str| Error::Panicked {
            name: "doomed".into(),
            message: message.to_owned(),
        };
        let number = 7;
        assert_eq!(
            spawn("doomed", async move { assert!(number == 8, "no {number}") }).await,
            Err(panicked("no 7"))
        );
        assert_eq!(
            thread("doomed", || panic!("plain")).await.map(|(): ()| ()),
            Err(panicked("plain"))
        );
        let endless = spawn("endless", std::future::pending::<()>());
        endless.abort();
        assert_eq!(endless.await, Err(Error::Aborted { name: "endless".into() }));
    }

    #[tokio::test]
    async fn a_thread_says_when_it_is_finished() {
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let task = thread("waits", move || finished.recv().is_ok());
        assert!(!task.is_finished());
        finish.send(()).unwrap();
        while !task.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(task.await, Ok(true));
    }

    #[tokio::test]
    async fn the_first_failure_stops_the_others_and_nobody_else() {
        let (_stopper, stop) = stop::pair();
        let mut tasks = Tasks::<Fault>::new(&stop);
        let drained = Arc::new(AtomicBool::new(false));
        let (asked, seen) = (tasks.stop().clone(), Arc::clone(&drained));
        tasks.spawn("drains", async move {
            asked.requested().await;
            seen.store(true, Ordering::Relaxed);
            Err(Fault::Broken("second"))
        });
        tasks.thread("fails", || Err(Fault::Broken("first")));
        assert_eq!(tasks.join_all(SOON).await, Err(Fault::Broken("first")));
        assert!(drained.load(Ordering::Relaxed) && !stop.is_requested());
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let mut tasks = Tasks::<Fault>::new(&Stop::never());
        let asked = tasks.stop().clone();
        tasks.spawn("waits", async move {
            asked.requested().await;
            Ok(())
        });
        tasks.spawn("panics", async { panic!("ouch") });
        let error = tasks.join_all(SOON).await.unwrap_err();
        assert_eq!(error.to_string(), "panics panicked: ouch");
    }

    #[tokio::test]
    async fn who_ignores_the_stop_is_aborted_and_named() {
        let (stopper, stop) = stop::pair();
        let mut tasks = Tasks::<Fault>::new(&stop);
        tasks.spawn("deaf", std::future::pending());
        tasks.spawn("quick", async { Ok(()) });
        stopper.stop();
        let late = Error::Late {
            names: "deaf".to_owned(),
            deadline_ms: 20,
        };
        assert_eq!(tasks.join_all(Duration::from_millis(20)).await, Err(Fault::Task(late)));
    }

    #[tokio::test]
    async fn all_may_end_by_themselves() {
        let mut tasks = Tasks::<Fault>::new(&Stop::never());
        for _ in 0..10 {
            tasks.spawn("short", async { Ok(()) });
        }
        assert_eq!(tasks.join_all(SOON).await, Ok(()));
    }
}
