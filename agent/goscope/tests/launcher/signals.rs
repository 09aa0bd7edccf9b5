//! Signals without a controlling terminal: each reaches the app once, from us.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Place, read_line, text, until, wait};

/// Says "ready PID", then the name of each signal it gets, until its standard input ends.
const LISTENER: &str = "import os, signal, sys\n\
    def heard(number, frame): os.write(1, (signal.Signals(number).name + '\\n').encode())\n\
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, 32, 33}: signal.signal(number, heard)\n\
    os.write(1, f'ready {os.getpid()} {os.getpgrp()}\\n'.encode())\n\
    sys.stdin.read()\n";

#[test]
fn each_is_forwarded_once_and_in_order() {
    let place = Place::new();
    let mut child = place
        .exec(&["python3", "-u", "-c", LISTENER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let launcher = Pid::from_child(&child);
    let mut stdout = child.stdout.take().expect("piped");
    let ready = read_line(&mut stdout);
    let mut words = ready.split(' ').skip(1);
    assert_eq!(words.next(), words.next(), "the app leads a process group of its own: {ready}");
    let mut names = Vec::new();
    for _ in 0..3 {
        for (signal, name) in [
            (Signal::INT, "SIGINT"),
            (Signal::TERM, "SIGTERM"),
            (Signal::QUIT, "SIGQUIT"),
            (Signal::HUP, "SIGHUP"),
            (Signal::USR1, "SIGUSR1"),
            (Signal::USR2, "SIGUSR2"),
            (Signal::WINCH, "SIGWINCH"),
            (Signal::CONT, "SIGCONT"),
            (Signal::TSTP, "SIGTSTP"),
            (Signal::ABORT, "SIGABRT"),
            (Signal::ALARM, "SIGALRM"),
        ] {
            kill_process(launcher, signal).expect("it is there");
            assert_eq!(read_line(&mut stdout), name);
            names.push(name);
        }
    }
    drop(child.stdin.take());
    assert_eq!(read_line(&mut stdout), "", "nothing came twice");
    assert!(wait(child).success());
    assert_eq!(place.exit_record().forwarded, names[..16]);
    assert!(place.exit_record().from_terminal.is_empty());
}

#[test]
fn a_fatal_one_ends_both() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::USR1] {
        let place = Place::new();
        let mut child =
            place.exec(&["sh", "-c", "echo ready; exec sleep 1000"]).stdout(Stdio::piped()).spawn().expect("it starts");
        assert_eq!(read_line(child.stdout.as_mut().expect("piped")), "ready");
        kill_process(Pid::from_child(&child), signal).expect("it is there");
        assert_eq!(wait(child).signal(), Some(signal.as_raw()));
    }
}

#[test]
fn the_launcher_killed_outright_takes_the_app_along() {
    let place = Place::new();
    let mut child =
        place.exec(&["sh", "-c", "echo $$; exec sleep 1000"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let app = read_line(child.stdout.as_mut().expect("piped"));
    assert!(std::path::Path::new(&format!("/proc/{app}")).exists());
    child.kill().expect("our child");
    assert_eq!(wait(child).signal(), Some(libc::SIGKILL));
    until("the app is gone", || {
        let state = std::fs::read(format!("/proc/{app}/stat")).unwrap_or_default();
        state.is_empty() || text(&state).contains(") Z ")
    });
}
