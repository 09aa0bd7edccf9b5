//! What the app can see of itself is what it sees when started bare.

use std::process::Command;

use crate::harness::{GOSCOPE, Place, apart, text};

/// Signal masks and dispositions, descriptors, environment, limits, working directory.
const LOOK: &str = "grep -E '^(Sig[PBIC]|ShdPnd|NoNewPrivs|Cpus_allowed:)' /proc/self/status; \
    for fd in 0 1 3 4 5 6 7 8 9 10 11 12; do readlink /proc/self/fd/$fd || echo $fd closed; done; \
    tr '\\0' '\\n' < /proc/self/environ; cat /proc/self/limits; pwd -P; echo \"$0\" \"$@\"";

/// Python that arranges the state in which the command is started, and becomes it.
fn arranged(place: &Place, arrangement: &str, is_wrapped: bool) -> Command {
    let python = format!("import os, signal, sys\n{arrangement}\nos.execvp(sys.argv[1], sys.argv[1:])");
    let mut words = vec!["python3", "-I", "-c", &python];
    if is_wrapped {
        words.extend([GOSCOPE, "exec", "--"]);
    }
    words.extend(["sh", "-c", LOOK, "name", "a b", ""]);
    let mut command = apart(&words);
    command.env("GOSCOPE_SPOOL", place.path("spool"));
    command
}

/// Signals 32 and 33 belong to the C library, which takes them for itself in every process with threads.
fn without_library_signals(line: &str) -> String {
    match line.strip_prefix("SigIgn:\t").and_then(|set| u64::from_str_radix(set, 16).ok()) {
        Some(set) => format!("SigIgn {:x}", set & !(0b11 << 31)),
        None => line.to_owned(),
    }
}

fn check(arrangement: &str) {
    let place = Place::new();
    let bare = place.outcome(arranged(&place, arrangement, false));
    let wrapped = place.outcome(arranged(&place, arrangement, true));
    let lines = |bytes| {
        let text = text(bytes);
        text.lines().filter(|line| *line != "GOTRACEBACK=all").map(without_library_signals).collect::<Vec<_>>()
    };
    let (bare_lines, wrapped_lines) = (lines(&bare.stdout), lines(&wrapped.stdout));
    for (bare, wrapped) in bare_lines.iter().zip(&wrapped_lines) {
        assert_eq!(bare, wrapped, "{arrangement}");
    }
    assert_eq!(bare_lines.len(), wrapped_lines.len(), "{arrangement}");
    assert!(bare.stdout.len() > 1000 && bare.status == wrapped.status);
}

#[test]
fn started_plainly() {
    check("");
}

#[test]
fn with_signals_ignored_and_blocked() {
    check(
        "for s in (signal.SIGPIPE, signal.SIGHUP, signal.SIGUSR1, signal.SIGTSTP): signal.signal(s, signal.SIG_IGN)\n\
         signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])",
    );
    check("signal.signal(signal.SIGCHLD, signal.SIG_IGN)");
    check("signal.signal(signal.SIGPIPE, signal.SIG_DFL)");
}

#[test]
fn with_descriptors_closed_and_handed_over() {
    check("os.close(0)");
    check("r, w = os.pipe(); os.dup2(os.open('/etc/passwd', os.O_RDONLY), 9); os.close(r); os.close(w)");
}

#[test]
fn with_an_environment_of_its_own() {
    check("os.environ.clear(); os.environ.update(Z='1', A='2', PATH='/usr/bin:/bin', EMPTY='', GOTRACEBACK='system')");
}

#[test]
fn gotraceback_is_all_unless_it_is_set() {
    let place = Place::new();
    let value = |set: Option<&str>| {
        let mut command = place.exec(&["sh", "-c", "echo \"${GOTRACEBACK-unset}\""]);
        if let Some(set) = set {
            command.env("GOTRACEBACK", set);
        }
        text(&place.outcome(command).stdout)
    };
    assert_eq!(value(None), "all\n");
    assert_eq!(value(Some("crash")), "crash\n");
    assert_eq!(value(Some("")), "\n");
}
