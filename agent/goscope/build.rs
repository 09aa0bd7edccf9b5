//! Records what `goscope --version` and `goscope_build_info` say: the commit that was built and the target it was built for.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=GOSCOPE_COMMIT");
    let commit = std::env::var("GOSCOPE_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty())
        .or_else(commit_of_checkout)
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=GOSCOPE_BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=GOSCOPE_BUILD_TARGET={}", std::env::var("TARGET").expect("cargo sets TARGET"));
}

/// The commit that is checked out, as 12 hexadecimal digits; `None` where these sources are no checkout of their own, as in an unpacked archive.
fn commit_of_checkout() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().ok()?;
    // An archive unpacked inside some other project's checkout must not take that project's commit for its own.
    if Path::new(&git(&root, &["rev-parse", "--show-toplevel"])?).canonicalize().ok()? != root {
        return None;
    }
    watch_checkout(&root);
    git(&root, &["rev-parse", "--short=12", "HEAD"])
}

/// Has this script run again when another commit is checked out, and only then: HEAD moves between branches, its log grows with each
/// commit, the branch's file covers a checkout without logs. Cargo takes a path that is absent for changed, so only those that exist are named.
fn watch_checkout(root: &Path) {
    let of_checkout = |name: &str| git(root, &["rev-parse", "--git-path", name]).map(|path| root.join(path));
    let branch = git(root, &["symbolic-ref", "--quiet", "HEAD"]);
    let watched: [Option<PathBuf>; 3] =
        [of_checkout("HEAD"), of_checkout("logs/HEAD"), branch.and_then(|branch| of_checkout(&branch))];
    for path in watched.into_iter().flatten().filter(|path| path.exists()) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// One line that git answered.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.trim_end().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}
