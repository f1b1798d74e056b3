//! The kubectl plugin `kubectl pat`, which manages personal access tokens.

use std::process::ExitCode;

fn main() -> ExitCode {
    pat_operator::plugin::main()
}
