//! Whether the picture is of today. One that is being made anew (a new database, an older backup) shows sales as confirmed that the
//! log takes back further on: nothing may be shipped by it.

use plumbing::{
    config::Brokers,
    kafka::{KafkaError, consumer},
    task,
};
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

    /// Whether the picture has all that the log had at the start, or when the picture was found set back. Where Kafka does not
    /// say what the log has, it is not.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub(crate) async fn is_reached(&mut self, pool: &PgPool) -> Result<bool, sqlx::Error> {
        let rows: Vec<(i16, i64)> = sqlx::query_as("SELECT lane, next_event_offset FROM lanes")
            .fetch_all(pool)
            .await?;
        let mut next = vec![0; self.seen.len()];
        for (lane, offset) in rows {
            if let Some(next) = usize::try_from(lane).ok().and_then(|lane| next.get_mut(lane)) {
                *next = offset;
            }
        }
        if next.iter().zip(&self.seen).any(|(next, seen)| next < seen) {
            tracing::warn!("Postgres was set back: nothing is shipped until it has caught up with the log");
            self.wanted = None;
        }
        self.seen = next;
        if self.wanted.is_none() {
            match self.ends().await {
                Ok(ends) => {
                    self.wanted = Some(ends);
                    if !self.has_all() {
                        tracing::info!("Postgres is behind the log: nothing is shipped until it has caught up");
                    }
                }
                // Kafka has a watch of its own, which says so where somebody looks.
                Err(error) => tracing::debug!(error = format!("{error:#}"), "the end of the log is not known yet"),
            }
        }
        Ok(self.has_all())
    }

    fn has_all(&self) -> bool {
        let wanted = self.wanted.as_ref();
        wanted.is_some_and(|wanted| self.seen.iter().zip(wanted).all(|(seen, wanted)| seen >= wanted))
    }

    /// Where the lanes' events end now.
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
