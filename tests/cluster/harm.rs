//! What happens to the sidecar does not happen to the app: it is killed, runs out of memory, gets an image that cannot be had, finds its volumes full.
//! As long as its container lives, the pod does not become unready either.
//! Customers keep asking the shop meanwhile, and each of them is served.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use goscope_e2e::cluster::image::GOSCOPE;
use goscope_e2e::cluster::namespace::{Namespace, whole_incidents};
use goscope_e2e::cluster::node::{self, ContainerProcess, kills_whole_containers};
use goscope_e2e::process::{Process, run};
use goscope_e2e::wait;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::pod::{AGENT, Pod, SIDECAR, USUAL, raise};

/// Ask the shop again and again, each time on a connection of their own.
struct Customers {
    process: Process,
    _folder: TempDir,
}

impl Customers {
    fn come(address: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let url = format!("http://{address}:8080/catalogue?sku=sku-[0001-0199]");
        // More of them than the longest case has time for.
        let urls = folder.path().join("urls");
        fs::write(&urls, format!("url = {url:?}\noutput = /dev/null\n").repeat(100))?;
        let mut command = node::net(&["curl", "-q", "-sS", "--noproxy", "*", "--rate", "20/s", "--max-time", "20"]);
        command.args(["-H", "Connection: close", "--write-out", "%{stderr}%{http_code}\n", "--config"]).arg(urls);
        let process = Process::spawn(&mut command, folder.path(), "customers")?;
        process.await_stderr("200\n")?;
        Ok(Self { process, _folder: folder })
    }

    /// Sends them home. None of them was refused, and there were some to the end.
    fn go(self) -> anyhow::Result<()> {
        let before = self.answers()?.len();
        self.process.until("one more customer", || (self.answers().ok()?.len() > before).then_some(()))?;
        let answers = self.answers()?;
        let unserved: Vec<&String> = answers.iter().filter(|answer| *answer != "200").collect();
        println!("{} customers, {} of them not served", answers.len(), unserved.len());
        ensure!(unserved.is_empty(), "{unserved:?}");
        Ok(())
    }

    /// One line each; the last may still be on its way.
    fn answers(&self) -> anyhow::Result<Vec<String>> {
        let said = String::from_utf8_lossy(&self.process.stderr_so_far()?).into_owned();
        let (whole, _) = said.rsplit_once('\n').unwrap_or_default();
        Ok(whole.lines().map(str::to_owned).collect())
    }
}

/// A pod's app as it was when all was well.
struct App<'a> {
    namespace: &'a Namespace,
    pod: &'a str,
    container: Value,
    /// RFC 3339 in whole seconds, UTC, so that times compare as texts.
    ready_since: String,
}

impl<'a> App<'a> {
    fn of(namespace: &'a Namespace, pod: &'a str) -> anyhow::Result<Self> {
        let mut pod_now = namespace.object("pod", pod)?;
        let ready_since = ready_since(&pod_now).context("not ready")?.to_owned();
        let mut status = pod_now["status"].take();
        Ok(Self { namespace, pod, container: status["containerStatuses"][0].take(), ready_since })
    }

    /// Waits, and whenever one looks meanwhile the pod has been ready since the beginning, with the sidecar's first container.
    fn await_ready_throughout<T>(&self, what: &str, probe: impl Fn() -> Option<T>) -> anyhow::Result<T> {
        self.namespace.await_pod(self.pod, what, |pod| {
            let restarts = &pod["status"]["initContainerStatuses"][0]["restartCount"];
            if ready_since(&pod) != Some(&self.ready_since) || *restarts != 0 {
                return Some(Err(anyhow::anyhow!("ready since {} no more: {}", self.ready_since, pod["status"])));
            }
            probe().map(Ok)
        })?
    }

    /// The same life as in the beginning, and the kubelet never found it unready.
    fn is_unharmed(&self) -> anyhow::Result<()> {
        let shop = &self.namespace.object("pod", self.pod)?["status"]["containerStatuses"][0];
        ensure!(shop["containerID"] == self.container["containerID"] && shop["restartCount"] == 0, "{shop}");
        ensure!(shop["ready"] == true, "{shop}");
        let events: Value = serde_json::from_str(&self.namespace.kubectl(&["get", "events", "--output=json"])?)?;
        let is_harm = |event: &&Value| {
            event["involvedObject"]["name"] == self.pod
                && event["involvedObject"]["fieldPath"] == "spec.containers{shop}"
                && event["type"] == "Warning"
                && event["lastTimestamp"].as_str().is_some_and(|time| time > self.ready_since.as_str())
        };
        let found: Vec<&Value> = events["items"].as_array().into_iter().flatten().filter(is_harm).collect();
        ensure!(found.is_empty(), "{found:?}");
        Ok(())
    }
}

/// When the pod became ready, if it is.
fn ready_since(pod: &Value) -> Option<&str> {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.find(|c| c["type"] == "Ready" && c["status"] == "True")?["lastTransitionTime"].as_str()
}

/// Waits until the sidecar runs in its `lives`-th container after the first, and returns the agent's process.
fn await_agent(namespace: &Namespace, pod: &str, lives: u64) -> anyhow::Result<ContainerProcess> {
    namespace.await_pod(pod, "the sidecar runs again", |pod| {
        let sidecar = &pod["status"]["initContainerStatuses"][0];
        let is_new = sidecar["restartCount"].as_u64().is_some_and(|count| count >= lives);
        (is_new && sidecar["state"]["running"].is_object()).then_some(())
    })?;
    wait::until("the agent's process", || ContainerProcess::find(pod, &AGENT).ok())
}

#[test]
fn the_sidecar_ends_and_comes_back() -> anyhow::Result<()> {
    let namespace = Namespace::create("harm-ends")?;
    let pod = Pod { name: "shop-harm", ..USUAL };
    let address = pod.ready(&namespace)?;
    let app = App::of(&namespace, pod.name)?;
    let customers = Customers::come(&address)?;

    let first = ContainerProcess::find(pod.name, &SIDECAR)?;
    let killed = ContainerProcess::find(pod.name, &AGENT)?;
    killed.signal(Signal::KILL)?;
    // What is said while nobody listens is kept until somebody does.
    raise(&address, "handler")?;
    let agent = app.await_ready_throughout("another agent", || {
        ContainerProcess::find(pod.name, &AGENT).ok().filter(|agent| *agent != killed)
    })?;
    app.await_ready_throughout("the panic in a handler", || {
        namespace.only_incident().ok().filter(|incident| incident.kind() == "http_panic")
    })?;
    ensure!(ContainerProcess::find(pod.name, &SIDECAR)? == first, "another process 1");
    app.is_unharmed()?;

    // The agent, were it what grows, would be the larger of the two, and the kernel's choice by that; here a third one is that must go before process 1.
    first.weigh_by_size()?;
    use_up_memory(agent)?;
    let restarts = u64::from(kills_whole_containers());
    if restarts == 0 {
        let serves =
            || node::curl(&["-f", &format!("http://{address}:9464/livez")]).ok().filter(|o| o.code() == Some(0));
        app.await_ready_throughout("an agent with its memory", || {
            ContainerProcess::find(pod.name, &AGENT).ok().filter(|next| *next != agent).and_then(|_| serves())
        })?;
        ensure!(ContainerProcess::find(pod.name, &SIDECAR)? == first, "another process 1");
    } else {
        namespace.await_pod(pod.name, "the sidecar was killed for its memory", |pod| {
            let sidecar = &pod["status"]["initContainerStatuses"][0];
            let ends = [&sidecar["state"]["terminated"], &sidecar["lastState"]["terminated"]];
            ends.iter().any(|end| end["reason"] == "OOMKilled").then_some(())
        })?;
        await_agent(&namespace, pod.name, restarts)?;
    }
    app.is_unharmed()?;

    // Kubernetes lets the image of a sidecar be exchanged in a pod that runs.
    namespace.kubectl(&["set", "image", &format!("pod/{}", pod.name), "goscope=localhost/goscope:nowhere"])?;
    namespace.await_pod(pod.name, "the image is missing", |pod| {
        let waiting = &pod["status"]["initContainerStatuses"][0]["state"]["waiting"]["reason"];
        waiting.as_str().is_some_and(|reason| reason.contains("Image")).then_some(())
    })?;
    app.is_unharmed()?;
    namespace.kubectl(&["set", "image", &format!("pod/{}", pod.name), &format!("goscope={GOSCOPE}")])?;
    await_agent(&namespace, pod.name, restarts + 1)?;
    app.is_unharmed()?;
    customers.go()?;

    raise(&address, "index")?;
    namespace.await_phase(pod.name, "Failed")?;
    let kinds: Vec<String> = namespace.incidents()?.iter().map(|stored| stored.kind().to_owned()).collect();
    ensure!(kinds == ["http_panic", "panic"], "{kinds:?}");
    Ok(())
}

/// Another process uses up the memory of the agent's container, and the kernel takes the agent first.
fn use_up_memory(agent: ContainerProcess) -> anyhow::Result<()> {
    agent.offer_to_the_kernel()?;
    let members = agent.memory_cgroup()?.join("cgroup.procs");
    // It holds the last of what it reads in memory: more than the container may, so that it does not outlive it either.
    let hog = "echo $$ >\"$0\" && head -c 128M /dev/zero | tail -c 128M >/dev/null";
    run(Command::new("sh").args(["-c", hog]).arg(members)).map(drop)
}

/// Both volumes are memory of a few MiB, so that they can be full without anybody's disk being so.
#[test]
fn full_volumes() -> anyhow::Result<()> {
    let namespace = Namespace::create("harm-full")?;
    let pod = Pod {
        name: "shop-full",
        restart: "Always",
        // Enough that it soon needs room which is not there.
        args: &["-report", "10ms"],
        data: "emptyDir: {medium: Memory, sizeLimit: 4Mi}",
        spool: "emptyDir: {medium: Memory, sizeLimit: 4Mi}",
        env: "{name: GOSCOPE_STORE_RESERVE_BYTES, value: 64KiB}",
        ..USUAL
    };
    let address = pod.ready(&namespace)?;
    let app = App::of(&namespace, pod.name)?;
    let customers = Customers::come(&address)?;
    let root = ContainerProcess::find(pod.name, &AGENT)?.root().join("var/lib/goscope");
    let kinds = || anyhow::Ok(whole_incidents(&root)?.iter().map(|i| i.kind().to_owned()).collect::<Vec<_>>());

    let filling = fill(&root.join("data"))?;
    raise(&address, "handler")?;
    wait::until("the agent cannot store", || metric(&address, "goscope_store_errors_total").filter(|n| *n > 0.0))
        .with_context(|| namespace.agent_log(pod.name))?;
    ensure!(kinds()?.is_empty(), "{:?}", kinds()?);
    app.is_unharmed()?;
    fs::remove_file(filling)?;
    wait::until("what was spooled is stored", || kinds().ok().filter(|kinds| *kinds == ["http_panic"]))
        .with_context(|| namespace.agent_log(pod.name))?;

    // Bytes that the spool cannot take are passed on all the same.
    let filling = fill(&root.join("spool"))?;
    let written = || namespace.logs(pod.name, &[]).ok().map(|log| log.len());
    let before = written().context("no log")?;
    wait::until("more in the log", || written().filter(|now| *now >= before + (16 << 10)))?;
    app.is_unharmed()?;
    let last = newest_segment(&root.join("spool"))?.map(|(path, _)| path);
    fs::remove_file(filling)?;
    wait::until("the recording goes on", || {
        let (path, bytes) = newest_segment(&root.join("spool")).ok()??;
        (Some(path) > last && bytes > 0).then_some(())
    })?;
    customers.go()?;
    raise(&address, "index")?;
    let all = json!(["http_panic", "panic"]);
    wait::until("the death after it", || kinds().ok().filter(|kinds| json!(kinds) == all))
        .with_context(|| format!("{:?}\n{}", kinds(), namespace.agent_log(pod.name)))?;
    let death = whole_incidents(&root)?.pop().context("two were counted")?;
    let exit = death.exit.context("no exit record")?;
    let lost = exit["unspooled_bytes"].as_u64().context("no count")?;
    // Not before the kubelet has started the app again.
    let log = wait::until("the log of the life before", || namespace.logs(pod.name, &["--previous"]).ok())?;
    let log = String::from_utf8_lossy(&log).into_owned();
    // The launcher says between two lines of the app that it cannot record.
    let (said, written): (Vec<&str>, Vec<&str>) =
        log.split_inclusive('\n').partition(|line| line.starts_with("goscope: "));
    let written: usize = written.iter().map(|line| line.len()).sum();
    ensure!(!said.is_empty() && lost > 0, "{said:?} {exit}");
    ensure!(exit["stderr_bytes"].as_u64() == u64::try_from(written).ok(), "{exit}, {written} bytes of log, {said:?}");
    Ok(())
}

/// Writes until there is no room.
fn fill(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join("filling");
    let mut file = File::create(&path)?;
    for size in [64 << 10, 1] {
        while file.write(&vec![0; size]).is_ok() {}
    }
    Ok(path)
}

/// The segment of the only run that the launcher writes to, and its length. Its name holds where in the stream it begins. There is none where nothing
/// could be written and the agent has handled what was there.
fn newest_segment(spool: &Path) -> anyhow::Result<Option<(PathBuf, u64)>> {
    let mut newest = None;
    for run in fs::read_dir(spool)? {
        let run = run?.path();
        if !run.is_dir() {
            continue;
        }
        for entry in fs::read_dir(run)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("stderr.")) {
                newest = newest.max(Some(path));
            }
        }
    }
    Ok(newest.map(|path| {
        let bytes = path.metadata().map_or(0, |metadata| metadata.len());
        (path, bytes)
    }))
}

/// The value of a metric without labels.
fn metric(address: &str, name: &str) -> Option<f64> {
    let page = node::curl(&["-f", &format!("http://{address}:9464/metrics")]).ok()?.out();
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}
