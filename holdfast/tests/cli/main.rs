//! The tools, on the real engines that the environment names; each test has topics, tables and keys of its own.

mod dead_letters;
mod looking;
mod measuring;
mod setting_up;
mod verifying;
mod world;
