//! Where the token comes from. Never from the command line, and never into a message.
//!
//! In this order: `--token-file`, `$GOSCOPE_TOKEN_FILE`, the Secret in the pod's namespace if it may be read, the terminal without echo.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use k8s_openapi::api::core::v1;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::cluster::Cluster;
use crate::notice::pasteable;
use crate::token::{TOKEN_BYTES, Token};

/// The Secret in which a person's token is looked for.
pub(super) const SECRET: &str = "goscope-token";
/// Its key.
const KEY: &str = "token";
/// The environment variable that names a token file.
const ENV_TOKEN_FILE: &str = "GOSCOPE_TOKEN_FILE";
/// Bytes that are read in search of a token.
const BYTES_MAX: u64 = 4096;

/// Where a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    File(PathBuf),
    Stdin,
    Secret {
        /// kubectl's, that lead to the Secret.
        flags: String,
        name: String,
    },
}

impl Source {
    /// The token as a part of a command that a shell runs, between double quotes.
    pub(super) fn shell(&self) -> String {
        match self {
            Self::File(path) => format!("$(cat {})", pasteable(path)),
            Self::Secret { flags, name } => {
                let name = pasteable(Path::new(name));
                format!("$(kubectl{flags} get secret {name} --output jsonpath='{{.data.{KEY}}}' | base64 -d)")
            }
            Self::Stdin => "TOKEN".to_owned(),
        }
    }
}

/// The file that is named, by the flag or else by the environment.
fn named(flag: Option<&Path>, environment: Option<PathBuf>) -> Option<Source> {
    let path = flag.map(Path::to_owned).or_else(|| environment.filter(|path| !path.as_os_str().is_empty()))?;
    Some(if path == Path::new("-") { Source::Stdin } else { Source::File(path) })
}

/// Where the token will be read from without asking anybody, if it is in a file.
pub(super) fn named_source(flag: Option<&Path>) -> Option<Source> {
    named(flag, std::env::var_os(ENV_TOKEN_FILE).map(PathBuf::from))
}

/// Finds the token.
///
/// # Errors
/// A named file holds none, or nothing is named and nobody can be asked.
pub(super) async fn find(flag: Option<&Path>, secret: &str, cluster: Option<&Cluster>) -> anyhow::Result<Token> {
    if let Some(source) = named_source(flag) {
        let token = match &source {
            Source::File(path) => {
                let shown = path.display();
                let file = File::open(path).with_context(|| format!("cannot read the token file {shown}"))?;
                read(file).with_context(|| format!("token file {shown}"))?
            }
            _ => read(io::stdin().lock()).context("standard input")?,
        };
        return Ok(token);
    }
    let hint = match cluster {
        None => "name its file, as --token-file goscope-data/token".to_owned(),
        Some(cluster) => match from_secret(cluster, secret).await {
            Ok(token) => return Ok(token),
            Err(error) => format!("{error:#}\nor name a file that holds it with --token-file"),
        },
    };
    match ask(&hint) {
        Ok(token) => token,
        Err(_) => bail!("no token, and no terminal to ask for it: {hint}"),
    }
}

async fn from_secret(cluster: &Cluster, name: &str) -> anyhow::Result<Token> {
    let secret: v1::Secret = cluster.get("", "secrets", name).await?;
    let bytes = secret
        .data
        .as_ref()
        .and_then(|data| data.get(KEY))
        .ok_or_else(|| anyhow!("the Secret {name} has no key {KEY}"))?;
    read(bytes.0.as_slice()).with_context(|| format!("key {KEY} of the Secret {name}"))
}

/// Reads a token; white space around it is left out.
fn read(input: impl Read) -> anyhow::Result<Token> {
    let mut text = String::new();
    input.take(BYTES_MAX).read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => anyhow!("holds no token"),
        _ => anyhow!("cannot be read: {error}"),
    })?;
    Token::parse(text.trim()).map_err(|error| anyhow!("holds no token: {error}"))
}

/// What the person at the terminal reads: why they are asked, and what would spare them that.
fn question(hint: &str) -> String {
    format!("goscope: no token: {hint}\nToken (it is not shown): ")
}

/// Asks at the terminal.
///
/// # Errors
/// The outer one: there is no terminal. The inner one: nothing usable was typed.
fn ask(hint: &str) -> io::Result<anyhow::Result<Token>> {
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let silence = Silence::of(&terminal)?;
    (&terminal).write_all(question(hint).as_bytes())?;
    let typed = type_in(&terminal);
    drop(silence);
    (&terminal).write_all(b"\n")?;
    Ok(typed.and_then(|text| Token::parse(text.trim()).map_err(|error| anyhow!("that is no token: {error}"))))
}

/// What is typed up to the end of the line. The keys that would raise a signal are read as well, because the terminal would stay silent after one.
fn type_in(mut terminal: impl Read) -> anyhow::Result<String> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    let mut typed = Vec::new();
    let mut byte = [0];
    loop {
        match terminal.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot read from the terminal"),
        }
        match byte[0] {
            b'\n' | b'\r' | END => break,
            INTERRUPT => bail!("interrupted"),
            8 | 127 => drop(typed.pop()),
            byte if typed.len() < 2 * TOKEN_BYTES => typed.push(byte),
            _ => {}
        }
    }
    String::from_utf8(typed).map_err(|_| anyhow!("that is no token"))
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Silence<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn of(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        tcsetattr(self.terminal, OptionalActions::Flush, &self.before).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_environment() {
        let file = |path: &str| Some(Source::File(PathBuf::from(path)));
        for (flag, environment, expected) in [
            (Some("a"), Some("b"), file("a")),
            (None, Some("b"), file("b")),
            (None, Some(""), None),
            (None, None, None),
            (Some("-"), Some("b"), Some(Source::Stdin)),
            (None, Some("-"), Some(Source::Stdin)),
        ] {
            assert_eq!(
                named(flag.map(Path::new), environment.map(PathBuf::from)),
                expected,
                "{flag:?} {environment:?}"
            );
        }
    }

    #[test]
    fn a_text_that_is_no_token_is_refused_and_not_repeated() {
        let token = Token::generate().expect("a token");
        assert_eq!(read(format!(" {}\n", token.reveal()).as_bytes()).expect("a token"), token);
        for text in ["", "hunter2", &token.reveal()[1..], &format!("{0}{0}", token.reveal()), "\u{fffd}"] {
            let said = format!("{:#}", read(text.as_bytes()).expect_err("no token"));
            assert!(said.starts_with("holds no token") && (text.is_empty() || !said.contains(text)), "{said}");
        }
        assert!(read(&[0xff, 0xfe][..]).is_err());
    }

    #[test]
    fn whoever_is_asked_reads_why() {
        assert_eq!(
            question("you may not get secrets in namespace shop"),
            "goscope: no token: you may not get secrets in namespace shop\nToken (it is not shown): "
        );
    }

    #[test]
    fn typing() {
        let typed = |keys: &[u8]| type_in(keys).map_err(|error| error.to_string());
        assert_eq!(typed(b"abc\nmore"), Ok("abc".to_owned()));
        assert_eq!(typed(b"abx\x7fc\r"), Ok("abc".to_owned()));
        assert_eq!(typed(b"\x7f\x08a\x04"), Ok("a".to_owned()));
        assert_eq!(typed(b"a\x03b\n"), Err("interrupted".to_owned()));
        assert_eq!(typed(b"abc"), Ok("abc".to_owned()));
        assert_eq!(typed(&[b'a'; 1000]).map(|text| text.len()), Ok(2 * TOKEN_BYTES));
    }

    #[test]
    fn a_command_to_paste_reads_the_token_where_it_is() {
        for (source, expected) in [
            (Source::File("my data/token".into()), "$(cat 'my data/token')"),
            (
                Source::Secret { flags: " --namespace shop".to_owned(), name: "goscope-token".to_owned() },
                "$(kubectl --namespace shop get secret goscope-token --output jsonpath='{.data.token}' | base64 -d)",
            ),
            (Source::Stdin, "TOKEN"),
        ] {
            assert_eq!(source.shell(), expected);
        }
    }
}
