//! `kubectl goscope` with real kubeconfigs: each verb, users with few permissions, and an agent attached to a pod that was never injected.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use goscope_e2e::cluster::image::GOSCOPE;
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node;
use goscope_e2e::process::{Outcome, Process, run};
use goscope_e2e::session::goscope;
use goscope_e2e::{go, wait};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::pod::{Pod, USUAL, raise};

/// A person: a kubeconfig, a folder to work in, and the binary under the name by which kubectl finds it.
struct Person {
    folder: TempDir,
}

/// Who may do everything.
const ADMIN: &str = "admin";

impl Person {
    /// A ServiceAccount of the namespace with these rules, each a list of resources of the core group and a list of verbs.
    fn with(namespace: &Namespace, name: &str, rules: &[(&[&str], &[&str])]) -> anyhow::Result<Self> {
        namespace.kubectl(&["create", "serviceaccount", name])?;
        let rules: Vec<Value> = rules
            .iter()
            .map(|(resources, verbs)| json!({"apiGroups": [""], "resources": resources, "verbs": verbs}))
            .collect();
        let place = json!({"name": name, "namespace": namespace.name});
        let role =
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": place, "rules": rules});
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": place,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace.name}],
        });
        namespace.apply(&role.to_string())?;
        namespace.apply(&binding.to_string())?;
        let token = namespace.kubectl(&["create", "token", name])?;
        // As a credential plugin gives it, which is how most people's kubeconfigs do.
        let person = Self { folder: tempfile::tempdir()? };
        let credential = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token.trim()},
        });
        fs::write(person.path("credential.json"), credential.to_string())?;
        let user = json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "cat", "args": [person.path("credential.json")],
            "interactiveMode": "Never",
        }});
        person.settle(namespace, &user)?;
        Ok(person)
    }

    /// The administrator of the node, by a client certificate.
    fn admin(namespace: &Namespace) -> anyhow::Result<Self> {
        let person = Self { folder: tempfile::tempdir()? };
        let config: Value =
            serde_json::from_str(&node::succeed(node::kubectl(&["config", "view", "--raw", "-o", "json"]))?)?;
        person.settle(namespace, &config["users"][0]["user"].clone())?;
        Ok(person)
    }

    fn settle(&self, namespace: &Namespace, user: &Value) -> anyhow::Result<()> {
        let config: Value =
            serde_json::from_str(&node::succeed(node::kubectl(&["config", "view", "--raw", "-o", "json"]))?)?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": ADMIN,
            "clusters": [{"name": "test", "cluster": config["clusters"][0]["cluster"]}],
            "users": [{"name": ADMIN, "user": user}],
            "contexts": [{"name": ADMIN, "context": {"cluster": "test", "user": ADMIN, "namespace": namespace.name}}],
        });
        fs::write(self.path("kubeconfig"), kubeconfig.to_string())?;
        fs::write(self.path("token"), format!("{}\n", namespace.token))?;
        symlink(goscope()?, self.path("kubectl-goscope"))?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `kubectl goscope` in the node's network, in the person's folder.
    fn command(&self, args: &[&str]) -> Command {
        let plugin = self.path("kubectl-goscope").display().to_string();
        // In a session of its own there is no terminal to ask for a token.
        let mut command = node::net(&[&["setsid", plugin.as_str()], args].concat());
        command.current_dir(self.folder.path()).env("KUBECONFIG", self.path("kubeconfig"));
        command.env("XDG_STATE_HOME", self.path("state")).env_remove("GOSCOPE_TOKEN_FILE");
        command
    }

    fn run(&self, args: &[&str]) -> anyhow::Result<Outcome> {
        run(&mut self.command(args))
    }

    /// With the token of the namespace; standard output.
    fn succeed(&self, args: &[&str]) -> anyhow::Result<String> {
        let outcome = self.run(&[args, &["--token-file", "token"]].concat())?;
        ensure!(outcome.code() == Some(0), "{args:?}: {:?} {}{}", outcome.code(), outcome.out(), outcome.err());
        Ok(outcome.out())
    }

    /// What a call that must not succeed says.
    fn refused(&self, args: &[&str]) -> anyhow::Result<String> {
        let outcome = self.run(args)?;
        ensure!(outcome.code() == Some(2) && outcome.out().is_empty(), "{args:?}: {}{}", outcome.out(), outcome.err());
        Ok(outcome.err())
    }
}

fn has(text: &str, expected: &[&str]) -> anyhow::Result<()> {
    for part in expected {
        ensure!(text.contains(part), "no {part:?} in:\n{text}");
    }
    Ok(())
}

#[test]
fn every_verb_on_a_pod_with_goscope() -> anyhow::Result<()> {
    let namespace = Namespace::create("ctl-verbs")?;
    let pod = Pod { name: "shop-ctl", restart: "Always", ..USUAL };
    let address = pod.ready(&namespace)?;
    let person = Person::admin(&namespace)?;

    let status = person.succeed(&["status", pod.name])?;
    has(&status, &["pod shop-ctl in namespace", "target     up at 127.0.0.1:6060", "you        alice: basic"])?;
    let document: Value = serde_json::from_str(&person.succeed(&["status", "pod/shop-ctl", "-o", "json"])?)?;
    ensure!(document["schema"] == "goscope.info/v1", "{document}");

    // By a Secret, as the chart can make it; by the environment; by standard input is in the unit tests.
    let clear = format!("--from-literal=token={}", namespace.token);
    namespace.kubectl(&["create", "secret", "generic", "goscope-token", &clear])?;
    ensure!(person.run(&["status", pod.name])?.code() == Some(0), "the token of the Secret");
    ensure!(run(person.command(&["status", pod.name]).env("GOSCOPE_TOKEN_FILE", "token"))?.code() == Some(0));

    // A capture that is fetched, one that stays, one that is opened.
    let file = person.succeed(&["capture", "heap", pod.name, "--reason", "a test"])?;
    let file = person.path(file.trim());
    ensure!(fs::read(&file)?.starts_with(&[0x1f, 0x8b]), "{} is no profile", file.display());
    let id = person.succeed(&["capture", "goroutine", pod.name, "--keep-remote"])?;
    let listed = person.succeed(&["artifacts", pod.name])?;
    has(&listed, &["AGE", "heap", "goroutine", id.trim(), "alice"])?;
    person.succeed(&["fetch", id.trim(), pod.name, "-o", "goroutine.pb.gz"])?;
    let again = person.run(&["fetch", id.trim(), pod.name, "-o", "goroutine.pb.gz", "--token-file", "token"])?;
    ensure!(again.code() == Some(2) && again.err().contains("is there already"), "{}", again.err());
    has(&person.pprof(&["pprof", "heap", pod.name, "-o", "opened.pb.gz", "--", "-top"])?, &["Type: inuse_space"])?;

    interrupted(&person, pod.name)?;
    forward(&person, &namespace, pod.name)?;
    by_deployment(&person, &namespace, pod.name)?;

    raise(&address, "nil")?;
    let incidents = wait::until("the incident is listed", || {
        let listed = person.succeed(&["incidents", pod.name]).ok()?;
        listed.contains("panic").then_some(listed)
    })?;
    let id = incidents.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)).context("no incident")?;
    let folder = person.succeed(&["fetch", id, pod.name])?;
    let folder = person.path(folder.trim());
    let incident: Value = serde_json::from_slice(&fs::read(folder.join("incident.json"))?)?;
    ensure!(incident["kind"] == "panic", "{incident}");
    has(&fs::read_to_string(folder.join("stderr.txt"))?, &["panic: "])?;
    ensure!(!namespace.agent_log(pod.name).contains(&namespace.token), "the token stands in the agent's log");
    Ok(())
}

impl Person {
    /// A call that needs the Go tool, which is found from here and run there.
    fn pprof(&self, args: &[&str]) -> anyhow::Result<String> {
        let (own, rest) = args.split_at(3);
        let mut command = self.command(&[own, &["--token-file", "token"], rest].concat());
        command.env("PATH", path_with_go()?).env("GOTOOLCHAIN", "local");
        node::succeed(command)
    }
}

fn path_with_go() -> anyhow::Result<String> {
    let mut tool = go::command(go::USUAL);
    tool.args(["env", "GOROOT"]);
    let root = node::succeed(tool)?;
    Ok(format!("{}/bin:{}", root.trim(), std::env::var("PATH").unwrap_or_default()))
}

/// The pod of a Deployment is found by the Deployment's name and by its labels.
fn by_deployment(person: &Person, namespace: &Namespace, pod: &str) -> anyhow::Result<()> {
    const SELECTOR: &str = "app.kubernetes.io/name=shop-deployed";
    let labels = json!({"app.kubernetes.io/name": "shop-deployed"});
    // The spec of a pod that runs, to be scheduled anew.
    let mut spec = namespace.object("pod", pod)?["spec"].take();
    let fields = spec.as_object_mut().context("no spec")?;
    fields.retain(|name, _| !["nodeName", "serviceAccount"].contains(&name.as_str()));
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop", "namespace": namespace.name},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    });
    namespace.apply(&deployment.to_string())?;
    namespace.kubectl(&["rollout", "status", "deployment/shop", "--timeout=120s"])?;
    for target in [&["deploy/shop"][..], &["-l", SELECTOR]] {
        wait::until("the target is up", || {
            let status = person.succeed(&[&["status"], target].concat()).ok()?;
            (status.contains("pod shop-") && !status.contains(pod) && status.contains("target     up")).then_some(())
        })?;
    }
    namespace.kubectl(&["delete", "deployment", "shop", "--wait=false"])?;
    Ok(())
}

/// Ctrl-C cancels on the agent.
fn interrupted(person: &Person, pod: &str) -> anyhow::Result<()> {
    let mut command = person.command(&["capture", "cpu", pod, "--seconds", "30", "--token-file", "token"]);
    let process = Process::spawn(&mut command, person.folder.path(), "capture")?;
    process.await_stderr("waiting for cpu")?;
    process.signal(Signal::INT)?;
    process.await_stderr("cancelled")
}

/// The commands that it prints work as they are, and a wrong answer takes nothing with it.
fn forward(person: &Person, namespace: &Namespace, pod: &str) -> anyhow::Result<()> {
    let mut command = person.command(&["forward", pod, "--local-port", "0", "--token-file", "token"]);
    let process = Process::spawn(&mut command, person.folder.path(), "forward")?;
    let said = process.until("the commands", || {
        let said = fs::read_to_string(person.path("forward.stdout")).ok()?;
        said.contains("/api/v1/info").then_some(said)
    })?;
    ensure!(!said.contains(&namespace.token), "the token is shown");
    let curl = said.lines().find_map(|line| line.trim().strip_prefix("curl ")).context("no curl")?;
    let shell = format!("cd {} && curl -q -sS --noproxy '*' -f {curl}", person.folder.path().display());
    let answer = node::succeed(node::net(&["sh", "-c", &shell]))?;
    ensure!(answer.contains("goscope.info/v1"), "{answer}");
    let pprof = said.lines().find_map(|line| line.trim().strip_prefix("go tool pprof ")).context("no pprof")?;
    let folder = person.folder.path().display();
    let mut top = node::net(&["sh", "-c", &format!("cd {folder} && go tool pprof -top {pprof}")]);
    top.env("PATH", path_with_go()?).env("GOTOOLCHAIN", "local").env("PPROF_TMPDIR", person.path("pprof"));
    has(&node::succeed(top)?, &["Type: inuse_space"])?;
    let wrong = shell.replace("$(cat token)", "gsc_wrong");
    for _ in 0..20 {
        ensure!(run(&mut node::net(&["sh", "-c", &wrong]))?.code() == Some(22), "a wrong token");
    }
    wait::until("an answer for the right token", || node::succeed(node::net(&["sh", "-c", &shell])).ok())?;
    process.signal(Signal::INT)?;
    wait::until("the end", || process.has_ended().then_some(()))
}

#[test]
fn few_permissions() -> anyhow::Result<()> {
    let namespace = Namespace::create("ctl-rbac")?;
    let pod = Pod { name: "shop-rbac", ..USUAL };
    pod.ready(&namespace)?;

    // No more than the tunnel: whoever names the pod and has a token gets everything.
    let tunnel = Person::with(&namespace, "tunnel", &[(&["pods/portforward"], &["create", "get"])])?;
    has(&tunnel.succeed(&["status", pod.name])?, &["target     up"])?;
    let file = tunnel.succeed(&["capture", "heap", pod.name])?;
    ensure!(tunnel.path(file.trim()).is_file(), "{file}");
    has(
        &tunnel.refused(&["status", "deploy/shop", "--token-file", "token"])?,
        &["you may not get deployments in namespace", "apiGroups: [apps], resources: [deployments], verbs: [get]"],
    )?;
    has(
        &tunnel.refused(&["status", "-l", "app=shop", "--token-file", "token"])?,
        &["you may not list pods in namespace"],
    )?;
    has(
        &tunnel.refused(&["status", pod.name])?,
        &["no token", "you may not get secrets in namespace", "--token-file"],
    )?;
    has(&tunnel.refused(&["attach", pod.name, "--image", GOSCOPE])?, &["you may not get pods in namespace"])?;

    let reader = Person::with(&namespace, "reader", &[(&["pods", "secrets"], &["get", "list"])])?;
    let said = reader.refused(&["forward", pod.name])?;
    has(
        &said,
        &["you may not", "pods/portforward in namespace", "resources: [pods/portforward], verbs: [create, get]"],
    )?;

    // Credentials that the server does not know, and a server that is not there.
    fs::write(
        reader.path("credential.json"),
        json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "stale"}}).to_string(),
    )?;
    has(&reader.refused(&["status", pod.name])?, &["does not accept your credentials"])?;
    let mut kubeconfig: Value = serde_json::from_slice(&fs::read(reader.path("kubeconfig"))?)?;
    kubeconfig["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9".into();
    fs::write(reader.path("kubeconfig"), kubeconfig.to_string())?;
    has(&reader.refused(&["status", pod.name])?, &["cannot be reached: Connection refused"])?;
    Ok(())
}

/// The file of the one token that `attach` has kept.
fn only_token(person: &Person, namespace: &Namespace) -> anyhow::Result<PathBuf> {
    let folder = person.path(&format!("state/goscope/attached/{}", namespace.name));
    let files = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(files.len() == 1, "{files:?}");
    files.into_iter().next().context("no token")
}

#[test]
fn an_agent_is_attached_to_a_bare_pod() -> anyhow::Result<()> {
    let namespace = Namespace::create("ctl-attach")?;
    let pod = Pod { name: "shop-bare", ..USUAL };
    pod.bare(&namespace)?;
    namespace.await_ready(pod.name)?;
    let person = Person::with(
        &namespace,
        "attacher",
        &[
            (&["pods"], &["get", "list"]),
            (&["pods/portforward"], &["create", "get"]),
            (&["pods/ephemeralcontainers"], &["patch"]),
        ],
    )?;
    has(
        &person.refused(&["status", pod.name, "--token-file", "token"])?,
        &["goscope is not in pod shop-bare", "attach"],
    )?;
    let said = person.run(&["attach", pod.name, "--image", GOSCOPE, "--for", "10m"])?;
    ensure!(said.code() == Some(0), "{}{}", said.err(), namespace.kubectl(&["describe", "pod", pod.name])?);
    has(&said.out(), &["It ends after 10m", "What it cannot do"])?;
    let token = only_token(&person, &namespace)?;
    let clear = fs::read_to_string(&token)?;
    ensure!(!namespace.object("pod", pod.name)?.to_string().contains(clear.trim()), "the token is in the pod");
    ensure!(!said.out().contains(clear.trim()), "the token is shown");

    // The commands that it printed.
    let with = |args: &[&str]| -> anyhow::Result<String> {
        let token = token.display().to_string();
        let outcome = person.run(&[args, &["--token-file", &token]].concat())?;
        ensure!(outcome.code() == Some(0), "{args:?}: {}{}", outcome.out(), outcome.err());
        Ok(outcome.out())
    };
    has(&with(&["status", "pod/shop-bare"])?, &["target     up", "you        attached: basic"])?;
    let file = with(&["capture", "heap", "pod/shop-bare"])?;
    ensure!(fs::read(person.path(file.trim()))?.starts_with(&[0x1f, 0x8b]), "{file}");
    has(&person.refused(&["attach", pod.name, "--image", GOSCOPE])?, &["goscope is in pod shop-bare already"])?;
    // The refusal took nothing from the agent that is there.
    ensure!(only_token(&person, &namespace)? == token && fs::read_to_string(&token)? == clear, "another token");
    has(&with(&["status", "pod/shop-bare"])?, &["you        attached: basic"])?;
    // The app never noticed.
    let status = &namespace.object("pod", pod.name)?["status"]["containerStatuses"][0];
    ensure!(status["restartCount"] == 0 && status["ready"] == true, "{status}");
    Ok(())
}

/// Every command of the page runs as it stands there.
#[test]
fn the_page_can_be_pasted() -> anyhow::Result<()> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/docs/kubectl-goscope.md"))?;
    let namespace = Namespace::create("ctl-page")?;
    let pod = Pod { name: "shop-0", restart: "Always", ..USUAL };
    let address = pod.ready(&namespace)?;
    raise(&address, "nil")?;
    namespace.await_incident(pod.name)?;
    namespace.await_ready(pod.name)?;
    let person = Person::admin(&namespace)?;
    let incident = wait::until("the incident is listed", || {
        let listed = person.succeed(&["incidents", pod.name]).ok()?;
        listed.lines().nth(1)?.split_whitespace().nth(3).map(str::to_owned)
    })?;
    let clear = format!("--from-literal=token={}", namespace.token);
    namespace.kubectl(&["create", "secret", "generic", "goscope-token", &clear])?;

    let mut commands = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("    kubectl goscope ")) {
        // What ends by Ctrl-C, asks for the Go tool or for a pod without goscope has a test of its own.
        if ["forward", "pprof", "attach"].iter().any(|verb| line.starts_with(verb)) {
            continue;
        }
        let line = line.replace("deploy/shop", "pod/shop-0").replace("--namespace shop", "").replace("ID", &incident);
        let line = line.split("  #").next().unwrap_or_default();
        let args: Vec<&str> = line.split_whitespace().take_while(|word| *word != "|").collect();
        let outcome = person.run(&args)?;
        ensure!(outcome.code() == Some(0), "{line}: {}{}", outcome.out(), outcome.err());
        commands += 1;
    }
    ensure!(commands >= 6, "{commands} commands on the page");
    Ok(())
}
