//! The app's build information: from its executable, or from the launcher's copy where the executable is in another container.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use goscope_formats::{BuildInfo, read_build_info, read_build_info_copy};

use crate::spool::{BUILD_INFO, StartRecord};

/// Bytes of the launcher's copy that are read.
const COPY_BYTES_MAX: u64 = 1 << 20;

/// What is known of the app's build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// The launcher may still be about to copy it.
    Unknown,
    /// No Go program, or one whose build information cannot be read.
    Foreign,
    Go(BuildInfo),
}

impl Program {
    /// Looks at the launcher's copy first: a path of another container may be a different file here.
    #[must_use]
    pub fn look(run: &Path, start: Option<&StartRecord>) -> Self {
        match copied(&run.join(BUILD_INFO)) {
            Some(program) => program,
            None => {
                start.and_then(|start| start.executable.as_deref()).and_then(executable).map_or(Self::Unknown, Self::Go)
            }
        }
    }

    #[must_use]
    pub fn build(&self) -> Option<&BuildInfo> {
        match self {
            Self::Go(build) => Some(build),
            Self::Unknown | Self::Foreign => None,
        }
    }
}

fn copied(path: &Path) -> Option<Program> {
    let mut copy = Vec::new();
    match File::open(path).and_then(|file| file.take(COPY_BYTES_MAX).read_to_end(&mut copy)) {
        Ok(_) => Some(read_build_info_copy(&copy).map_or(Program::Foreign, Program::Go)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(Program::Foreign),
    }
}

fn executable(path: &Path) -> Option<BuildInfo> {
    let file = File::open(path).ok()?;
    read_build_info(|offset, buffer| file.read_at(buffer, offset).ok()).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// As the linker lays it out, of a release and nothing else.
    const COPY: &[u8] = b"\xff Go buildinf:\x08\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x08go1.27.3\0";

    #[test]
    fn it_is_unknown_until_the_copy_is_there() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(Program::look(run.path(), None), Program::Unknown);
        fs::write(run.path().join(BUILD_INFO), COPY).unwrap();
        let program = Program::look(run.path(), None);
        assert_eq!(program.build().map(|build| build.go_version.as_str()), Some("go1.27.3"));
        fs::write(run.path().join(BUILD_INFO), "").unwrap();
        assert_eq!(Program::look(run.path(), None), Program::Foreign, "the launcher found none");
    }
}
