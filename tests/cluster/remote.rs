//! The remote listener, by the chart: over TLS, by the certificate's name, from the node's network.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node;
use goscope_e2e::process::Outcome;
use goscope_e2e::wait;

use crate::chart;
use crate::helm::Helm;

/// The name in the certificate. Nobody resolves it; curl is told where it is.
const NAME: &str = "shop-debug.example";

/// A certificate that is its own authority, and its key.
pub(crate) fn certificate(folder: &Path) -> anyhow::Result<[String; 2]> {
    let [cert, key] = ["tls.crt", "tls.key"].map(|name| folder.join(name).display().to_string());
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    openssl.args([
        "-subj",
        "/CN=shop",
        "-addext",
        &format!("subjectAltName=DNS:{NAME}"),
        "-out",
        &cert,
        "-keyout",
        &key,
    ]);
    node::succeed(openssl)?;
    Ok([cert, key])
}

#[test]
fn a_heap_profile_over_tls() -> anyhow::Result<()> {
    let helm = Helm::newest()?;
    let namespace = Namespace::create("remote")?;
    let folder = tempfile::tempdir()?;
    let [cert, key] = certificate(folder.path())?;
    namespace.kubectl(&["create", "secret", "tls", "shop-tls", "--cert", &cert, "--key", &key])?;
    let values = ["debug-sidecar.remote.enabled=true", "debug-sidecar.remote.secret=shop-tls"];
    helm.succeed(&chart::with_values(&["install"], &helm.shop(), &namespace, &values))?;
    let pod = chart::pod(&namespace)?;
    let pod = pod["metadata"]["name"].as_str().context("no name")?;
    let address = namespace.await_ready(pod)?;

    let profile = folder.path().join("heap.pb.gz").display().to_string();
    let ask = |authority: &str, credential: &[&str]| -> anyhow::Result<Outcome> {
        let resolve = format!("{NAME}:6062:{address}");
        let url = format!("https://{authority}:6062/debug/pprof/heap");
        let fixed = ["--cacert", &cert, "--resolve", &resolve, "-o", &profile, "-w", "%{http_code}"];
        node::curl(&[&fixed[..], credential, &[url.as_str()]].concat())
    };
    let bearer = format!("Authorization: Bearer {}", namespace.token);
    let answer = wait::until("an answer over TLS", || {
        let answer = ask(NAME, &["-H", &bearer]).ok()?;
        (answer.out() == "200").then_some(answer)
    })
    .with_context(|| namespace.agent_log(pod))?;
    ensure!(answer.code() == Some(0), "{}", answer.err());
    ensure!(std::fs::read(&profile)?.starts_with(&[0x1f, 0x8b]), "what came is no profile");

    ensure!(ask(NAME, &[])?.out() == "401");
    // By another name than the certificate's curl refuses; and where it does not look, goscope does.
    ensure!(ask(&address, &["-H", &bearer])?.code() == Some(60));
    let elsewhere = ask(NAME, &["-k", "-H", &bearer, "-H", "Host: elsewhere.example"])?;
    ensure!(elsewhere.out() == "421", "{}{}", elsewhere.out(), elsewhere.err());
    // In clear there is nothing.
    let clear = node::curl(&[&format!("http://{address}:6062/debug/pprof/heap")])?;
    ensure!(clear.code() != Some(0), "{}", clear.out());
    Ok(())
}
