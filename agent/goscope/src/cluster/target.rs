//! Which pod is meant: `deploy/shop`, `pod/shop-0`, `shop-0`, or a label selector.

use std::fmt;

/// Characters of an object's name.
const NAME_CHARS_MAX: usize = 253;
/// Characters of a namespace's name.
const NAMESPACE_CHARS_MAX: usize = 63;

/// What makes pods by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Job,
}

impl Kind {
    const EVERY: [Self; 5] = [Self::Deployment, Self::StatefulSet, Self::DaemonSet, Self::ReplicaSet, Self::Job];

    /// In the singular, as kubectl prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::ReplicaSet => "replicaset",
            Self::Job => "job",
        }
    }

    /// The API group and the resource's name in paths and roles.
    #[must_use]
    pub fn resource(self) -> (&'static str, &'static str) {
        match self {
            Self::Deployment => ("apps", "deployments"),
            Self::StatefulSet => ("apps", "statefulsets"),
            Self::DaemonSet => ("apps", "daemonsets"),
            Self::ReplicaSet => ("apps", "replicasets"),
            Self::Job => ("batch", "jobs"),
        }
    }

    /// By any name that kubectl takes: `deploy`, `deployment`, `deployments`, `deployment.apps`.
    fn parse(text: &str) -> Option<Self> {
        Self::EVERY.into_iter().find(|kind| {
            let (group, plural) = kind.resource();
            let short = match kind {
                Self::Deployment => "deploy",
                Self::StatefulSet => "sts",
                Self::DaemonSet => "ds",
                Self::ReplicaSet => "rs",
                Self::Job => "job",
            };
            let plain = text.strip_suffix(group).and_then(|rest| rest.strip_suffix('.')).unwrap_or(text);
            [short, kind.name(), plural].contains(&plain)
        })
    }
}

/// The pod that is meant, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Pod(String),
    /// One of the pods that it made.
    Controller {
        kind: Kind,
        name: String,
    },
    /// One of the pods with these labels.
    Selector(String),
}

impl Target {
    /// Reads `KIND/NAME` or `NAME`.
    ///
    /// # Errors
    /// A sentence with what was expected and found.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').unwrap_or(("pod", text));
        if !is_name(name, NAME_CHARS_MAX) {
            return Err(format!(
                "expected deploy/NAME, statefulset/NAME, daemonset/NAME, job/NAME, pod/NAME or the name of a pod, found {:?}",
                text.chars().take(80).collect::<String>()
            ));
        }
        let kind = kind.to_ascii_lowercase();
        if ["pod", "pods", "po"].contains(&kind.as_str()) {
            return Ok(Self::Pod(name.to_owned()));
        }
        Kind::parse(&kind).map(|kind| Self::Controller { kind, name: name.to_owned() }).ok_or_else(|| {
            format!(
                "{:?} has no pods that could be found; expected deploy, statefulset, daemonset, replicaset, job or pod",
                kind.chars().take(40).collect::<String>()
            )
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod {name}"),
            Self::Controller { kind, name } => write!(f, "{} {name}", kind.name()),
            Self::Selector(selector) => write!(f, "selector {selector}"),
        }
    }
}

/// Checks the name of a namespace, which becomes a part of paths.
///
/// # Errors
/// A sentence.
pub fn check_namespace(name: &str) -> Result<(), String> {
    if is_name(name, NAMESPACE_CHARS_MAX) && !name.contains('.') {
        Ok(())
    } else {
        Err(format!("{:?} is no name of a namespace", name.chars().take(80).collect::<String>()))
    }
}

/// Lower-case letters, digits, `-` and `.`, with a letter or digit at both ends.
fn is_name(text: &str, chars_max: usize) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<&u8>| b.is_some_and(|b| plain(*b));
    text.len() <= chars_max
        && text.bytes().all(|b| plain(b) || b == b'-' || b == b'.')
        && ends(text.as_bytes().first())
        && ends(text.as_bytes().last())
}

/// Text as it may stand in a query or a path.
#[must_use]
pub fn query_value(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let controller = |kind, name: &str| Some(Target::Controller { kind, name: name.to_owned() });
        let pod = |name: &str| Some(Target::Pod(name.to_owned()));
        for (text, expected) in [
            ("shop-0", pod("shop-0")),
            ("pod/shop-0", pod("shop-0")),
            ("po/a.b", pod("a.b")),
            ("deploy/shop", controller(Kind::Deployment, "shop")),
            ("deployment/shop", controller(Kind::Deployment, "shop")),
            ("deployments.apps/shop", controller(Kind::Deployment, "shop")),
            ("Deployment/shop", controller(Kind::Deployment, "shop")),
            ("statefulset/ledger", controller(Kind::StatefulSet, "ledger")),
            ("sts/ledger", controller(Kind::StatefulSet, "ledger")),
            ("daemonset/a", controller(Kind::DaemonSet, "a")),
            ("ds/a", controller(Kind::DaemonSet, "a")),
            ("rs/a", controller(Kind::ReplicaSet, "a")),
            ("job/tally", controller(Kind::Job, "tally")),
            ("jobs.batch/tally", controller(Kind::Job, "tally")),
            ("cronjob/tally", None),
            ("service/shop", None),
            ("deploy.batch/shop", None),
            ("deploy/", None),
            ("deploy/a/b", None),
            ("", None),
            ("Shop", None),
            ("-a", None),
            ("a-", None),
            ("../secrets", None),
            ("a?b", None),
        ] {
            assert_eq!(Target::parse(text).ok(), expected, "{text}");
        }
        assert!(Target::parse(&"a".repeat(NAME_CHARS_MAX)).is_ok());
        assert!(Target::parse(&"a".repeat(NAME_CHARS_MAX + 1)).is_err());
    }

    #[test]
    fn namespaces() {
        for (name, expected) in [("shop", true), ("a-1", true), ("a.b", false), ("", false), ("a/b", false)] {
            assert_eq!(check_namespace(name).is_ok(), expected, "{name}");
        }
        assert!(check_namespace(&"a".repeat(NAMESPACE_CHARS_MAX)).is_ok());
        assert!(check_namespace(&"a".repeat(NAMESPACE_CHARS_MAX + 1)).is_err());
    }

    #[test]
    fn a_selector_cannot_leave_its_query() {
        assert_eq!(query_value("app=shop,tier in (a, b)&x=#"), "app%3Dshop%2Ctier%20in%20%28a%2C%20b%29%26x%3D%23");
        assert_eq!(query_value("a-b_c.d~e"), "a-b_c.d~e");
    }
}
