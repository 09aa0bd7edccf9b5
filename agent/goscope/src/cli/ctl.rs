//! `goscope ctl`, and the same binary under the name `kubectl-goscope`: asks the agent in a pod, or one at hand, over its API.
//!
//! A verb names a target; `Place` finds the pod, `link` opens streams to its gate through the API server, `secret` brings the token, and
//! `api` asks. Nothing listens on this machine but for `forward`. Standard output carries the answer, standard error everything else.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use goscope_analysis::text::Colour;

use crate::cluster::forward::Destination;
use crate::cluster::target::Target;
use crate::cluster::{Access, Cluster};
use crate::notice::pasteable;
use crate::token::Token;

mod api;
mod artifacts;
mod attach;
mod capture;
mod fetch;
mod forward;
mod incidents;
mod link;
mod list;
mod pprof;
mod progress;
mod save;
mod secret;
mod status;
mod text;

use api::Api;
use link::Link;

/// The status of a command that Ctrl-C ended, as a shell has it.
const EXIT_INTERRUPTED: u8 = 130;

/// Ask the agent in a pod: what is there, what died, and take profiles
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    before_help = "Example:\n  kubectl goscope status deploy/shop\n  kubectl goscope incidents deploy/shop\n  kubectl goscope pprof heap deploy/shop\n  \
                   kubectl goscope forward deploy/shop\n\nThe same as `goscope ctl VERB …`. TARGET is deploy/NAME, statefulset/NAME, daemonset/NAME, job/NAME, \
                   pod/NAME or the\nname of a pod; -l SELECTOR or --url URL stands in its place."
)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Status(status::Args),
    Incidents(incidents::Args),
    Artifacts(artifacts::Args),
    Fetch(fetch::Args),
    Capture(capture::Args),
    Pprof(pprof::Args),
    Forward(forward::Args),
    Attach(attach::Args),
}

/// `kubectl goscope`: kubectl runs what is called `kubectl-goscope` under this name.
#[derive(Debug, clap::Parser)]
#[command(name = "kubectl-goscope", bin_name = "kubectl goscope", version = crate::version::LONG)]
pub struct Plugin {
    #[command(flatten)]
    args: Args,
}

/// The file name by which kubectl finds the binary.
pub const PLUGIN_NAME: &str = "kubectl-goscope";

impl Plugin {
    /// # Errors
    /// As [`Args::run`].
    pub fn run(self) -> anyhow::Result<ExitCode> {
        self.args.run()
    }
}

impl Args {
    /// # Errors
    /// The pod cannot be found or reached, a permission is missing, or the agent refuses.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
        let ended = runtime.block_on(async {
            match self.verb {
                Verb::Status(verb) => verb.run(&self.place).await,
                Verb::Incidents(verb) => verb.run(&self.place).await,
                Verb::Artifacts(verb) => verb.run(&self.place).await,
                Verb::Fetch(verb) => verb.run(&self.place).await,
                Verb::Capture(verb) => verb.run(&self.place).await,
                Verb::Pprof(verb) => verb.run(&self.place).await,
                Verb::Forward(verb) => verb.run(&self.place).await,
                Verb::Attach(verb) => verb.run(&self.place).await,
            }
        });
        // A look-up of a name, or a read of the terminal, may not end by itself.
        runtime.shutdown_background();
        ended
    }
}

/// Where the agent is, and as whom it is asked.
#[derive(Debug, Default, clap::Args)]
struct Place {
    /// The target's namespace; without it that of the context
    #[arg(short, long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// The kubeconfig's context
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The kubeconfig; without it $KUBECONFIG, then ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The newest ready pod with these labels, in place of TARGET
    #[arg(short = 'l', long, global = true, value_name = "SELECTOR")]
    selector: Option<String>,
    /// The port of goscope in the pod; without it the one named goscope-debug, else 6061
    #[arg(long, global = true, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// An agent that needs no cluster, as http://127.0.0.1:6061, in place of TARGET
    #[arg(long, global = true, value_name = "URL", value_parser = link::parse_url, conflicts_with_all = ["selector", "namespace", "context", "kubeconfig", "port"])]
    url: Option<link::Address>,
    /// A file that holds the token, - for standard input; without it $GOSCOPE_TOKEN_FILE, then the Secret, then the terminal
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The Secret whose key `token` holds the token
    #[arg(long, global = true, value_name = "NAME", default_value = secret::SECRET)]
    token_secret: String,
}

impl Place {
    /// The way to the agent. Nothing is sent to it yet.
    async fn link(&self, target: Option<&Target>) -> anyhow::Result<Link> {
        match (&self.url, target, &self.selector) {
            (Some(_), Some(_), _) => bail!("--url stands in place of TARGET; leave one of them out"),
            (_, Some(_), Some(_)) => bail!("-l stands in place of TARGET; leave one of them out"),
            (Some(address), None, _) => Ok(Link::Address(address.clone())),
            (None, Some(target), None) => self.find(target).await,
            (None, None, Some(selector)) => self.find(&Target::Selector(selector.clone())).await,
            (None, None, None) => {
                bail!(
                    "say which pod: deploy/NAME, pod/NAME, -l SELECTOR, or --url http://127.0.0.1:6061 without a cluster"
                )
            }
        }
    }

    async fn find(&self, target: &Target) -> anyhow::Result<Link> {
        let cluster = self.cluster().await?;
        let picked = cluster.pick(target, self.port).await?;
        picked.notes.iter().for_each(|note| say(note));
        Ok(Link::Pod(Destination::new(cluster, picked.pod, picked.port)))
    }

    async fn cluster(&self) -> anyhow::Result<Cluster> {
        let access = Access {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            namespace: self.namespace.clone(),
        };
        Ok(Cluster::open(&access).await?)
    }

    /// The flags that lead to the same cluster and namespace again, for commands to paste.
    fn flags(&self, namespace: &str) -> String {
        let mut flags = format!(" --namespace {namespace}");
        if let Some(context) = &self.context {
            flags.push_str(&format!(" --context {}", pasteable(Path::new(context))));
        }
        if let Some(kubeconfig) = &self.kubeconfig {
            flags.push_str(&format!(" --kubeconfig {}", pasteable(kubeconfig)));
        }
        flags
    }

    /// The Secret with the token, as a command to paste reads it.
    fn secret(&self, namespace: &str) -> secret::Source {
        secret::Source::Secret { flags: self.flags(namespace), name: self.token_secret.clone() }
    }

    /// The token for an agent.
    async fn token(&self, link: &Link) -> anyhow::Result<Token> {
        let cluster = match link {
            Link::Pod(destination) => Some(destination.cluster()),
            Link::Address(_) => None,
        };
        secret::find(self.token_file.as_deref(), &self.token_secret, cluster).await
    }

    /// Everything that a verb needs to ask.
    async fn api(&self, target: Option<&Target>) -> anyhow::Result<Api> {
        let link = self.link(target).await?;
        let token = self.token(&link).await?;
        Ok(Api::new(link, &token))
    }
}

/// Ctrl-C. Once this is waited for, it no longer ends the process by itself.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // It ends the process, as ever.
        std::future::pending::<()>().await;
    }
}

/// What `work` comes to, unless `stop` is first: `None` then. Dropped where it stands, work removes what is not finished.
async fn unless<T>(
    stop: impl Future<Output = ()>,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        biased;
        () = stop => Ok(None),
        done = work => done.map(Some),
    }
}

/// One message on standard error.
fn say(message: &str) {
    // Nobody is left to tell if standard error is gone.
    drop(writeln!(io::stderr(), "goscope: {message}"));
}

/// The answer.
fn answer(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("cannot write to standard output")
}

/// Colour of the answer, for a terminal only.
fn colour() -> Colour {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stdout().is_terminal() && !no_color { Colour::On } else { Colour::Off }
}

/// Whether a person looks at standard error.
fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// How a list or a state is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For a person
    Text,
    /// What the API answers
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn a_command_to_paste_asks_the_same_cluster() {
        let place = Place {
            context: Some("my cluster".to_owned()),
            kubeconfig: Some("/k/config".into()),
            token_secret: "goscope-token".to_owned(),
            ..Place::default()
        };
        assert_eq!(
            place.secret("shop").shell(),
            "$(kubectl --namespace shop --context 'my cluster' --kubeconfig /k/config get secret goscope-token \
             --output jsonpath='{.data.token}' | base64 -d)"
        );
    }

    #[test]
    fn the_verbs_fit_together() {
        Plugin::command().debug_assert();
    }
}
