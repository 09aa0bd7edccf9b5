//! What `goscope run` tells the person at the terminal. The launcher copies it to its own stderr, whole lines between the app's whole lines.
//!
//! On a terminal a short block; otherwise one log line a fact; with `--quiet` nothing. The token is never part of it: commands read it from its
//! file.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use goscope_analysis::text::Colour;

use crate::config::TargetAddress;
use crate::config::render::target_text;
use crate::target::opening::opening;

/// Who reads the notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Audience {
    /// A person at a terminal.
    Terminal,
    /// A file or a collector: one line a fact.
    Log,
    /// Nobody.
    Quiet,
}

/// Writes notices to standard error, which is the launcher's pipe.
#[derive(Clone, Copy, Debug)]
pub struct Notices {
    audience: Audience,
    colour: Colour,
}

/// Where everything is, for the first block.
#[derive(Clone, Debug)]
pub struct Places<'a> {
    pub target: &'a TargetAddress,
    /// `None` where the address was taken, or the configuration cannot be used.
    pub debug: Option<SocketAddr>,
    pub misconfigured: bool,
    pub metrics: Option<SocketAddr>,
    /// As given by `--data`, so that commands can be pasted where `goscope run` was typed.
    pub data: &'a Path,
}

impl Notices {
    #[must_use]
    pub fn new(audience: Audience, no_color: bool) -> Self {
        let colour = if audience == Audience::Terminal && !no_color { Colour::On } else { Colour::Off };
        Self { audience, colour }
    }

    #[must_use]
    pub fn colour(&self) -> Colour {
        self.colour
    }

    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.audience == Audience::Quiet
    }

    /// The first block: what can be done now.
    pub fn started(&self, places: &Places<'_>) {
        let facts = facts(places);
        match self.audience {
            Audience::Quiet => {}
            Audience::Log => {
                self.write(&facts.iter().map(|(name, fact)| format!("goscope: {name}: {fact}\n")).collect::<String>());
            }
            Audience::Terminal => {
                let head = self.colour.strong("goscope is recording");
                let lines: String = facts
                    .iter()
                    .map(|(name, fact)| format!("  {}  {fact}\n", self.colour.dim(&format!("{name:<8}"))))
                    .collect();
                self.write(&format!("{head}\n{lines}"));
            }
        }
    }

    /// Nothing answers where the target should be: recording works all the same, and this is how to open it.
    pub fn no_target(&self, target: &TargetAddress) {
        let text = target_text(target);
        match self.audience {
            Audience::Quiet => {}
            Audience::Log => {
                let lines: String =
                    opening(target).iter().map(|line| format!("goscope: target:     {line}\n")).collect();
                self.write(&format!(
                    "goscope: target: nothing listens on {text}; crashes are recorded all the same; three lines of Go open it:\n{lines}"
                ));
            }
            Audience::Terminal => {
                let lines: String = opening(target).iter().map(|line| format!("      {line}\n")).collect();
                self.write(&format!(
                    "{} nothing listens on {text}; crashes are recorded all the same. Three lines of Go open it:\n{lines}",
                    self.colour.strong("goscope:")
                ));
            }
        }
    }

    /// One sentence.
    pub fn say(&self, sentence: &str) {
        if !self.is_quiet() {
            self.write(&format!("{} {sentence}\n", self.colour.strong("goscope:")));
        }
    }

    fn write(&self, text: &str) {
        // One write, so that a notice is never torn; and nobody is left to tell if the launcher is gone.
        drop(std::io::stderr().lock().write_all(text.as_bytes()));
    }
}

fn facts(places: &Places<'_>) -> Vec<(&'static str, String)> {
    let data = pasteable(places.data);
    let mut facts = Vec::new();
    match places.debug {
        Some(debug) => {
            let token = pasteable(&places.data.join("token"));
            facts.push(("gate", format!("http://{debug} in front of {}", target_text(places.target))));
            facts.push(("profile", format!("go tool pprof \"http://me:$(cat {token})@{debug}/debug/pprof/heap\"")));
        }
        None if places.misconfigured => facts.push(("gate", "closed: the configuration cannot be used".to_owned())),
        None => facts
            .push(("gate", "closed: its address is taken by another process (listen.debug names another)".to_owned())),
    }
    match places.metrics {
        Some(metrics) => facts.push(("metrics", format!("curl http://{metrics}/metrics"))),
        None => facts.push((
            "metrics",
            "closed: its address is taken by another process (listen.metrics names another)".to_owned(),
        )),
    }
    facts.push(("data", data));
    facts
}

/// A path as a shell takes it: as it is where that is safe, else in single quotes.
#[must_use]
pub fn pasteable(path: &Path) -> String {
    let text = path.display().to_string();
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&b);
    if !text.is_empty() && text.bytes().all(safe) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_be_pasted() {
        for (path, expected) in [
            ("./goscope-data", "./goscope-data"),
            ("my data", "'my data'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(pasteable(Path::new(path)), expected);
        }
    }

    #[test]
    fn the_first_block_names_every_place_and_never_a_token() {
        let target = TargetAddress::Tcp("127.0.0.1:6060".parse().unwrap());
        let places = Places {
            target: &target,
            debug: Some("127.0.0.1:6061".parse().unwrap()),
            misconfigured: false,
            metrics: None,
            data: Path::new("./goscope-data"),
        };
        let text: Vec<String> = facts(&places).into_iter().map(|(name, fact)| format!("{name}: {fact}")).collect();
        assert_eq!(
            text,
            [
                "gate: http://127.0.0.1:6061 in front of 127.0.0.1:6060",
                "profile: go tool pprof \"http://me:$(cat ./goscope-data/token)@127.0.0.1:6061/debug/pprof/heap\"",
                "metrics: closed: its address is taken by another process (listen.metrics names another)",
                "data: ./goscope-data",
            ]
        );
    }
}
