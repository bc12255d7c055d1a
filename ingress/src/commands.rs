//! Sends a command and waits for its event.
//!
//! In     a command that is legal by construction, and the lane where it belongs.
//! Out    its valid event; or where it stands in the commands topic; or that Kafka did not acknowledge it.
//!
//! The waiter is registered first, then the record is queued in one call that nobody can cancel half-way: a client that
//! hangs up loses the answer, not the order of things. Dropping the future ends the wait and nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{Command, CommandBody, Key, Lane};
use plumbing::{
    failpoint,
    kafka::{
        producer::{Position, Prepared, ProduceError},
        window::Windows,
    },
    stop::Stop,
    telemetry,
};
use schemas::{Codec, headers};
use tracing::Instrument;

use crate::{
    app::tenant,
    memory::Decided,
    request::Manner,
    waiters::{Outcome, Waiter, Waiters},
};

/// CloudEvents source of what the ingress produces.
pub const SOURCE: &str = "/holdfast/ingress";
/// After the request's own wait, how much longer an acknowledgement is waited for.
const ACKNOWLEDGE: Duration = Duration::from_millis(500);
/// At a stop, requests that wait longer are answered 202 after this: before their connections are cut.
const WAIT_AT_STOP: Duration = Duration::from_secs(6);
const _: () = assert!(WAIT_AT_STOP.as_millis() + ACKNOWLEDGE.as_millis() < plumbing::http::DRAIN.as_millis());

/// What became of a command, as far as its request knows.
#[derive(Debug)]
pub enum Reply {
    /// Decided.
    Decided(Box<Decided>),
    /// It stands in the commands topic at this offset; the outcome is still coming.
    Accepted(i64),
    /// Kafka has not acknowledged it in time.
    Unacknowledged {
        /// The request.
        request_id: Key,
        /// Why.
        why: String,
        /// Whether it may still be decided.
        maybe_sent: bool,
    },
}

/// What a commander works with.
#[derive(Debug)]
pub struct Parts {
    /// Sends into the lanes of the commands topic.
    pub windows: Windows,
    /// Encodes.
    pub codec: Codec,
    /// Who waits for events.
    pub waiters: Arc<Waiters>,
    /// The process's stop.
    pub stop: Stop,
}

/// Sends commands.
#[derive(Debug)]
pub struct Commander {
    parts: Parts,
    decision_seconds: metrics::Histogram,
}

/// Where a command goes and what it is about.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// The lane.
    pub lane: Lane,
    /// Kafka key: a SKU or a hold id.
    pub key: &'a str,
    /// `ce_subject`: the hold or the SKU.
    pub subject: &'a str,
}

/// What the delivery report and the waiting request tell each other.
struct Flight {
    offset: AtomicI64,
    wants_offset: AtomicBool,
}

impl Commander {
    /// A commander.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            decision_seconds: metrics::histogram!("holdfast_ingress_decision_seconds"),
        }
    }

    /// Sends a command and waits as the request wants it. `command_id`: what names it, where it is named by that.
    pub async fn ask(
        &self,
        address: Address<'_>,
        body: CommandBody,
        command_id: Option<Key>,
        manner: &Manner,
    ) -> Reply {
        if !telemetry::tracing_enabled() {
            return self
                .send(address, body, command_id, manner, manner.traceparent.clone())
                .await;
        }
        let span = tracing::info_span!(
            target: telemetry::TRACE, "command", command = body.name(), lane = address.lane.number()
        );
        if let Some(parent) = &manner.traceparent {
            telemetry::set_parent_from_traceparent(&span, parent);
        }
        let traceparent = span.in_scope(telemetry::current_traceparent);
        self.send(address, body, command_id, manner, traceparent)
            .instrument(span)
            .await
    }

    async fn send(
        &self,
        address: Address<'_>,
        body: CommandBody,
        command_id: Option<Key>,
        manner: &Manner,
        traceparent: Option<String>,
    ) -> Reply {
        let uuid = plumbing::id::random();
        let request_id = Key::parse("request_id", &uuid.to_string()).expect("a UUID is visible ASCII");
        let mut waiter = self.parts.waiters.register(uuid.as_u128());
        let command = Command {
            command_id: command_id.unwrap_or_else(|| request_id.clone()),
            request_id: request_id.clone(),
            tenant: tenant(),
            issued_at: plumbing::time::now_ms(),
            source: None,
            body,
        };
        let started = Instant::now();
        let flight = match self.produce(address, &command, uuid.as_u128(), traceparent) {
            Ok(flight) => flight,
            Err(error) => {
                return Reply::Unacknowledged {
                    request_id,
                    maybe_sent: error.maybe_sent(),
                    why: error.to_string(),
                };
            }
        };
        match self.wait(&mut waiter, &flight, manner).await {
            // Whoever does not want to wait gets the same answer every time, however fast the lane was.
            Some(Outcome::Decided(decided)) if manner.wait.is_zero() => Reply::Accepted(decided.event.command_offset),
            Some(Outcome::Decided(decided)) => {
                failpoint::reach("ingress.answered");
                self.decision_seconds.record(started.elapsed());
                Reply::Decided(decided)
            }
            Some(Outcome::Acknowledged(offset)) => Reply::Accepted(offset),
            Some(Outcome::Unacknowledged(error)) => Reply::Unacknowledged {
                request_id,
                maybe_sent: error.maybe_sent(),
                why: error.to_string(),
            },
            None => Reply::Unacknowledged {
                request_id,
                why: "no broker acknowledged it in time".to_owned(),
                maybe_sent: true,
            },
        }
    }

    fn produce(
        &self,
        address: Address<'_>,
        command: &Command,
        request_id: u128,
        traceparent: Option<String>,
    ) -> Result<Arc<Flight>, ProduceError> {
        let value = self.parts.codec.encode_command(command);
        let mut headers = headers::of_command(
            command.command_id.as_str(),
            SOURCE,
            command.body.name(),
            address.subject,
        );
        headers.extend(traceparent.map(|traceparent| (headers::TRACEPARENT, traceparent)));
        let flight = Arc::new(Flight {
            offset: AtomicI64::new(-1),
            wants_offset: AtomicBool::new(false),
        });
        failpoint::reach("ingress.waiting");
        let (waiters, reported) = (Arc::clone(&self.parts.waiters), Arc::clone(&flight));
        // An acknowledgement wakes nobody who waits for the event: one switch of threads less per request.
        let told = move |result| match result {
            Ok(Position { offset, .. }) => {
                failpoint::reach("ingress.acknowledged");
                reported.offset.store(offset, Ordering::SeqCst);
                if reported.wants_offset.load(Ordering::SeqCst) {
                    waiters.resolve(request_id, || Outcome::Acknowledged(offset));
                }
            }
            Err(error) => {
                waiters.resolve(request_id, || Outcome::Unacknowledged(error));
            }
        };
        let (partition, key) = (address.lane.partition(), address.key.as_bytes());
        let record = Prepared::new(partition, Some(key), value, &headers, told);
        self.parts.windows.send(record)?;
        failpoint::reach("ingress.sent");
        Ok(flight)
    }

    /// `None`: nothing is known in time.
    async fn wait(&self, waiter: &mut Waiter, flight: &Flight, manner: &Manner) -> Option<Outcome> {
        if !manner.wait.is_zero()
            && let Some(outcome) = self.wait_for_event(waiter, manner.wait).await
        {
            return Some(outcome);
        }
        // In this order on both sides, so that one of the two sees the other's store.
        flight.wants_offset.store(true, Ordering::SeqCst);
        match flight.offset.load(Ordering::SeqCst) {
            -1 => {
                // Who does not wait for the outcome still waits for the acknowledgement: 503 is for a Kafka that is away.
                let more = if manner.wait.is_zero() {
                    manner.wait_default.max(ACKNOWLEDGE)
                } else {
                    ACKNOWLEDGE
                };
                tokio::time::timeout(more, waiter.outcome()).await.ok()
            }
            offset => Some(Outcome::Acknowledged(offset)),
        }
    }

    async fn wait_for_event(&self, waiter: &mut Waiter, wait: Duration) -> Option<Outcome> {
        if wait <= WAIT_AT_STOP {
            return tokio::time::timeout(wait, waiter.outcome()).await.ok();
        }
        let stopping = async {
            self.parts.stop.requested().await;
            tokio::time::sleep(WAIT_AT_STOP).await;
        };
        tokio::select! {
            biased;
            outcome = tokio::time::timeout(wait, waiter.outcome()) => outcome.ok(),
            () = stopping => None,
        }
    }
}
