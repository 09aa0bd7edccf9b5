//! Real Helm, both majors, against the node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use goscope_e2e::cluster::node;
use goscope_e2e::process::{Outcome, run_within};
use tempfile::TempDir;

/// More than what the tests let Helm itself wait for.
const DEADLINE: Duration = Duration::from_secs(150);

/// One release of Helm, with a home of its own, and copies of the charts.
pub(crate) struct Helm {
    binary: PathBuf,
    home: TempDir,
}

/// What Helm keeps outside of charts, and the folder that it is told.
const HOMES: [(&str, &str); 3] = [("CONFIG", "config"), ("DATA", "data"), ("CACHE", "cache")];

impl Helm {
    /// Each release that the chart is for.
    ///
    /// # Errors
    /// `tests/run.sh cluster` did not say where they are, or a chart cannot be copied.
    pub(crate) fn all() -> anyhow::Result<Vec<Self>> {
        let binaries = std::env::var("GOSCOPE_HELMS").context("GOSCOPE_HELMS: tests/run.sh cluster names the Helms")?;
        binaries.split_whitespace().map(|binary| Self::new(binary.into())).collect()
    }

    /// The newest one.
    ///
    /// # Errors
    /// As for [`Helm::all`].
    pub(crate) fn newest() -> anyhow::Result<Self> {
        Self::all()?.pop().context("no Helm")
    }

    fn new(binary: PathBuf) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for folder in ["charts", "deploy/examples"] {
            let copy = home.path().join(folder);
            fs::create_dir_all(&copy)?;
            let mut cp = Command::new("cp");
            cp.arg("-r").arg(root.join(folder).join(".")).arg(copy);
            node::succeed(cp)?;
        }
        let helm = Self { binary, home };
        helm.succeed(&["dependency", "update", &helm.shop()])?;
        Ok(helm)
    }

    /// `3` or `4`.
    pub(crate) fn major(&self) -> anyhow::Result<String> {
        let said = self.succeed(&["version", "--template", "{{.Version}}"])?;
        Ok(said.trim_start_matches('v').chars().take(1).collect())
    }

    /// The folder with the charts, laid out as the repository.
    pub(crate) fn home(&self) -> PathBuf {
        self.home.path().to_owned()
    }

    pub(crate) fn binary(&self) -> String {
        self.binary.display().to_string()
    }

    /// What a shell must export before it runs the binary.
    ///
    /// # Errors
    /// Nobody knows where the node is.
    pub(crate) fn exports(&self) -> anyhow::Result<String> {
        let mut text = format!("export KUBECONFIG={}\n", kubeconfig()?.display());
        for (variable, folder) in HOMES {
            text.push_str(&format!(
                "export HELM_{variable}_HOME={}\n",
                self.home.path().join("helm").join(folder).display()
            ));
        }
        Ok(text)
    }

    /// The chart `debug-sidecar`.
    pub(crate) fn own(&self) -> String {
        self.home.path().join("charts/debug-sidecar").display().to_string()
    }

    /// The service's chart that depends on it.
    pub(crate) fn shop(&self) -> String {
        self.home.path().join("deploy/examples/shop").display().to_string()
    }

    /// Runs it on the node's network as administrator.
    ///
    /// # Errors
    /// It cannot be started. What it refuses is none.
    pub(crate) fn run(&self, args: &[&str]) -> anyhow::Result<Outcome> {
        let binary = self.binary.display().to_string();
        let mut command = node::net(&[&[binary.as_str()], args].concat());
        for (variable, folder) in HOMES {
            command.env(format!("HELM_{variable}_HOME"), self.home.path().join("helm").join(folder));
        }
        run_within(DEADLINE, command.env("KUBECONFIG", kubeconfig()?))
    }

    /// Runs it, and it must succeed.
    ///
    /// # Errors
    /// It did not; what it said is in the error.
    pub(crate) fn succeed(&self, args: &[&str]) -> anyhow::Result<String> {
        let outcome = self.run(args)?;
        ensure!(outcome.code() == Some(0), "helm {args:?}: {}{}", outcome.out(), outcome.err());
        Ok(outcome.out())
    }
}

fn kubeconfig() -> anyhow::Result<PathBuf> {
    Ok(node::state()?.join("admin.kubeconfig"))
}
