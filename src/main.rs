//! The program: parse, run, print what went wrong, exit with the status of the manual.

use std::process::ExitCode;

use cascade::commands;

fn main() -> ExitCode {
    commands::main()
}
