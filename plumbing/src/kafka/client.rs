//! Options of every Kafka client. A client is never configured anywhere else.

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use crate::config::Brokers;

#[expect(clippy::disallowed_methods, reason = "this is the one home of Kafka client options")]
fn base(brokers: &Brokers, client_id: &str) -> ClientConfig {
    let mut options = ClientConfig::new();
    options
        .set("bootstrap.servers", &brokers.addresses)
        .set("security.protocol", brokers.security.name())
        .set("client.id", client_id)
        .set("reconnect.backoff.ms", "50") // A restarted broker is found again at once,
        .set("reconnect.backoff.max.ms", "1000") // and one that stays away is not hammered.
        .set("socket.keepalive.enable", "true")
        .set("log.connection.close", "false"); // Idle connections are closed by the broker; that is no news.
    if let Some(ca) = &brokers.ca {
        options.set("ssl.ca.location", ca.to_string_lossy());
    }
    if brokers.security.has_login() {
        options
            .set("sasl.mechanism", brokers.mechanism.name())
            .set("sasl.username", brokers.user.as_deref().unwrap_or_default())
            .set(
                "sasl.password",
                brokers.password.as_ref().map_or("", |password| password.expose()),
            );
    }
    options
}

/// A producer whose records are in order, acknowledged by every in-sync replica, and never doubled by its own retries.
#[must_use]
pub fn producer(brokers: &Brokers, client_id: &str, linger_ms: &str) -> ClientConfig {
    let mut options = base(brokers, client_id);
    options
        .set("acks", "all") // An event that can be lost is stock that is never given back.
        .set("enable.idempotence", "true") // Retries keep order and make no doubles.
        .set("message.timeout.ms", "10000") // Then the result is unknown, and the caller decides.
        .set("linger.ms", linger_ms) // Batches form by themselves under load; idle requests should not wait.
        .set("queue.buffering.max.messages", "200000")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random"); // The Java client's default: one key, one lane, from any producer.
    options
}

/// A reader of assigned partitions, which commits nothing by itself.
#[must_use]
pub fn reader(brokers: &Brokers, client_id: &str, group_id: &str) -> ClientConfig {
    let mut options = base(brokers, client_id);
    options
        .set("group.id", group_id) // librdkafka wants one even where only `assign` is used.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error") // A position outside the log is a contradiction, never a reason to jump.
        .set("isolation.level", "read_committed") // What an aborted transaction wrote was never asked.
        .set("fetch.queue.backoff.ms", "1") // The default second is a second of latency when the queue was full.
        .set("fetch.wait.max.ms", "100")
        .set("fetch.error.backoff.ms", "100")
        .set("queued.max.messages.kbytes", "16384") // Per partition: bounds memory while a reader is behind.
        .set("enable.partition.eof", "true") // The end of a partition is how a reader knows that it has caught up.
        .set("allow.auto.create.topics", "false")
        .set("check.crcs", "true");
    options
}

/// A reader whom nobody waits for: it takes larger portions, tens of milliseconds later, for a fraction of the requests.
#[must_use]
pub fn background_reader(brokers: &Brokers, client_id: &str, group_id: &str) -> ClientConfig {
    let mut options = reader(brokers, client_id, group_id);
    options.set("fetch.min.bytes", "65536").set("fetch.wait.max.ms", "25"); // Unless that much is there before.
    options
}

/// A member of a consumer group, which only learns what is assigned to it.
#[must_use]
pub fn member(brokers: &Brokers, client_id: &str, group_id: &str) -> ClientConfig {
    let mut options = reader(brokers, client_id, group_id);
    options
        .set("auto.offset.reset", "latest")
        .set("partition.assignment.strategy", "cooperative-sticky") // Others keep their lanes while one moves.
        .set("session.timeout.ms", "6000") // A dead owner's lanes move on after this; the broker's minimum.
        .set("heartbeat.interval.ms", "500")
        .set("enable.partition.eof", "false");
    options
}

/// A client for administrators.
#[must_use]
pub fn admin(brokers: &Brokers, client_id: &str) -> ClientConfig {
    base(brokers, client_id)
}

/// librdkafka's own lines, for whoever debugs a connection. What an outage means is said by the role that meets it, once.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    tracing::debug!(target: "librdkafka", ?level, facility, message);
}
