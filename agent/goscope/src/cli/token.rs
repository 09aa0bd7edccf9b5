//! `goscope token`: make and hash the tokens that the gate knows.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use jiff::Timestamp;

use crate::config::AddressRule;
use crate::config::units::{parse_address_rule, parse_duration};
use crate::token::file::{self, check_name};
use crate::token::tier::{Tier, TierSet};
use crate::token::{Token, write_private};

mod secret;

/// Make tokens and hash them.
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  goscope token new --name alice --tier basic --tier cpu --expires 14d --file tokens.yaml\n  \
                        goscope token hash < token"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(New),
    Secret(secret::Args),
    /// Read a token from standard input and print the SHA-256 that a token file holds.
    Hash,
}

/// Make a token: it is printed on standard output, once; its entry for the token file goes to standard error, or to FILE.
#[derive(Debug, clap::Args)]
struct New {
    /// Who it is for; stands in every audit line
    #[arg(long, value_parser = |text: &str| check_name(text).map(str::to_owned))]
    name: String,
    /// What it may ask for: basic, cpu, trace, dump, vars, cmdline, artifacts, capture, admin
    #[arg(long = "tier", value_name = "TIER", value_delimiter = ',', default_value = "basic", value_parser = Tier::parse)]
    tiers: Vec<Tier>,
    /// Addresses it may come from, as 10.0.0.0/8 or !10.1.0.0/16; all without this
    #[arg(long = "allow", value_name = "NETWORK", value_parser = parse_address_rule)]
    allow: Vec<AddressRule>,
    /// How long it is valid, as 14d or 8h; for ever without this
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires: Option<Duration>,
    /// Add the entry to this token file, which is made if it is not there
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Args {
    /// # Errors
    /// The token file cannot be used, or standard input holds no token.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::New(new) => new.run()?,
            Command::Secret(secret) => secret.run()?,
            Command::Hash => hash()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl New {
    fn run(self) -> anyhow::Result<()> {
        let token = Token::generate().context("cannot make a token")?;
        let expires = match self.expires {
            Some(duration) => {
                let end = Timestamp::now().checked_add(jiff::SignedDuration::try_from(duration)?)?;
                Some(Timestamp::from_second(end.as_second())?)
            }
            None => None,
        };
        let tiers: TierSet = self.tiers.into_iter().collect();
        let entry = file::entry(&self.name, token.sha256(), tiers, &self.allow, expires);
        let note = match &self.file {
            Some(path) => {
                append(path, &entry).with_context(|| format!("token file {}", path.display()))?;
                format!("goscope: added {} to {}; the token itself is shown only now\n", self.name, path.display())
            }
            None => format!(
                "goscope: the token is shown only now; its entry for the token file (under tokens:) is\n{entry}"
            ),
        };
        io::stderr().write_all(note.as_bytes()).context("cannot write to standard error")?;
        writeln!(io::stdout(), "{}", token.reveal()).context("cannot write to standard output")
    }
}

fn hash() -> anyhow::Result<()> {
    let mut text = String::new();
    io::stdin().lock().take(4096).read_to_string(&mut text).context("cannot read the token from standard input")?;
    let token = Token::parse(text.trim()).context("standard input holds no token")?;
    writeln!(io::stdout(), "{}", token.sha256().hex()).context("cannot write to standard output")
}

/// Adds an entry to a token file and keeps what stands there as it is written.
fn append(path: &Path, entry: &str) -> anyhow::Result<()> {
    let old = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    let listed = |mistakes: Vec<_>| {
        anyhow::anyhow!("{}", mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))
    };
    let (new, before) = if old.trim().is_empty() {
        (file::document(entry), 0)
    } else {
        let before = file::parse(&old).map_err(listed)?.len();
        let gap = if old.ends_with('\n') { "" } else { "\n" };
        (format!("{old}{gap}{entry}"), before)
    };
    // Only a file that ends with its list as this command writes it can be added to at its end; any other would say something else now.
    if !file::parse(&new).is_ok_and(|entries| entries.len() == before + 1) {
        bail!(
            "is not written as one list to which an entry can be added at its end; add this under tokens: by hand\n{entry}"
        );
    }
    write_private(path, &new).context("cannot be written")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Digest;

    fn entry(name: &str) -> String {
        file::entry(name, Digest::of(name.as_bytes()), TierSet::ALL, &[], None)
    }

    #[test]
    fn entries_are_added_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.yaml");
        append(&path, &entry("a")).unwrap();
        let commented = format!("# ours\n{}    # no line feed at the end", fs::read_to_string(&path).unwrap());
        fs::write(&path, &commented).unwrap();
        append(&path, &entry("b")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&commented));
        let names: Vec<_> = file::parse(&text).unwrap().iter().map(|entry| entry.name.to_string()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_file_that_cannot_be_added_to_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.yaml");
        for text in ["tokens: []\n", "tokens: [{name: a}]\n", "nonsense: 1\n", ": : :"] {
            fs::write(&path, text).unwrap();
            assert!(append(&path, &entry("b")).is_err(), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
