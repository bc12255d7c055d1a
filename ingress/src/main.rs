//! The ingress as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    plumbing::service::main("ingress", |config: ingress::Config, context| {
        ingress::run(config.connections, config.options, context)
    })
}
