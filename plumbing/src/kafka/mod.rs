//! Kafka clients: every option is set in `client`, each with its reason; the rest are thin, typed faces of librdkafka.

pub mod admin;
pub mod client;
pub mod consumer;
pub mod group;
mod pace;
pub mod producer;
pub mod window;

pub use rdkafka::error::KafkaError;
