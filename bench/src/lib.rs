//! Instruments of `holdfast bench`: load, measurements, and what the same machine can do without Holdfast.
//!
//! ```text
//! load       HTTP/1.1 over keep-alive connections, closed or open loop, one thread, no allocation per request
//! tally      what came back: latencies, statuses, failures
//! cpu        who used the processor and the memory meanwhile, by process and by thread
//! ceilings   Kafka, a bare Kafka-Lua-Kafka loop, and Postgres' batches alone: the most that a pipeline on them could do
//! baselines  the services that people write instead: axum on Redis, axum on Postgres
//! files      how many connections this process may have
//! plot       a series as an SVG picture
//! ```
//!
//! Nothing here knows the pipeline: scenarios that start its roles and verify its books are in `holdfast/src/cli/bench`.

pub mod baselines;
pub mod ceilings;
pub mod cpu;
pub mod files;
pub mod load;
pub mod plot;
mod response;
pub mod tally;
