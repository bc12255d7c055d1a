//! Records and schemas on a real registry: golden examples, round trips, evolution.

mod evolution;
mod fuzz;
mod golden;
mod records;
