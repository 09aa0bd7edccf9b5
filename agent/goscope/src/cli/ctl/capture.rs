//! `capture`: has the agent take a profile and keep it, shows how far it is, and fetches it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use goscope_analysis::text::printable;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::api::{Api, ApiError};
use super::fetch::fetch;
use super::progress::{Progress, Unit};
use super::{EXIT_INTERRUPTED, Place, answer, interrupted, is_watched, say, unless};
use crate::cli::EXIT_BAD;
use crate::cluster::problem::bounded;
use crate::cluster::target::{Target, query_value};

/// Between two questions how far it is: what an identity may ask without waiting.
const POLL: Duration = Duration::from_secs(1);
/// Questions in a row that may stay without an answer.
const BROKEN_MAX: u32 = 3;

/// Take a profile: it is kept on the agent's volume and fetched; Ctrl-C cancels it
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  kubectl goscope capture heap deploy/shop\n  kubectl goscope capture cpu deploy/shop --seconds 30 --reason 'slow checkout' -o cpu.pb.gz"
)]
pub(super) struct Args {
    #[command(flatten)]
    wanted: Wanted,
    /// Print the capture's id and do not wait for it
    #[arg(long, conflicts_with_all = ["output", "keep_remote", "force"])]
    no_wait: bool,
    /// Print the artifact's id and do not fetch it
    #[arg(long, conflicts_with_all = ["output", "force"])]
    keep_remote: bool,
    /// The file; - is standard output. Without it the agent's name for it, here
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// Which profile, and of whom.
#[derive(Debug, clap::Args)]
pub(super) struct Wanted {
    /// What to take
    #[arg(value_name = "KIND", value_parser = KINDS)]
    pub(super) kind: String,
    /// deploy/NAME, statefulset/NAME, daemonset/NAME, job/NAME, pod/NAME or the name of a pod
    #[arg(value_name = "TARGET", value_parser = Target::parse)]
    pub(super) target: Option<Target>,
    /// How long, for cpu and trace; of the others the change during this time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// Text in place of a profile, 1 or 2: goroutine stacks in groups, or one by one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(super) debug: Option<u8>,
    /// Why, for whoever finds it later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What the API takes.
const KINDS: [&str; 10] =
    ["heap", "allocs", "goroutine", "goroutineleak", "threadcreate", "block", "mutex", "cpu", "profile", "trace"];

impl Args {
    pub(super) async fn run(self, place: &Place) -> anyhow::Result<ExitCode> {
        let mut api = place.api(self.wanted.target.as_ref()).await?;
        if self.no_wait {
            let state: State = api.post(CAPTURES, &self.wanted.body()).await?;
            answer(&format!("{}\n", printable(&state.id)))?;
            return Ok(ExitCode::SUCCESS);
        }
        let artifact = match self.wanted.take(&mut api).await? {
            Outcome::Stored(artifact) => artifact,
            Outcome::Failed => return Ok(ExitCode::from(EXIT_BAD)),
            Outcome::Interrupted => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
        };
        if self.keep_remote {
            answer(&format!("{}\n", printable(&artifact)))?;
            return Ok(ExitCode::SUCCESS);
        }
        match fetch_told(&mut api, &artifact, self.output.as_deref(), self.force).await? {
            Some(Some(path)) => answer(&format!("{}\n", path.display()))?,
            Some(None) => {}
            None => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// As [`fetch`], unless Ctrl-C ends it: `None` then. A failure names the artifact, which is not lost by it.
pub(super) async fn fetch_told(
    api: &mut Api,
    artifact: &str,
    output: Option<&Path>,
    force: bool,
) -> anyhow::Result<Option<Option<PathBuf>>> {
    let stored = || format!("it is stored as {}, but not fetched", bounded(artifact));
    let fetched = unless(interrupted(), fetch(api, artifact, output, force)).await.with_context(stored)?;
    if fetched.is_none() {
        say(&stored());
    }
    Ok(fetched)
}

const CAPTURES: &str = "/api/v1/captures";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    id: String,
    state: String,
    /// May be a fraction.
    seconds: Option<f64>,
    artifact: Option<String>,
    error: Option<String>,
}

/// How a capture ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The artifact's id.
    Stored(String),
    /// The person was told.
    Failed,
    /// By Ctrl-C, and cancelled on the agent.
    Interrupted,
}

impl Wanted {
    fn body(&self) -> Value {
        let mut body = json!({"kind": self.kind});
        let further = [
            ("seconds", self.seconds.map(Value::from)),
            ("debug", self.debug.map(Value::from)),
            ("reason", self.reason.as_deref().map(Value::from)),
        ];
        for (name, value) in further {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        body
    }

    /// Has it taken, and waits for it.
    pub(super) async fn take(&self, api: &mut Api) -> anyhow::Result<Outcome> {
        // From now on Ctrl-C is ours: the agent must not go on with what nobody waits for.
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
        let mut state: State = api.post(CAPTURES, &self.body()).await?;
        if !is_watched() {
            say(&format!("waiting for {}", self.kind));
        }
        let path = format!("{CAPTURES}/{}", query_value(&state.id));
        let seconds = state.seconds.map(whole).or_else(|| self.seconds.map(u64::from));
        let mut progress = Progress::new(&self.kind, Unit::Seconds, seconds);
        let mut running_since = None;
        let mut broken = 0;
        loop {
            match state.state.as_str() {
                "stored" => {
                    let artifact = state.artifact.context("the agent stored the profile, but does not say as what")?;
                    return Ok(Outcome::Stored(artifact));
                }
                "failed" | "cancelled" => {
                    drop(progress);
                    say(&ending(&state));
                    return Ok(Outcome::Failed);
                }
                "running" => {
                    let since = *running_since.get_or_insert_with(Instant::now);
                    progress.at(since.elapsed().as_secs());
                }
                _ => progress.at(0),
            }
            let next = async {
                tokio::time::sleep(POLL).await;
                api.get::<State>(&path).await
            };
            tokio::select! {
                answered = next => match answered {
                    Ok(answered) => (state, broken) = (answered, 0),
                    // A tunnel that broke takes no capture with it.
                    Err(ApiError::Broken(_)) if broken < BROKEN_MAX => broken += 1,
                    Err(error @ ApiError::Broken(_)) => {
                        let id = bounded(&state.id);
                        return Err(error).with_context(|| {
                            format!("the capture {id} goes on, but the agent cannot be asked; later `artifacts` lists what it took")
                        });
                    }
                    Err(error) => return Err(error.into()),
                },
                _ = interrupt.recv() => {
                    drop(progress);
                    return cancel(api, &path).await;
                }
            }
        }
    }
}

/// How a capture ended without a profile; the cause may be the app's own words.
fn ending(state: &State) -> String {
    let cause = state.error.as_deref().unwrap_or("the agent does not say why");
    format!("{}: {}", bounded(&state.state), bounded(cause))
}

/// Whole seconds, as many as the bar can show.
fn whole(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds.ceil()).map_or(0, |duration| duration.as_secs())
}

async fn cancel(api: &mut Api, path: &str) -> anyhow::Result<Outcome> {
    api.delete(path).await.context("interrupted, but the capture could not be cancelled")?;
    say("cancelled");
    Ok(Outcome::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Call {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_state_is_read_as_the_agent_writes_it() {
        let state: State = serde_json::from_value(json!({
            "id": "a", "kind": "heap", "state": "stored", "requested_by": "alice", "created": "2026-11-23T12:00:00Z", "seconds": 1.5, "bytes": 12,
            "artifact": "2026-11-23T12-00-00Z-ab",
        }))
        .expect("a state");
        assert_eq!((state.id.as_str(), state.seconds.map(whole)), ("a", Some(2)));
        for (seconds, expected) in [(0.0, 0), (30.0, 30), (-1.0, 0), (f64::NAN, 0), (f64::INFINITY, 0)] {
            assert_eq!(whole(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn a_failure_is_told_and_drives_no_terminal() {
        let state: State =
            serde_json::from_value(json!({"state": "failed", "error": "it said \u{1b}]0;x"})).expect("a state");
        assert_eq!(ending(&state), "failed: it said \\u{1b}]0;x");
        assert_eq!(
            ending(&State { state: "cancelled".to_owned(), ..State::default() }),
            "cancelled: the agent does not say why"
        );
    }

    #[test]
    fn the_request_says_only_what_was_said() {
        let body =
            |call: &[&str]| Call::try_parse_from([&["x"], call].concat()).map(|call| call.args.wanted.body()).ok();
        assert_eq!(body(&["heap", "deploy/shop"]), Some(json!({"kind": "heap"})));
        assert_eq!(
            body(&["cpu", "shop-0", "--seconds", "30", "--reason", "slow"]),
            Some(json!({"kind": "cpu", "seconds": 30, "reason": "slow"}))
        );
        assert_eq!(body(&["goroutine", "--debug", "2"]), Some(json!({"kind": "goroutine", "debug": 2})));
        for wrong in [
            &["nonsense", "a"][..],
            &["heap", "a", "--debug", "3"],
            &["cpu", "a", "--seconds", "0"],
            &["heap", "a", "--no-wait", "-o", "x"],
            &[],
        ] {
            assert_eq!(body(wrong), None, "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_capture_is_waited_for_to_its_end() {
        use super::super::api::tests::client;
        use axum::Router;
        use axum::routing::{get, post};
        use http::StatusCode;

        let started = |id: &'static str| {
            post(async move || (StatusCode::ACCEPTED, format!(r#"{{"id": "{id}", "state": "queued"}}"#)))
        };
        let ends = |answer: &'static str| get(async move || answer);
        let call = Call::try_parse_from(["x", "heap"]).expect("a call").args.wanted;
        for (answer, expected) in [
            (
                r#"{"id": "a/b", "state": "stored", "artifact": "2026-ab", "seconds": 0.5}"#,
                Some(Outcome::Stored("2026-ab".to_owned())),
            ),
            (r#"{"id": "a/b", "state": "failed", "error": "the app died"}"#, Some(Outcome::Failed)),
            (r#"{"id": "a/b", "state": "cancelled"}"#, Some(Outcome::Failed)),
            (r#"{"id": "a/b", "state": "stored"}"#, None),
        ] {
            let router =
                Router::new().route("/api/v1/captures", started("a/b")).route("/api/v1/captures/a%2Fb", ends(answer));
            let (mut api, _stop) = client(router).await;
            assert_eq!(call.take(&mut api).await.ok(), expected, "{answer}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_missing_is_asked_for_again_and_then_told() {
        use super::super::api::tests::client;
        use axum::Router;
        use axum::routing::{get, post};
        use std::sync::atomic::{AtomicU32, Ordering};

        static ASKED: AtomicU32 = AtomicU32::new(0);
        let started = |id: &'static str| post(async move || format!(r#"{{"id": "{id}", "state": "running"}}"#));
        // What stands in between answers in the agent's place.
        let comes_back = get(async || match ASKED.fetch_add(1, Ordering::SeqCst) {
            0..BROKEN_MAX => "<html>",
            _ => r#"{"id": "a", "state": "stored", "artifact": "2026-ab"}"#,
        });
        let back = Router::new().route("/api/v1/captures", started("a")).route("/api/v1/captures/a", comes_back);
        let gone =
            Router::new().route("/api/v1/captures", started("b")).route("/api/v1/captures/b", get(async || "<html>"));
        let call = Call::try_parse_from(["x", "heap"]).expect("a call").args.wanted;
        let ((mut back, _stop), (mut gone, _other)) = (client(back).await, client(gone).await);
        let (stored, lost) = tokio::join!(call.take(&mut back), call.take(&mut gone));
        assert_eq!(stored.expect("an end"), Outcome::Stored("2026-ab".to_owned()));
        let said = format!("{:#}", lost.expect_err("no answer"));
        assert!(said.starts_with("the capture b goes on") && said.contains("`artifacts` lists"), "{said}");
    }
}
