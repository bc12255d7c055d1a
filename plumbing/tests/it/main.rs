//! Plumbing against the real thing: sockets, an OTLP collector, a process-wide subscriber.

mod database;
mod engines;
mod hostile;
mod http;
mod kafka_logins;
mod telemetry;
