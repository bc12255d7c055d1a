//! `holdfast`: see `holdfast --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast::cli::main()
}
