//! `kubectl pat`: what a person does with personal access tokens, from a terminal or a script.

use std::process::ExitCode;

fn main() -> ExitCode {
    pat_operator::plugin::main()
}
