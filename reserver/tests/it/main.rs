//! Tests of the reserver on a real Redis: the scripts against the ledger.

mod books;
mod carts;
mod differential;
mod model;
mod paying;
mod rebuild;
mod scripts;
mod stories;
