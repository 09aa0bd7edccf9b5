use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower::ServiceExt as _;

use super::*;
use crate::token::Digest;

/// Secrets by name, as an API server keeps them.
type Kept = Arc<Mutex<BTreeMap<String, Value>>>;

fn status(code: StatusCode, reason: &str, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": message});
    (code, body.to_string()).into_response()
}

async fn read_one(State(kept): State<Kept>, Path(name): Path<String>) -> Response {
    match kept.lock().unwrap().get(&name) {
        Some(secret) => secret.to_string().into_response(),
        None => status(StatusCode::NOT_FOUND, "NotFound", &format!("secrets {name:?} not found")),
    }
}

async fn create_one(State(kept): State<Kept>, body: String) -> Response {
    let secret: Value = serde_json::from_str(&body).unwrap();
    let name = secret["metadata"]["name"].as_str().unwrap().to_owned();
    let mut kept = kept.lock().unwrap();
    if kept.contains_key(&name) {
        return status(StatusCode::CONFLICT, "AlreadyExists", "already exists");
    }
    kept.insert(name, secret.clone());
    (StatusCode::CREATED, secret.to_string()).into_response()
}

async fn refuse() -> Response {
    let message = "secrets is forbidden: User \"jane\" cannot create resource \"secrets\" in API group \"\" in the namespace \"shop\"";
    status(StatusCode::FORBIDDEN, "Forbidden", message)
}

/// An API server that knows Secrets of the namespace `shop`.
async fn serve(kept: Kept, may_create: bool) -> (Cluster, tempfile::TempDir) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let all = if may_create { post(create_one) } else { post(refuse) };
    let router = Router::new()
        .route("/api/v1/namespaces/shop/secrets", all)
        .route("/api/v1/namespaces/shop/secrets/{name}", get(read_one))
        .with_state(kept);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let router = router.clone();
            let service = hyper::service::service_fn(move |request| router.clone().oneshot(request));
            let stream = hyper_util::rt::TokioIo::new(stream);
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(stream, service);
            tokio::spawn(connection);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("config");
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: a, cluster: {{server: 'http://{address}'}}}}]\nusers: [{{name: a, user: {{}}}}]\n\
         contexts: [{{name: a, context: {{cluster: a, user: a, namespace: shop}}}}]\ncurrent-context: a\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let access = Access { kubeconfig: Some(kubeconfig), ..Access::default() };
    (Cluster::open(&access).await.unwrap(), folder)
}

fn args() -> Args {
    Args {
        name: "goscope-tokens".to_owned(),
        clear: "goscope-token".to_owned(),
        token_name: "first".to_owned(),
        tiers: vec![Tier::Basic, Tier::Cpu],
        namespace: None,
    }
}

fn text(kept: &Kept, name: &str, key: &str) -> String {
    let encoded = kept.lock().unwrap()[name]["data"][key].as_str().unwrap().to_owned();
    String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
}

#[tokio::test]
async fn both_are_made_once_and_fit_together() {
    let kept = Kept::default();
    let (cluster, _folder) = serve(Arc::clone(&kept), true).await;
    let said = args().make(&cluster).await.unwrap();
    let token = text(&kept, "goscope-token", "token");
    assert!(Token::parse(&token).is_ok() && !said.contains(&token), "{said}");
    let file = text(&kept, "goscope-tokens", "tokens.yaml");
    let entries = file::parse(&file).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((&*entries[0].name, entries[0].sha256), ("first", Digest::of(token.as_bytes())));
    assert_eq!(entries[0].tiers, [Tier::Basic, Tier::Cpu].into_iter().collect());
    assert!(!file.contains(&token));

    let before = kept.lock().unwrap().clone();
    let said = args().make(&cluster).await.unwrap();
    assert!(said.contains("stays as it is"), "{said}");
    assert_eq!(*kept.lock().unwrap(), before);
}

#[tokio::test]
async fn what_was_begun_is_finished_for_the_same_token() {
    let kept = Kept::default();
    let token = Token::generate().unwrap();
    let begun = object("goscope-token", CLEAR_KEY, &format!("{}\n", token.reveal()));
    kept.lock().unwrap().insert("goscope-token".to_owned(), begun.clone());
    let (cluster, _folder) = serve(Arc::clone(&kept), true).await;
    args().make(&cluster).await.unwrap();
    assert!(text(&kept, "goscope-tokens", "tokens.yaml").contains(&token.sha256().hex()));
    assert_eq!(kept.lock().unwrap()["goscope-token"], begun);
}

/// An administrator who has given the token away and deleted it is not given another one.
#[tokio::test]
async fn the_clear_one_does_not_come_back() {
    let kept = Kept::default();
    let own = object("goscope-tokens", FILE_KEY, "tokens: []\n");
    kept.lock().unwrap().insert("goscope-tokens".to_owned(), own);
    let (cluster, _folder) = serve(Arc::clone(&kept), true).await;
    args().make(&cluster).await.unwrap();
    assert!(!kept.lock().unwrap().contains_key("goscope-token"));
}

#[tokio::test]
async fn something_else_is_left_alone_and_not_shown() {
    let binary = json!({"data": {"token": STANDARD.encode([0xff, 0xfe])}});
    for strange in [
        object("goscope-token", CLEAR_KEY, "hunter2"),
        object("goscope-token", "password", "hunter2"),
        json!({"metadata": {"name": "goscope-token"}}),
        binary,
    ] {
        let kept = Kept::default();
        kept.lock().unwrap().insert("goscope-token".to_owned(), strange.clone());
        let (cluster, _folder) = serve(Arc::clone(&kept), true).await;
        let error = format!("{:#}", args().make(&cluster).await.unwrap_err());
        assert!(error.contains("delete it, and it is made"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        assert_eq!(kept.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let (cluster, _folder) = serve(Kept::default(), false).await;
    let error = format!("{:#}", args().make(&cluster).await.unwrap_err());
    assert!(error.contains("you may not create secrets in namespace shop"), "{error}");
}

#[tokio::test]
async fn the_clear_secret_must_not_be_the_mounted_one() {
    let kept = Kept::default();
    let (cluster, _folder) = serve(Arc::clone(&kept), true).await;
    let same = Args { clear: "goscope-tokens".to_owned(), ..args() };
    assert!(same.make(&cluster).await.is_err());
    assert!(kept.lock().unwrap().is_empty());
}
