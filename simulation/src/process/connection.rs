//! One TCP connection to Redis, of a lane's thread.

use std::collections::VecDeque;

use redis::{ConnectionLike, RedisResult, Value};
use reserver::world::LaneConnection;

use super::Port;
use crate::{
    mutants::Mutant,
    redis::{RESPONSE_TIMEOUT, broken, timed_out, words},
    state::MS,
};

/// A connection to one Redis.
pub(crate) struct Connection<'y> {
    pub(super) port: Port<'y>,
    pub(super) id: usize,
    /// Calls whose replies were not taken, oldest first.
    pub(super) sent: VecDeque<u64>,
}

impl Connection<'_> {
    fn request(&mut self, packed: &[u8]) -> RedisResult<Value> {
        self.send(packed)?;
        self.receive()
    }
}

impl LaneConnection for Connection<'_> {
    fn send(&mut self, packed: &[u8]) -> RedisResult<()> {
        let mut state = self.port.state.borrow_mut();
        if !state.redis.is_open(self.id) {
            return Err(broken());
        }
        let call = state.call_redis(self.port.task, self.id, words(packed));
        self.sent.push_back(call);
        Ok(())
    }

    fn receive(&mut self) -> RedisResult<Value> {
        let call = self.sent.pop_front().ok_or_else(broken)?;
        let deadline = self.port.micros() + RESPONSE_TIMEOUT;
        loop {
            {
                let mut state = self.port.state.borrow_mut();
                if let Some(reply) = state.redis.take(call) {
                    return reply;
                }
                if state.now >= deadline {
                    // It may still be carried out.
                    state.redis.close(self.id);
                    return Err(timed_out());
                }
            }
            self.port.suspend_until(deadline);
        }
    }
}

impl ConnectionLike for Connection<'_> {
    fn req_packed_command(&mut self, packed: &[u8]) -> RedisResult<Value> {
        let mut reply = self.request(packed);
        if self.port.state.borrow().breaks(Mutant::ConnectAgain) {
            for _ in 0..10 {
                if !matches!(&reply, Err(error) if error.is_io_error()) {
                    break;
                }
                self.port.pass(50 * MS);
                let again = self.port.state.borrow_mut().redis.connect();
                if let Some(id) = again {
                    self.id = id;
                    self.sent.clear();
                    reply = self.request(packed);
                }
            }
        }
        reply
    }

    fn req_packed_commands(&mut self, _packed: &[u8], _offset: usize, _count: usize) -> RedisResult<Vec<Value>> {
        unreachable!("a lane sends no pipelines")
    }

    fn get_db(&self) -> i64 {
        0
    }

    fn check_connection(&mut self) -> bool {
        self.is_open()
    }

    fn is_open(&self) -> bool {
        self.port.state.borrow().redis.is_open(self.id)
    }
}
