//! `goscope token secret`: makes the Secrets of the first token, for the chart's hook.
//!
//! Two Secrets: one with the token file, which pods mount and which holds the SHA-256 only, and one with the token in clear, which nobody mounts. What is
//! there is never changed, so that it can run before every upgrade. The clear one is made first: where a run ends between the two, the next one makes
//! the other for the same token, and two runs at the same moment agree on one.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::problem::{Problem, explain};
use crate::cluster::{Access, Cluster};
use crate::token::Token;
use crate::token::file::{self, check_name};
use crate::token::tier::{Tier, TierSet};

/// The key of the Secret that pods mount; the gate reads every key that ends so.
const FILE_KEY: &str = "tokens.yaml";
/// The key of the Secret in clear.
const CLEAR_KEY: &str = "token";
/// The status of an object that is there already.
const CONFLICT: u16 = 409;

/// Make the Secrets of a first token in the cluster where they are not there: one for the pods, one with the token in clear.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The Secret that pods mount, with the token's SHA-256
    #[arg(long, value_name = "SECRET", default_value = "goscope-tokens")]
    name: String,
    /// The Secret with the token in clear, under the key token
    #[arg(long, value_name = "SECRET", default_value = "goscope-token")]
    clear: String,
    /// Who it is for; stands in every audit line
    #[arg(long, value_name = "NAME", value_parser = |text: &str| check_name(text).map(str::to_owned))]
    token_name: String,
    /// What it may ask for: basic, cpu, trace, dump, vars, cmdline, artifacts, capture, admin
    #[arg(long = "tier", value_name = "TIER", value_delimiter = ',', default_value = "basic", value_parser = Tier::parse)]
    tiers: Vec<Tier>,
    /// Without it that of the kubeconfig, or of the pod that this runs in
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// The part of a Secret that is read.
#[derive(Deserialize)]
struct Secret {
    /// In base64.
    #[serde(default)]
    data: BTreeMap<String, String>,
}

impl Args {
    /// # Errors
    /// The cluster refuses, or the Secret in clear is there and holds no token.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
        let access = Access { namespace: self.namespace.clone(), ..Access::default() };
        let done = runtime.block_on(async { self.make(&Cluster::open(&access).await?).await })?;
        writeln!(io::stderr(), "goscope: {done}").context("cannot write to standard error")
    }

    /// Returns what was done, in words that hold no token.
    async fn make(self, cluster: &Cluster) -> anyhow::Result<String> {
        let Self { name, clear, token_name, tiers, .. } = self;
        if name == clear {
            bail!("--name and --clear must be two Secrets, because pods mount the first");
        }
        if read(cluster, &name).await?.is_some() {
            return Ok(format!("Secret {name} is there and stays as it is"));
        }
        let token = token_in_clear(cluster, &clear).await?;
        let entry = file::entry(&token_name, token.sha256(), tiers.into_iter().collect::<TierSet>(), &[], None);
        let made = create(cluster, &name, FILE_KEY, &file::document(&entry)).await?;
        Ok(match made {
            Made::Now => format!("made Secret {name}; the token of {token_name} is in Secret {clear}"),
            Made::Before => format!("Secret {name} was made by somebody else meanwhile and stays as it is"),
        })
    }
}

/// The token of the Secret in clear, which is made if it is not there.
async fn token_in_clear(cluster: &Cluster, clear: &str) -> anyhow::Result<Token> {
    if let Some(found) = read(cluster, clear).await? {
        return token_of(&found, clear);
    }
    let token = Token::generate().context("cannot make a token")?;
    match create(cluster, clear, CLEAR_KEY, token.reveal()).await? {
        Made::Now => Ok(token),
        Made::Before => {
            let found = read(cluster, clear).await?.with_context(|| format!("Secret {clear} comes and goes"))?;
            token_of(&found, clear)
        }
    }
}

fn token_of(secret: &Secret, name: &str) -> anyhow::Result<Token> {
    let advice =
        || format!("Secret {name} is there, but holds no token under the key {CLEAR_KEY}; delete it, and it is made");
    let encoded = secret.data.get(CLEAR_KEY).with_context(advice)?;
    // Neither error may show what stands there.
    let bytes = STANDARD.decode(encoded).ok().with_context(advice)?;
    let text = String::from_utf8(bytes).ok().with_context(advice)?;
    Token::parse(text.trim()).with_context(advice)
}

async fn read(cluster: &Cluster, name: &str) -> Result<Option<Secret>, Problem> {
    match cluster.get("", "secrets", name).await {
        Ok(secret) => Ok(Some(secret)),
        Err(problem) if problem.is_not_found() => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// Who made an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Now,
    Before,
}

async fn create(cluster: &Cluster, name: &str, key: &str, text: &str) -> anyhow::Result<Made> {
    let namespace = cluster.namespace();
    let request = Request::post(format!("/api/v1/namespaces/{namespace}/secrets"))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(serde_json::to_vec(&object(name, key, text))?)?;
    match cluster.client().request::<Value>(request).await {
        Ok(_) => Ok(Made::Now),
        Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(Made::Before),
        Err(error) => Err(explain(error, &cluster.asked(&["create"], "", "secrets").named(name)).into()),
    }
}

/// A Secret of one key. Its label says who made it; it has no owner, so nothing takes it away.
fn object(name: &str, key: &str, text: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name, "labels": { "app.kubernetes.io/managed-by": "goscope" } },
        "type": "Opaque",
        "data": { key: STANDARD.encode(text) },
    })
}

#[cfg(test)]
mod tests;
