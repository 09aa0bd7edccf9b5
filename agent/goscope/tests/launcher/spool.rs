//! What stands in the spool, and what happens when it cannot.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use goscope::spool::{self, ExitRecord, StartRecord};

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

/// What the runs of the spool take on the volume, oldest first: name and bytes.
fn runs(place: &Place) -> Vec<(String, u64)> {
    let entries = |path: &Path| -> Vec<_> {
        std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry")).collect()
    };
    let mut runs: Vec<_> = entries(&place.path("spool"))
        .into_iter()
        .map(|run| {
            // The agent may be deleting it.
            let files =
                std::fs::read_dir(run.path()).into_iter().flatten().filter_map(|file| file.ok()?.metadata().ok());
            let bytes = files.map(|file| file.len()).sum();
            let start = run.path().join(spool::START).metadata().and_then(|start| start.modified()).ok();
            (start, (run.file_name().into_string().expect("a name"), bytes))
        })
        .collect();
    runs.sort_unstable();
    runs.into_iter().map(|(_, run)| run).collect()
}

#[test]
fn a_crash_loop_without_an_agent_stays_within_the_total_and_the_newest_deaths_whole() {
    const TOTAL: u64 = 3 << 20;
    let place = Place::new();
    // About 700 KB before each death; two whole ones fit beside the room for a third.
    let script = "seq 110000 >&2; printf 'panic: boom %s\\n\\ngoroutine 1 [running]:\\nmain.main()\\n\\t/src/main.go:4 +0x1d\\n' $0 >&2; exit 2";
    let mut lengths = Vec::new();
    for number in 1..=10 {
        let number = number.to_string();
        let outcome = place.outcome(place.exec_with(&["--spool-max", "1MiB"], &["sh", "-c", script, &number]));
        assert_eq!(outcome.status.code(), Some(2), "{}", text(&outcome.stderr));
        lengths.push(outcome.stderr.len() as u64);
        let held: u64 = runs(&place).iter().map(|(_, bytes)| bytes).sum();
        assert!(held <= TOTAL, "{held} after run {number}");
    }
    let left = runs(&place);
    assert!((3..10).contains(&left.len()), "{left:?}");
    let exit = |run: &str| -> ExitRecord {
        serde_json::from_slice(&read(&place.path("spool").join(run).join(spool::EXIT))).expect("an exit record")
    };
    for (run, length) in left.iter().map(|(run, _)| run).rev().zip(lengths.iter().rev()).take(2) {
        let segments = spool::segments(&place.path("spool").join(run)).expect("segments");
        let held: u64 = segments.iter().map(|(_, path)| path.metadata().expect("a segment").len()).sum();
        assert_eq!((held, exit(run).stderr_bytes), (*length, *length), "{run}");
    }
    let forgotten: u64 = left.iter().map(|(run, _)| exit(run).forgotten_bytes).sum();
    assert!(left.iter().all(|(run, _)| exit(run).clear_error.is_none()));

    let config = place.path("config.yaml");
    let settings = format!(
        "target: {{ address: 127.0.0.1:1 }}\nlisten: {{ debug: 127.0.0.1:0, metrics: 127.0.0.1:0 }}\nintake: {{ spool: {} }}\nstore: {{ path: {} }}\n",
        place.path("spool").display(),
        place.path("data").display()
    );
    std::fs::write(&config, settings).expect("written");
    let mut agent = apart(&[GOSCOPE, "agent", "--config", &config.display().to_string()]);
    let log = std::fs::File::create(place.path("agent.log")).expect("a file");
    let mut agent = agent.stderr(log).spawn().expect("it starts");
    let done = (0..30_000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(2));
        runs(&place).is_empty()
    });
    agent.kill().expect("it is our child");
    agent.wait().expect("it is our child");
    let log = text(&read(&place.path("agent.log")));
    assert!(done, "each run is handled and deleted: {:?}\n{log}", runs(&place));
    assert!(!log.contains("recording is interrupted"), "{log}");
    assert!(forgotten > 0 && log.contains("deleted unread"), "{log}");
    let reasons = incidents(&place.path("data"));
    assert!(reasons.contains(&"boom 10".to_owned()) && reasons.contains(&"boom 9".to_owned()), "{reasons:?}");
}

/// The reasons of the incidents below a store.
fn incidents(data: &Path) -> Vec<String> {
    let below = |path: &Path| -> Vec<_> {
        std::fs::read_dir(path).into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect()
    };
    let folders = below(data).into_iter().flat_map(|host| below(&host.join("incidents")));
    folders
        .map(|folder| {
            let incident: serde_json::Value =
                serde_json::from_slice(&read(&folder.join("incident.json"))).expect("an incident");
            incident["reason"].as_str().expect("a reason").to_owned()
        })
        .collect()
}
