//! The end of the app is the end of the launcher.

use std::os::unix::process::ExitStatusExt as _;

use rustix::process::Signal;

use crate::harness::{GOSCOPE, Place, apart, is_root, skip, text};

#[test]
fn exit_codes_are_mirrored() {
    for code in [0, 1, 3, 126, 255] {
        let place = Place::new();
        let outcome = place.outcome(place.exec(&["sh", "-c", &format!("echo out; echo err >&2; exit {code}")]));
        assert_eq!(outcome.status.code(), Some(code));
        assert_eq!((text(&outcome.stdout), text(&outcome.stderr)), ("out\n".to_owned(), "err\n".to_owned()));
        let record = place.exit_record();
        assert_eq!(
            (record.status, record.signal, record.stderr_bytes, record.unspooled_bytes),
            (Some(code), None, 4, 0)
        );
        assert!(record.max_rss_bytes > 0 && record.ended_unix_ms >= record.started_unix_ms);
    }
}

#[test]
fn death_by_signal_is_mirrored() {
    for (signal, name) in [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::SYS, "SIGSYS"),
    ] {
        let place = Place::new();
        let script = format!("kill -{} $$", signal.as_raw());
        let outcome = place.outcome(place.exec(&["sh", "-c", &script]));
        assert_eq!(outcome.status.signal(), Some(signal.as_raw()), "{name}");
        assert!(!outcome.status.core_dumped(), "{name}: a core of the launcher");
        let record = place.exit_record();
        assert_eq!((record.signal_name.as_deref(), record.status), (Some(name), None));
    }
}

#[test]
fn a_command_that_cannot_start_ends_as_in_a_shell() {
    let place = Place::new();
    std::fs::write(place.path("plain"), "no program").expect("written");
    let plain = place.path("plain");
    let plain = plain.to_str().expect("UTF-8");
    for (command, status, words) in [
        ("goscope-no-such", 127, "command not found"),
        ("./goscope-no-such", 127, "No such file"),
        (plain, 126, "denied"),
    ] {
        let place = Place::new();
        let outcome = place.outcome(place.exec(&[command, "x"]));
        assert_eq!(outcome.status.code(), Some(status), "{command}");
        let stderr = text(&outcome.stderr);
        assert!(stderr.starts_with(&format!("goscope: {command}: ")) && stderr.contains(words), "{stderr}");
        assert_eq!(stderr.lines().count(), 1);
        let record = place.exit_record();
        assert_eq!((record.pid, record.status), (0, Some(status)));
        assert!(record.start_error.is_some_and(|error| error.contains(words)));
    }
}

#[test]
fn run_mirrors_as_well() {
    let place = Place::new();
    let data = place.path("data");
    let data = data.to_str().expect("UTF-8");
    let command = apart(&[GOSCOPE, "run", "--quiet", "--data", data, "--", "sh", "-c", "echo err >&2; exit 7"]);
    let outcome = place.outcome(command);
    assert_eq!((outcome.status.code(), text(&outcome.stderr)), (Some(7), "err\n".to_owned()));
}

#[test]
fn without_descriptors_the_app_starts_in_place() {
    let place = Place::new();
    // One descriptor beside the standard ones: the shell can load its library, but no pipe is to be had.
    let script =
        format!("exec 3>&-; ulimit -n 4; exec {GOSCOPE} exec --quiet -- sh -c 'echo $PPID $GOTRACEBACK; exit 5'");
    let mut command = apart(&["sh", "-c", &script]);
    command.env("GOSCOPE_SPOOL", place.path("spool"));
    let outcome = place.outcome(command);
    assert_eq!(outcome.status.code(), Some(5), "{outcome:?}");
    assert_eq!(text(&outcome.stdout).trim(), format!("{} all", std::process::id()), "our own child became the app");
}

#[test]
fn without_processes_the_app_starts_in_place() {
    if !is_root() {
        return skip("needs another user with a limit of processes");
    }
    let place = Place::new();
    // A user without any process may have one: the launcher itself, which cannot have a thread or a child beside it.
    let python = "import os, resource, sys\n\
        os.setgid(64123); os.setuid(64123)\n\
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    let outcome =
        place.outcome(apart(&["python3", "-c", python, GOSCOPE, "exec", "--quiet", "--", "/bin/sh", "-c", "exit 5"]));
    assert_eq!(outcome.status.code(), Some(5), "{outcome:?}");
}

#[test]
fn as_first_process_it_reaps_orphans_and_reports_signals_as_codes() {
    if !is_root() {
        return skip("needs root for a process namespace");
    }
    let place = Place::new();
    // The orphan ends after its parent; then only the app, the launcher and what looks for zombies are left.
    let script = "sh -c 'sleep 0.1 & exec true'; \
        for i in $(seq 500); do sleep 0.01; grep -q ') Z ' /proc/[0-9]*/stat || [ \"$i\" -lt 30 ] || exit 9; done; exit 1";
    let mut words = vec!["unshare", "-pf", "--mount-proc", GOSCOPE, "exec", "--", "sh", "-c"];
    words.push(script);
    let mut command = apart(&words);
    command.env("GOSCOPE_SPOOL", place.path("spool"));
    let outcome = place.outcome(command);
    assert_eq!(outcome.status.code(), Some(9), "{outcome:?}");

    words.pop();
    words.push("kill -TERM $$");
    let mut command = apart(&words);
    command.env("GOSCOPE_SPOOL", place.path("spool"));
    assert_eq!(place.outcome(command).status.code(), Some(128 + 15));
}
