//! The expirer as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    plumbing::service::main("expirer", |config: expirer::Config, context| {
        expirer::run(config.connections, config.options, context)
    })
}
