//! Commands on their way to a lane.

use domain::CommandBody;
use plumbing::{
    config::Brokers,
    health::Component,
    kafka::{KafkaError, producer::Producer},
};
use schemas::{
    Codec,
    sender::{Address, CommandSender},
};

const SOURCE: &str = "/holdfast/fulfiller";

/// Sends commands.
pub(crate) struct Outbox {
    sender: CommandSender,
    health: Component,
}

impl Outbox {
    pub(crate) fn new(brokers: &Brokers, topic: &str, codec: Codec, health: Component) -> Result<Self, KafkaError> {
        let producer = Producer::new(brokers, "holdfast-fulfiller", "0.5")?;
        let sender = CommandSender::new(producer, topic, codec, SOURCE);
        Ok(Self { sender, health })
    }

    /// Sends a command, and says whether it is surely in the log. When not, it may be there all the same.
    pub(crate) async fn send(&self, address: Address<'_>, body: CommandBody) -> bool {
        let sent = match self.sender.send(address, body) {
            Ok(sent) => sent.await,
            Err(error) => Err(error),
        };
        if let Err(error) = &sent {
            self.health.down(error);
        }
        sent.is_ok()
    }
}
