//! `goscope config`: check, show, default.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;

use super::EXIT_BAD;
use crate::config::check::{ConfigError, load, process_environment};
use crate::config::render::{Comments, render};
use crate::config::{Config, ENV_CONFIG};

/// Check and explain configuration
#[derive(Debug, clap::Args)]
#[command(before_help = "Example: goscope config check goscope.yaml")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report every mistake with its path; exit 1 if there is one
    Check(File),
    /// Print the configuration that is in force: defaults, file, environment
    Show(File),
    /// Print the defaults, commented
    Default,
}

#[derive(Debug, clap::Args)]
struct File {
    /// The file; without it $GOSCOPE_CONFIG, without that the defaults
    file: Option<PathBuf>,
}

impl Args {
    /// # Errors
    /// The file cannot be read, or standard output cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut stdout = std::io::stdout().lock();
        let file = match self.command {
            Command::Check(file) => {
                return match read(file) {
                    Ok(_) => Ok(ExitCode::SUCCESS),
                    Err(error @ ConfigError::Mistakes { .. }) => bad(&error),
                    Err(error) => Err(error.into()),
                };
            }
            Command::Default => {
                stdout
                    .write_all(render(&Config::sidecar(), Comments::On).as_bytes())
                    .context("cannot write to standard output")?;
                return Ok(ExitCode::SUCCESS);
            }
            Command::Show(file) => file,
        };
        match read(file) {
            Ok(config) => {
                stdout
                    .write_all(render(&config, Comments::Off).as_bytes())
                    .context("cannot write to standard output")?;
                Ok(ExitCode::SUCCESS)
            }
            Err(error @ ConfigError::Mistakes { .. }) => bad(&error),
            Err(error) => Err(error.into()),
        }
    }
}

fn read(file: File) -> Result<Config, ConfigError> {
    let path = file.file.or_else(|| process_environment(ENV_CONFIG).map(PathBuf::from));
    load(path.as_deref(), Config::sidecar(), &process_environment)
}

fn bad(error: &ConfigError) -> anyhow::Result<ExitCode> {
    writeln!(std::io::stderr(), "goscope: {error}").context("cannot write to standard error")?;
    Ok(ExitCode::from(EXIT_BAD))
}
