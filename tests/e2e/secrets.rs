//! The token stays where it belongs: in its own file and in the hands of who presents it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use goscope_e2e::process::{self, contains};
use goscope_e2e::session::{Session, Setup};

fn files(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files(&entry.path(), found)?;
        } else if entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// The token, and the part of it that is not its public prefix, plain and as HTTP Basic encodes it with any user name of each length class.
struct Needles(Vec<Vec<u8>>);

impl Needles {
    fn new(token: &str) -> anyhow::Result<Self> {
        let secret = token.strip_prefix("gsc_").context("the token does not begin with gsc_")?;
        ensure!(
            secret.len() == 38 && secret.bytes().all(|b| b.is_ascii_alphanumeric()),
            "the token is {} bytes",
            token.len()
        );
        let mut all = vec![secret.as_bytes().to_vec()];
        // Base64 works in groups of three bytes: three alignments, the edge groups left off because they depend on what stands beside.
        for skip in 0..3 {
            let aligned = &secret.as_bytes()[skip..];
            all.push(base64(&aligned[..aligned.len() / 3 * 3]).into_bytes());
        }
        Ok(Self(all))
    }

    fn absent(&self, haystack: &[u8], place: &str) -> anyhow::Result<()> {
        ensure!(!self.0.iter().any(|needle| contains(haystack, needle)), "the token is in {place}");
        Ok(())
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks_exact(3) {
        let word = group.iter().fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        for shift in [18, 12, 6, 0] {
            text.push(char::from(ALPHABET[word >> shift & 63]));
        }
    }
    text
}

/// Presents the token in every way there is, right and slightly wrong. It goes to curl by its standard configuration, not by its command line.
fn present(session: &Session, token: &str) -> anyhow::Result<()> {
    let port = session.place.gate_port;
    for path in [
        "/debug/pprof/heap",
        "/debug/pprof/goroutine?debug=1",
        "/debug/vars",
        "/debug/pprof/unheard-of",
        "/debug/pprof/profile?seconds=99999",
    ] {
        let ways = [
            format!("user = \"me:{token}\""),
            format!("header = \"Authorization: Bearer {token}\""),
            format!("header = \"X-Debug-Token: {token}\""),
            format!("header = \"Authorization: Bearer {token}x\""),
        ];
        for (i, way) in ways.iter().enumerate() {
            let config = session.place.folder().join(format!("curl-{i}"));
            fs::write(&config, way)?;
            let url = format!("http://127.0.0.1:{port}{path}");
            let answer =
                process::run(Command::new("curl").args(["-q", "-sS", "--noproxy", "*", "-K"]).arg(&config).arg(url))?;
            fs::remove_file(config)?;
            ensure!(answer.code() == Some(0), "{}", answer.err());
            Needles::new(token)?.absent(&answer.stdout, &format!("the answer to {path}"))?;
        }
    }
    Ok(())
}

#[test]
fn token_is_in_its_own_file_only() -> anyhow::Result<()> {
    let mut setup = Setup::new(&[]);
    setup.quiet = false;
    let session = setup.under_goscope()?;
    session.await_ready()?;
    let token = session.place.token()?;
    let needles = Needles::new(&token)?;
    present(&session, &token)?;

    let family = process::tree(session.process().id())?;
    ensure!(family.len() >= 3, "launcher, agent and shop, but the tree is {family:?}");
    for id in family {
        for file in ["cmdline", "environ"] {
            needles
                .absent(&fs::read(format!("/proc/{id}/{file}")).unwrap_or_default(), &format!("/proc/{id}/{file}"))?;
        }
    }
    session.shop_get("/fault/nil").ok();
    let (outcome, place) = session.finish()?;
    ensure!(outcome.code() == Some(2));
    place.settled_incidents()?;
    needles.absent(&outcome.stderr, "standard error")?;
    needles.absent(&outcome.stdout, "standard output")?;
    let record = fs::read(place.record())?;
    ensure!(
        contains(&record, b"GET /debug/pprof/heap HTTP/1.1\r\n"),
        "the shop saw no request: {}",
        String::from_utf8_lossy(&record)
    );
    ensure!(!contains(&record.to_ascii_lowercase(), b"\r\nauthorization:"), "the shop saw a credential");

    let own = place.data().join("token");
    let mut all = Vec::new();
    files(place.folder(), &mut all)?;
    ensure!(all.contains(&own) && all.len() > 5, "{all:?}");
    for path in all {
        if path != own {
            needles.absent(&fs::read(&path)?, &path.display().to_string())?;
        }
    }
    Ok(())
}

#[test]
fn token_file_is_private_and_kept_for_the_next_start() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut setup = Setup::new(&["-noise", "lines:1"]);
    setup.quiet = true;
    let (_, place) = setup.under_goscope()?.finish()?;
    let first = place.token()?;
    let mode = fs::metadata(place.data().join("token"))?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "mode {mode:o}");
    let mut again = Command::new(goscope_e2e::session::goscope()?);
    again.args(["run", "--quiet", "--config"]).arg(place.config()).arg("--data").arg(place.data()).args(["--", "true"]);
    ensure!(process::run(&mut again)?.code() == Some(0));
    ensure!(place.token()? == first, "the second start made another token");
    Ok(())
}

#[test]
fn needles_find_a_basic_header() -> anyhow::Result<()> {
    let token = format!("gsc_{}", "aB3dE6gH".repeat(5).get(..38).context("38 bytes")?);
    let needles = Needles::new(&token)?;
    for user in ["", "a", "me", "ann", "someone"] {
        let mut plain = format!("{user}:{token}").into_bytes();
        plain.resize(plain.len().next_multiple_of(3), b' ');
        ensure!(needles.absent(base64(&plain).as_bytes(), "it").is_err(), "not found behind user {user:?}");
    }
    needles.absent(b"gsc_", "the prefix alone")
}
