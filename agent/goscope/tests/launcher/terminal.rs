//! On a terminal: job control and the terminal's signals, as a shell and the kernel see them.

use crate::harness::{GOSCOPE, Place, apart, text};

/// A pseudo-terminal with `goscope exec -- python3 -c APP` on it, as a shell would start it: in the foreground, with a process group of its own.
/// Defines `expect(text)`, `keys(bytes)`, `group(signal)` and `state()`, the stopped or ended state of the launcher.
const STAGE: &str = r#"
import fcntl, os, pty, re, select, signal, struct, sys, termios, time
goscope, app = sys.argv[1:3]
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
pid, tty = pty.fork()
if pid == 0:
    # The session's leader plays the shell, so that the job's group is no orphan.
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.execv(goscope, [goscope, 'exec', '--', 'python3', '-u', '-c', app])
    while True:
        _, status = os.waitpid(job, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            os.tcsetpgrp(0, os.getpgrp())
            os.write(1, b'[stopped %d]' % os.WSTOPSIG(status))
            os.read(0, 1)
            os.tcsetpgrp(0, job)
            os.kill(-job, signal.SIGCONT)
        elif os.WIFSIGNALED(status):
            os.write(1, b'[killed %d]' % os.WTERMSIG(status))
            break
        else:
            os.write(1, b'[exit %d]' % os.WEXITSTATUS(status))
            break
    os.read(0, 1)
    os._exit(0)
seen = ''
def expect(what):
    global seen
    deadline = time.monotonic() + 30
    while what not in seen:
        if not select.select([tty], [], [], max(0, deadline - time.monotonic()))[0]:
            sys.exit(f'no {what!r} in {seen!r}')
        seen += os.read(tty, 65536).decode()
    seen = seen.split(what, 1)[1]
def keys(text): os.write(tty, text)
def quiet(): 
    if seen.strip(): sys.exit(f'unexpected {seen!r}')
"#;

const APP: &str = r#"
import os, signal, sys
def heard(number, frame): os.write(2, (signal.Signals(number).name + '.\n').encode())
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH, signal.SIGCONT): signal.signal(number, heard)
os.write(2, b'ready.\n')
while True:
    line = sys.stdin.readline()
    os.write(2, b'got ' + line.strip().encode() + b'.\n')
    if line.strip() == 'die': signal.signal(signal.SIGINT, signal.SIG_DFL); os.write(2, b'ok.\n')
    if line.strip() == 'end': sys.exit(7)
"#;

fn play(place: &Place, script: &str) {
    let python = format!("{STAGE}\n{script}\nprint('played to the end')");
    let mut command = apart(&["python3", "-I", "-c", &python, GOSCOPE, APP]);
    command.env("GOSCOPE_SPOOL", place.path("spool"));
    let outcome = place.outcome(command);
    assert_eq!(text(&outcome.stdout), "played to the end\n", "{}", text(&outcome.stderr));
}

#[test]
fn keys_reach_the_app_once() {
    let place = Place::new();
    play(
        &place,
        r"
expect('ready.')
for n in range(3):
    keys(b'\x03'); expect('SIGINT.')
    keys(b'\x1c'); expect('SIGQUIT.')
    fcntl.ioctl(tty, termios.TIOCSWINSZ, struct.pack('HHHH', 30 + n, 90, 0, 0)); expect('SIGWINCH.')
    keys(b'line\n'); expect('got line.')
    quiet()
keys(b'end\n'); expect('got end.'); expect('[exit 7]')
",
    );
    let record = place.exit_record();
    assert!(record.forwarded.is_empty(), "{record:?}");
    let heard = text(&place.recorded());
    for name in ["SIGINT.", "SIGQUIT.", "SIGWINCH."] {
        assert_eq!(heard.matches(name).count(), 3, "{name} in {heard}");
        // The launcher's own copies may wait for it, and then come in the kernel's order, each kind once.
        assert!(record.from_terminal.iter().any(|noted| *noted == name.trim_end_matches('.')), "{record:?}");
    }
}

#[test]
fn a_key_that_kills_the_app_ends_the_launcher_so() {
    let place = Place::new();
    play(&place, r"expect('ready.'); keys(b'die\n'); expect('ok.'); keys(b'\x03'); expect('[killed 2]')");
    assert_eq!(place.exit_record().signal_name.as_deref(), Some("SIGINT"));
}

#[test]
fn a_job_is_stopped_and_continued() {
    let place = Place::new();
    play(
        &place,
        r"
expect('ready.')
for n in range(5):
    keys(b'\x1a'); expect('[stopped %d]' % signal.SIGTSTP)
    keys(b'\n'); expect('SIGCONT.')
    keys(b'line\n'); expect('got line.')
    quiet()
keys(b'end\n'); expect('[exit 7]')
",
    );
    assert_eq!(text(&place.recorded()).matches("SIGCONT.").count(), 5, "continued by the shell, once each time");
}

#[test]
fn a_continue_meant_for_the_launcher_is_passed_on_to_a_running_app() {
    let place = Place::new();
    play(
        &place,
        r"
expect('ready.')
for n in range(3):
    os.kill(os.tcgetpgrp(tty), signal.SIGCONT); expect('SIGCONT.')
    keys(b'\x1a'); expect('[stopped %d]' % signal.SIGTSTP)
    keys(b'\n'); expect('SIGCONT.')
    keys(b'line\n'); expect('got line.')
    quiet()
keys(b'end\n'); expect('[exit 7]')
",
    );
    assert_eq!(text(&place.recorded()).matches("SIGCONT.").count(), 6, "each one once");
}
