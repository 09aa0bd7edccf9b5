//! Finds the pod: of those that are meant the newest that is ready, and goscope's port in it.
//!
//! Whoever names a pod needs no permission to read pods: the port is taken for the usual one then.

use std::cmp::Reverse;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, EphemeralContainer, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{ObjectList, Selector};

use super::Cluster;
use super::problem::{self, Problem};
use super::target::{Kind, Target};

/// The port of goscope's debug listener where nothing says otherwise.
pub const PORT: u16 = 6061;
/// The name of that port in a pod that says so.
pub const PORT_NAME: &str = "goscope-debug";
/// What begins the name of every container of ours.
pub const CONTAINER_NAME: &str = "goscope";
/// The annotation in which injection tells what it could not do.
const MISSING: &str = "goscope.dev/missing";

/// A pod to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    pub pod: String,
    pub port: u16,
    /// What the person should know about the choice, without a full stop.
    pub notes: Vec<String>,
}

impl Cluster {
    /// Finds the pod and the port of its gate; `port` is the person's own choice.
    ///
    /// # Errors
    /// There is no running pod, goscope is not in it, or it may not be looked for.
    pub async fn pick(&self, target: &Target, port: Option<u16>) -> Result<Picked, Problem> {
        let pods = match target {
            Target::Pod(name) => match self.get::<Pod>("", "pods", name).await {
                Ok(pod) => vec![pod],
                // The name is all that a tunnel needs.
                Err(problem) if problem.is_forbidden() => {
                    return Ok(Picked {
                        pod: name.clone(),
                        port: port.unwrap_or(PORT),
                        notes: vec![format!(
                            "you may not read pods, so port {} is a guess (--port)",
                            port.unwrap_or(PORT)
                        )],
                    });
                }
                Err(problem) => return Err(problem),
            },
            Target::Selector(selector) => self.pods(selector).await?,
            Target::Controller { kind, name } => {
                let selector = self.selector(*kind, name).await?;
                self.pods(&selector).await?
            }
        };
        choose(pods, target, port).map_err(Problem::Unusable)
    }

    /// The pods that a selector selects.
    ///
    /// # Errors
    /// They may not be listed.
    pub async fn pods(&self, selector: &str) -> Result<Vec<Pod>, Problem> {
        Ok(self.list::<ObjectList<Pod>>("", "pods", selector).await?.items)
    }

    async fn selector(&self, kind: Kind, name: &str) -> Result<String, Problem> {
        let (group, resource) = kind.resource();
        let selector: Option<LabelSelector> = match kind {
            Kind::Deployment => self.get::<Deployment>(group, resource, name).await?.spec.map(|spec| spec.selector),
            Kind::StatefulSet => self.get::<StatefulSet>(group, resource, name).await?.spec.map(|spec| spec.selector),
            Kind::DaemonSet => self.get::<DaemonSet>(group, resource, name).await?.spec.map(|spec| spec.selector),
            Kind::ReplicaSet => self.get::<ReplicaSet>(group, resource, name).await?.spec.map(|spec| spec.selector),
            Kind::Job => self.get::<Job>(group, resource, name).await?.spec.and_then(|spec| spec.selector),
        };
        selector
            .and_then(|selector| Selector::try_from(selector).ok())
            .map(|selector| selector.to_string())
            .filter(|selector| !selector.is_empty())
            .ok_or_else(|| Problem::Unusable(format!("{} {name} selects no pods", kind.name())))
    }
}

/// Chooses among the pods that are meant.
fn choose(pods: Vec<Pod>, target: &Target, port: Option<u16>) -> Result<Picked, String> {
    if pods.is_empty() {
        return Err(format!("{target} has no pods"));
    }
    let (mut running, others): (Vec<Pod>, Vec<Pod>) = pods.into_iter().partition(is_running);
    running.sort_by_key(|pod| Reverse((is_ready(pod), pod.metadata.creation_timestamp.as_ref().map(|time| time.0))));
    let count = running.len();
    let Some(pod) = running.into_iter().next() else {
        let states: Vec<_> = others.iter().take(3).map(|pod| format!("pod {} {}", name(pod), state(pod))).collect();
        let further = others.len().saturating_sub(states.len());
        let further = if further > 0 { format!(" and {further} more") } else { String::new() };
        return Err(format!("{target} has no running pod: {}{further}", states.join(", ")));
    };
    let mut notes = Vec::new();
    match (target, count) {
        (Target::Pod(_), _) => {}
        (_, 1) => notes.push(format!("pod {}", name(&pod))),
        (_, _) => notes.push(format!("pod {}, the newest that is ready of {count}", name(&pod))),
    }
    if !is_ready(&pod) {
        notes.push(format!("pod {} is not ready", name(&pod)));
    }
    let Some(port) = port.or_else(|| port_of(&pod)) else { return Err(without_goscope(&pod)) };
    Ok(Picked { pod: name(&pod).to_owned(), port, notes })
}

pub(super) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Whether its containers could be reached: it runs and is not on its way out.
pub(super) fn is_running(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// `is Pending (ImagePullBackOff)`: the phase, and the first reason that a container gives for waiting.
pub(super) fn state(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "is being deleted".to_owned();
    }
    let Some(status) = &pod.status else { return "is not scheduled".to_owned() };
    let phase = status.phase.as_deref().unwrap_or("Unknown");
    let statuses = [&status.init_container_statuses, &status.container_statuses];
    let statuses = statuses.into_iter().flatten().flatten();
    let reason = statuses.filter_map(waiting_reason).find(|reason| *reason != "PodInitializing");
    let reason = reason.or(status.reason.as_deref());
    reason.map_or_else(
        || format!("is {}", problem::bounded(phase)),
        |reason| format!("is {} ({})", problem::bounded(phase), problem::bounded(reason)),
    )
}

fn waiting_reason(status: &ContainerStatus) -> Option<&str> {
    status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

/// Goscope's port in the pod: the one of that name, else that of an attached container, else the usual one where a container is named for goscope.
pub(super) fn port_of(pod: &Pod) -> Option<u16> {
    let spec = pod.spec.as_ref()?;
    let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
    let named = |container: &Container| {
        let ports = container.ports.as_deref().unwrap_or_default();
        ports.iter().find(|port| port.name.as_deref() == Some(PORT_NAME)).map(|port| port.container_port)
    };
    if let Some(port) = containers().find_map(named) {
        return u16::try_from(port).ok();
    }
    if let Some(attached) = attached(pod).last() {
        return Some(attached_port(attached));
    }
    containers().any(|container| container.name == CONTAINER_NAME).then_some(PORT)
}

/// The ephemeral containers of ours that run, oldest first.
fn attached(pod: &Pod) -> impl Iterator<Item = &EphemeralContainer> {
    let statuses =
        pod.status.as_ref().and_then(|status| status.ephemeral_container_statuses.as_deref()).unwrap_or_default();
    let runs = |name: &str| {
        let status = statuses.iter().find(|status| status.name == name);
        status.and_then(|status| status.state.as_ref()).is_some_and(|state| state.running.is_some())
    };
    let containers = pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default();
    containers.iter().filter(move |container| container.name.starts_with(CONTAINER_NAME) && runs(&container.name))
}

/// The environment variable by which an attached agent is told its address.
pub(super) const ATTACHED_LISTEN: &str = "GOSCOPE_LISTEN_DEBUG";

fn attached_port(container: &EphemeralContainer) -> u16 {
    let variables = container.env.as_deref().unwrap_or_default();
    let address = variables.iter().find(|variable| variable.name == ATTACHED_LISTEN).and_then(|v| v.value.as_deref());
    address.and_then(|address| address.rsplit_once(':')?.1.parse().ok()).unwrap_or(PORT)
}

fn without_goscope(pod: &Pod) -> String {
    let name = name(pod);
    let annotations = pod.metadata.annotations.as_ref();
    match annotations.and_then(|all| all.get(MISSING)) {
        Some(missing) => format!("goscope is not in pod {name}; its injection said: {}", problem::bounded(missing)),
        None => format!(
            "goscope is not in pod {name}: label its namespace goscope.dev/inject=enabled or annotate the pod goscope.dev/inject: enabled and restart \
             it, or put goscope into it as it runs by `kubectl goscope attach {name}`; if it is there on a port of its own, say --port"
        ),
    }
}

#[cfg(test)]
mod tests;
