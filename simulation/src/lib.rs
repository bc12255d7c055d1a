//! A deterministic simulation of lanes: the reserver's own code in a world where a seed decides what goes wrong.
//!
//! In     a seed: which commands are sent, and what is lost, late, twice, set back, cut off, killed or paused.
//! Out    every promise kept, or the first that was not (docs/SIMULATION.md).
//! Owns   nothing that runs in production; the roles know nothing of it.
//!
//! Each lane's thread of each process is a coroutine (`process` is its world). Whatever it asks of Kafka (`kafka`), Redis (`redis`,
//! with the real scripts in a real Lua), Postgres (`postgres`) or the clock puts its return on one agenda (`state`), and `play` takes
//! the entries in order. When all has settled, the `judge` compares the log with the `oracle`, and Redis and Postgres with the
//! log. `mutants` are the protocol with one rule left out: each must be found.

mod chance;
mod clients;
mod faults;
mod judge;
mod kafka;
mod mutants;
mod oracle;
mod picture;
mod play;
mod plot;
mod postgres;
mod process;
mod redis;
mod state;
mod story;

pub use mutants::Mutant;
pub use play::{Ending, Stage, play};
