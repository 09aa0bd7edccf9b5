//! The agent as a process: when it is ready, how it stops, and what does not keep it from recording.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::said;

/// Only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(30);

/// An address that nobody has, as far as anyone can know.
pub(super) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address")
}

pub(super) fn command(debug: SocketAddr, metrics: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_goscope"));
    command.env("GOSCOPE_LISTEN_DEBUG", debug.to_string()).env("GOSCOPE_LISTEN_METRICS", metrics.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Status line, header and body; `None` as long as nobody listens.
pub(super) fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

pub(super) fn until_readyz_says(address: SocketAddr, wanted: &str) {
    let is_there = || get(address, "/readyz").filter(|said| said.ends_with(wanted));
    until(&format!("/readyz says {wanted:?}"), is_there);
}

/// Looks again and again.
pub(super) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(super) fn terminate(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
}

#[test]
fn an_app_that_dies_while_the_addresses_are_taken_gets_its_report() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = [TcpListener::bind("127.0.0.1:0").expect("bound"), TcpListener::bind("127.0.0.1:0").expect("bound")];
    let [debug, metrics] = taken.each_ref().map(|listener| listener.local_addr().expect("an address"));
    let mut run = command(debug, metrics);
    run.arg("run").arg("--data").arg(folder.path().join("data")).args(["--", "sh", "-c", "exit 3"]);
    let (status, _, stderr) = said(run.output().expect("it runs"));
    assert_eq!(status, Some(3));
    assert!(stderr.contains("exit status 3, without a word of the Go runtime"), "{stderr}");
}

#[test]
fn it_is_ready_when_the_store_is_open_and_the_tokens_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (debug, metrics) = (free_address(), free_address());
    let config = folder.path().join("goscope.yaml");
    let path = |name: &str| folder.path().join(name);
    let text = format!(
        "intake: {{ spool: {:?} }}\nstore: {{ path: {:?} }}\ngate: {{ tokens: {{ files: [{:?}] }} }}\n",
        path("spool"),
        path("data"),
        path("tokens.yaml")
    );
    std::fs::write(&config, text).expect("written");
    std::fs::write(path("data"), "in the way").expect("written");
    let mut agent = command(debug, metrics);
    let mut agent = agent.arg("agent").arg("--config").arg(&config).spawn().expect("it starts");
    until_readyz_says(metrics, "\r\n\r\nwaiting for: recorder gate\n");
    std::fs::write(path("tokens.yaml"), "tokens: []").expect("written");
    until_readyz_says(metrics, "\r\n\r\nwaiting for: recorder\n");
    std::fs::remove_file(path("data")).expect("removed");
    until_readyz_says(metrics, "\r\n\r\nready\n");
    terminate(&agent);
    assert!(agent.wait().expect("it ended").success());
}

/// As the kubelet starts it: an app waits for it, or is ready only with it.
#[test]
fn in_a_pod_a_mistake_closes_the_gate_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let (debug, metrics) = (free_address(), free_address());
    let config = folder.path().join("goscope.yaml");
    let good = format!(
        "intake: {{ spool: {:?} }}\nstore: {{ path: {:?} }}\ngate: {{ tokens: {{ files: [{:?}] }} }}\n",
        folder.path().join("spool"),
        folder.path().join("data"),
        folder.path().join("tokens.yaml")
    );
    std::fs::write(&config, format!("{good}rules: 1\ntarget: {{ address: nowhere }}\n")).expect("written");
    let start = |in_a_pod: bool| {
        let mut agent = command(debug, metrics);
        if in_a_pod {
            agent.env("KUBERNETES_SERVICE_HOST", "10.96.0.1");
        }
        agent.arg("agent").arg("--config").arg(&config).spawn().expect("it starts")
    };

    let (status, _, stderr) = said(start(false).wait_with_output().expect("it ended"));
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("target.address") && stderr.contains("nowhere"), "{stderr}");

    let agent = start(true);
    until_readyz_says(metrics, "\r\n\r\nwaiting for: gate\n");
    assert!(folder.path().join("data").is_dir(), "what is right in the file holds");
    assert!(TcpStream::connect(debug).is_err(), "the gate is closed");
    // The kubelet brings a better one.
    std::fs::write(&config, good).expect("written");
    let (status, _, stderr) = said(agent.wait_with_output().expect("it ended"));
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stderr.contains("target.address") && stderr.contains("configuration can be used now"), "{stderr}");
}

#[test]
fn in_a_pod_an_address_that_is_taken_does_not_end_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let (debug, metrics) = (taken.local_addr().expect("an address"), free_address());
    let mut agent = command(debug, metrics);
    agent.env("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    agent
        .env("GOSCOPE_INTAKE_SPOOL", folder.path().join("spool"))
        .env("GOSCOPE_STORE_PATH", folder.path().join("data"));
    let agent = agent.args(["agent", "--target", "nowhere"]).spawn().expect("it starts");
    until_readyz_says(metrics, "\r\n\r\nwaiting for: gate\n");
    terminate(&agent);
    let (status, _, stderr) = said(agent.wait_with_output().expect("it ended"));
    assert_eq!(status, Some(0), "{stderr}");
    assert!(
        stderr.contains("--target: expected an address") && stderr.contains("listener cannot be opened"),
        "{stderr}"
    );
}
