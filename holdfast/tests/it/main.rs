//! The whole system on the real engines: the `holdfast` binary as its users run it, over HTTP, Kafka, Redis and Postgres.
//!
//! `world` starts it (a process per role, or all in one) under names of its own, so that tests run side by side; tests
//! without faults share one world and use SKUs of their own.

mod books;
mod load;
mod shop;
mod wire;
mod world;

mod answers;
mod bought;
mod canary;
mod cart_kills;
mod cart_races;
mod carts;
mod checkout;
mod console;
mod crash;
mod dead_letters;
mod documentation;
mod fulfilment;
mod halts;
mod handover;
mod input;
mod kills;
mod live_stock;
mod newer;
mod outages;
mod paying;
mod rebuild;
mod refunds;
mod rights;
mod sale;
mod seen;
mod supply;
mod torture;
mod transactions;
mod twice;
mod upstream;
mod webhooks;
mod zombies;
