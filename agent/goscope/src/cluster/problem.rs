//! Why the cluster did not do what was asked, as one sentence that says what to do about it.
//!
//! What the API server forbids is told with the verb and the resource in the words of RBAC, and with a Role that would allow it, to be handed to
//! whoever administers the namespace. What a credential plugin printed is never repeated: its standard output holds credentials.

use std::error::Error;
use std::fmt;
use std::path::Path;

use goscope_analysis::text::printable;
use kube::client::AuthError;
use kube::config::{KubeconfigError, LoadDataError};
use kube::core::Status;

/// Characters of foreign text that a sentence repeats.
const SAID_CHARS_MAX: usize = 600;

/// What was asked of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// All that are needed.
    pub verbs: &'static [&'static str],
    /// Empty for the core group.
    pub group: &'static str,
    /// With its subresource, as `pods/portforward`; empty where nothing in particular was asked for.
    pub resource: &'static str,
    pub name: Option<String>,
    pub namespace: String,
    pub server: String,
}

impl Asked {
    /// Before anything is asked of `server`.
    #[must_use]
    pub fn nothing(server: &str) -> Self {
        Self { verbs: &[], group: "", resource: "", name: None, namespace: String::new(), server: server.to_owned() }
    }

    /// About one object.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }
}

/// Why the cluster did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A permission is missing.
    #[error("{}", forbidden(asked, verb.as_deref()))]
    Forbidden {
        asked: Asked,
        /// The one that the API server named.
        verb: Option<String>,
    },
    /// Understood and refused: a pod security standard, a quota, a policy, an invalid value.
    #[error("the API server refuses: {0}")]
    Refused(String),
    #[error("there is no {what} in namespace {namespace}")]
    NotFound { what: String, namespace: String },
    #[error(
        "the API server {server} does not accept your credentials: they are wrong or have expired; log in again, or choose another --context"
    )]
    Unauthorized { server: String },
    #[error("the API server {server} cannot be reached: {reason}")]
    Unreachable { server: String, reason: String },
    /// The kubeconfig, or what it names, cannot be used.
    #[error("{0}")]
    Kubeconfig(String),
    /// The call itself cannot be used, or what was found is not what was meant.
    #[error("{0}")]
    Unusable(String),
}

impl Problem {
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden { .. })
    }

    /// Whether no answer came; what was asked for may have been done.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// A Role with what is missing, to be pasted.
fn forbidden(asked: &Asked, verb: Option<&str>) -> String {
    let Asked { verbs, group, resource, namespace, .. } = asked;
    let verb = verb.map_or_else(|| verbs.join(" and "), str::to_owned);
    let group = if group.is_empty() { "\"\"" } else { group };
    format!(
        "you may not {verb} {resource} in namespace {namespace}; ask for:\n  \
         apiVersion: rbac.authorization.k8s.io/v1\n  kind: Role\n  metadata: {{name: goscope-user, namespace: {namespace}}}\n  \
         rules:\n  - {{apiGroups: [{group}], resources: [{resource}], verbs: [{}]}}",
        verbs.join(", ")
    )
}

/// Finds the sentence for an error of the client.
#[must_use]
pub fn explain(error: kube::Error, asked: &Asked) -> Problem {
    match error {
        kube::Error::Api(status) => of_status(&status, asked),
        kube::Error::Auth(error) => of_credentials(&error),
        kube::Error::InferKubeconfig(error) => of_kubeconfig(&error, None),
        kube::Error::Service(error) => match error.downcast::<AuthError>() {
            Ok(error) => of_credentials(&error),
            Err(error) => Problem::Unreachable { server: asked.server.clone(), reason: innermost(&*error) },
        },
        kube::Error::HyperError(error) => {
            Problem::Unreachable { server: asked.server.clone(), reason: innermost(&error) }
        }
        kube::Error::RustlsTls(error) => {
            Problem::Kubeconfig(format!("the certificates of the kubeconfig cannot be used: {}", innermost(&error)))
        }
        kube::Error::SerdeError(error) => {
            Problem::Refused(format!("its answer is not that of a Kubernetes API server ({error})"))
        }
        kube::Error::ProxyProtocolUnsupported { .. } | kube::Error::ProxyProtocolDisabled { .. } => {
            Problem::Kubeconfig("the proxy-url of the kubeconfig is of a kind that goscope cannot use".to_owned())
        }
        error => Problem::Refused(innermost(&error)),
    }
}

fn of_status(status: &Status, asked: &Asked) -> Problem {
    if status.code == 403 || status.is_forbidden() {
        // Pod security and quotas are 403 as well, and no Role changes them.
        return match denied_verb(&status.message) {
            Some(verb) => Problem::Forbidden { asked: asked.clone(), verb: Some(verb) },
            None if status.message.is_empty() || status.reason != "Forbidden" => {
                Problem::Forbidden { asked: asked.clone(), verb: None }
            }
            None => Problem::Refused(bounded(&status.message)),
        };
    }
    if status.is_not_found()
        && let Some(name) = &asked.name
    {
        let what = asked.resource.split('/').next().unwrap_or_default();
        let what = what.strip_suffix('s').unwrap_or(what);
        return Problem::NotFound { what: format!("{what} {name}"), namespace: asked.namespace.clone() };
    }
    if status.code == 401 {
        return Problem::Unauthorized { server: asked.server.clone() };
    }
    let said = if status.message.is_empty() { &status.reason } else { &status.message };
    Problem::Refused(if said.is_empty() { format!("status {}", status.code) } else { bounded(said) })
}

/// The verb of `User "jane" cannot get resource "pods" in API group ""…`, which is how authorisation is refused.
fn denied_verb(message: &str) -> Option<String> {
    let (_, rest) = message.split_once(" cannot ")?;
    let (verb, rest) = rest.split_once(' ')?;
    (rest.starts_with("resource ") && verb.bytes().all(|b| b.is_ascii_lowercase())).then(|| verb.to_owned())
}

fn of_credentials(error: &AuthError) -> Problem {
    Problem::Kubeconfig(match error {
        AuthError::AuthExecStart(error) => {
            format!(
                "the credential plugin of your kubeconfig cannot be started: {error}; install it, or choose another --context"
            )
        }
        AuthError::AuthExecRun { cmd, out } => {
            let said = String::from_utf8_lossy(&out.stderr);
            let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
            format!("the credential plugin {cmd} of your kubeconfig failed ({}): {}", out.status, bounded(last))
        }
        AuthError::AuthExecParse(_) | AuthError::ExecPluginFailed => {
            "the credential plugin of your kubeconfig printed no credential".to_owned()
        }
        AuthError::ReadTokenFile(error, path) => {
            format!("the token file {} of your kubeconfig cannot be read: {error}", path.display())
        }
        error => format!("the credentials of your kubeconfig cannot be used: {}", innermost(error)),
    })
}

/// Finds the sentence for a kubeconfig that cannot be used.
#[must_use]
pub fn of_kubeconfig(error: &KubeconfigError, context: Option<&str>) -> Problem {
    let unreadable = |error: &std::io::Error, path: &Path| {
        if error.kind() == std::io::ErrorKind::NotFound {
            let path = path.display();
            format!(
                "there is no kubeconfig {path}; name one with --kubeconfig or $KUBECONFIG, or work without a cluster by --url http://127.0.0.1:6061"
            )
        } else {
            format!("the kubeconfig {} cannot be read: {error}", path.display())
        }
    };
    let file = |what: &str, error: &LoadDataError| match error {
        LoadDataError::ReadFile(error, path) => {
            format!("the {what} {} of your kubeconfig cannot be read: {error}", path.display())
        }
        error => format!("the {what} of your kubeconfig cannot be used: {error}"),
    };
    Problem::Kubeconfig(match error {
        KubeconfigError::ReadConfig(error, path) => unreadable(error, path),
        KubeconfigError::FindPath => {
            "there is no kubeconfig; name one with --kubeconfig or $KUBECONFIG, or work without a cluster by --url http://127.0.0.1:6061".to_owned()
        }
        KubeconfigError::CurrentContextNotSet => "the kubeconfig names no current context; choose one with --context".to_owned(),
        KubeconfigError::LoadContext(name) => {
            let name = context.unwrap_or(name);
            format!("the kubeconfig holds no context {name:?}; `kubectl config get-contexts` lists them")
        }
        KubeconfigError::LoadClusterOfContext(name) => format!("the kubeconfig holds no cluster {name:?}, which its context names"),
        KubeconfigError::LoadCertificateAuthority(error) => file("certificate authority", error),
        KubeconfigError::LoadClientCertificate(error) => file("client certificate", error),
        KubeconfigError::LoadClientKey(error) => file("client key", error),
        error => format!("the kubeconfig cannot be used: {}", innermost(error)),
    })
}

/// The last error of the chain, which is the one that names the cause.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    bounded(&error.to_string())
}

/// Foreign text on one line, cut to what a sentence can hold.
pub(crate) fn bounded(text: &str) -> String {
    let mut cut: String = text.trim().chars().take(SAID_CHARS_MAX).collect();
    if text.trim().chars().nth(SAID_CHARS_MAX).is_some() {
        cut.push('…');
    }
    printable(&cut).into_owned()
}

/// As in the sentences: what is asked, for messages about a fall-back.
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in namespace {}", self.verbs.join(" and "), self.resource, self.namespace)
    }
}

#[cfg(test)]
mod tests;
