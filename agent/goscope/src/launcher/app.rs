//! Starts the app: as a child, or, where the launcher cannot do its own work, in place of itself.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::sys::{ChildSetup, Mask, prepare_child};

/// As a shell has them.
pub(super) const NOT_EXECUTABLE: u8 = 126;
pub(super) const NOT_FOUND: u8 = 127;

/// What to start.
#[derive(Debug)]
pub(super) struct App<'a> {
    pub(super) program: &'a OsStr,
    pub(super) arguments: &'a [OsString],
    /// `GOTRACEBACK` is not in our environment: the app gets `all`, so that a crash shows every goroutine.
    pub(super) gotraceback: bool,
}

impl<'a> App<'a> {
    /// The command is never empty: the command line asks for one word at least.
    pub(super) fn new(command: &'a [OsString]) -> Option<Self> {
        let (program, arguments) = command.split_first()?;
        Some(Self { program, arguments, gotraceback: std::env::var_os("GOTRACEBACK").is_none() })
    }

    /// Starts it as a child that dies with this thread, and returns its process id.
    ///
    /// # Errors
    /// As fork and exec give them.
    pub(super) fn spawn(&self, stderr: OwnedFd, shares_group: bool, mask: Mask) -> io::Result<i32> {
        let mut command = self.command();
        command.stderr(Stdio::from(stderr));
        if !shares_group {
            command.process_group(0);
        }
        prepare_child(
            &mut command,
            ChildSetup { mask, as_given: true, dies_with_us: true, gotraceback: self.gotraceback },
        );
        let child = command.spawn()?;
        Ok(i32::try_from(child.id()).expect("a process id fits pid_t, where it came from"))
    }

    /// Becomes the app. Returns only the error that kept it from starting.
    pub(super) fn exec(&self, mask: Mask) -> io::Error {
        let mut command = self.command();
        prepare_child(
            &mut command,
            ChildSetup { mask, as_given: true, dies_with_us: false, gotraceback: self.gotraceback },
        );
        command.exec()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.args(self.arguments);
        command
    }

    /// The file that exec would choose; absolute.
    pub(super) fn executable(&self) -> Option<PathBuf> {
        let is_executable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
        let absolute = |path: PathBuf| std::path::absolute(path).ok().filter(|path| is_executable(path));
        if self.program.as_encoded_bytes().contains(&b'/') {
            return absolute(PathBuf::from(self.program));
        }
        let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/bin:/usr/bin"));
        std::env::split_paths(&path).find_map(|folder| absolute(folder.join(self.program)))
    }
}

/// The launcher lacks something that the app itself may not need: a descriptor, a process, memory. The app may start in its place.
pub(super) fn is_our_shortage(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC)
    )
}

/// The status and the words of a shell for a command that cannot be started.
pub(super) fn start_failure(program: &OsStr, error: &io::Error) -> (u8, String) {
    let program = program.to_string_lossy();
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) if !program.contains('/') => (NOT_FOUND, format!("{program}: command not found")),
        Some(Errno::NOENT) if Path::new(&*program).exists() => {
            (NOT_FOUND, format!("{program}: its interpreter or loader was not found"))
        }
        Some(Errno::NOENT) => (NOT_FOUND, format!("{program}: No such file or directory")),
        Some(Errno::ACCESS) if Path::new(&*program).is_dir() => (NOT_EXECUTABLE, format!("{program}: Is a directory")),
        Some(Errno::ACCESS) => (NOT_EXECUTABLE, format!("{program}: Permission denied")),
        Some(Errno::NOEXEC) => (NOT_EXECUTABLE, format!("{program}: cannot execute: wrong format of executable")),
        _ => (NOT_EXECUTABLE, format!("{program}: cannot execute: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_read_as_from_a_shell() {
        let check = |program: &str, errno: Errno, status, text: &str| {
            assert_eq!(start_failure(OsStr::new(program), &errno.into()), (status, text.to_owned()));
        };
        check("nosuch", Errno::NOENT, 127, "nosuch: command not found");
        check("./nosuch", Errno::NOENT, 127, "./nosuch: No such file or directory");
        check("/proc/self/exe", Errno::NOENT, 127, "/proc/self/exe: its interpreter or loader was not found");
        check("/", Errno::ACCESS, 126, "/: Is a directory");
        check("/etc/passwd", Errno::ACCESS, 126, "/etc/passwd: Permission denied");
        check("x", Errno::NOEXEC, 126, "x: cannot execute: wrong format of executable");
        check("x", Errno::TOOBIG, 126, "x: cannot execute: Argument list too long (os error 7)");
    }

    #[test]
    fn finds_what_exec_would_choose() {
        let find =
            |program: &str| App { program: OsStr::new(program), arguments: &[], gotraceback: false }.executable();
        assert!(find("sh").is_some_and(|path| path.is_absolute() && path.ends_with("sh")));
        assert_eq!(find("/etc/passwd"), None, "not executable");
        assert_eq!(find("goscope-no-such-program"), None);
    }
}
