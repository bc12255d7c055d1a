//! The worker of checkout as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    plumbing::service::main("checkout", |config: checkout::Config, context| {
        checkout::run(config.connections, config.options, context)
    })
}
