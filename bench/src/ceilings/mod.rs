//! Ceilings: what Kafka, Redis and Postgres do here with next to nothing around them. A pipeline on them stays below.

mod kafka;
mod postgres;

pub use kafka::{Log, bare_loop, consume, produce};
pub use postgres::batches;
