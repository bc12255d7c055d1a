//! Commands that a service asks for itself: the expirer's, checkout's, the fulfiller's.

use std::{future::Future, sync::Arc};

use domain::{Command, CommandBody, Key, Lane, Tenant};
use plumbing::{
    kafka::producer::{Position, ProduceError, Producer, Record},
    time,
};

use crate::{Codec, headers};

/// Sends commands; clones share one producer.
#[derive(Clone)]
pub struct CommandSender {
    producer: Producer,
    topic: Arc<str>,
    codec: Codec,
    source: &'static str,
}

/// Where a command goes and how it is known.
#[derive(Debug)]
pub struct Address<'a> {
    /// The lane.
    pub lane: Lane,
    /// The record's key and `ce_subject`: what the command is about, a hold or a SKU.
    pub about: &'a str,
    /// The command's id and its request's: again under the same id, it changes nothing.
    pub id: Key,
    /// Whose hold or SKU it is.
    pub tenant: Tenant,
}

/// An id that was never used.
///
/// # Panics
/// A service's name that is no visible ASCII, or too long.
#[must_use]
pub fn fresh_id(service: &str) -> Key {
    Key::parse("command_id", &format!("{service}-{}", plumbing::id::random())).expect("a short name and a UUID")
}

impl CommandSender {
    /// Sends into the lanes of a topic under a CloudEvents source.
    #[must_use]
    pub fn new(producer: Producer, topic: &str, codec: Codec, source: &'static str) -> Self {
        Self {
            producer,
            topic: topic.into(),
            codec,
            source,
        }
    }

    /// The producer, to flush it at the end.
    #[must_use]
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Queues a command and returns its acknowledgement to wait for. Dropping the future does not take it back.
    ///
    /// # Errors
    /// [`ProduceError`] when it could not even be queued.
    pub fn send(
        &self,
        address: Address<'_>,
        body: CommandBody,
    ) -> Result<impl Future<Output = Result<Position, ProduceError>> + Send + use<>, ProduceError> {
        self.with_record(address, body, |record| self.producer.send(record))
    }

    /// Queues a command; `done` is called once, from librdkafka's thread, with its fate.
    ///
    /// # Errors
    /// [`ProduceError`] when it could not even be queued; `done` is not called then.
    pub fn send_then(
        &self,
        address: Address<'_>,
        body: CommandBody,
        done: impl FnOnce(Result<Position, ProduceError>) + Send + Sync + 'static,
    ) -> Result<(), ProduceError> {
        self.with_record(address, body, |record| self.producer.send_then(record, done))
    }

    fn with_record<T>(&self, address: Address<'_>, body: CommandBody, send: impl FnOnce(Record<'_>) -> T) -> T {
        let Address {
            lane,
            about,
            id,
            tenant,
        } = address;
        let headers = headers::of_command(id.as_str(), self.source, body.name(), about);
        let command = Command {
            command_id: id.clone(),
            request_id: id,
            tenant,
            issued_at: time::now_ms(),
            source: None,
            body,
        };
        send(Record {
            topic: &self.topic,
            partition: Some(lane.partition()),
            key: Some(about.as_bytes()),
            value: Some(&self.codec.encode_command(&command)),
            headers: &headers,
        })
    }
}
