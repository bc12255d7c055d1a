//! Plumbing against the real thing: sockets, an OTLP collector, a process-wide subscriber.

mod http;
mod telemetry;
