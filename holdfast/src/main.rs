//! `holdfast`: see `holdfast --help`.

use std::process::ExitCode;

/// Millions of short-lived texts an hour: the system's allocator costs twice as much and gives memory back late.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    holdfast::cli::main()
}
