//! One lane's life: read its checkpoint, read on from there, write batch by batch; and what happens when that fails.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use domain::Lane;
use plumbing::{backoff::Backoff, failpoint, health::Component, kafka::KafkaError, postgres, stop::Stop, task, time};
use schemas::picture;
use tokio::sync::mpsc;

use crate::{
    Shared,
    reader::{Batch, Reader},
    write,
};

/// Why a lane does not go on right now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// Kafka does not answer, or forgot where we were: read again from the checkpoint.
    #[error("Kafka: {0}")]
    Kafka(KafkaError),
    /// Postgres does not answer, or refuses: the same batch again, later.
    #[error("Postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// Another persister has written the lane: read again from where it stands now.
    #[error("another persister has moved the lane on")]
    Moved,
    /// Somebody has to look after it.
    #[error("{0}")]
    Halted(String),
    /// A stop was asked for.
    #[error("stopped")]
    Stopped,
}

impl Fault {
    pub(crate) fn kafka(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

impl From<picture::Error> for Fault {
    fn from(error: picture::Error) -> Self {
        match error {
            picture::Error::Database(error) => Self::Postgres(error),
            corrupt @ picture::Error::Corrupt { .. } => Self::Halted(corrupt.to_string()),
        }
    }
}

/// Says a fault when it is new, and once in a while as long as it lasts.
#[derive(Default)]
struct Complaint {
    said: Option<(String, Instant)>,
}

impl Complaint {
    const EVERY: Duration = Duration::from_secs(30);

    fn is_due(&mut self, what: &str) -> bool {
        let due = !matches!(&self.said, Some((said, at)) if said == what && at.elapsed() < Self::EVERY);
        if due {
            self.said = Some((what.to_owned(), Instant::now()));
        }
        due
    }
}

/// What a lane keeps over its faults.
struct Life {
    lane: Lane,
    shared: Arc<Shared>,
    stop: Stop,
    backoff: Backoff,
    complaint: Complaint,
    health: Component,
}

/// Lives until the stop. Only a panic ends it otherwise.
pub(crate) async fn live(lane: Lane, shared: Arc<Shared>, stop: Stop) -> anyhow::Result<()> {
    let mut life = Life {
        health: shared.context.health.component(format!("lane-{lane}")),
        lane,
        shared,
        stop,
        backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(5)),
        complaint: Complaint::default(),
    };
    while !life.stop.is_requested() {
        let result = life.turn().await;
        if let Err(fault) = result {
            life.heed(&fault);
            life.backoff.sleep(&life.stop).await;
        }
    }
    life.shared.positions.forget(lane);
    life.health.up(); // Whatever it was, it is for the lane's next persister to say.
    Ok(())
}

impl Life {
    /// From the checkpoint on, until something stands in the way.
    async fn turn(&mut self) -> Result<(), Fault> {
        let from = write::start(&self.shared.pool, self.lane).await?;
        failpoint::reach("persister.checkpoint_read");
        self.shared.positions.set(self.lane, from.next_event_offset);
        let (stopper, stop) = self.stop.child();
        let (batches, mut ready) = mpsc::channel(1);
        let reader = Reader {
            lane: self.lane,
            shared: self.shared.clone(),
            stop,
            health: self.health.clone(),
            batches,
            runtime: tokio::runtime::Handle::current(),
        };
        tracing::debug!(lane = %self.lane, next = from.next_event_offset, "reading on");
        let reading = task::thread(format!("reader {}", self.lane), move || reader.read(from));
        let mut written = Ok(());
        while let Some(batch) = ready.recv().await {
            written = self.write(&batch).await;
            if written.is_err() {
                break;
            }
        }
        drop(ready); // The thread's next send fails, if it is not stopped before.
        stopper.stop();
        let read = reading
            .await
            .unwrap_or_else(|error| std::panic::panic_any(error.to_string()));
        written.and(read)
    }

    /// Writes one batch, however long Postgres is away.
    async fn write(&mut self, batch: &Batch) -> Result<(), Fault> {
        loop {
            let started = Instant::now();
            match write::batch(&self.shared.pool, self.lane, batch).await {
                Ok(rows) => {
                    self.backoff.reset();
                    self.health.up();
                    self.shared.health.postgres.up();
                    count(batch, rows, started);
                    self.shared.positions.set(self.lane, batch.checkpoint.next_event_offset);
                    return Ok(());
                }
                Err(fault @ Fault::Postgres(_)) => {
                    self.heed(&fault);
                    if !self.backoff.sleep(&self.stop).await {
                        return Err(Fault::Stopped);
                    }
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    fn heed(&mut self, fault: &Fault) {
        let lane = self.lane;
        match fault {
            Fault::Stopped => {}
            Fault::Moved => tracing::info!(%lane, "another persister has moved the lane on: reading from there"),
            Fault::Kafka(error) => {
                self.shared.health.kafka.down(crate::kafka_says(error));
                if self.complaint.is_due("kafka") {
                    tracing::warn!(%lane, %error, "Kafka does not answer; the lane waits");
                }
            }
            Fault::Postgres(error) => {
                self.shared.health.postgres.down(error);
                if !postgres::is_transient(error) {
                    self.health.down(error);
                }
                if self.complaint.is_due("postgres") {
                    tracing::warn!(%lane, %error, "Postgres does not take the batch; the lane waits");
                }
            }
            Fault::Halted(what) => {
                self.health.down(what);
                if self.complaint.is_due(what) {
                    tracing::error!(%lane, "the lane is halted: {what}");
                }
            }
        }
    }
}

fn count(batch: &Batch, rows: u64, started: Instant) {
    metrics::counter!("holdfast_persister_events_total", "outcome" => "valid").increment(batch.decided.len() as u64);
    metrics::counter!("holdfast_persister_events_total", "outcome" => "void").increment(batch.void);
    metrics::histogram!("holdfast_persister_batch_rows").record(rows as f64);
    metrics::histogram!("holdfast_persister_commit_seconds").record(started.elapsed().as_secs_f64());
    let now = time::now_ms();
    let delay = metrics::histogram!("holdfast_persister_delay_seconds");
    for decided in &batch.decided {
        delay.record((now - decided.event.decided_at).max(0) as f64 / 1_000.0);
    }
}
