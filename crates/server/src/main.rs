//! The `everspan` binary. See the library of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    everspan_server::run()
}
