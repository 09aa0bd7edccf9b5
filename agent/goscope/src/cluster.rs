//! A Kubernetes cluster, asked with the user's own credentials: kubeconfig, client certificates, credential plugins.
//!
//! Used by the commands that a person runs, never by the agent: the data path needs no permission of a cluster. Objects are read by [`Cluster`],
//! [`target`] and [`pick`] find the pod that is meant, [`forward`] opens streams to its ports, and [`problem`] turns every refusal into one sentence
//! that says what to ask for.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
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

/// What the files hold together; the first that sets something wins. A file that is not there is passed over, as kubectl does, unless none is.
fn merged(paths: impl Iterator<Item = PathBuf>) -> Result<Kubeconfig, KubeconfigError> {
    let (mut merged, mut missing) = (None::<Kubeconfig>, None);
    for path in paths.filter(|path| !path.as_os_str().is_empty()) {
        match Kubeconfig::read_from(path) {
            Ok(next) => {
                merged = Some(match merged {
                    Some(merged) => merged.merge(next)?,
                    None => next,
                });
            }
            Err(KubeconfigError::ReadConfig(error, path)) if error.kind() == ErrorKind::NotFound => {
                missing.get_or_insert(KubeconfigError::ReadConfig(error, path));
            }
            Err(error) => return Err(error),
        }
    }
    merged.ok_or_else(|| missing.unwrap_or(KubeconfigError::FindPath))
}

async fn read(access: &Access) -> Result<Config, Problem> {
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let found = match &access.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => match std::env::var_os(ENV_KUBECONFIG).filter(|paths| !paths.is_empty()) {
            Some(paths) => merged(std::env::split_paths(&paths)),
            None => Kubeconfig::read(),
        },
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn of_several_kubeconfigs_the_missing_are_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["a", "b"] {
            let text = format!(
                "{{apiVersion: v1, kind: Config, current-context: {name}, contexts: [{{name: {name}, context: {{cluster: c, user: u}}}}]}}"
            );
            fs::write(path(name), text).expect("written");
        }
        fs::write(path("wrong"), "[").expect("written");
        let found = |names: &[&str]| {
            let found = merged(names.iter().map(|name| if name.is_empty() { PathBuf::new() } else { path(name) }));
            found.map(|config| (config.current_context.unwrap_or_default(), config.contexts.len()))
        };
        for (names, expected) in [
            (&["a"][..], ("a", 1)),
            (&["a", "b"], ("a", 2)),
            (&["missing", "b"], ("b", 1)),
            (&["", "b", "missing", "a"], ("b", 2)),
        ] {
            assert_eq!(found(names).expect("a kubeconfig"), (expected.0.to_owned(), expected.1), "{names:?}");
        }
        let said = problem::of_kubeconfig(&found(&["missing", "gone"]).expect_err("none"), None).to_string();
        assert!(said.starts_with(&format!("there is no kubeconfig {}", path("missing").display())), "{said}");
        assert!(found(&["a", "wrong"]).is_err(), "one that is there must be one");
    }
}
