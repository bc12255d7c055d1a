//! The world as one lane's thread sees it: every call of it waits on the agenda, and may be the last.

mod connection;
mod reader;
mod writer;

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    pin::pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use corosensei::Yielder;
use domain::{Lane, Ledger, Millis};
use plumbing::kafka::KafkaError;
use redis::RedisResult;
use reserver::world::World;
use schemas::{
    Topics,
    picture::{self, Checkpoint},
};
use uuid::Uuid;

use crate::{
    kafka::{self, Topic},
    redis::broken,
    state::{Event, MS, Micros, SECOND, State},
};
use connection::Connection;
use reader::Reader;
use writer::Writer;

/// How long a broker is asked before it counts as not answering.
const ASK_TIMEOUT: Micros = 5 * SECOND;

/// One lane's thread in its world.
#[derive(Clone)]
pub(crate) struct Port<'y> {
    pub(crate) state: Rc<RefCell<State>>,
    pub(crate) yielder: &'y Yielder<(), ()>,
    pub(crate) task: usize,
    pub(crate) epoch_of_time: Instant,
}

struct Bell {
    task: usize,
    rung: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.lock().expect("nobody panics here").push(self.task);
    }
}

impl Port<'_> {
    /// Waits until then, or until somebody wakes this task.
    fn suspend_until(&self, at: Micros) {
        {
            let mut state = self.state.borrow_mut();
            let task = self.task;
            state.tasks[task].token += 1;
            let token = state.tasks[task].token;
            state.at(at, Event::Resume { task, token });
        }
        self.yielder.suspend(());
    }

    fn pass(&self, delay: Micros) {
        let until = self.micros() + delay;
        while self.micros() < until {
            self.suspend_until(until);
        }
    }

    fn travel(&self) {
        let latency = self.state.borrow_mut().chance.latency();
        self.pass(latency);
    }

    fn micros(&self) -> Micros {
        self.state.borrow().now
    }

    /// Asks a broker something; it does not answer while it is down.
    fn ask(&self) -> Result<(), KafkaError> {
        self.travel();
        let patience = self.micros() + ASK_TIMEOUT;
        while self.state.borrow().kafka.down_until > self.micros() {
            if self.micros() >= patience {
                return Err(kafka::no_answer());
            }
            self.pass(50 * MS);
        }
        Ok(())
    }

    fn picture_answers(&self) -> Result<(), picture::Error> {
        self.travel();
        if self.state.borrow().postgres.down_until > self.micros() {
            return Err(picture::Error::Database(sqlx::Error::PoolTimedOut));
        }
        Ok(())
    }
}

impl<'y> World for Port<'y> {
    type Reader = Reader<'y>;
    type Writer = Writer<'y>;
    type Redis = Connection<'y>;

    fn reader(&self, _client_id: &str) -> Result<Reader<'y>, KafkaError> {
        let id = self.state.borrow_mut().kafka.new_reader(self.task);
        Ok(Reader { port: self.clone(), id })
    }

    fn writer(&self, _client_id: &str) -> Result<Writer<'y>, KafkaError> {
        let id = self.state.borrow_mut().kafka.new_writer();
        Ok(Writer { port: self.clone(), id })
    }

    fn redis(&self) -> RedisResult<Connection<'y>> {
        self.travel();
        let mut state = self.state.borrow_mut();
        let id = state.redis.connect().ok_or_else(broken)?;
        state.tasks[self.task].connection = Some(id);
        drop(state);
        Ok(Connection {
            port: self.clone(),
            id,
            sent: VecDeque::new(),
        })
    }

    fn checkpoint(&self, lane: Lane) -> Result<Option<Checkpoint>, picture::Error> {
        self.picture_answers()?;
        Ok(self.state.borrow().postgres.lanes[usize::from(lane.number())].checkpoint)
    }

    fn picture(
        &self,
        lane: Lane,
        remember_ms: i64,
        _tell: impl FnMut(usize) + Send,
    ) -> Result<Option<(Checkpoint, Ledger)>, picture::Error> {
        self.picture_answers()?;
        let state = self.state.borrow();
        let picture = &state.postgres.lanes[usize::from(lane.number())];
        Ok(picture.checkpoint.map(|checkpoint| {
            let mut ledger = picture.ledger.clone();
            ledger.forget(checkpoint.state.log_time, remember_ms);
            (checkpoint, ledger)
        }))
    }

    fn wait<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let bell = Bell {
            task: self.task,
            rung: self.state.borrow().rung.clone(),
        };
        let waker = Waker::from(Arc::new(bell));
        let mut context = Context::from_waker(&waker);
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(output) => return output,
                Poll::Pending => self.suspend_until(self.micros() + 3_600 * SECOND),
            }
        }
    }

    fn now(&self) -> Instant {
        self.epoch_of_time + Duration::from_micros(self.micros())
    }

    fn now_ms(&self) -> Millis {
        self.state.borrow().wall_ms()
    }

    fn sleep(&self, delay: Duration) {
        self.pass(micros(delay));
    }

    fn nonce(&self) -> Uuid {
        let chance = &mut self.state.borrow_mut().chance;
        Uuid::from_u64_pair(chance.draw(), chance.draw())
    }
}

fn micros(duration: Duration) -> Micros {
    // Upwards: who sleeps for a part of a microsecond must find that time has passed.
    Micros::try_from(duration.as_nanos().div_ceil(1_000)).expect("waits are short")
}

fn topic_of(name: &str) -> Topic {
    let topics = Topics::with_prefix("");
    match name {
        name if name == topics.commands => Topic::Commands,
        name if name == topics.events => Topic::Events,
        name if name == topics.dead_letters => Topic::DeadLetters,
        other => panic!("nobody made the topic {other}"),
    }
}

fn index(partition: i32) -> usize {
    usize::try_from(partition).expect("a partition")
}
