//! The reserver as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    plumbing::service::main("reserver", |config: reserver::Config, context| {
        reserver::run(config.connections, config.options, context)
    })
}
