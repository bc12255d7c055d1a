//! Whether the picture is of today. One that is being made anew (a new database, an older backup) shows sales as confirmed that the
//! log takes back further on: nothing may be shipped by it.

use plumbing::{
    config::Brokers,
    kafka::{KafkaError, consumer},
    task,
};
use schemas::picture;
use sqlx::PgPool;

/// What the picture has to have before it counts.
pub(crate) struct Current {
    brokers: Brokers,
    events: String,
    lanes: u16,
    /// The end of each lane's events when it was looked at; `None`: to be looked at.
    wanted: Option<Vec<i64>>,
    /// How far the picture was when it was read last.
    seen: Vec<i64>,
}

impl Current {
    pub(crate) fn new(brokers: Brokers, events: String, lanes: u16) -> Self {
        Self {
            brokers,
            events,
            lanes,
            wanted: None,
            seen: vec![0; usize::from(lanes)],
        }
    }

    /// Whether the picture has all that the log had at the start, or when the picture was found set back.
    pub(crate) async fn is_reached(&mut self, pool: &PgPool) -> anyhow::Result<bool> {
        let mut next = vec![0; self.seen.len()];
        for (lane, checkpoint) in picture::checkpoints(pool).await? {
            if let Some(next) = next.get_mut(usize::from(lane.number())) {
                *next = checkpoint.next_event_offset;
            }
        }
        if next.iter().zip(&self.seen).any(|(next, seen)| next < seen) {
            tracing::warn!("the picture was set back: nothing is shipped until it has caught up with the log");
            self.wanted = None;
        }
        let wanted = match self.wanted.take() {
            Some(wanted) => wanted,
            None => self.ends().await?,
        };
        let is_reached = next.iter().zip(&wanted).all(|(next, wanted)| next >= wanted);
        (self.wanted, self.seen) = (Some(wanted), next);
        Ok(is_reached)
    }

    async fn ends(&self) -> anyhow::Result<Vec<i64>> {
        let (brokers, events, lanes) = (self.brokers.clone(), self.events.clone(), self.lanes);
        let asking = task::thread("log-ends", move || -> Result<Vec<i64>, KafkaError> {
            let reader = consumer::reader(&brokers, "holdfast-fulfiller-ends", "holdfast.fulfiller")?;
            let end = |lane| Ok(consumer::bounds(&reader, &events, i32::from(lane))?.1);
            (0..lanes).map(end).collect()
        });
        Ok(asking.await??)
    }
}
