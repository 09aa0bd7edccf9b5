//! Images, built by buildah without a registry and without a daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::node;
use crate::go::{self, Flavour};
use crate::process::run;
use crate::session::goscope;
use crate::version;

/// The image under test.
pub const GOSCOPE: &str = "localhost/goscope:test";
/// goscope as it was at [`version::BEFORE`].
pub const GOSCOPE_BEFORE: &str = "localhost/goscope:before";
/// `tests/workloads/shop` alone, as `/shop`; with cgo as `/shop-cgo`, with the race detector as `/shop-race`.
pub const SHOP: &str = "localhost/shop:test";

/// Builds the sandbox's image, the shop's and goscope's, and imports them into the node, once for all tests of this process.
///
/// # Errors
/// A compiler, buildah or containerd failed; also for every later caller.
pub fn load_all() -> anyhow::Result<()> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let load = || {
        let folder = tempfile::tempdir()?;
        node::load(&pause(folder.path())?)?;
        node::load(&shop(folder.path())?)?;
        node::load(&Image::of_goscope()?.archive)
    };
    LOADED.get_or_init(|| load().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

/// Imports an image of a static executable, as `/bin/NAME`.
///
/// # Errors
/// It cannot be read, or buildah or containerd failed.
pub fn load_executable(image: &str, executable: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let context = folder.path();
    let name = executable.file_name().and_then(|name| name.to_str()).context("an executable without a name")?;
    fs::copy(executable, context.join(name)).with_context(|| executable.display().to_string())?;
    node::load(&single(image, &[name], "/bin/", context)?)
}

/// Imports goscope as it was before, built if the cache does not hold it.
///
/// # Errors
/// It cannot be built, or containerd refused it.
pub fn load_before() -> anyhow::Result<()> {
    node::load(&Image::of(GOSCOPE_BEFORE, &version::before()?)?.archive)
}

/// An image as an OCI archive.
#[derive(Debug)]
pub struct Image {
    pub archive: PathBuf,
    _folder: TempDir,
}

impl Image {
    /// The image of the binary under test, by the Dockerfile that everybody uses.
    ///
    /// # Errors
    /// buildah failed.
    pub fn of_goscope() -> anyhow::Result<Self> {
        Self::of(GOSCOPE, &goscope()?)
    }

    fn of(name: &str, binary: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let context = folder.path().join("goscope-context");
        fs::create_dir(&context)?;
        fs::copy(binary, context.join("goscope"))?;
        let dockerfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Dockerfile");
        let archive = build(folder.path(), name, &dockerfile, &context, &["SOURCE=prebuilt", "REVISION=0123456789ab"])?;
        Ok(Self { archive, _folder: folder })
    }

    /// Manifest and configuration.
    ///
    /// # Errors
    /// The archive is not one of a single image.
    pub fn documents(&self) -> anyhow::Result<(Value, Value)> {
        let index = self.json("index.json")?;
        let manifest = self.json(&blob(&index["manifests"][0])?)?;
        let config = self.json(&blob(&manifest["config"])?)?;
        Ok((manifest, config))
    }

    /// The files of the only layer, as `tar` lists them: mode, owner, size and name of each.
    ///
    /// # Errors
    /// There are several layers, or `tar` failed.
    pub fn files(&self) -> anyhow::Result<Vec<String>> {
        let (manifest, _) = self.documents()?;
        let layers = manifest["layers"].as_array().context("no layers")?;
        ensure!(layers.len() == 1, "{} layers", layers.len());
        let layer = self.archive.with_extension("layer");
        fs::write(&layer, self.entry(&blob(&layers[0])?)?)?;
        let mut tar = Command::new("tar");
        tar.args(["--list", "--verbose", "--numeric-owner", "--gzip", "--file"]).arg(layer);
        Ok(node::succeed(tar)?.lines().map(str::to_owned).collect())
    }

    fn json(&self, entry: &str) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.entry(entry)?).with_context(|| entry.to_owned())
    }

    fn entry(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let outcome =
            run(Command::new("tar").args(["--extract", "--to-stdout", "--file"]).arg(&self.archive).arg(name))?;
        ensure!(outcome.code() == Some(0), "{name}: {}", outcome.err());
        Ok(outcome.stdout)
    }
}

fn blob(descriptor: &Value) -> anyhow::Result<String> {
    let digest = descriptor["digest"].as_str().context("no digest")?;
    Ok(format!("blobs/{}", digest.replace(':', "/")))
}

fn pause(folder: &Path) -> anyhow::Result<PathBuf> {
    let context = folder.join("pause");
    fs::create_dir(&context)?;
    let mut gcc = Command::new("gcc");
    gcc.args(["-static", "-Os", "-o"]).arg(context.join("pause")).arg(node::folder().join("pause.c"));
    node::succeed(gcc)?;
    single("localhost/pause:1", &["pause"], "/", &context)
}

fn shop(folder: &Path) -> anyhow::Result<PathBuf> {
    let context = folder.join("shop");
    fs::create_dir(&context)?;
    let flavours = [(Flavour::Plain, "shop"), (Flavour::Cgo, "shop-cgo"), (Flavour::Race, "shop-race")];
    for (flavour, executable) in flavours {
        fs::copy(go::static_shop(go::NEWEST, flavour)?, context.join(executable))?;
    }
    single(SHOP, &flavours.map(|(_, executable)| executable), "/", &context)
}

/// An image of nothing but executables of the context, which are in `folder` there; it starts the first.
fn single(name: &str, executables: &[&str], folder: &str, context: &Path) -> anyhow::Result<PathBuf> {
    let dockerfile = context.join("Dockerfile");
    let words = executables.join(" ");
    let first = executables.first().context("no executable")?;
    fs::write(&dockerfile, format!("FROM scratch\nCOPY {words} {folder}\nENTRYPOINT [\"{folder}{first}\"]\n"))?;
    build(context, name, &dockerfile, context, &[])
}

/// Builds an image with a store of its own below `folder`, which is gone afterwards.
fn build(folder: &Path, name: &str, dockerfile: &Path, context: &Path, arguments: &[&str]) -> anyhow::Result<PathBuf> {
    let store = tempfile::tempdir()?;
    let buildah = |verb: &str| {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs", "--root"]).arg(store.path().join("root"));
        command.arg("--runroot").arg(store.path().join("run")).arg(verb);
        command
    };
    let mut bud = buildah("bud");
    // chroot: the one isolation that needs no namespaces of its own. The timestamp makes the same input the same image.
    bud.args(["--quiet", "--isolation", "chroot", "--format", "oci", "--timestamp", "0", "--tag", name]);
    for argument in arguments {
        bud.args(["--build-arg", argument]);
    }
    node::succeed({
        bud.arg("--file").arg(dockerfile).arg(context);
        bud
    })?;
    let archive = folder.join("image.tar");
    let mut push = buildah("push");
    push.args(["--quiet", name]).arg(format!("oci-archive:{}:{name}", archive.display()));
    node::succeed(push)?;
    Ok(archive)
}
