//! The documentation as its readers use it: every command of a document, in order, as it stands there.
//!
//! A reader has a shell with goscope, helm, kubectl, go and curl in the path, and a service of their own, which here is a copy of `deploy/examples/shop`. The
//! images are on the node under the names that the documents give them, so that `docker` has nothing to do; in place of `TOKEN` a reader writes the one
//! that was printed. Nothing else is changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::{image, node};
use goscope_e2e::process::{Process, run_within};
use goscope_e2e::{go, session, wait};
use serde_json::Value;
use tempfile::TempDir;

use crate::helm::Helm;
use crate::injection;

/// Words that begin a command of the documentation.
const COMMANDS: [&str; 6] = ["docker ", "helm ", "kubectl ", "goscope ", "go tool ", "curl "];
/// The names that the documents give to the images of the tests.
const IMAGES: [(&str, &str); 2] =
    [(image::GOSCOPE, "registry.example/goscope:0.1.0"), (image::SHOP, "docker.io/library/shop:1.0.0")];
/// A Secret reaches a pod within about a minute, and the agent looks around after the app has come up; until then a reader tries again.
const TRIES: Duration = Duration::from_secs(150);
/// Of one command: Helm is told to wait until the pods are ready, and may have to wait for other cases.
const COMMAND_DEADLINE: Duration = Duration::from_secs(150);

/// The lines of a document that are commands, and the blocks of values between them.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Command(String),
    /// What is to stand in `values.yaml`.
    Values(String),
}

fn steps(document: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(text) = line.strip_prefix("    ") else { continue };
        if COMMANDS.iter().any(|command| text.starts_with(command)) {
            steps.push(Step::Command(text.to_owned()));
        } else if text == "debug-sidecar:" {
            let mut block = format!("{text}\n");
            while let Some(more) = lines.next_if(|line| line.starts_with("     ")) {
                block.push_str(&more[4..]);
                block.push('\n');
            }
            steps.push(Step::Values(block));
        }
    }
    steps
}

fn document(name: &str) -> anyhow::Result<String> {
    Ok(fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/docs").join(name))?)
}

/// Somebody who follows a document.
struct Reader {
    helm: Helm,
    folder: TempDir,
    /// Where they are.
    place: PathBuf,
    /// The token that was printed.
    token: Option<String>,
    /// Port-forwards that run.
    tunnels: Vec<Process>,
}

impl Reader {
    fn new() -> anyhow::Result<Self> {
        image::load_all()?;
        for (image, name) in IMAGES {
            node::tag(image, name)?;
        }
        let helm = Helm::newest()?;
        let folder = tempfile::tempdir()?;
        let bin = folder.path().join("bin");
        fs::create_dir(&bin)?;
        let script = node::folder().join("node.sh").display().to_string();
        let mut go = go::command(go::USUAL);
        go.args(["env", "GOROOT"]);
        let go = format!("{}/bin/go", node::succeed(go)?.trim());
        for (name, command) in [
            ("kubectl", format!("exec {script} kubectl \"$@\"")),
            ("helm", format!("{}exec {script} net {} \"$@\"", helm.exports()?, helm.binary())),
            ("go", format!("exec {script} net {go} \"$@\"")),
            ("curl", format!("exec {script} net /usr/bin/curl -q --noproxy '*' \"$@\"")),
            ("goscope", format!("exec {} \"$@\"", session::goscope()?.display())),
        ] {
            let path = bin.join(name);
            fs::write(&path, format!("#!/bin/sh\n{command}\n"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        let place = helm.home();
        Ok(Self { helm, folder, place, token: None, tunnels: Vec::new() })
    }

    fn follow(&mut self, steps: &[Step]) -> anyhow::Result<()> {
        for step in steps {
            let Step::Command(line) = step else { continue };
            self.command(line).with_context(|| line.clone())?;
        }
        Ok(())
    }

    fn command(&mut self, line: &str) -> anyhow::Result<()> {
        if line.starts_with("docker ") {
            return Ok(());
        }
        let line = self.token.as_ref().map_or_else(|| line.to_owned(), |token| line.replace("TOKEN", token));
        if line.contains(" port-forward ") {
            // In the background, whether or not the document says so. exec: a signal to the shell is then one to the command.
            let line = line.trim_end_matches(" &");
            let name = format!("port-forward-{}", self.tunnels.len());
            let process = Process::spawn(&mut self.shell(&format!("exec {line}")), self.folder.path(), &name)?;
            process.until("the tunnel", || {
                let said = fs::read_to_string(self.folder.path().join(format!("{name}.stdout"))).ok()?;
                said.contains("Forwarding from 127.0.0.1:").then_some(())
            })?;
            self.tunnels.push(process);
            return Ok(());
        }
        let mut last = None;
        let asks_the_pod = line.contains("127.0.0.1") || line.contains(" logs ");
        let outcome = wait::until_within(TRIES, "the command succeeds", || {
            match run_within(COMMAND_DEADLINE, &mut self.shell(&line)) {
                Ok(outcome) if outcome.code() == Some(0) => Some(Ok(outcome)),
                Ok(outcome) if asks_the_pod => {
                    last = Some(outcome.err());
                    std::thread::sleep(Duration::from_secs(2));
                    None
                }
                Ok(outcome) => Some(Err(anyhow::anyhow!("{}{}", outcome.out(), outcome.err()))),
                Err(error) => Some(Err(error)),
            }
        });
        let outcome = outcome.with_context(|| last.unwrap_or_default())??;
        if line.starts_with("goscope token new") {
            self.token = Some(outcome.out().trim().to_owned());
        }
        Ok(())
    }

    fn shell(&self, line: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command.args(["-ec", line]).current_dir(&self.place).stdin(Stdio::null());
        command.env("PATH", format!("{}:{path}", self.folder.path().join("bin").display()));
        command.env("PPROF_TMPDIR", self.folder.path()).env("GOTOOLCHAIN", "local");
        command
    }
}

/// The namespace of the documents, gone before and after.
struct Shop;

impl Shop {
    fn clear() -> Self {
        Self::delete();
        Self
    }

    fn delete() {
        for namespace in ["shop", "goscope"] {
            drop(run_within(
                COMMAND_DEADLINE,
                &mut node::kubectl(&["delete", "namespace", namespace, "--ignore-not-found", "--timeout=100s"]),
            ));
        }
    }

    fn kubectl(args: &[&str]) -> anyhow::Result<String> {
        node::succeed(node::kubectl(&[&["--namespace", "shop"], args].concat()))
    }

    /// Whether goscope is in the pod that a finished rollout has left.
    fn has_goscope() -> anyhow::Result<bool> {
        Self::kubectl(&["rollout", "status", "deployment/shop", "--timeout=100s"])?;
        let only = wait::until("one pod", || {
            let listed =
                Self::kubectl(&["get", "pods", "--selector=app.kubernetes.io/name=shop", "--output=json"]).ok()?;
            let listed: Value = serde_json::from_str(&listed).ok()?;
            let mut alive =
                listed["items"].as_array()?.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
            alive.next().filter(|_| alive.next().is_none()).map(Value::to_string)
        })?;
        Ok(only.contains("goscope"))
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        Self::delete();
    }
}

/// "Install in five minutes" from its first command to its last, then "Turn it on for a namespace" for the service that is bare again.
#[test]
fn install_in_five_minutes_and_for_a_namespace() -> anyhow::Result<()> {
    let mut reader = Reader::new()?;
    let shop = Shop::clear();
    let install = steps(&document("install.md")?);
    // The reader's chart, with the first block of values in it, which is the one that says where the image is.
    reader.place = PathBuf::from(reader.helm.shop());
    let values = reader.place.join("values.yaml");
    let written = fs::read_to_string(&values)?;
    let (own, _) = written.split_once("debug-sidecar:\n").context("values.yaml has no part of ours")?;
    let block = install.iter().find_map(|step| if let Step::Values(block) = step { Some(block) } else { None });
    fs::write(&values, format!("{own}{}", block.context("install.md has no values")?))?;
    let off = install.iter().position(|step| matches!(step, Step::Command(line) if line.contains("enabled=false")));
    let (on, off) = install.split_at(off.context("install.md does not switch it off")?);
    reader.follow(on)?;
    ensure!(reader.token.is_some() && !reader.tunnels.is_empty(), "install.md makes no token or opens no tunnel");
    ensure!(Shop::has_goscope()?);
    // What the document says in a sentence.
    reader.command("helm test shop --namespace shop")?;
    reader.tunnels.clear();
    reader.follow(off)?;
    ensure!(!Shop::has_goscope()?);

    // The next reader has made no token yet, and is in the repository.
    Shop::kubectl(&["delete", "secret", "goscope-tokens"])?;
    let mut reader = Reader::new()?;
    let alone = injection::only_policy();
    let namespace = steps(&document("namespace.md")?);
    let off =
        namespace.iter().position(|step| matches!(step, Step::Command(line) if line.ends_with("goscope.dev/inject-")));
    let (on, off) = namespace.split_at(off.context("namespace.md does not turn it off")?);
    reader.follow(on)?;
    ensure!(Shop::has_goscope()?);
    reader.follow(off)?;
    ensure!(!Shop::has_goscope()?);
    reader.command("helm uninstall goscope --namespace goscope")?;
    drop((alone, shop));
    Ok(())
}

/// Every block of values and every installation in the documents is accepted by the API server.
#[test]
fn every_example_passes_a_dry_run() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    let namespace = Namespace::create("examples")?;
    let file = |name: &str| reader.folder.path().join(name).display().to_string();
    let shop = reader.helm.shop();
    let mut examples = 0;
    for name in ["install.md", "namespace.md", "prometheus.md", "remote.md", "tokens.md", "what-survives.md"] {
        for step in steps(&document(name)?) {
            let rendered = match &step {
                Step::Values(block) => {
                    fs::write(file("values.yaml"), block)?;
                    reader.helm.succeed(&[
                        "template",
                        "shop",
                        &shop,
                        "--namespace",
                        &namespace.name,
                        "--values",
                        &file("values.yaml"),
                    ])?
                }
                Step::Command(line) if line.starts_with("helm upgrade --install ") && line.contains(" charts/") => {
                    let line =
                        line.replace("helm upgrade --install ", "helm template ").replace(" --create-namespace", "");
                    let line = line.replace(" charts/debug-sidecar", &format!(" {}", reader.helm.own()));
                    // The namespace of the document is that of the case.
                    let words: Vec<&str> = line.split(' ').skip(1).collect();
                    reader.helm.succeed(&words)?
                }
                Step::Command(_) => continue,
            };
            // Kinds of the Prometheus Operator are its own test's matter.
            let ours: Vec<&str> = rendered
                .split("\n---\n")
                .filter(|part| !part.contains("monitoring.coreos.com") && part.contains("kind:"))
                .collect();
            fs::write(file("rendered.yaml"), ours.join("\n---\n"))?;
            namespace
                .kubectl(&["create", "--dry-run=server", "--validate=strict", "--filename", &file("rendered.yaml")])
                .with_context(|| format!("{name}: {step:?}"))?;
            examples += 1;
        }
    }
    println!("{examples} examples");
    ensure!(examples > 8, "only {examples} examples were found");
    Ok(())
}
