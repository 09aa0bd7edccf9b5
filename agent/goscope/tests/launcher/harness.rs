//! Starts programs bare and wrapped, waits with a deadline, reads the spool.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use goscope::spool::{self, ExitRecord};
use tempfile::TempDir;

pub(crate) const GOSCOPE: &str = env!("CARGO_BIN_EXE_goscope");
/// Long enough for a slow machine; only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(60);

/// A folder for one test: the spool and what programs print.
pub(crate) struct Place {
    folder: TempDir,
}

/// How a program ended and what it printed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `goscope exec --spool … -- COMMAND`, without a controlling terminal.
    pub(crate) fn exec(&self, command: &[&str]) -> Command {
        self.exec_with(&[], command)
    }

    pub(crate) fn exec_with(&self, options: &[&str], command: &[&str]) -> Command {
        let mut words = vec![GOSCOPE, "exec"];
        words.extend(options);
        words.push("--");
        words.extend(command);
        let mut exec = apart(&words);
        exec.env("GOSCOPE_SPOOL", self.path("spool"));
        exec
    }

    /// Runs to the end, with output to files, so that nothing waits for the test.
    pub(crate) fn outcome(&self, mut command: Command) -> Outcome {
        let file = |name: &str| File::create(self.path(name)).expect("a file");
        let child = command.stdout(file("stdout")).stderr(file("stderr")).spawn().expect("it starts");
        let status = wait(child);
        Outcome { status, stdout: read(&self.path("stdout")), stderr: read(&self.path("stderr")) }
    }

    /// The folder of the only run.
    pub(crate) fn run(&self) -> PathBuf {
        let mut runs: Vec<_> = std::fs::read_dir(self.path("spool"))
            .expect("the spool is there")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.remove(0)
    }

    pub(crate) fn exit_record(&self) -> ExitRecord {
        serde_json::from_slice(&read(&self.run().join(spool::EXIT))).expect("an exit record")
    }

    /// The segments of the only run: offset and bytes.
    pub(crate) fn segments(&self) -> Vec<(u64, Vec<u8>)> {
        let segments = spool::segments(&self.run()).expect("segments");
        segments.into_iter().map(|(offset, path)| (offset, read(&path))).collect()
    }

    /// The recorded stream, which must have no gap.
    pub(crate) fn recorded(&self) -> Vec<u8> {
        let mut stream = Vec::new();
        for (offset, bytes) in self.segments() {
            assert_eq!(offset, stream.len() as u64, "a gap");
            stream.extend(bytes);
        }
        stream
    }
}

/// A command in a session of its own, so that a terminal of whoever runs the tests plays no part. The process id stays that of the command.
pub(crate) fn apart(words: &[&str]) -> Command {
    let mut command = Command::new("python3");
    let script = "import os, sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])";
    // Python ignores two signals for itself.
    let script =
        format!("import signal\nfor s in (signal.SIGPIPE, signal.SIGXFSZ): signal.signal(s, signal.SIG_DFL)\n{script}");
    command.args(["-I", "-c", &script]).args(words).stdin(Stdio::null()).env_remove("GOTRACEBACK");
    command
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits for the end of a child; kills it at the deadline.
pub(crate) fn wait(mut child: Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status;
        }
        if start.elapsed() > DEADLINE {
            child.kill().expect("it is our child");
            panic!("still running after {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reads one line, byte by byte, so that nothing is taken that comes after it.
pub(crate) fn read_line(from: &mut impl std::io::Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while from.read_exact(&mut byte).is_ok() && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    text(&line)
}

/// Reads to the end.
pub(crate) fn read_all(mut from: impl std::io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.by_ref().read_to_end(&mut bytes).expect("a pipe reads to its end");
    bytes
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that a test was not run, and why.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}
