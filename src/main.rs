//! The program: parse, run once, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(pipeline_state::cli::main(std::env::args_os().collect()))
}
