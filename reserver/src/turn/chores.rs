//! What a turn does once a second, between batches.

use std::time::Duration;

use plumbing::{failpoint, stop::Stop};

use super::Turn;
use crate::{
    end::End,
    intake::Batch,
    log,
    world::{Committed, LogReader as _, World},
};

/// How often a lane asks the broker where its commands end.
const END_SEEN_EVERY: Duration = Duration::from_secs(5);

impl<W: World> Turn<'_, W> {
    /// What needs no haste: metrics, memory, the forward cursor, old generations, holes at the lane's end.
    pub(super) fn chores(&mut self, stop: &Stop) -> Result<(), End> {
        self.chores_at = self.now();
        self.busy = self.redis.memory_share()? > self.shared.options.busy_share;
        if !self.redis.is_ours(self.epoch)? {
            return Err(End::Lost("the lane in Redis is not what we left".to_owned()));
        }
        let lane = self.lane.to_string();
        metrics::gauge!("holdfast_lane_waiting_commands", "lane" => lane.clone()).set(self.intake.len() as f64);
        metrics::gauge!("holdfast_lane_batches_in_flight", "lane" => lane.clone()).set(self.in_flight.len() as f64);
        metrics::gauge!("holdfast_lane_decided_offset", "lane" => lane).set(self.tail.state.last_command_offset as f64);
        self.commit_cursor(false)?;
        if let Some(cursor) = self.cleanup {
            let next = self.redis.drop_old(self.epoch, cursor)?;
            self.cleanup = (next != 0).then_some(next);
        }
        if self.now() - self.end_seen_at >= END_SEEN_EVERY.min(self.skip_after()) {
            self.look_at_end(stop)?;
        }
        Ok(())
    }

    /// Moves the forward cursor past all events read so far, once every copy is acknowledged; `wait`: for the broker.
    pub(super) fn commit_cursor(&mut self, wait: bool) -> Result<(), End> {
        if self.tail.next == self.committed || !self.outbox.settled()? {
            return Ok(());
        }
        let cursor = Committed {
            partition: self.lane.partition(),
            next: self.tail.next,
            metadata: self.tail.metadata(self.shared.lanes),
        };
        self.reader.commit(&self.shared.topics.events, &cursor, wait)?;
        self.committed = self.tail.next;
        failpoint::reach("forwards.cursor_committed");
        Ok(())
    }

    fn skip_after(&self) -> Duration {
        Duration::from_secs(self.shared.options.skip_seconds)
    }

    /// Asks the broker where the commands end: for the lag, and for a hole there (an aborted transaction, say). Such a
    /// hole is closed by a decision once it has not changed for so long that no open transaction can still fill it,
    /// and a fresh reading shows it too.
    fn look_at_end(&mut self, stop: &Stop) -> Result<(), End> {
        self.end_seen_at = self.now();
        let topic = &self.shared.topics.commands;
        let Ok((_, end)) = self.reader.bounds(topic, self.lane.partition()) else {
            return Ok(()); // A broker that does not answer is met where something depends on it.
        };
        let lag = (end - 1 - self.tail.state.last_command_offset).max(0);
        metrics::gauge!("holdfast_lane_lag", "lane" => self.lane.to_string()).set(lag as f64);
        let quiet = self.intake.len() == 0 && self.in_flight.is_empty();
        if !quiet || end <= self.intake.next() {
            self.hole_at_end = None;
            return Ok(());
        }
        match self.hole_at_end {
            Some((seen, since)) if seen == end && self.now() - since >= self.skip_after() => {
                self.skip_hole_to(end, stop)
            }
            Some((seen, _)) if seen == end => Ok(()),
            _ => {
                self.hole_at_end = Some((end, self.now()));
                Ok(())
            }
        }
    }

    fn skip_hole_to(&mut self, high: i64, stop: &Stop) -> Result<(), End> {
        let (topic, next) = (&self.shared.topics.commands, self.intake.next());
        let fresh = self.shared.world.reader("holdfast-reserver-skip")?;
        let mut empty = true;
        let place = (topic.as_str(), self.lane.partition(), next);
        log::read(&self.shared.world, &fresh, place, stop, |_| {
            empty = false;
            Ok(true)
        })?;
        self.hole_at_end = None;
        if !empty {
            // Our own reading has missed a record, and nothing that follows would show it.
            let partition = self.lane.partition();
            return Ok(self.reader.seek(topic, partition, next)?);
        }
        tracing::info!(
            lane = self.lane.number(),
            from = next,
            to = high - 1,
            "lane.skipped offsets without a record"
        );
        let entry = self.intake.skip_to(high - 1, self.tail.state.log_time);
        self.decide(Batch {
            entries: vec![entry],
            poison: Vec::new(),
        })
    }
}
