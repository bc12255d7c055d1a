//! The fulfiller as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    plumbing::service::main("fulfiller", |config: fulfiller::Config, context| {
        fulfiller::run(config.connections, config.options, context)
    })
}
