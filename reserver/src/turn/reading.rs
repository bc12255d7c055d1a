//! Reading back: what counts is only what the log says (rule 7).

use std::{collections::VecDeque, time::Instant};

use domain::{Lane, Stamp, Verdict};
use plumbing::{failpoint, stop::Stop};
use rdkafka::Message;

use crate::{Shared, end::End, open::copy_of, outbox::Outbox, tail::Tail, world::World};

/// The parts of a turn that an event read back changes.
pub(super) struct Reading<'t, 'a, W: World> {
    pub(super) shared: &'a Shared<W>,
    pub(super) lane: Lane,
    pub(super) epoch: i64,
    pub(super) tail: &'t mut Tail,
    pub(super) outbox: &'t mut Outbox<'a, W>,
    pub(super) in_flight: &'t mut VecDeque<(i64, Instant)>,
    pub(super) trim: &'t mut Vec<i64>,
}

impl<W: World> Reading<'_, '_, W> {
    /// Takes an event into the fold: a newer owner ends the turn, a valid decision ends its batch.
    pub(super) fn event(&mut self, message: &impl Message, stop: &Stop) -> Result<(), End> {
        if message.offset() < self.tail.next {
            return Ok(());
        }
        let (stamp, verdict) = self.tail.read(message);
        match (verdict, stamp) {
            (Verdict::Opened, _) => Err(End::Superseded(message.offset())),
            (Verdict::Valid, Some(Stamp::Decision { command, .. })) => {
                failpoint::reach("reserver.read_back");
                self.trim.push(command);
                while let Some((_, decided)) = self.in_flight.pop_front_if(|(last, _)| *last <= command) {
                    let elapsed = self.shared.world.now() - decided;
                    metrics::histogram!("holdfast_reserver_read_back_seconds").record(elapsed.as_secs_f64());
                }
                // An event under our own epoch: what it has other lanes do is known since it was made.
                if let Some(relayed) = self.outbox.take_relayed(command) {
                    return self.outbox.forward(relayed, stop);
                }
                match copy_of(self.shared, self.lane, message) {
                    Ok(Some(forward)) => self.outbox.forward(forward, stop),
                    Ok(None) => Ok(()),
                    Err(end) => {
                        self.outbox.owe();
                        Err(end)
                    }
                }
            }
            (Verdict::Void, Some(Stamp::Decision { epoch, .. })) if epoch == self.epoch => {
                Err(End::Lost("a decision of ours is void".to_owned()))
            }
            (Verdict::Void | Verdict::Valid, _) => Ok(()),
        }
    }
}
