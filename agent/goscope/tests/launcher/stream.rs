//! The app's stderr: every byte, in order, under all conditions.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use crate::harness::{Place, apart, read_all, read_line, text, until, wait};

/// Python that writes 100,000 random bytes in pieces of random size to stderr and, as the yardstick, to stdout.
const RANDOM: &str = "import os, random\n\
    data = os.urandom(100000)\n\
    at = 0\n\
    while at < len(data):\n    at += os.write(2, data[at:at + random.randint(1, 5000)])\n\
    at = 0\n\
    while at < len(data):\n    at += os.write(1, data[at:])\n";

#[test]
fn random_bytes_arrive_unchanged() {
    let place = Place::new();
    let outcome = place.outcome(place.exec(&["python3", "-c", RANDOM]));
    assert!(outcome.status.success());
    assert_eq!(outcome.stdout.len(), 100_000);
    assert!(outcome.stderr == outcome.stdout, "passed on changed");
    assert!(place.recorded() == outcome.stdout, "recorded changed");
}

#[test]
fn a_million_lines_arrive_unchanged() {
    let place = Place::new();
    let outcome = place.outcome(place.exec(&["sh", "-c", "seq 1000000 >&2"]));
    let expected: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    assert!(outcome.status.success());
    assert!(outcome.stderr == expected.as_bytes(), "passed on changed");
    assert!(place.recorded() == expected.as_bytes(), "recorded changed");
    assert!(place.segments().len() > 1, "more than one segment was needed");
    assert_eq!(place.exit_record().stderr_bytes, expected.len() as u64);
}

#[test]
fn a_slow_reader_gets_everything() {
    let place = Place::new();
    let mut exec = place.exec(&["sh", "-c", "seq 400000 >&2"]);
    let mut child = exec.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stderr = child.stderr.take().expect("piped");
    let mut got = Vec::new();
    let mut chunk = [0; 64 << 10];
    while let Ok(count @ 1..) = stderr.read(&mut chunk) {
        got.extend_from_slice(&chunk[..count]);
        std::thread::yield_now();
    }
    assert!(wait(child).success());
    let expected: String = (1..=400_000).map(|n| format!("{n}\n")).collect();
    assert!(got == expected.as_bytes());
}

#[test]
fn the_record_of_a_death_does_not_wait_for_a_stuck_reader() {
    let place = Place::new();
    // More than our stderr's pipe holds, less than the app's pipe and the pump hold together.
    let mut exec = place.exec(&["sh", "-c", "seq 50000 >&2; exit 3"]);
    let mut child = exec.stderr(Stdio::piped()).spawn().expect("it starts");
    until("exit.json", || {
        place.path("spool").exists()
            && std::fs::read_dir(place.path("spool")).is_ok_and(|mut runs| {
                runs.next().is_some_and(|run| run.expect("an entry").path().join("exit.json").exists())
            })
    });
    let expected: String = (1..=50_000).map(|n| format!("{n}\n")).collect();
    assert!(place.recorded() == expected.as_bytes());
    assert_eq!(child.try_wait().expect("our child"), None, "it still has bytes to pass on");
    assert!(read_all(child.stderr.take().expect("piped")) == expected.as_bytes());
    assert_eq!(wait(child).code(), Some(3));
}

#[test]
fn asked_to_end_it_leaves_a_stuck_reader() {
    let place = Place::new();
    let mut exec = place.exec(&["sh", "-c", "seq 50000 >&2; exit 3"]);
    let mut child = exec.stderr(Stdio::piped()).spawn().expect("it starts");
    until("exit.json", || {
        place.path("spool").exists()
            && std::fs::read_dir(place.path("spool")).is_ok_and(|mut runs| {
                runs.next().is_some_and(|run| run.expect("an entry").path().join("exit.json").exists())
            })
    });
    let stuck = child.stderr.take();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
    assert_eq!(wait(child).code(), Some(3));
    drop(stuck);
}

#[test]
fn a_closed_stderr_ends_the_app_as_without_us() {
    let script = "echo 1 >&2; read go; while echo 2 >&2; do :; done; exit 3";
    let end = |mut command: std::process::Command| {
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut stderr = child.stderr.take().expect("piped");
        assert_eq!(read_line(&mut stderr), "1");
        drop(stderr);
        drop(child.stdin.take());
        wait(child)
    };
    let place = Place::new();
    let bare = end(apart(&["sh", "-c", script]));
    assert_eq!(bare.signal(), Some(libc::SIGPIPE));
    assert_eq!(end(place.exec(&["sh", "-c", script])), bare);
    assert!(place.recorded().starts_with(b"1\n"), "what was written before is recorded");
}

#[test]
fn who_outlives_the_app_keeps_its_stderr() {
    let place = Place::new();
    let marker = place.path("go");
    // The survivor writes only when the launcher has gone; a SIGPIPE would keep the second line away.
    let survivor = format!("while [ ! -e {} ]; do sleep 0.01; done; echo late >&2; echo later >&2", marker.display());
    let mut exec = place.exec(&["sh", "-c", &format!("({survivor}) & echo early >&2; exit 4")]);
    let mut child = exec.stderr(Stdio::piped()).spawn().expect("it starts");
    let stderr = child.stderr.take().expect("piped");
    assert_eq!(wait(child).code(), Some(4));
    assert_eq!(text(&place.recorded()), "early\n");
    std::fs::write(marker, "").expect("written");
    assert_eq!(text(&read_all(stderr)), "early\nlate\nlater\n");
}
