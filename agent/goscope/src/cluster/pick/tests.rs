use super::*;
use serde_json::{Value, json};

fn pod(name: &str, minute: u32, phase: &str, ready: bool) -> Value {
    json!({
        "metadata": {"name": name, "creationTimestamp": format!("2026-11-23T08:{minute:02}:00Z")},
        "spec": {"containers": [{"name": "shop"}], "initContainers": [{"name": "goscope", "ports": [{"name": "goscope-debug", "containerPort": 7061}]}]},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    })
}

fn chosen(pods: &[Value], target: &str) -> Result<Picked, String> {
    let pods = pods.iter().map(|pod| serde_json::from_value(pod.clone()).expect("a pod")).collect();
    choose(pods, &Target::parse(target).expect("a target"), None)
}

#[test]
fn the_newest_that_is_ready() {
    let a = pod("a", 1, "Running", true);
    let b = pod("b", 2, "Running", true);
    let unready = pod("c", 3, "Running", false);
    let mut leaving = pod("d", 4, "Running", true);
    leaving["metadata"]["deletionTimestamp"] = "2026-11-23T09:00:00Z".into();
    let picked = |pods: &[&Value]| {
        let pods: Vec<_> = pods.iter().map(|pod| (*pod).clone()).collect();
        let picked = chosen(&pods, "deploy/shop").expect("a pod");
        assert_eq!(picked.port, 7061);
        (picked.pod, picked.notes.join("; "))
    };
    let expect = |pod: &str, notes: &str| (pod.to_owned(), notes.to_owned());
    assert_eq!(picked(&[&a, &b, &unready, &leaving]), expect("b", "pod b, the newest that is ready of 3"));
    assert_eq!(picked(&[&b, &a]), expect("b", "pod b, the newest that is ready of 2"));
    assert_eq!(picked(&[&a, &leaving]), expect("a", "pod a"));
    assert_eq!(picked(&[&unready]), expect("c", "pod c; pod c is not ready"));
    assert_eq!(chosen(&[a], "pod/a").expect("a pod").notes, Vec::<String>::new());
}

#[test]
fn no_running_pod_is_told_with_its_state() {
    let mut pulling = pod("a", 1, "Pending", false);
    pulling["status"]["containerStatuses"] = json!([{"name": "shop", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}}]);
    let mut evicted = pod("b", 1, "Failed", false);
    evicted["status"]["reason"] = "Evicted".into();
    let mut leaving = pod("c", 4, "Running", true);
    leaving["metadata"]["deletionTimestamp"] = "2026-11-23T09:00:00Z".into();
    let done = pod("d", 5, "Succeeded", false);
    assert_eq!(
        chosen(&[pulling, evicted, leaving, done], "deploy/shop"),
        Err("deployment shop has no running pod: pod a is Pending (ImagePullBackOff), pod b is Failed (Evicted), pod c is being deleted and 1 more"
            .to_owned())
    );
    assert_eq!(chosen(&[], "job/tally"), Err("job tally has no pods".to_owned()));
}

#[test]
fn the_port() {
    let check = |change: &dyn Fn(&mut Value), expected: Option<u16>| {
        let mut pod = pod("a", 1, "Running", true);
        change(&mut pod);
        assert_eq!(port_of(&serde_json::from_value(pod.clone()).expect("a pod")), expected, "{pod}");
    };
    check(&|_| {}, Some(7061));
    check(&|pod| pod["spec"]["initContainers"] = json!([{"name": "goscope"}]), Some(PORT));
    check(&|pod| pod["spec"]["initContainers"] = json!([{"name": "other"}]), None);
    // An ordinary container, for clusters without native sidecars.
    check(
        &|pod| {
            pod["spec"]["containers"] = pod["spec"]["initContainers"].take();
        },
        Some(7061),
    );
    let attach = |pod: &mut Value, state: Value| {
        pod["spec"]["initContainers"] = Value::Null;
        pod["spec"]["ephemeralContainers"] =
            json!([{"name": "goscope-1", "env": [{"name": ATTACHED_LISTEN, "value": "127.0.0.1:7777"}]}]);
        pod["status"]["ephemeralContainerStatuses"] = json!([{"name": "goscope-1", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
    };
    check(&|pod| attach(pod, json!({"running": {}})), Some(7777));
    check(&|pod| attach(pod, json!({"terminated": {"exitCode": 0}})), None);
}

#[test]
fn a_pod_without_goscope_is_told_what_to_do() {
    let mut bare = pod("a", 1, "Running", true);
    bare["spec"]["initContainers"] = Value::Null;
    let said = chosen(&[bare.clone()], "pod/a").expect_err("without goscope");
    assert!(said.contains("goscope.dev/inject") && said.contains("attach a") && said.contains("--port"), "{said}");
    bare["metadata"]["annotations"] = json!({"goscope.dev/missing": "agent: the pod uses the node's network"});
    assert_eq!(
        chosen(&[bare.clone()], "pod/a").expect_err("without goscope"),
        "goscope is not in pod a; its injection said: agent: the pod uses the node's network"
    );
    // Whoever may annotate a pod does not drive the terminal of whoever asks for it.
    bare["metadata"]["annotations"] = json!({"goscope.dev/missing": "\u{1b}[2Jgone\n"});
    assert_eq!(
        chosen(&[bare.clone()], "pod/a").expect_err("without goscope"),
        "goscope is not in pod a; its injection said: \\u{1b}[2Jgone"
    );
    let pods = vec![serde_json::from_value(bare).expect("a pod")];
    assert_eq!(choose(pods, &Target::Pod("a".to_owned()), Some(9)).map(|picked| picked.port), Ok(9));
}
