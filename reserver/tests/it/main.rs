//! Tests of the reserver on a real Redis: the scripts against the ledger.

mod books;
mod carts;
mod differential;
mod kept;
mod model;
mod paying;
mod rebuild;
mod relay;
mod scripts;
mod stories;
