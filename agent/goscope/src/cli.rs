//! The command line: one file per command. Standard output carries the answer and nothing else.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::version;

pub mod agent;
pub mod analyze;
pub mod archive;
pub mod backup;
pub mod config;
pub mod ctl;
pub mod drain;
pub mod exec;
pub mod health;
pub mod install;
pub mod run;
pub mod token;

/// The command's answer is "bad": a `--fail-on` kind was found, a configuration has mistakes, health is not well.
pub const EXIT_BAD: u8 = 1;
/// The call or the input cannot be used.
pub const EXIT_UNUSABLE: u8 = 2;

/// Gatekeeper and flight recorder of a Go service.
#[derive(Debug, Parser)]
#[command(name = "goscope", version = version::LONG)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Exec(exec::Args),
    Agent(agent::Args),
    Archive(archive::Args),
    Install(install::Args),
    Analyze(analyze::Args),
    Backup(backup::Args),
    Token(token::Args),
    Config(config::Args),
    Ctl(Box<ctl::Args>),
    Health(health::Args),
    #[command(hide = true)]
    Drain(drain::Args),
}

impl Cli {
    /// Runs the command and returns the status to exit with.
    ///
    /// # Errors
    /// Whatever made the call or its input unusable; `main` prints the chain and exits with [`EXIT_UNUSABLE`].
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(args) => args.run(),
            Command::Exec(args) => args.run(),
            Command::Agent(args) => args.run(),
            Command::Archive(args) => args.run(),
            Command::Install(args) => args.run(),
            Command::Analyze(args) => args.run(),
            Command::Backup(args) => args.run(),
            Command::Token(args) => args.run(),
            Command::Config(args) => args.run(),
            Command::Ctl(args) => args.run(),
            Command::Health(args) => args.run(),
            Command::Drain(args) => args.run(),
        }
    }
}
