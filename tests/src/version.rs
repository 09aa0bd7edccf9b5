//! goscope as it was before, built from the repository's own history: launcher and agent of two versions meet whenever a cluster is upgraded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::go;

/// The version before the one under test. Becomes the latest release as soon as there is one.
pub const BEFORE: &str = "883af9ddedb80bf7ba27b48257ccb2b8df2b74fd";

/// The binary of [`BEFORE`], built if the cache does not hold it, which takes a few minutes. A debug build: it is run, not measured.
///
/// # Errors
/// The repository does not hold the commit, as a shallow clone does not; or it cannot be built.
pub fn before() -> anyhow::Result<PathBuf> {
    let folder = go::cache()?.join("versions");
    fs::create_dir_all(&folder)?;
    let binary = folder.join(format!("goscope-{BEFORE}"));
    let lock = fs::File::create(folder.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    if !binary.exists() {
        fs::rename(build(&folder)?, &binary)?;
    }
    Ok(binary)
}

/// Takes the sources out of the history and builds them; the folder that it builds in is gone afterwards, the binary is not.
fn build(folder: &Path) -> anyhow::Result<PathBuf> {
    let source = folder.join("source");
    drop(fs::remove_dir_all(&source));
    fs::create_dir(&source)?;
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let archive = folder.join("source.tar");
    let mut git = Command::new("git");
    git.arg("-C").arg(repository).args(["archive", "--output"]).arg(&archive).arg(BEFORE);
    succeed(&mut git).with_context(|| {
        format!("the history does not hold {BEFORE}, which is built to run beside this version; in a shallow clone: git fetch --unshallow")
    })?;
    succeed(Command::new("tar").arg("--extract").arg("--directory").arg(&source).arg("--file").arg(&archive))?;
    fs::remove_file(archive)?;
    let target = folder.join("target");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // In the sources' own folder, for their cargo configuration and toolchain, in place of the one that this process was told to use.
    cargo.args(["build", "--locked", "--quiet", "--package", "goscope", "--target-dir"]).arg(&target);
    cargo.env_remove("RUSTUP_TOOLCHAIN").env("GOSCOPE_COMMIT", BEFORE);
    succeed(cargo.current_dir(&source))?;
    let built = folder.join("goscope");
    fs::rename(target.join("x86_64-unknown-linux-gnu/debug/goscope"), &built)?;
    fs::remove_dir_all(source)?;
    fs::remove_dir_all(target)?;
    Ok(built)
}

/// Without the harness' deadline: a build takes what it takes.
fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr));
    Ok(())
}
