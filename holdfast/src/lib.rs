//! The one binary: every role as a subcommand, and the tools that look at a running system or prepare one.
//!
//! ```text
//! cli        one file per subcommand; parses, calls, prints
//! roles      ingress, reserver, persister, expirer, each alone or all in one process
//! setup      topics, schemas and tables, idempotent
//! verify     folds the log and compares it with Redis and Postgres (I1 to I6)
//! check      lays what clients were told beside the log (I1 to I5, order, bounds)
//! torture    a system of its own, load, faults, and then check and verify
//! log        reads one partition in order; decodes with any schema of the registry
//! redis_lane what Redis has of a lane, read without changing it
//! ```
//!
//! The tools only read, but for `topics`, `schemas`, `migrate` (which create), `stock` and `demo` (which ask over HTTP like
//! any client), `dead-letters send` (which produces one command), and `torture` (which breaks a system of its own).

pub mod check;
pub mod cli;
pub mod http;
pub mod json;
pub mod log;
pub mod redis_lane;
pub mod setup;
pub mod torture;
pub mod verify;
