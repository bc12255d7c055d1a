//! The ingress against real Kafka, registry and Postgres. The test itself plays the reserver: it reads the commands and
//! writes the events, valid or not.

#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

mod api;
mod bad_input;
mod fleeting;
mod live_stock;
mod reads;
mod refusals;
mod reserver;
mod tail;
mod world;
