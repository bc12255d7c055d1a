//! Commands into the log, each acknowledged before the step counts as done.

use std::sync::OnceLock;

use domain::{Command, CommandBody, HoldId, Key, Tenant};
use plumbing::{
    config::Brokers,
    kafka::{
        KafkaError,
        producer::{Producer, Record},
    },
    time,
};
use schemas::{Codec, Topics, headers};

const SOURCE: &str = "/holdfast/checkout";

/// Sends commands.
pub(crate) struct Outbox {
    producer: Producer,
    topic: String,
    /// Set once the registry has answered.
    codec: OnceLock<Codec>,
}

impl Outbox {
    pub(crate) fn new(brokers: &Brokers, topic_prefix: &str) -> Result<Self, KafkaError> {
        Ok(Self {
            producer: Producer::new(brokers, "holdfast-checkout", "0")?,
            topic: Topics::with_prefix(topic_prefix).commands,
            codec: OnceLock::new(),
        })
    }

    pub(crate) fn open(&self, codec: Codec) {
        // The first one stays: both say the same.
        let _known = self.codec.set(codec);
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
        let codec = self
            .codec
            .get()
            .ok_or_else(|| anyhow::anyhow!("the schema registry has not answered yet"))?;
        let fresh = || Key::parse("command_id", &format!("checkout-{}", plumbing::id::random()));
        let id = id.map_or_else(fresh, Ok)?;
        let key = match &body {
            CommandBody::Reserve(reserve) => reserve.lines.as_slice()[0].sku.to_string(),
            _ => hold_id.to_string(),
        };
        let name = body.name();
        let command = Command {
            command_id: id.clone(),
            request_id: id,
            tenant: tenant.clone(),
            issued_at: time::now_ms(),
            source: None,
            body,
        };
        let headers = headers::of_command(command.command_id.as_str(), SOURCE, name, &key);
        let sent = self.producer.send(Record {
            topic: &self.topic,
            partition: Some(hold_id.lane().partition()),
            key: Some(key.as_bytes()),
            value: Some(&codec.encode_command(&command)),
            headers: &headers,
        })?;
        Ok(sent.await?.offset)
    }
}
