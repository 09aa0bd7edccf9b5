//! `goscope backup` as a process: killed in the middle, on a full volume, from a read-only one.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use goscope::model::{ArtifactId, hex};
use jiff::Timestamp;

use super::{goscope, said};

/// Only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(60);
/// So much that a process can be killed while it copies it.
const MUCH: usize = 96 << 20;

/// An artifact of `bytes` bytes that is so old, as an agent stores it; returns its folder.
fn put(root: &Path, name: &str, time: &str, bytes: usize) -> PathBuf {
    let content = vec![7; bytes];
    let sha256 = hex(ring::digest::digest(&ring::digest::SHA256, &content).as_ref());
    let id = ArtifactId::new(time.parse().expect("a time"), name);
    let folder = root.join("pod-1/heap").join(id.as_str());
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join("content"), content).expect("written");
    let meta = format!(
        r#"{{"schema":"goscope.artifact/v1","id":"{id}","kind":"heap","created":"{time}","host":"pod-1","bytes":{bytes},"files":[{{"name":"content","bytes":{bytes},"sha256":"{sha256}"}}],"pinned":false,"requested_by":"me"}}"#
    );
    fs::write(folder.join("meta.json"), meta).expect("written");
    folder
}

struct Pair {
    dir: tempfile::TempDir,
}

impl Pair {
    fn new() -> Self {
        let pair = Self { dir: tempfile::tempdir().expect("a folder") };
        fs::create_dir(pair.to()).expect("made");
        pair
    }

    fn from(&self) -> PathBuf {
        self.dir.path().join("from")
    }

    fn to(&self) -> PathBuf {
        self.dir.path().join("to")
    }

    fn arguments(&self) -> [String; 5] {
        let shown = |path: PathBuf| path.display().to_string();
        ["backup".to_owned(), "--from".to_owned(), shown(self.from()), "--to".to_owned(), shown(self.to())]
    }

    fn backup(&self, more: &[&str]) -> (Option<i32>, String, String) {
        let arguments = self.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        said(goscope(&arguments))
    }

    /// Artifacts at the destination.
    fn copies(&self) -> usize {
        fs::read_dir(self.to().join("pod-1/heap")).map_or(0, Iterator::count)
    }
}

fn summary(copied: usize, bytes: usize, there: usize, damaged: usize, removed: usize) -> String {
    format!(
        "copied {copied} ({bytes} bytes), there already {there}, skipped 0 gone meanwhile and 0 too old, damaged {damaged}, removed {removed}\n"
    )
}

/// Whether something of the large artifact is in the destination's staging folder, but not it all.
fn is_copying(to: &Path) -> bool {
    let staged = fs::read_dir(to.join(".staging")).into_iter().flatten().flatten();
    let staged = staged.flat_map(|entry| fs::read_dir(entry.path())).flatten().flatten();
    let mut sizes = staged.filter_map(|entry| fs::metadata(entry.path().join("content")).ok()).map(|file| file.len());
    sizes.any(|bytes| bytes > 0 && bytes < MUCH as u64)
}

fn kill_while_it_copies(child: &mut Child, to: &Path) {
    let deadline = Instant::now() + DEADLINE;
    while !is_copying(to) && child.try_wait().expect("asked").is_none() {
        assert!(Instant::now() < deadline, "it copies nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("killed");
}

#[test]
fn a_backup_that_is_killed_goes_on_when_it_is_run_again() {
    let pair = Pair::new();
    put(&pair.from(), "small", "2026-11-23T08:00:00Z", 10);
    put(&pair.from(), "large", "2026-11-23T09:00:00Z", MUCH);
    for _ in 0..20 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_goscope"));
        command.args(pair.arguments()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it runs");
        kill_while_it_copies(&mut child, &pair.to());
        let came_too_late = child.wait().expect("ended").success();
        let left = fs::read_dir(pair.to().join(".staging")).expect("staging").count();
        if came_too_late {
            fs::remove_dir_all(pair.to()).expect("removed");
            fs::create_dir(pair.to()).expect("made");
            continue;
        }
        let copied = pair.copies();
        assert!(left == 1 && copied <= 1, "{left} staging folders, {copied} copies");
        // The order of a folder's entries is the file system's.
        let bytes = MUCH + if copied == 0 { 10 } else { 0 };
        let expected = (Some(0), summary(2 - copied, bytes, copied, 0, 0), String::new());
        assert_eq!(pair.backup(&[]), expected);
        assert_eq!(fs::read_dir(pair.to().join(".staging")).expect("staging").count(), 0, "what it left is swept");
        let from = fs::read_dir(pair.from().join("pod-1/heap")).expect("listed");
        for folder in from.map(|entry| entry.expect("an entry").path()) {
            let copy = pair.to().join(folder.strip_prefix(pair.from()).expect("below"));
            for file in ["content", "meta.json"] {
                assert!(
                    fs::read(folder.join(file)).expect("read") == fs::read(copy.join(file)).expect("read"),
                    "{file}"
                );
            }
        }
        return;
    }
    panic!("every kill came too late");
}

/// Runs goscope by `script`, which may mount what nobody else sees; `None`, said aloud, where that is not allowed.
fn with_mounts(script: &str) -> Option<Command> {
    let apart = [&["--mount"][..], &["--mount", "--user", "--map-root-user"]];
    let may = |flags: &&[&str]| {
        Command::new("unshare").args(*flags).arg("true").output().is_ok_and(|output| output.status.success())
    };
    let Some(flags) = apart.into_iter().find(may) else {
        writeln!(io::stderr(), "SKIPPED: nothing may be mounted here").expect("said");
        return None;
    };
    let mut command = Command::new("unshare");
    command.args(flags).args(["sh", "-c", script, "sh", env!("CARGO_BIN_EXE_goscope")]).stdin(Stdio::null());
    Some(command)
}

#[test]
fn a_full_destination_is_one_sentence_and_no_half_artifact() {
    let pair = Pair::new();
    put(&pair.from(), "large", "2026-11-23T09:00:00Z", 1 << 20);
    let to = pair.to().display().to_string();
    let script =
        format!("mount -t tmpfs -o size=256k none {to} || exit 9; \"$@\"; status=$?; find {to} -type f; exit $status");
    let Some(mut command) = with_mounts(&script) else { return };
    let (status, stdout, stderr) = said(command.args(pair.arguments()).output().expect("it runs"));
    assert_eq!((status, stdout), (Some(2), summary(0, 0, 0, 0, 0)), "{stderr}");
    let sentence =
        format!("goscope: the backup stopped, and goes on when it is run again: cannot write {to}/.staging/");
    assert!(stderr.starts_with(&sentence) && stderr.ends_with(": No space left on device (os error 28)\n"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_source_that_is_read_only_and_damaged_gives_what_is_whole() {
    let pair = Pair::new();
    put(&pair.from(), "whole", "2026-11-23T08:00:00Z", 10);
    let damaged = put(&pair.from(), "damaged", "2026-11-23T09:00:00Z", 10);
    fs::write(damaged.join("content"), "0123456789").expect("written");
    let script = format!("mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec \"$@\"", pair.from().display());
    let Some(mut command) = with_mounts(&script) else { return };
    let output = said(command.args(pair.arguments()).output().expect("it runs"));
    let told =
        format!("goscope: {} is damaged: content has not the SHA-256 that meta.json states\n", damaged.display());
    assert_eq!(output, (Some(1), summary(1, 10, 0, 1, 0), told));
    assert_eq!(pair.copies(), 1);
}

#[test]
fn what_is_older_than_keep_goes() {
    let pair = Pair::new();
    put(&pair.from(), "new", &Timestamp::now().to_string(), 10);
    put(&pair.to(), "old", "2020-01-01T00:00:00Z", 10);
    assert_eq!(pair.backup(&["--keep", "90d"]), (Some(0), summary(1, 10, 0, 0, 1), String::new()));
    assert_eq!(pair.copies(), 1);
}

#[test]
fn a_call_that_cannot_be_used_is_one_sentence() {
    let pair = Pair::new();
    let check = |arguments: &[&str], expected: &str| {
        let (status, stdout, stderr) = said(goscope(arguments));
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(stderr.contains(expected), "{stderr}");
    };
    let to = pair.to().display().to_string();
    let absent = pair.from().display().to_string();
    check(&["backup", "--from", &to], "--to <DIR>");
    check(&["backup", "--from", &to, "--to", &to], "are the same folder");
    check(&["backup", "--from", &absent, "--to", &to], &format!("goscope: cannot read {absent}: No such file"));
    check(&["backup", "--from", &to, "--to", &absent], &format!("goscope: cannot use {absent}: No such file"));
    check(&["backup", "--from", &to, "--to", "/proc", "--keep", "5s"], "expected at least 1m, found \"5s\"");
    let (status, stdout, _) = said(goscope(&["help", "backup"]));
    assert_eq!(status, Some(0));
    assert!(
        stdout.starts_with("Example: goscope backup --from /var/lib/goscope/data --to /backup --keep 90d\n"),
        "{stdout}"
    );
}
