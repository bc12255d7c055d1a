//! The persister as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    plumbing::service::main("persister", |config: persister::Config, context| {
        persister::run(config.connections, config.options, context)
    })
}
