//! What stands in the spool, and what happens when it cannot.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use goscope::spool::{self, StartRecord};

use crate::harness::{GOSCOPE, Place, apart, is_root, read, read_all, read_line, skip, text, wait};

#[test]
fn the_start_is_recorded_with_secrets_masked() {
    let place = Place::new();
    let mut command = place.exec(&["sh", "-c", "cat \"$GOSCOPE_SPOOL\"/*/start.json", "--token", "hunter2"]);
    command.env("GODEBUG", "gctrace=1");
    let outcome = place.outcome(command);
    assert_eq!(outcome.stdout, read(&place.run().join(spool::START)), "it stands there before the app starts");
    let start: StartRecord = serde_json::from_slice(&outcome.stdout).expect("a start record");
    assert_eq!(start.command.last().map(String::as_str), Some("***"));
    assert!(start.executable.is_some_and(|path| path.is_absolute() && path.ends_with("sh")));
    assert_eq!(start.working_directory, std::env::current_dir().ok());
    assert!(start.environment.contains(&("GODEBUG".to_owned(), "gctrace=1".to_owned())));
    assert!(start.environment.contains(&("GOTRACEBACK".to_owned(), "all".to_owned())));
    for (path, mode) in [(place.path("spool"), 0o700), (place.run(), 0o700), (place.run().join(spool::EXIT), 0o600)] {
        let got = path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!(got, mode, "{}", path.display());
    }
}

#[test]
fn the_cap_drops_the_oldest() {
    let place = Place::new();
    let outcome = place.outcome(place.exec_with(&["--spool-max", "64KiB"], &["sh", "-c", "seq 100000 >&2"]));
    let expected: Vec<u8> = (1..=100_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    assert!(outcome.stderr == expected);
    let segments = place.segments();
    let held: usize = segments.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(held <= 64 << 10, "{held}");
    assert!(held > 32 << 10, "{held}");
    let first = usize::try_from(segments[0].0).expect("small");
    let tail: Vec<u8> = segments.into_iter().flat_map(|(_, bytes)| bytes).collect();
    assert!(tail == expected[first..], "the newest bytes, without a gap");
    let record = place.exit_record();
    assert_eq!((record.stderr_bytes, record.unspooled_bytes), (expected.len() as u64, first as u64));
}

#[test]
fn without_a_spool_the_app_runs_and_one_line_says_so() {
    let place = Place::new();
    std::fs::write(place.path("spool"), "a file, not a folder").expect("written");
    let outcome = place.outcome(place.exec(&["sh", "-c", "echo err >&2; exit 3"]));
    assert_eq!(outcome.status.code(), Some(3));
    let stderr = text(&outcome.stderr);
    let lines: Vec<_> = stderr.lines().collect();
    assert!(matches!(lines[..], [warning, "err"] if warning.starts_with("goscope: cannot record to ")), "{stderr}");
    let quiet = place.outcome(place.exec_with(&["--quiet"], &["sh", "-c", "echo err >&2"]));
    assert_eq!(text(&quiet.stderr), "err\n");
}

#[test]
fn a_removed_spool_is_made_again() {
    let place = Place::new();
    let mut exec = place.exec(&["sh", "-c", "for i in 1 2 3; do echo $i >&2; read go; done"]);
    let mut child = exec.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    assert_eq!(read_line(&mut stderr), "1");
    let run = place.run();
    std::fs::remove_dir_all(place.path("spool")).expect("removed");
    for line in ["2", "3"] {
        stdin.write_all(b"\n").expect("it reads");
        assert_eq!(read_line(&mut stderr), line);
    }
    stdin.write_all(b"\n").expect("it reads");
    assert!(wait(child).success());
    assert_eq!(place.run(), run);
    assert!(run.join(spool::START).exists());
    assert_eq!(place.segments(), [(4, b"3\n".to_vec())], "what was written to the removed segment is a gap");
    let record = place.exit_record();
    assert_eq!((record.stderr_bytes, record.unspooled_bytes), (6, 2));
}

#[test]
fn a_file_size_limit_ends_the_recording_not_the_app() {
    let place = Place::new();
    // 8 blocks of 512 bytes; the kernel sends SIGXFSZ to whoever goes beyond. Pipes know no such limit.
    let script = format!("ulimit -f 8; exec {GOSCOPE} exec -- sh -c 'seq 3000 >&2; exit 3'");
    let mut command = apart(&["sh", "-c", &script]);
    command.env("GOSCOPE_SPOOL", place.path("spool")).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let stderr = text(&read_all(child.stderr.take().expect("piped")));
    assert_eq!(wait(child).code(), Some(3));
    let (ours, apps): (Vec<&str>, Vec<&str>) = stderr.lines().partition(|line| line.starts_with("goscope: "));
    assert_eq!(apps.join("\n"), (1..=3000).map(|n| n.to_string()).collect::<Vec<_>>().join("\n"));
    assert_eq!(ours.len(), 1, "{ours:?}");
    let record = place.exit_record();
    assert_eq!(place.recorded().len() as u64, record.stderr_bytes - record.unspooled_bytes);
    assert!(record.unspooled_bytes > 0);
}

#[test]
fn a_full_volume_ends_the_recording_not_the_app() {
    if !is_root() {
        return skip("needs root to mount a small volume");
    }
    let place = Place::new();
    let spool = place.path("spool");
    std::fs::create_dir(&spool).expect("made");
    let mount = format!("mount -t tmpfs -o size=64k none {} && exec \"$@\"", spool.display());
    let keep = format!("cp -r {}/* {}", spool.display(), place.path("kept").display());
    std::fs::create_dir(place.path("kept")).expect("made");
    let script = format!("{GOSCOPE} exec -- sh -c 'seq 100000 >&2; exit 3'; s=$?; {keep}; exit $s");
    // A mount namespace of its own, so that nothing is left behind.
    let mut command = apart(&["unshare", "-m", "sh", "-c", &mount, "sh", "sh", "-c", &script]);
    command.env("GOSCOPE_SPOOL", &spool);
    let outcome = place.outcome(command);
    assert_eq!(outcome.status.code(), Some(3), "{}", text(&outcome.stderr));
    let stderr = text(&outcome.stderr);
    let (ours, apps): (Vec<&str>, Vec<&str>) = stderr.lines().partition(|line| line.starts_with("goscope: "));
    assert!(
        apps.iter().copied().eq((1..=100_000).map(|n| n.to_string()).collect::<Vec<_>>().iter().map(String::as_str))
    );
    assert!(ours.first().is_some_and(|line| line.contains("No space left")), "{ours:?}");
}

#[test]
fn on_a_read_only_volume_the_app_runs_without() {
    if !is_root() {
        return skip("needs root to mount a volume");
    }
    let place = Place::new();
    let spool = place.path("spool");
    std::fs::create_dir(&spool).expect("made");
    let script =
        format!("mount -t tmpfs -o ro none {} && exec {GOSCOPE} exec -- sh -c 'echo 1 >&2; exit 3'", spool.display());
    let mut command = apart(&["unshare", "-m", "sh", "-c", &script]);
    command.env("GOSCOPE_SPOOL", &spool);
    let outcome = place.outcome(command);
    assert_eq!(outcome.status.code(), Some(3));
    let stderr = text(&outcome.stderr);
    let lines: Vec<_> = stderr.lines().collect();
    assert!(matches!(lines[..], [warning, "1"] if warning.contains("Read-only file system")), "{stderr}");
}

#[test]
fn a_program_without_go_build_information_is_noted_as_such() {
    let place = Place::new();
    let outcome = place.outcome(place.exec(&["sh", "-c", "until [ -e \"$GOSCOPE_SPOOL\"/*/buildinfo ]; do :; done"]));
    assert_eq!(outcome.status.code(), Some(0), "{}", text(&outcome.stderr));
    assert_eq!(std::fs::read(place.run().join("buildinfo")).expect("it is there"), b"");
}
