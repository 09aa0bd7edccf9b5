//! `goscope install`: copies this executable to a folder that the app's container mounts, so that `goscope exec` can be put in front of the app.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, StatVfsMountFlags, flock, statvfs};

/// The name of the copy.
const NAME: &str = "goscope";
/// The copy while it is being written. One name for every writer, who takes turns by `flock`, so that nothing is left to sweep.
const STAGED: &str = ".goscope.tmp";
/// Everybody may execute it: the app's container may run as any user.
const MODE: u32 = 0o755;
/// Compared at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Copy this executable to DIR/goscope
///
/// For an init container: DIR is a volume that the app's container mounts, whose command is then DIR/goscope exec -- CMD. The copy is there whole or
/// not at all, may replace one that is running, and is left alone where it is the same already. Prints where it is.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, before_help = "Example: goscope install /var/lib/goscope/bin")]
pub struct Args {
    /// The folder, which must exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let program = File::open("/proc/self/exe").context("cannot read this executable")?;
        let copy = install(program, &self.folder)?;
        writeln!(io::stdout(), "{}", copy.display())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Makes `folder/goscope` a copy of `program`, and returns its path.
fn install(mut program: File, folder: &Path) -> anyhow::Result<PathBuf> {
    let shown = folder.display();
    match fs::metadata(folder) {
        Ok(found) if !found.is_dir() => bail!("{shown} is no folder"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("{shown} does not exist; mount a volume there"),
        found => found.with_context(|| format!("cannot use {shown}"))?,
    };
    if statvfs(folder).is_ok_and(|volume| volume.f_flag.contains(StatVfsMountFlags::NOEXEC)) {
        bail!("nothing can be executed in {shown}: the volume is mounted noexec");
    }
    let copy = folder.join(NAME);
    if is_copy(&program, &copy).unwrap_or(false) {
        return Ok(copy);
    }
    let staged = folder.join(STAGED);
    let mut file = take_turn(&staged).with_context(|| format!("cannot create {}", staged.display()))?;
    let written = (|| {
        file.set_len(0)?;
        io::copy(&mut program, &mut file)?;
        // The umask had its say when the file was created.
        file.set_permissions(Permissions::from_mode(MODE))?;
        file.sync_all()
    })();
    if let Err(error) = written {
        // A full volume should not stay full because of half a file.
        drop(fs::remove_file(&staged));
        return Err(error).with_context(|| format!("cannot write {}", staged.display()));
    }
    fs::rename(&staged, &copy).with_context(|| format!("cannot replace {}", copy.display()))?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| format!("cannot sync {shown}"))?;
    Ok(copy)
}

/// Opens the staged file when nobody else writes it. Whoever had it before has renamed it, so the name may stand for another file by then.
fn take_turn(staged: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(staged)?;
        flock(&file, FlockOperation::LockExclusive)?;
        let (held, named) = (file.metadata()?, fs::symlink_metadata(staged));
        match named {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => return Ok(file),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
}

/// Whether `copy` has the content of `program` and may be executed by everybody.
fn is_copy(program: &File, copy: &Path) -> io::Result<bool> {
    let other = File::open(copy)?;
    let (ours, theirs) = (program.metadata()?, other.metadata()?);
    if !theirs.is_file() || theirs.mode() & 0o777 != MODE || theirs.len() != ours.len() {
        return Ok(false);
    }
    let mut pair = [vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]];
    let [left, right] = &mut pair;
    for offset in (0..ours.len()).step_by(CHUNK_BYTES) {
        let length = usize::try_from(ours.len() - offset).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES));
        left.truncate(length);
        right.truncate(length);
        // By offset, so that the copying after this begins at the start.
        program.read_exact_at(left, offset)?;
        other.read_exact_at(right, offset)?;
        if left != right {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path, content: &[u8]) -> File {
        let path = folder.join("program");
        fs::write(&path, content).expect("written");
        File::open(path).expect("opened")
    }

    fn check(folder: &Path, content: &[u8]) {
        let copy = folder.join(NAME);
        assert_eq!(fs::read(&copy).expect("the copy"), content);
        assert_eq!(fs::metadata(&copy).expect("the copy").mode() & 0o7777, MODE);
        assert!(!folder.join(STAGED).exists());
    }

    #[test]
    fn what_differs_is_replaced_and_what_is_the_same_is_left_alone() {
        let (sources, target) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let inode = || fs::metadata(target.path().join(NAME)).expect("the copy").ino();
        let long = |last: u8| [vec![7; 3 * CHUNK_BYTES], vec![last]].concat();
        let mut before = None;
        for (content, is_new) in
            [(long(1), true), (long(1), false), (long(2), true), (b"short".to_vec(), true), (Vec::new(), true)]
        {
            install(program(sources.path(), &content), target.path()).expect("installed");
            check(target.path(), &content);
            assert_eq!(before != Some(inode()), is_new, "{} bytes", content.len());
            before = Some(inode());
        }
    }

    #[test]
    fn a_copy_that_cannot_be_executed_is_replaced() {
        let (sources, target) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        fs::write(target.path().join(NAME), "same").expect("written");
        install(program(sources.path(), b"same"), target.path()).expect("installed");
        check(target.path(), b"same");
    }

    #[test]
    fn what_a_killed_install_left_is_overwritten() {
        let (sources, target) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        fs::write(target.path().join(STAGED), "longer than the program").expect("written");
        install(program(sources.path(), b"program"), target.path()).expect("installed");
        check(target.path(), b"program");
    }

    #[test]
    fn several_at_once_leave_one_whole_copy() {
        let (sources, target) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let content: Vec<u8> = (0..4 * CHUNK_BYTES).map(|i| i.to_le_bytes()[1]).collect();
        drop(program(sources.path(), &content));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let program = File::open(sources.path().join("program")).expect("opened");
                    install(program, target.path()).expect("installed");
                });
            }
        });
        check(target.path(), &content);
    }

    #[test]
    fn errors_say_what_is_wrong_with_the_folder() {
        let sources = tempfile::tempdir().expect("a folder");
        for (folder, expected) in [
            (sources.path().join("absent"), "does not exist; mount a volume there"),
            (sources.path().join("program"), "is no folder"),
        ] {
            let error = install(program(sources.path(), b"program"), &folder).expect_err("refused");
            let said = format!("{error:#}");
            assert!(said.contains(expected) && said.contains(&folder.display().to_string()), "{said}");
        }
        let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
        let mut noexec = mounts.lines().filter(|mount| mount.contains("noexec")).filter_map(|m| m.split(' ').nth(1));
        let noexec = noexec.find(|folder| Path::new(folder).is_dir());
        if let Some(folder) = noexec {
            let error = install(program(sources.path(), b"program"), Path::new(folder)).expect_err("refused");
            assert!(format!("{error:#}").ends_with("the volume is mounted noexec"), "{error:#}");
        }
        // A folder of that name cannot be replaced by a file.
        fs::create_dir(sources.path().join(NAME)).expect("made");
        let error = install(program(sources.path(), b"program"), sources.path()).expect_err("refused");
        assert!(format!("{error:#}").starts_with("cannot replace "), "{error:#}");
    }
}
