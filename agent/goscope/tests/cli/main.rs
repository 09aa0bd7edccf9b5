//! The binary as it is called: exit codes, and what stands on which stream.

mod agent;
mod archive;
mod backup;
mod health;
mod install;
mod version;
mod worker;

use std::process::{Command, Output, Stdio};

/// Runs the binary to its end.
fn goscope(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_goscope")).args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
}

/// Exit status, standard output, standard error.
fn said(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}
