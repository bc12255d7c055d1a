//! Commands on their way to a lane.

use std::time::Duration;

use domain::{CommandBody, HoldId, Tenant, Text};
use plumbing::{
    config::Brokers,
    health::Component,
    kafka::{KafkaError, producer::Producer},
};
use schemas::{
    Codec,
    sender::{self, Address, CommandSender},
};

use crate::sent::Fate;

const SOURCE: &str = "/holdfast/expirer";
/// Why the later of two live holds of one key is cancelled.
const KEY_REUSED: &str = "idempotency_key_reused";
const FLUSH: Duration = Duration::from_secs(3);

/// Sends commands; clones share one producer.
#[derive(Clone)]
pub(crate) struct Outbox {
    sender: CommandSender,
    health: Component,
}

impl Outbox {
    pub(crate) fn new(brokers: &Brokers, topic: &str, codec: Codec, health: Component) -> Result<Self, KafkaError> {
        let producer = Producer::new(brokers, "holdfast-expirer", "0.5")?;
        let sender = CommandSender::new(producer, topic, codec, SOURCE);
        Ok(Self { sender, health })
    }

    /// Asks for a hold's units back if it is due; with `attempt`, only that attempt's.
    pub(crate) fn release(&self, tenant: Tenant, hold_id: HoldId, attempt: Option<i64>) -> Fate {
        metrics::counter!("holdfast_expirer_releases_total").increment(1);
        self.send(tenant, hold_id, CommandBody::Release { hold_id, attempt })
    }

    /// Ends the later of two live holds of one key.
    pub(crate) fn cancel(&self, tenant: Tenant, hold_id: HoldId) -> Fate {
        metrics::counter!("holdfast_expirer_key_cancels_total").increment(1);
        let reason = Text::parse("reason", KEY_REUSED).expect("our own text is legal");
        self.send(tenant, hold_id, CommandBody::Cancel { hold_id, reason })
    }

    fn send(&self, tenant: Tenant, hold_id: HoldId, body: CommandBody) -> Fate {
        let address = Address {
            lane: hold_id.lane(),
            about: &hold_id.to_string(),
            id: sender::fresh_id("expirer"),
            tenant,
        };
        let fate = Fate::default();
        let (told, health) = (fate.clone(), self.health.clone());
        let queued = self.sender.send_then(address, body, move |result| match result {
            Ok(position) => {
                plumbing::failpoint::reach("expirer.release_acknowledged");
                told.written(position.offset);
            }
            Err(error) => {
                health.down(&error);
                told.lost();
            }
        });
        if let Err(error) = queued {
            self.health.down(error);
            fate.lost();
        }
        fate
    }

    /// Waits for what is queued. Blocks.
    pub(crate) fn flush(&self) {
        if let Err(error) = self.sender.producer().flush(FLUSH) {
            tracing::warn!(%error, "some releases were not acknowledged before the end; the next expirer sends them again");
        }
    }
}
