//! Tokens that a hook makes at install: they open the gate, and no upgrade, rollback or uninstall changes them.

use anyhow::{Context, ensure};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node;
use goscope_e2e::wait;
use serde_json::Value;

use crate::chart;
use crate::helm::Helm;
use crate::tunnel::Tunnel;

/// Other names than those of the namespace's own Secret.
const VALUES: [&str; 4] = [
    "debug-sidecar.tokens.create=true",
    "debug-sidecar.tokens.secret=made",
    "debug-sidecar.tokens.created.clearSecret=made-clear",
    "debug-sidecar.tokens.created.tiers={basic,cpu}",
];

/// What both Secrets hold.
fn made(namespace: &Namespace) -> anyhow::Result<[Value; 2]> {
    Ok([namespace.object("secret", "made")?["data"].clone(), namespace.object("secret", "made-clear")?["data"].clone()])
}

/// As the notes tell people to read it.
fn token(namespace: &Namespace) -> anyhow::Result<String> {
    namespace.kubectl(&["get", "secret", "made-clear", "-o", "go-template={{ .data.token | base64decode }}"])
}

#[test]
fn a_token_made_at_install_is_kept() -> anyhow::Result<()> {
    for helm in Helm::all()? {
        let namespace = Namespace::create(&format!("made-tokens-{}", helm.major()?))?;
        let shop = helm.shop();
        let install =
            [&chart::with_values(&["install"], &shop, &namespace, &VALUES)[..], &["--render-subchart-notes"]].concat();
        let said = helm.succeed(&install)?;
        ensure!(said.contains("get secret made-clear"), "{said}");
        let token = token(&namespace)?;
        ensure!(token.starts_with("gsc_") && !said.contains(&token), "{said}");
        let before = made(&namespace)?;

        let pod = chart::pod(&namespace)?;
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        namespace.await_ready(name)?;
        // Mounted are the hashes, and the pod has no credentials of the cluster.
        ensure!(!pod["spec"].to_string().contains("made-clear"), "{pod}");
        ensure!(!pod["spec"].to_string().contains("kube-api-access"), "{pod}");
        {
            let tunnel = Tunnel::open(&namespace, name)?;
            wait::until("the made token opens the gate", || {
                (tunnel.status(&token, "heap", 1).ok()? == ["200"]).then_some(())
            })
            .with_context(|| namespace.agent_log(name))?;
        }

        // Of the hook nothing is left.
        for kind in ["job", "role", "rolebinding"] {
            let left = namespace.kubectl(&["get", kind, "--output=name"])?;
            ensure!(left.is_empty(), "{left}");
        }
        let accounts = namespace.kubectl(&["get", "serviceaccount", "--output=name"])?;
        ensure!(accounts.trim() == "serviceaccount/default", "{accounts}");

        helm.succeed(&chart::with_values(
            &["upgrade"],
            &shop,
            &namespace,
            &[&VALUES[..], &["debug-sidecar.logLevel=debug"]].concat(),
        ))?;
        ensure!(made(&namespace)? == before, "the upgrade changed the tokens");
        helm.succeed(&["rollback", "shop", "1", "--namespace", &namespace.name, "--wait", "--timeout", "2m"])?;
        ensure!(made(&namespace)? == before, "the rollback changed the tokens");
        // Given away and deleted, it does not come back by itself.
        namespace.kubectl(&["delete", "secret", "made-clear"])?;
        helm.succeed(&chart::with_values(&["upgrade"], &shop, &namespace, &VALUES))?;
        ensure!(namespace.object("secret", "made-clear").is_err(), "the token in clear came back");
        helm.succeed(&["uninstall", "shop", "--namespace", &namespace.name, "--wait", "--timeout", "2m"])?;
        ensure!(namespace.object("secret", "made")?["data"] == before[0], "the uninstallation changed the tokens");
    }
    Ok(())
}

/// What the hook's account may do while it is there, asked of the API server: these two Secrets to read, Secrets to make, nothing else.
#[test]
fn the_hook_may_do_what_it_must_and_nothing_else() -> anyhow::Result<()> {
    let helm = Helm::newest()?;
    let namespace = Namespace::create("made-tokens-role")?;
    let mut args = vec!["template", "shop"];
    let shop = helm.shop();
    args.extend([shop.as_str(), "--namespace", &namespace.name]);
    for value in VALUES {
        args.extend(["--set", value]);
    }
    let rendered = helm.succeed(&args)?;
    let wanted = ["kind: ServiceAccount", "kind: Role", "kind: RoleBinding"];
    let permissions: Vec<&str> =
        rendered.split("\n---\n").filter(|part| part.lines().any(|line| wanted.contains(&line))).collect();
    ensure!(permissions.len() == 3, "{rendered}");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("role.yaml");
    std::fs::write(&file, permissions.join("\n---\n"))?;
    namespace.kubectl(&["apply", "--filename", &file.display().to_string()])?;
    let account = format!("--as=system:serviceaccount:{}:shop-debug-sidecar-tokens", namespace.name);
    for (expected, question) in [
        ("yes", ["get", "secret/made"]),
        ("yes", ["get", "secret/made-clear"]),
        ("yes", ["create", "secrets"]),
        ("no", ["get", "secret/goscope-tokens"]),
        ("no", ["list", "secrets"]),
        ("no", ["update", "secret/made"]),
        ("no", ["patch", "secret/made"]),
        ("no", ["delete", "secret/made"]),
        ("no", ["get", "pods"]),
        ("no", ["create", "pods"]),
    ] {
        let mut ask = namespace.command(&[&["auth", "can-i"][..], &question, &[account.as_str()]].concat());
        let said = goscope_e2e::process::run(&mut ask)?;
        ensure!(said.out().trim() == expected, "{question:?}: {}{}", said.out(), said.err());
    }
    let elsewhere = node::kubectl(&["auth", "can-i", "create", "secrets", "--namespace", "default", &account]);
    let said = goscope_e2e::process::run(&mut { elsewhere })?;
    ensure!(said.out().trim() == "no", "{}", said.out());
    Ok(())
}
