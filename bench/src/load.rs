//! Load over HTTP: one thread, many connections, as little work per request as an event loop can do, since it shares
//! the machine with what it measures.
//!
//! A closed loop sends the next request of a connection when the last is answered. An open loop sends at fixed moments,
//! whatever the answers do, and counts latency from the moment that was meant: a server that stalls is charged for
//! everybody who would have come meanwhile (no coordinated omission).

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, Waker, net::TcpStream};
use plumbing::{stop, task};

use crate::{response, tally::Tally};

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Each connection sends its next request when the last is answered.
    Closed,
    /// So many a second, evenly.
    Open(u32),
}

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// After so long, not counting the warm-up.
    For(Duration),
    /// After so many requests.
    Requests(u64),
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The server.
    pub addr: SocketAddr,
    /// Connections, all open before the first request.
    pub connections: usize,
    /// When requests are sent.
    pub pace: Pace,
    /// What is answered before counts for nothing.
    pub warm_up: Duration,
    /// When it ends.
    pub length: Length,
}

/// An answer that has not come after so long never comes.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How often timeouts are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The pacer's token; connections have their index.
const PACER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
    /// The request that is not wholly written yet.
    unwritten: Vec<u8>,
    /// The intended start of the request in flight.
    begun: Option<Instant>,
}

struct Run<'a> {
    plan: Plan,
    poll: Poll,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    overdue: VecDeque<Instant>,
    write: &'a mut dyn FnMut(u64, &mut Vec<u8>),
    sent: u64,
    done: u64,
    started: Instant,
    tally: Tally,
    request: Vec<u8>,
    read: Box<[u8]>,
}

/// Runs a plan; `write` appends the request with that number to a buffer.
///
/// # Errors
/// The server cannot be reached, or does not speak HTTP.
pub fn run(plan: Plan, write: &mut dyn FnMut(u64, &mut Vec<u8>)) -> io::Result<Tally> {
    let poll = Poll::new()?;
    let mut run = Run {
        connections: (0..plan.connections)
            .map(|index| connect(plan.addr, index, &poll))
            .collect::<io::Result<_>>()?,
        idle: (0..plan.connections).rev().collect(),
        overdue: VecDeque::new(),
        plan,
        poll,
        write,
        sent: 0,
        done: 0,
        started: Instant::now(),
        tally: Tally::default(),
        request: Vec::with_capacity(1_024),
        read: vec![0; 16 * 1_024].into_boxed_slice(),
    };
    run.work()?;
    Ok(run.tally)
}

fn connect(addr: SocketAddr, index: usize, poll: &Poll) -> io::Result<Connection> {
    let stream = std::net::TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream);
    poll.registry()
        .register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
    Ok(Connection {
        stream,
        answer: Vec::new(),
        unwritten: Vec::new(),
        begun: None,
    })
}

impl Run<'_> {
    fn work(&mut self) -> io::Result<()> {
        let (stopper, stop) = stop::pair();
        let interval = match self.plan.pace {
            Pace::Closed => None,
            Pace::Open(rate) => Some(Duration::from_secs(1) / rate),
        };
        self.started = Instant::now();
        // An event loop's timeouts are whole milliseconds: a thread of its own sleeps until each start.
        let pacer = match interval {
            Some(interval) => {
                let (waker, started) = (Waker::new(self.poll.registry(), PACER)?, self.started);
                Some(task::thread("pacer", move || pace(&waker, started, interval, &stop)))
            }
            None => None,
        };
        let mut events = Events::with_capacity(1_024);
        let mut looked = self.started;
        loop {
            let now = Instant::now();
            if self.is_over(now) {
                break;
            }
            self.start_due(now, interval)?;
            self.poll.poll(&mut events, Some(LOOK_EVERY))?;
            for event in &events {
                if event.token() != PACER {
                    self.go_on(event.token().0)?;
                }
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.give_up_on_late(looked)?;
            }
        }
        stopper.stop();
        drop(pacer); // It ends by itself.
        self.tally.elapsed = self.started.elapsed().saturating_sub(self.plan.warm_up);
        self.tally.unsent = self.overdue.len() as u64;
        Ok(())
    }

    fn is_over(&self, now: Instant) -> bool {
        match self.plan.length {
            Length::For(length) => now - self.started >= self.plan.warm_up + length,
            Length::Requests(requests) => self.done >= requests,
        }
    }

    /// Sends what is to be sent now, as far as connections are free.
    fn start_due(&mut self, now: Instant, interval: Option<Duration>) -> io::Result<()> {
        if let Some(interval) = interval {
            loop {
                let planned = self.sent + self.overdue.len() as u64;
                let due = self.started + interval * u32::try_from(planned).unwrap_or(u32::MAX);
                if due > now || matches!(self.plan.length, Length::Requests(requests) if planned >= requests) {
                    break;
                }
                self.overdue.push_back(due);
            }
            while !self.idle.is_empty() {
                let Some(due) = self.overdue.pop_front() else { break };
                self.send(due)?;
            }
        } else {
            while !self.idle.is_empty()
                && !matches!(self.plan.length, Length::Requests(requests) if self.sent >= requests)
            {
                self.send(Instant::now())?;
            }
        }
        Ok(())
    }

    /// Sends the next request on an idle connection.
    fn send(&mut self, begun: Instant) -> io::Result<()> {
        let index = self.idle.pop().expect("the caller has looked");
        self.request.clear();
        (self.write)(self.sent, &mut self.request);
        self.sent += 1;
        let connection = &mut self.connections[index];
        connection.begun = Some(begun);
        let written = match connection.stream.write(&self.request) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return self.broken(index),
        };
        if written < self.request.len() {
            connection.unwritten.extend_from_slice(&self.request[written..]);
        }
        Ok(())
    }

    /// Something can be read or written.
    fn go_on(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        while !connection.unwritten.is_empty() {
            match connection.stream.write(&connection.unwritten) {
                Ok(written) => drop(connection.unwritten.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.broken(index),
            }
        }
        loop {
            let connection = &mut self.connections[index];
            let count = match connection.stream.read(&mut self.read) {
                Ok(0) => return self.broken(index),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return self.broken(index),
            };
            // Almost always one read is one whole answer, and nothing more can come before the next request.
            let parsed = if connection.answer.is_empty() {
                response::parse(&self.read[..count])
            } else {
                connection.answer.extend_from_slice(&self.read[..count]);
                response::parse(&connection.answer)
            };
            match parsed {
                Ok(Some((status, _))) => return self.answered(index, status),
                Ok(None) if connection.answer.is_empty() => connection.answer.extend_from_slice(&self.read[..count]),
                Ok(None) => {}
                Err(problem) => return Err(io::Error::new(io::ErrorKind::InvalidData, problem)),
            }
        }
    }

    fn answered(&mut self, index: usize, status: u16) -> io::Result<()> {
        let connection = &mut self.connections[index];
        connection.answer.clear();
        let now = Instant::now();
        if let Some(begun) = connection.begun.take() {
            let since_start = now - self.started;
            self.tally.all_answers += 1;
            if since_start >= self.plan.warm_up {
                self.tally.answer(status, now - begun);
            }
            if status < 300 {
                self.tally.last_success = since_start;
            }
        }
        self.free(index)
    }

    fn free(&mut self, index: usize) -> io::Result<()> {
        self.done += 1;
        self.idle.push(index);
        match (self.plan.pace, self.plan.length) {
            (Pace::Open(_), _) => match self.overdue.pop_front() {
                Some(due) => self.send(due),
                None => Ok(()),
            },
            (Pace::Closed, Length::Requests(requests)) if self.sent >= requests => Ok(()),
            (Pace::Closed, _) => self.send(Instant::now()),
        }
    }

    /// The server has closed a connection: nobody's loss where no request is in flight, as a client that is silent is let go.
    fn broken(&mut self, index: usize) -> io::Result<()> {
        if self.connections[index].begun.is_some() {
            self.tally.broken += 1;
            return self.again(index);
        }
        self.connections[index] = connect(self.plan.addr, index, &self.poll)?;
        Ok(())
    }

    /// A fresh connection in place of one that is lost.
    fn again(&mut self, index: usize) -> io::Result<()> {
        self.connections[index] = connect(self.plan.addr, index, &self.poll)?;
        self.done += 1;
        self.idle.push(index);
        Ok(())
    }

    fn give_up_on_late(&mut self, now: Instant) -> io::Result<()> {
        for index in 0..self.connections.len() {
            if self.connections[index].begun.is_some_and(|begun| now - begun > TIMEOUT) {
                self.tally.timeouts += 1;
                self.tally.took(TIMEOUT);
                self.again(index)?;
            }
        }
        Ok(())
    }
}

fn pace(waker: &Waker, started: Instant, interval: Duration, stop: &stop::Stop) {
    let mut due = started;
    while !stop.is_requested() {
        due += interval;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if waker.wake().is_err() {
            return;
        }
    }
}
