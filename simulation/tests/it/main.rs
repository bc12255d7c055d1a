//! Ten thousand stories keep every promise, and without any one rule of the protocol some story does not.

mod mutants;
mod seeds;
