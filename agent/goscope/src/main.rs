//! Parses the command line, dispatches, prints the error chain, sets the exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use goscope::cli::{Cli, EXIT_UNUSABLE};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            // Nothing is left to tell if standard error is gone.
            drop(writeln!(std::io::stderr(), "goscope: {error:#}"));
            ExitCode::from(EXIT_UNUSABLE)
        }
    }
}
