//! Tokens and certificate are exchanged while a profile and a download run: both end well, and nothing restarts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node;
use goscope_e2e::process::{Outcome, Process, contains, run, run_within};
use goscope_e2e::{go, wait};
use tempfile::TempDir;

use crate::pod::{Pod, USUAL};
use crate::tunnel::Tunnel;

/// The kubelet refreshes volumes about once a minute, and the agent looks at its files every ten seconds.
const REFRESH_DEADLINE: Duration = Duration::from_secs(150);
/// The name that the certificates are for.
const NAME: &str = "shop.test";
const PORT: u16 = 6062;

/// An authority of the test's own.
struct Authority {
    folder: TempDir,
}

impl Authority {
    fn new() -> anyhow::Result<Self> {
        let authority = Self { folder: tempfile::tempdir()? };
        let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
        openssl(
            &[
                &make[..],
                &["-subj", "/CN=test", "-keyout", &authority.file("ca.key"), "-out", &authority.file("ca.crt")],
            ]
            .concat(),
        )?;
        fs::write(authority.file("names"), format!("subjectAltName=DNS:{NAME}\n"))?;
        Ok(authority)
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A certificate and its key, put into the Secret `goscope-tls` in place of those that are there; the certificate's text.
    fn issue(&self, serial: &str, namespace: &Namespace) -> anyhow::Result<String> {
        let [key, request, cert] = ["key", "csr", "crt"].map(|kind| self.file(&format!("{serial}.{kind}")));
        let make = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=shop"];
        openssl(&[&make[..], &["-keyout", &key, "-out", &request]].concat())?;
        let (ca, ca_key, names) = (self.file("ca.crt"), self.file("ca.key"), self.file("names"));
        let sign = ["x509", "-req", "-days", "30", "-set_serial", serial, "-CA", &ca, "-CAkey", &ca_key];
        openssl(&[&sign[..], &["-extfile", &names, "-in", &request, "-out", &cert]].concat())?;
        let (cert_file, key_file) = (format!("--cert={cert}"), format!("--key={key}"));
        let make = ["create", "secret", "tls", "goscope-tls", &cert_file, &key_file, "--dry-run=client", "-o", "json"];
        namespace.apply(&namespace.kubectl(&make)?)?;
        Ok(fs::read_to_string(cert)?)
    }

    /// Begins to fetch a profile from the remote listener.
    fn fetch(&self, address: &str, token: &str, path: &str) -> anyhow::Result<Download> {
        let resolve = format!("{NAME}:{PORT}:{address}");
        let url = format!("https://{NAME}:{PORT}/debug/pprof/{path}");
        Download::begin(token, &["--cacert", &self.file("ca.crt"), "--resolve", &resolve, &url])
    }

    /// The certificate that a new connection is shown.
    fn shown(&self, address: &str) -> anyhow::Result<String> {
        let connect = format!("{address}:{PORT}");
        let ask = ["openssl", "s_client", "-connect", &connect, "-servername", NAME, "-CAfile"];
        let said = run(&mut node::net(&[&ask[..], &[&self.file("ca.crt"), "-verify_return_error"]].concat()))?;
        let text = said.out();
        let from = text.find("-----BEGIN").with_context(|| said.err())?;
        let (pem, _) = text[from..].split_once("-----END").context("no end")?;
        Ok(pem.to_owned())
    }
}

/// A profile on its way into a file.
struct Download {
    process: Process,
    file: PathBuf,
    _folder: TempDir,
}

impl Download {
    fn begin(token: &str, args: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("profile.pb.gz");
        let authorization = format!("Authorization: Bearer {token}");
        let mut command = node::net(&["curl", "-q", "-sSf", "--noproxy", "*", "-H", &authorization]);
        let process = Process::spawn(command.arg("--output").arg(&file).args(args), folder.path(), "download")?;
        Ok(Self { process, file, _folder: folder })
    }

    /// It ends well, with a profile that the Go tool reads.
    fn must_be_whole(self, expected: &str) -> anyhow::Result<()> {
        let end = self.process.finish()?;
        ensure!(end.code() == Some(0), "{}", end.err());
        let read = pprof(&self.file)?;
        ensure!(read.code() == Some(0) && read.out().contains(expected), "{}{}", read.out(), read.err());
        Ok(())
    }
}

fn pprof(file: &Path) -> anyhow::Result<Outcome> {
    run_within(go::TOOL_DEADLINE, go::command(go::USUAL).args(["tool", "pprof", "-top"]).arg(file))
}

fn openssl(args: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("openssl");
    command.args(args);
    node::succeed(command).map(drop)
}

#[test]
fn of_token_and_certificate() -> anyhow::Result<()> {
    let mut namespace = Namespace::create("rotation")?;
    let authority = Authority::new()?;
    let first = authority.issue("1001", &namespace)?;
    let pod = Pod {
        name: "shop-rotation",
        env: r#"{name: GOSCOPE_LISTEN_REMOTE_ADDRESS, value: "0.0.0.0:6062"}
{name: GOSCOPE_LISTEN_REMOTE_TLS_CERT, value: /etc/goscope/tls/tls.crt}
{name: GOSCOPE_LISTEN_REMOTE_TLS_KEY, value: /etc/goscope/tls/tls.key}
{name: GOSCOPE_GATE_ALLOW, value: "127.0.0.0/8,10.0.0.0/8"}
{name: GOSCOPE_GATE_LIMITS_PER_SOURCE_RATE, value: 50/s}
{name: GOSCOPE_GATE_LIMITS_PER_IDENTITY_RATE, value: 50/s}"#,
        agent_mounts: "{name: tls, mountPath: /etc/goscope/tls, readOnly: true}",
        volumes: "{name: tls, secret: {secretName: goscope-tls}}",
        ..USUAL
    };
    let address = pod.ready(&namespace)?;
    wait::until("the first certificate", || authority.shown(&address).ok().filter(|pem| first.contains(pem)))
        .with_context(|| namespace.agent_log(pod.name))?;
    let tunnel = Tunnel::open(&namespace, pod.name)?;
    let profile = Download::begin(&namespace.token, &[&tunnel.url("", "profile?seconds=30")])?;
    let download = authority.fetch(&address, &namespace.token, "heap?seconds=45")?;
    wait::until("both have begun", || {
        let log = namespace.agent_log(pod.name);
        ["seconds=30", "seconds=45"].iter().all(|part| contains(log.as_bytes(), part.as_bytes())).then_some(())
    })
    .with_context(|| namespace.agent_log(pod.name))?;

    let old = namespace.rotate_token()?;
    let second = authority.issue("1002", &namespace)?;
    // A changed pod is looked at at once; otherwise the kubelet takes its minute.
    namespace.kubectl(&["annotate", "pod", pod.name, "rotated=yes"])?;
    let is_answered = |token: &str, status: &str| tunnel.status(token, "heap", 1).is_ok_and(|seen| seen == [status]);
    wait::until_within(REFRESH_DEADLINE, "the new token is taken and the old one is not", || {
        (is_answered(&namespace.token, "200") && is_answered(&old, "401")).then_some(())
    })
    .with_context(|| namespace.agent_log(pod.name))?;
    // While the download goes on.
    download
        .process
        .until("the second certificate", || authority.shown(&address).ok().filter(|pem| second.contains(pem)))
        .with_context(|| namespace.agent_log(pod.name))?;
    let refused = authority.fetch(&address, &old, "heap")?.process.finish()?;
    ensure!(refused.err().contains("401"), "{}", refused.err());
    authority.fetch(&address, &namespace.token, "heap")?.must_be_whole("Type: inuse_space")?;

    profile.must_be_whole("Type: cpu").context("the profile through the tunnel")?;
    download.must_be_whole("Type: inuse_space").context("the download over TLS")?;
    for containers in ["initContainerStatuses", "containerStatuses"] {
        let status = &namespace.object("pod", pod.name)?["status"][containers][0];
        ensure!(status["restartCount"] == 0 && status["ready"] == true, "{status}");
    }
    Ok(())
}
