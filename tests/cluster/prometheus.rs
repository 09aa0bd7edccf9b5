//! A real prometheus-operator makes a scrape configuration of our `PodMonitor`, and a real Prometheus that it starts runs it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::{image, node};
use goscope_e2e::wait;
use serde_json::{Value, json};

use crate::chart;
use crate::helm::Helm;

/// Prometheus starts with its configuration; were that changed later, the kubelet would take more than a minute to bring it into the pod.
const SCRAPE_DEADLINE: Duration = Duration::from_secs(150);
/// Between two questions to Prometheus.
const POLL: Duration = Duration::from_millis(500);

/// A Prometheus that prometheus-operator runs.
struct Monitoring {
    namespace: Namespace,
    /// Prometheus' own.
    address: String,
}

impl Monitoring {
    /// A namespace for both, and the kinds of the operator.
    fn kinds() -> anyhow::Result<Namespace> {
        let namespace = Namespace::create("monitoring")?;
        let crds = operator()?.join("crds").display().to_string();
        // By the server: they are larger than the annotation that a client-side apply makes of them.
        namespace.kubectl(&["apply", "--server-side", "--filename", &crds])?;
        namespace.kubectl(&["wait", "--for=condition=Established", "--filename", &crds, "--timeout=50s"])?;
        Ok(namespace)
    }

    /// Starts both and waits until Prometheus is ready. One for the whole cluster.
    fn start(namespace: Namespace) -> anyhow::Result<Self> {
        let operator = operator()?;
        for program in ["operator", "prometheus-config-reloader", "prometheus"] {
            image::load_executable(&format!("localhost/{program}:test"), &operator.join(program))?;
        }

        let role = operator.join("cluster-role.yaml").display().to_string();
        namespace.kubectl(&["apply", "--filename", &role])?;
        // What belongs to no namespace goes away with this one.
        let owner = json!({
            "apiVersion": "v1", "kind": "Namespace", "name": namespace.name,
            "uid": namespace.object("namespace", &namespace.name)?["metadata"]["uid"],
        });
        let manifest = include_str!("operator/operator.yaml")
            .replace("@NAMESPACE@", &namespace.name)
            .replace("@OWNER@", &owner.to_string());
        namespace.apply(&manifest)?;

        // The operator makes a StatefulSet of the Prometheus, and that the pod.
        let pod = "prometheus-tests-0";
        wait::until("the operator starts Prometheus", || namespace.object("pod", pod).ok())
            .with_context(|| namespace.kubectl(&["logs", "deployment/prometheus-operator"]).unwrap_or_default())?;
        let address = namespace.await_ready(pod)?;
        Ok(Self { namespace, address })
    }

    /// `data` of an answer of Prometheus' API.
    fn ask(&self, route: &str, parameters: &[String]) -> anyhow::Result<Value> {
        let url = format!("http://{}:9090/api/v1/{route}", self.address);
        let mut args = vec!["-f", "-G", &url];
        for parameter in parameters {
            args.extend(["--data-urlencode", parameter]);
        }
        let answer = node::curl(&args)?;
        ensure!(answer.code() == Some(0), "{route} {parameters:?}: {}", answer.err());
        let answer: Value = serde_json::from_str(&answer.out())?;
        ensure!(answer["status"] == "success", "{answer}");
        Ok(answer["data"].clone())
    }

    /// The series of an instant query, as `{"metric": {…}, "value": […]}`.
    fn query(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let data = self.ask("query", &[format!("query={query}")])?;
        Ok(data["result"].as_array().context("no result")?.clone())
    }

    /// Waits for something that Prometheus knows once it has loaded and scraped.
    fn until<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        wait::until_within(SCRAPE_DEADLINE, what, || {
            std::thread::sleep(POLL);
            probe()
        })
        .with_context(|| {
            let log = |of: &[&str]| self.namespace.kubectl(&[&["logs", "--tail=30"], of].concat()).unwrap_or_default();
            format!(
                "{}\n{}\n{}",
                self.ask("targets", &[]).unwrap_or_default(),
                log(&["deployment/prometheus-operator"]),
                log(&["prometheus-tests-0", "--all-containers"])
            )
        })
    }
}

/// The folder that `tests/cluster/operator/build.sh` made.
fn operator() -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("GOSCOPE_OPERATOR");
    Ok(folder.context("GOSCOPE_OPERATOR: tests/run.sh cluster says where it is")?.into())
}

/// The first number of a series.
fn value(series: &Value) -> f64 {
    series["value"][1].as_str().and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
}

#[test]
fn the_operator_and_prometheus_scrape_what_the_chart_says() -> anyhow::Result<()> {
    let helm = Helm::newest()?;
    let monitoring = Monitoring::kinds()?;
    let label = format!("podMonitor.labels.prometheus={}", monitoring.name);

    // Beside a service, for the pods of its release; with the alerts.
    let namespace = Namespace::create("scraped")?;
    let monitor = format!("debug-sidecar.{label}");
    let rule = format!("debug-sidecar.prometheusRule.labels.prometheus={}", monitoring.name);
    let values = [
        "debug-sidecar.podMonitor.enabled=true",
        "debug-sidecar.podMonitor.interval=2s",
        &monitor,
        "debug-sidecar.prometheusRule.enabled=true",
        &rule,
    ];
    helm.succeed(&chart::with_values(&["install"], &helm.shop(), &namespace, &values))?;
    // Installed by itself, for all pods of all namespaces; no more of that installation, so that no other test's pods are injected.
    let own = helm.own();
    let mut template =
        vec!["template", "watch", &own, "--kube-version=1.36.0", "--show-only=templates/podmonitor.yaml"];
    for value in ["podMonitor.enabled=true", "podMonitor.interval=2s", &label] {
        template.extend(["--set", value]);
    }
    let placed = format!("metadata:\n  namespace: {}", monitoring.name);
    monitoring.apply(&helm.succeed(&template)?.replacen("metadata:", &placed, 1))?;

    let monitoring = Monitoring::start(monitoring)?;
    let pod = chart::pod(&namespace)?;
    let pod = pod["metadata"]["name"].as_str().context("a pod without a name")?;
    for job in
        [format!("{}/shop-debug-sidecar", namespace.name), format!("{}/watch-debug-sidecar", monitoring.namespace.name)]
    {
        scraped(&monitoring, &job, &namespace.name, pod)?;
    }
    alerts(&monitoring)
}

/// A job has one target that is up for the pod, and its series are there, under their own names and labels.
fn scraped(monitoring: &Monitoring, job: &str, namespace: &str, pod: &str) -> anyhow::Result<()> {
    let selector = format!("{{job={job:?},pod={pod:?}}}");
    let only = |metric: &str| {
        let mut found = monitoring.query(&format!("{metric}{selector}"))?;
        ensure!(found.len() == 1, "{} series {metric}{selector}: {found:?}", found.len());
        found.pop().context("one was counted")
    };
    monitoring.until(&format!("up{selector} is 1"), || only("up").ok().filter(|up| value(up) == 1.0))?;
    monitoring.until(&format!("goscope_target_up{selector} is 1"), || {
        only("goscope_target_up").ok().filter(|up| value(up) == 1.0)
    })?;
    for metric in ["up", "goscope_target_up", "go_goroutines", "go_threads", "goscope_build_info"] {
        let series = only(metric)?;
        for (label, expected) in
            [("namespace", namespace), ("pod", pod), ("container", "goscope"), ("endpoint", "goscope-metrics")]
        {
            ensure!(series["metric"][label] == expected, "{label}: {series}");
        }
        ensure!(value(&series) >= 1.0, "{series}");
    }
    let build = only("goscope_build_info")?;
    ensure!(build["metric"]["version"] == env!("CARGO_PKG_VERSION"), "{build}");
    // A label of ours that the scrape had to rename would say that two things have one name.
    let all = monitoring.ask("series", &[format!("match[]={selector}")])?;
    let renamed = all.as_array().context("no series")?.iter().find(|labels| labels.to_string().contains("\"exported_"));
    ensure!(renamed.is_none(), "{renamed:?}");
    Ok(())
}

/// Every alert of the chart is loaded, and can be evaluated on these series.
fn alerts(monitoring: &Monitoring) -> anyhow::Result<()> {
    let shipped = include_str!("../../charts/debug-sidecar/files/alerts.yaml");
    let expected = shipped.lines().filter(|line| line.trim_start().starts_with("- alert:")).count();
    let loaded = || {
        let groups = monitoring.ask("rules", &["type=alert".to_owned()]).ok()?["groups"].take();
        let group = groups.as_array()?.iter().find(|group| group["name"] == "goscope")?;
        group["rules"].as_array().cloned()
    };
    let rules = monitoring.until("every alert was evaluated", || {
        loaded().filter(|rules| rules.iter().all(|rule| rule["health"] != "unknown"))
    })?;
    ensure!(rules.len() == expected, "{expected} alerts are shipped, loaded are {rules:?}");
    let broken = rules.iter().find(|rule| rule["health"] != "ok");
    ensure!(broken.is_none(), "{broken:?}");
    Ok(())
}
