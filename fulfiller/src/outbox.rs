//! Commands on their way to a lane.

use domain::{Command, CommandBody, Key, Lane, Tenant};
use plumbing::{
    config::Brokers,
    health::Component,
    kafka::{
        KafkaError,
        producer::{Producer, Record},
    },
    time,
};
use schemas::{Codec, headers};

const SOURCE: &str = "/holdfast/fulfiller";

/// Sends commands.
pub(crate) struct Outbox {
    producer: Producer,
    topic: String,
    codec: Codec,
    health: Component,
}

impl Outbox {
    pub(crate) fn new(brokers: &Brokers, topic: String, codec: Codec, health: Component) -> Result<Self, KafkaError> {
        let producer = Producer::new(brokers, "holdfast-fulfiller", "0.5")?;
        Ok(Self {
            producer,
            topic,
            codec,
            health,
        })
    }

    /// Sends a command, and says whether it is surely in the log. When not, it may be there all the same.
    pub(crate) async fn send(&self, lane: Lane, record_key: &str, id: &str, tenant: Tenant, body: CommandBody) -> bool {
        let id = Key::parse("command_id", id).expect("our own ids are visible ASCII");
        let name = body.name();
        let command = Command {
            command_id: id.clone(),
            request_id: id,
            tenant,
            issued_at: time::now_ms(),
            source: None,
            body,
        };
        let headers = headers::of_command(command.command_id.as_str(), SOURCE, name, record_key);
        let (told, written) = tokio::sync::oneshot::channel();
        let value = self.codec.encode_command(&command);
        let record = Record {
            topic: &self.topic,
            partition: Some(lane.partition()),
            key: Some(record_key.as_bytes()),
            value: Some(&value),
            headers: &headers,
        };
        let health = self.health.clone();
        let queued = self.producer.send_then(record, move |result| {
            if let Err(error) = &result {
                health.down(error);
            }
            // Nobody waits any more only when the process ends.
            let _ = told.send(result.is_ok());
        });
        if let Err(error) = queued {
            self.health.down(error);
            return false;
        }
        written.await.unwrap_or(false)
    }
}
