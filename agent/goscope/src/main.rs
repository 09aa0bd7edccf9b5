//! Parses the command line, dispatches, prints the error chain, sets the exit code.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use goscope::cli::ctl::{PLUGIN_NAME, Plugin};
use goscope::cli::{Cli, EXIT_UNUSABLE};

fn main() -> ExitCode {
    let ended = if is_plugin() { Plugin::parse().run() } else { Cli::parse().run() };
    match ended {
        Ok(code) => code,
        Err(error) => {
            // Nothing is left to tell if standard error is gone.
            drop(writeln!(std::io::stderr(), "goscope: {error:#}"));
            ExitCode::from(EXIT_UNUSABLE)
        }
    }
}

/// Whether kubectl started us, or somebody under the same name.
fn is_plugin() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    Path::new(&name).file_name().is_some_and(|name| name == PLUGIN_NAME)
}
