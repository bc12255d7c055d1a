//! Plumbing: the I/O that every role needs. It knows no domain word.
//!
//! A role is a library with `run(config, context)`; [`service`] turns it into a process: configuration, logs, traces,
//! metrics, health, signals, and a shutdown with a deadline. The rest are the tools that `run` is built from.
//!
//! Owns   the wall clock ([`time`]), random ids ([`id`]), every spawned task and thread ([`task`]), the options of every
//!        client: Kafka ([`kafka`]), Postgres ([`postgres`]), Redis ([`redis`](mod@redis)), HTTP ([`tls`]).
//! Never  a global: configuration and the stop signal are arguments, so that two instances live in one test. (The
//!        metrics recorder and the log subscriber are global by their nature, and may be installed again.)

pub mod backoff;
pub mod config;
pub mod failpoint;
pub mod files;
pub mod health;
pub mod http;
pub mod id;
pub mod kafka;
pub mod postgres;
pub mod problem;
pub mod redis;
pub mod service;
pub mod stop;
pub mod task;
pub mod telemetry;
pub mod time;
pub mod tls;
pub mod wait;
