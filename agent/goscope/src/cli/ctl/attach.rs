//! `attach`: an agent for a pod that was never injected, for an hour.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use http::StatusCode;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::Value;

use super::api::{Api, ApiError};
use super::link::Link;
use super::progress::{Progress, Unit};
use super::{Place, answer, say};
use crate::cluster::ephemeral::{Attachment, STORE_BYTES};
use crate::cluster::forward::Destination;
use crate::cluster::pick::PORT;
use crate::cluster::target::Target;
use crate::config::TargetAddress;
use crate::config::check::parse_target;
use crate::config::units::{duration_text, parse_duration};
use crate::notice::pasteable;
use crate::token::{Token, write_private};

/// The image by the chart's convention.
const IMAGE: &str = concat!("goscope:", env!("CARGO_PKG_VERSION"));
/// How long the agent may take to answer after its container runs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Put an agent into a pod that runs without goscope: gate and captures, no recording
///
/// It joins as an ephemeral container, which cannot be removed before the pod goes; it ends by itself. The token is made here, kept in a file of
/// your own, and never sent to the cluster.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    before_help = "Example:\n  kubectl goscope attach pod/shop-0 --image registry.example/goscope:0.1.0\n  kubectl goscope attach shop-0 --target 127.0.0.1:7070 --for 20m"
)]
pub(super) struct Args {
    /// pod/NAME or the name of a pod
    #[arg(value_name = "POD", value_parser = Target::parse)]
    target: Target,
    /// goscope's image, as the cluster can pull it
    #[arg(long, value_name = "IMAGE", default_value = IMAGE)]
    image: String,
    /// Where the app serves /debug/pprof/ in the pod
    #[arg(long = "target", id = "app", value_name = "HOST:PORT", default_value = "127.0.0.1:6060", value_parser = tcp_target)]
    app: String,
    /// When it ends, as 20m or 1h
    #[arg(long = "for", value_name = "DURATION", default_value = "1h", value_parser = lifetime)]
    lifetime: Duration,
}

/// The longest life of an agent that nobody removes.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

fn lifetime(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(lifetime) if lifetime >= Duration::from_secs(60) && lifetime <= LIFETIME_MAX => Ok(lifetime),
        Ok(_) => Err(format!("expected 1m to 24h, found {text:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// A unix socket is in a volume, and an ephemeral container has none.
fn tcp_target(text: &str) -> Result<String, String> {
    match parse_target(text)? {
        TargetAddress::Tcp(address) if address.ip().to_canonical().is_loopback() => Ok(address.to_string()),
        TargetAddress::Tcp(_) => Err("expected an address on the pod's loopback, as 127.0.0.1:6060".to_owned()),
        TargetAddress::Unix(_) => {
            Err("an attached agent shares no volume with the app, so it cannot reach a socket".to_owned())
        }
    }
}

impl Args {
    pub(super) async fn run(self, place: &Place) -> anyhow::Result<ExitCode> {
        let Target::Pod(pod) = &self.target else {
            bail!("attach needs the name of a pod: `kubectl get pods` lists them")
        };
        if place.url.is_some() || place.selector.is_some() {
            bail!("attach takes the name of a pod, and neither --url nor -l");
        }
        let cluster = place.cluster().await?;
        let port = place.port.unwrap_or(PORT);
        let token = Token::generate().context("cannot make a token")?;
        let attachment =
            Attachment { image: self.image, target: self.app, port, lifetime: self.lifetime, token: token.sha256() };
        let found = cluster.attachable(pod).await?;
        let suffix = suffix()?;
        // Kept before it is of any use: a token that is lost leaves a container that nobody can ask.
        let path = keep(&state_folder()?, cluster.namespace(), pod, &suffix, &token)?;
        let container = match cluster.attach(&found, &attachment, &suffix).await {
            Ok(container) => container,
            Err(problem) => {
                // It may have been added all the same where no answer came.
                if !problem.is_unreachable() {
                    fs::remove_file(&path).ok();
                }
                return Err(problem.into());
            }
        };
        let flags = place.flags(cluster.namespace());
        let mut waiting = Waiting::default();
        let answers = async {
            cluster.await_started(pod, &container, |seconds, reason| waiting.at(seconds, reason)).await?;
            let link = Link::Pod(Destination::new(cluster.clone(), pod.clone(), port));
            await_answer(&mut Api::new(link, &token)).await
        };
        answers.await.with_context(|| without_answer(&container, pod, &path, &flags))?;
        drop(waiting);
        answer(&told(&container, pod, self.lifetime, &path, &flags))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What a person sees until the container runs: the seconds, and each new trouble once.
struct Waiting {
    progress: Option<Progress>,
    /// The kubelet gives two by turns.
    told: Vec<String>,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { progress: Some(Progress::new("starting", Unit::Seconds, None)), told: Vec::new() }
    }
}

impl Waiting {
    fn at(&mut self, seconds: u64, trouble: Option<&str>) {
        if let Some(trouble) = trouble.filter(|trouble| !self.told.iter().any(|told| told == trouble)) {
            // Cleared first, and drawn again below the message.
            self.progress = None;
            say(&format!("{trouble}; the kubelet tries again"));
            self.told.push(trouble.to_owned());
        }
        self.progress.get_or_insert_with(|| Progress::new("starting", Unit::Seconds, None)).at(seconds);
    }
}

/// Waits until the agent lets its owner in.
async fn await_answer(api: &mut Api) -> anyhow::Result<()> {
    let since = Instant::now();
    loop {
        match api.get::<Value>("/api/v1/info").await {
            Ok(_) => return Ok(()),
            Err(error) if is_early(&error) && since.elapsed() < ANSWER_TIMEOUT => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error).context("the agent runs, but does not answer"),
        }
    }
}

/// Whether an agent that has just begun answers so: not at all, or that it does not yet know whom to let in.
fn is_early(error: &ApiError) -> bool {
    match error {
        ApiError::Broken(_) => true,
        ApiError::Refused(refusal) => refusal.status == StatusCode::SERVICE_UNAVAILABLE.as_u16(),
    }
}

/// `$XDG_STATE_HOME/goscope`, or `~/.local/state/goscope`.
fn state_folder() -> anyhow::Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    Ok(state.context("neither $XDG_STATE_HOME nor $HOME says where a token can be kept")?.join("goscope"))
}

/// Writes the token to a file that its owner alone can read, and returns the file's path. Each container has one of its own, whose `suffix` is the
/// container's: pods of one name in two clusters, or one after the other, take nothing from each other.
fn keep(state: &Path, namespace: &str, pod: &str, suffix: &str, token: &Token) -> anyhow::Result<PathBuf> {
    let folder = state.join("attached").join(namespace);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let path = folder.join(format!("{pod}-{suffix}.token"));
    write_private(&path, &format!("{}\n", token.reveal()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Six characters that tell one attached container from the next.
fn suffix() -> anyhow::Result<String> {
    let mut bytes = [0; 3];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Where the token is of a container that was added and does not answer.
fn without_answer(container: &str, pod: &str, token: &Path, flags: &str) -> String {
    let token = pasteable(token);
    format!(
        "container {container} was added to pod {pod}, but does not answer; if it still comes, its token is in {token}: \
         `kubectl goscope status pod/{pod}{flags} --token-file {token}`"
    )
}

fn told(container: &str, pod: &str, lifetime: Duration, token: &Path, flags: &str) -> String {
    let token = pasteable(token);
    let lifetime = duration_text(lifetime);
    format!(
        "Attached to pod {pod} as container {container}. It ends after {lifetime}; its token is in {token}\n  \
           kubectl goscope status pod/{pod}{flags} --token-file {token}\n  \
           kubectl goscope pprof heap pod/{pod}{flags} --token-file {token}\n  \
           kubectl goscope forward pod/{pod}{flags} --token-file {token}\n\
         What it cannot do, for which the pod must be injected:\n  \
           - record what the app writes when it dies: no launcher is in front of it, so there are no incidents and no exit records\n  \
           - keep captures: up to {STORE_BYTES} are in the pod's shared memory, count against the pod's memory limit while the agent runs, and are \
         deleted at its end; fetch them\n  \
           - reach an app that listens on a unix socket: that needs a volume of both\n  \
           - be removed: Kubernetes keeps the ended container in the pod's list until the pod goes\n  \
           - come back: when it has ended, attach again\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_token_is_its_owners() {
        let folder = tempfile::tempdir().expect("a folder");
        let token = Token::generate().expect("a token");
        let path = keep(folder.path(), "shop", "shop-0", "1f0c00", &token).expect("kept");
        assert_eq!(path, folder.path().join("attached/shop/shop-0-1f0c00.token"));
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("a folder"))), (0o600, 0o700));
        let another = Token::generate().expect("a token");
        let beside = keep(folder.path(), "shop", "shop-0", "2a0000", &another).expect("kept");
        for (path, token) in [(&path, &token), (&beside, &another)] {
            assert_eq!(fs::read_to_string(path).expect("there").trim(), token.reveal());
        }
    }

    #[test]
    fn what_is_told() {
        let text = told("goscope-1", "shop-0", Duration::from_secs(3600), Path::new("/s/shop-0.token"), " -n shop");
        assert!(text.contains("after 1h") && text.contains("cannot do"), "{text}");
        assert!(
            text.contains("up to 8MiB") && text.contains("pod's memory limit") && text.contains("unix socket"),
            "{text}"
        );
        let unanswered = without_answer("goscope-1", "shop-0", Path::new("/s/shop-0.token"), " -n shop");
        assert!(
            unanswered.ends_with("`kubectl goscope status pod/shop-0 -n shop --token-file /s/shop-0.token`"),
            "{unanswered}"
        );
        assert!(text.contains("  kubectl goscope status pod/shop-0 -n shop --token-file /s/shop-0.token\n"), "{text}");
    }

    #[tokio::test]
    async fn an_agent_that_has_just_begun_is_asked_again() {
        use super::super::api::tests::client;
        use axum::Router;
        use axum::routing::get;
        use std::sync::atomic::{AtomicUsize, Ordering};

        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let early = get(async || match ASKED.fetch_add(1, Ordering::SeqCst) {
            0 => Err(StatusCode::SERVICE_UNAVAILABLE),
            _ => Ok("{}"),
        });
        let (mut api, _stop) = client(Router::new().route("/api/v1/info", early)).await;
        await_answer(&mut api).await.expect("an answer");
        assert_eq!(ASKED.load(Ordering::SeqCst), 2);
        let refused = Router::new().route("/api/v1/info", get(async || StatusCode::UNAUTHORIZED));
        let (mut api, _stop) = client(refused).await;
        assert!(await_answer(&mut api).await.is_err(), "a token that is not known never will be");
    }

    #[test]
    fn bounds() {
        for (text, expected) in [("1m", true), ("59s", false), ("24h", true), ("1d1s", false), ("x", false)] {
            assert_eq!(lifetime(text).is_ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("127.0.0.1:6060", Some("127.0.0.1:6060")),
            ("localhost:7070", Some("127.0.0.1:7070")),
            ("10.0.0.1:80", None),
            ("unix:///run/a.sock", None),
            ("shop:80", None),
        ] {
            assert_eq!(tcp_target(text).ok().as_deref(), expected, "{text}");
        }
    }
}
