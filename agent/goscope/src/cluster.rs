//! A Kubernetes cluster, asked with the user's own credentials: kubeconfig, client certificates, credential plugins.
//!
//! Used by the commands that a person runs, never by the agent: the data path needs no permission of a cluster. Objects are read by [`Cluster`],
//! [`target`] and [`pick`] find the pod that is meant, [`forward`] opens streams to its ports, and [`problem`] turns every refusal into one sentence
//! that says what to ask for.

use std::path::PathBuf;
use std::time::Duration;

use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::de::DeserializeOwned;

pub mod ephemeral;
pub mod forward;
pub mod pick;
pub mod problem;
pub mod target;

use problem::{Asked, Problem};

/// How long the API server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The environment variable that names the kubeconfig, as for kubectl.
const ENV_KUBECONFIG: &str = "KUBECONFIG";

/// Which cluster, and as whom: what kubectl's flags of the same names say.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Without it `$KUBECONFIG`, then `~/.kube/config`, then the ServiceAccount of the pod that we run in.
    pub kubeconfig: Option<PathBuf>,
    /// Without it the current one.
    pub context: Option<String>,
    /// Without it the context's, then `default`.
    pub namespace: Option<String>,
}

/// An API server and a namespace of it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
    server: String,
}

impl Cluster {
    /// Reads the kubeconfig and, where it names one, runs its credential plugin. Nothing is asked of the API server yet.
    ///
    /// # Errors
    /// There is no usable kubeconfig, or its credentials cannot be had.
    pub async fn open(access: &Access) -> Result<Self, Problem> {
        let mut config = read(access).await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let namespace = access.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        target::check_namespace(&namespace).map_err(Problem::Unusable)?;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config).map_err(|error| problem::explain(error, &Asked::nothing(&server)))?;
        Ok(Self { client, namespace, server })
    }

    /// The namespace that everything is looked for in.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// For whatever is not covered here. Errors of it are explained by [`Cluster::asked`] and [`problem::explain`].
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A question about something in the namespace, for [`problem::explain`].
    #[must_use]
    pub fn asked(&self, verbs: &'static [&'static str], group: &'static str, resource: &'static str) -> Asked {
        Asked { verbs, group, resource, name: None, namespace: self.namespace.clone(), server: self.server.clone() }
    }

    /// One object of the namespace.
    ///
    /// # Errors
    /// There is none of that name, or it may not be read.
    pub async fn get<T: DeserializeOwned>(
        &self,
        group: &'static str,
        resource: &'static str,
        name: &str,
    ) -> Result<T, Problem> {
        let asked = self.asked(&["get"], group, resource).named(name);
        self.read(&format!("{}/{name}", self.path(group, resource)), &asked).await
    }

    /// The objects of the namespace that a label selector selects, as a list.
    ///
    /// # Errors
    /// They may not be listed.
    pub async fn list<T: DeserializeOwned>(
        &self,
        group: &'static str,
        resource: &'static str,
        selector: &str,
    ) -> Result<T, Problem> {
        let asked = self.asked(&["list"], group, resource);
        let path = format!("{}?labelSelector={}", self.path(group, resource), target::query_value(selector));
        self.read(&path, &asked).await
    }

    async fn read<T: DeserializeOwned>(&self, path: &str, asked: &Asked) -> Result<T, Problem> {
        let request = Request::get(path).body(Vec::new()).map_err(|error| Problem::Unusable(error.to_string()))?;
        self.client.request(request).await.map_err(|error| problem::explain(error, asked))
    }

    fn path(&self, group: &str, resource: &str) -> String {
        let root = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
        format!("{root}/namespaces/{}/{resource}", self.namespace)
    }
}

async fn read(access: &Access) -> Result<Config, Problem> {
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let found = match &access.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let config = match found {
        Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
        Err(error) => {
            let is_asked_for = access.kubeconfig.is_some() || access.context.is_some();
            let is_named = is_asked_for || std::env::var_os(ENV_KUBECONFIG).is_some_and(|path| !path.is_empty());
            if !is_named && let Ok(config) = Config::incluster() {
                return Ok(config);
            }
            Err(error)
        }
    };
    config.map_err(|error| problem::of_kubeconfig(&error, access.context.as_deref()))
}
