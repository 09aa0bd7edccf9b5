use super::*;

fn asked() -> Asked {
    Asked {
        verbs: &["create", "get"],
        group: "",
        resource: "pods/portforward",
        name: Some("shop-0".to_owned()),
        namespace: "shop".to_owned(),
        server: "https://127.0.0.1:6443".to_owned(),
    }
}

fn said(code: u16, reason: &str, message: &str) -> String {
    let status = Status::failure(message, reason).with_code(code);
    explain(kube::Error::Api(status.boxed()), &asked()).to_string()
}

#[test]
fn a_missing_permission_is_named_with_a_role_that_gives_it() {
    let role = "  apiVersion: rbac.authorization.k8s.io/v1\n  kind: Role\n  metadata: {name: goscope-user, namespace: shop}\n  \
                rules:\n  - {apiGroups: [\"\"], resources: [pods/portforward], verbs: [create, get]}";
    let message = "pods \"shop-0\" is forbidden: User \"jane\" cannot create resource \"pods/portforward\" in API group \"\" in the namespace \"shop\"";
    assert_eq!(
        said(403, "Forbidden", message),
        format!("you may not create pods/portforward in namespace shop; ask for:\n{role}")
    );
    // A proxy in between that says nothing.
    assert_eq!(
        said(403, "", ""),
        format!("you may not create and get pods/portforward in namespace shop; ask for:\n{role}")
    );
}

#[test]
fn what_no_role_changes_is_told_as_it_is() {
    let message = "pods \"shop-0\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true";
    assert_eq!(said(403, "Forbidden", message), format!("the API server refuses: {message}"));
    assert_eq!(said(422, "Invalid", "a\nb\u{1b}[2J"), "the API server refuses: a⏎ b\\u{1b}[2J");
    assert_eq!(said(500, "", ""), "the API server refuses: status 500");
    let long = "x".repeat(SAID_CHARS_MAX);
    assert_eq!(said(500, "", &long), format!("the API server refuses: {long}"));
    assert_eq!(said(500, "", &format!("{long}y")), format!("the API server refuses: {long}…"));
}

#[test]
fn an_absent_object_and_stale_credentials() {
    assert_eq!(said(404, "NotFound", "pods \"shop-0\" not found"), "there is no pod shop-0 in namespace shop");
    assert_eq!(
        said(401, "Unauthorized", "Unauthorized"),
        "the API server https://127.0.0.1:6443 does not accept your credentials: they are wrong or have expired; log in again, or choose another \
         --context"
    );
}

#[test]
fn an_unreachable_server_is_told_by_its_innermost_cause() {
    let refused = std::io::Error::from_raw_os_error(111);
    let error = kube::Error::Service(Box::new(std::io::Error::other(refused)));
    assert!(
        explain(error, &asked())
            .to_string()
            .starts_with("the API server https://127.0.0.1:6443 cannot be reached: Connection refused"),
    );
}

#[test]
fn what_a_credential_plugin_printed_stays_hidden() {
    use std::os::unix::process::ExitStatusExt as _;
    let out = std::process::Output {
        status: std::process::ExitStatus::from_raw(256),
        stdout: b"{\"token\": \"hunter2\"}".to_vec(),
        stderr: b"line one\nplease log in\n\n".to_vec(),
    };
    let failed = AuthError::AuthExecRun { cmd: "aws-iam".to_owned(), out: Box::new(out) };
    let sentence = explain(kube::Error::Service(Box::new(failed)), &asked()).to_string();
    assert_eq!(sentence, "the credential plugin aws-iam of your kubeconfig failed (exit status: 1): please log in");
}

#[test]
fn kubeconfigs() {
    let missing = std::io::Error::from_raw_os_error(2);
    for (error, context, expected) in [
        (
            KubeconfigError::ReadConfig(missing, "/nowhere/config".into()),
            None,
            "there is no kubeconfig /nowhere/config; name one with --kubeconfig or $KUBECONFIG, or work without a cluster by --url \
             http://127.0.0.1:6061",
        ),
        (
            KubeconfigError::LoadContext("current".to_owned()),
            Some("prod"),
            "the kubeconfig holds no context \"prod\"; `kubectl config get-contexts` lists them",
        ),
        (
            KubeconfigError::CurrentContextNotSet,
            None,
            "the kubeconfig names no current context; choose one with --context",
        ),
        (
            KubeconfigError::LoadClientCertificate(LoadDataError::ReadFile(
                std::io::Error::from_raw_os_error(13),
                "/c.pem".into(),
            )),
            None,
            "the client certificate /c.pem of your kubeconfig cannot be read: Permission denied (os error 13)",
        ),
    ] {
        assert_eq!(of_kubeconfig(&error, context).to_string(), expected);
    }
}
