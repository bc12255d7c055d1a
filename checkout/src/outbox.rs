//! Commands into the log, each acknowledged before the step counts as done.

use std::sync::OnceLock;

use anyhow::Context as _;
use domain::{CommandBody, HoldId, Key, Tenant};
use plumbing::{
    config::Brokers,
    kafka::{KafkaError, producer::Producer},
};
use schemas::{
    Codec, Topics,
    sender::{self, Address, CommandSender},
};

const SOURCE: &str = "/holdfast/checkout";

/// Sends commands.
pub(crate) struct Outbox {
    producer: Producer,
    topic: String,
    /// Set once the registry has answered.
    sender: OnceLock<CommandSender>,
}

impl Outbox {
    pub(crate) fn new(brokers: &Brokers, topic_prefix: &str) -> Result<Self, KafkaError> {
        Ok(Self {
            producer: Producer::new(brokers, "holdfast-checkout", "0")?,
            topic: Topics::with_prefix(topic_prefix).commands,
            sender: OnceLock::new(),
        })
    }

    pub(crate) fn open(&self, codec: Codec) {
        let sender = CommandSender::new(self.producer.clone(), &self.topic, codec, SOURCE);
        // The first one stays: both say the same.
        let _known = self.sender.set(sender);
    }

    /// Sends into the hold's lane and waits until the log has it; its offset there. The lane refuses or repeats what it has
    /// decided already.
    pub(crate) async fn send(
        &self,
        tenant: &Tenant,
        hold_id: HoldId,
        id: Option<Key>,
        body: CommandBody,
    ) -> anyhow::Result<i64> {
        let sender = self.sender.get().context("the schema registry has not answered yet")?;
        let about = match &body {
            CommandBody::Reserve(reserve) => reserve.lines.as_slice()[0].sku.to_string(),
            _ => hold_id.to_string(),
        };
        let address = Address {
            lane: hold_id.lane(),
            about: &about,
            id: id.unwrap_or_else(|| sender::fresh_id("checkout")),
            tenant: tenant.clone(),
        };
        Ok(sender.send(address, body)?.await?.offset)
    }
}
