//! The Go tool of any release, and the workload built by it.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

/// The releases that every fault is tried on.
pub const RELEASES: [&str; 4] = ["1.21.13", "1.24.11", "1.26.8", "1.27.3"];
/// The oldest release that the workload builds with.
pub const OLDEST: &str = "1.18.10";
/// The release for tests to which it does not matter.
pub const USUAL: &str = "1.26.8";
/// The release with every profile that there is.
pub const NEWEST: &str = "1.27.3";

/// For `go tool …`: a tool is compiled when it is asked for first.
pub const TOOL_DEADLINE: Duration = Duration::from_secs(300);

/// How a workload is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// Pure Go, static.
    Plain,
    /// With cgo.
    Cgo,
    /// With cgo and the race detector.
    Race,
}

/// `go` of a release; the release comes through Go's own toolchain mechanism.
#[must_use]
pub fn command(release: &str) -> Command {
    let mut command = Command::new("go");
    command.env("GOTOOLCHAIN", format!("go{release}")).env("GOFLAGS", "").env("GOWORK", "off").stdin(Stdio::null());
    command
}

/// The shop, built if the cache does not hold it.
///
/// # Errors
/// The Go tool is missing or fails; its messages are in the error.
pub fn shop(release: &str, flavour: Flavour) -> anyhow::Result<PathBuf> {
    build(release, flavour, &[])
}

/// The same without a dynamic loader, for an image that holds nothing else.
///
/// # Errors
/// As for [`shop`].
pub fn static_shop(release: &str, flavour: Flavour) -> anyhow::Result<PathBuf> {
    match flavour {
        Flavour::Plain => shop(release, flavour),
        Flavour::Cgo | Flavour::Race => {
            build(release, flavour, &["-ldflags", "-linkmode external -extldflags -static"])
        }
    }
}

fn build(release: &str, flavour: Flavour, linking: &[&str]) -> anyhow::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads/shop");
    let usual: &[&str] = match flavour {
        Flavour::Plain | Flavour::Cgo => &["-trimpath", "-buildvcs=false"],
        Flavour::Race => &["-trimpath", "-buildvcs=false", "-race"],
    };
    let flags = &[usual, linking].concat();
    let mut hasher = DefaultHasher::new();
    (flags, flavour).hash(&mut hasher);
    hash_tree(&source, &mut hasher)?;
    let name = format!("shop-go{release}-{flavour:?}-{:016x}", hasher.finish()).to_lowercase();
    let folder = cache()?.join("workloads");
    let binary = folder.join(&name);
    if binary.exists() {
        return Ok(binary);
    }
    fs::create_dir_all(&folder)?;
    // Two tests that need the same build: the second waits and finds it made. The lock goes with the file.
    let lock = fs::File::create(folder.join(format!("{name}.lock")))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    if binary.exists() {
        return Ok(binary);
    }
    let staged = folder.join(format!("{name}.tmp"));
    let output = command(release)
        .current_dir(&source)
        .env("CGO_ENABLED", if flavour == Flavour::Plain { "0" } else { "1" })
        .arg("build")
        .args(flags)
        .arg("-o")
        .args([&staged, Path::new(".")])
        .output()
        .context("cannot run go; tests/run.sh installs it")?;
    ensure!(output.status.success(), "go{release} build: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&staged, &binary)?;
    Ok(binary)
}

/// Where what is expensive to make is kept.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("GOSCOPE_TEST_CACHE") {
        return Ok(folder.into());
    }
    let home = std::env::var_os("HOME").context("neither GOSCOPE_TEST_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/goscope-tests"))
}

fn hash_tree(folder: &Path, hasher: &mut DefaultHasher) -> anyhow::Result<()> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        path.file_name().hash(hasher);
        if path.is_dir() {
            hash_tree(&path, hasher)?;
        } else {
            fs::read(&path)?.hash(hasher);
        }
    }
    Ok(())
}
