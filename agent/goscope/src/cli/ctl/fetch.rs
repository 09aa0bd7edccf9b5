//! `fetch`: an artifact's bytes as a file; of an incident, all its files in a folder.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;

use super::api::Api;
use super::save::{PartFolder, To, clean, save, save_file};
use super::{EXIT_INTERRUPTED, Place, answer, interrupted, unless};
use crate::cluster::target::{Target, query_value};
use crate::store::INCIDENTS;

/// Files of one incident that are fetched.
const FILES_MAX: usize = 100;

/// Fetch an artifact to a file, or all files of an incident into a folder; prints where it is
///
/// What arrives is compared with the checksum that the agent has stored.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    before_help = "Example:\n  kubectl goscope fetch 2026-11-23T08-57-04Z-1f0c deploy/shop\n  kubectl goscope fetch 2026-11-23T08-57-04Z-1f0c deploy/shop -o - | goscope analyze -"
)]
pub(super) struct Args {
    /// As `artifacts` and `incidents` list it
    #[arg(value_name = "ID")]
    id: String,
    /// deploy/NAME, statefulset/NAME, daemonset/NAME, job/NAME, pod/NAME or the name of a pod
    #[arg(value_name = "TARGET", value_parser = Target::parse)]
    target: Option<Target>,
    /// The file or folder; - is standard output, of an incident its stderr. Without it the agent's name for it, here
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Artifact {
    kind: String,
    files: Vec<FileOf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FileOf {
    name: String,
}

impl Args {
    pub(super) async fn run(self, place: &Place) -> anyhow::Result<ExitCode> {
        let mut api = place.api(self.target.as_ref()).await?;
        match unless(interrupted(), fetch(&mut api, &self.id, self.output.as_deref(), self.force)).await? {
            Some(Some(path)) => answer(&format!("{}\n", path.display()))?,
            Some(None) => {}
            None => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Fetches an artifact and returns where it is, unless that is standard output.
pub(super) async fn fetch(
    api: &mut Api,
    id: &str,
    output: Option<&Path>,
    force: bool,
) -> anyhow::Result<Option<PathBuf>> {
    let path = format!("/api/v1/artifacts/{}", query_value(id));
    let artifact: Artifact = api.get(&path).await?;
    let is_stdout = output == Some(Path::new("-"));
    if artifact.kind == INCIDENTS && !is_stdout {
        return folder(api, &path, id, &artifact, output, force).await.map(Some);
    }
    let download = api.download(&format!("{path}/content")).await?;
    save(download, &To::of(output), &format!("{}-{id}", artifact.kind), force).await
}

async fn folder(
    api: &mut Api,
    path: &str,
    id: &str,
    artifact: &Artifact,
    output: Option<&Path>,
    force: bool,
) -> anyhow::Result<PathBuf> {
    let folder = output.map_or_else(|| PathBuf::from(format!("incident-{}", clean(id))), Path::to_owned);
    let part = PartFolder::create(&folder, force)?;
    for file in artifact.files.iter().take(FILES_MAX) {
        let name = clean(&file.name);
        if name.is_empty() {
            continue;
        }
        let download = api.download(&format!("{path}/content?file={}", query_value(&file.name))).await?;
        // Two names may come to the same here; the latter stays.
        save_file(download, &part.path().join(&name), &name, true).await?;
    }
    part.finish()
}

#[cfg(test)]
mod tests {
    use super::super::api::tests::client;
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{self, Poll};

    use axum::Router;
    use axum::body::{Body, Bytes};
    use axum::extract::RawQuery;
    use axum::routing::get;
    use http::StatusCode;
    use http::header::{CONTENT_DISPOSITION, ETAG};

    use crate::token::Digest;

    const PROFILE: &[u8] = b"\x1f\x8bprofile";

    /// A body that begins and never ends.
    #[derive(Default)]
    struct Endless {
        has_begun: bool,
    }

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            if std::mem::replace(&mut self.has_begun, true) {
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(PROFILE)))))
        }
    }

    fn router() -> Router {
        let item = get(async || r#"{"id": "a-1", "kind": "heap", "files": [{"name": "content.gz"}]}"#);
        let content = |bytes: &'static [u8], sum: &'static [u8]| {
            get(async move || {
                let tag = format!("\"{}\"", Digest::of(sum).hex());
                ([(ETAG, tag), (CONTENT_DISPOSITION, "attachment; filename=\"shop-heap.pb.gz\"".to_owned())], bytes)
            })
        };
        let incident = get(
            async || r#"{"id": "i-1", "kind": "incidents", "files": [{"name": "stderr.txt"}, {"name": "../exit.json"}, {"name": ".."}]}"#,
        );
        let files = get(async |RawQuery(query): RawQuery| match query.as_deref() {
            Some("file=stderr.txt") | None => Ok("panic: boom\n"),
            Some("file=..%2Fexit.json") => Ok("{}"),
            _ => Err(StatusCode::NOT_FOUND),
        });
        Router::new()
            .route("/api/v1/artifacts/a-1", item.clone())
            .route("/api/v1/artifacts/a-1/content", content(PROFILE, PROFILE))
            .route("/api/v1/artifacts/a-2", item)
            .route("/api/v1/artifacts/a-2/content", content(PROFILE, b"another"))
            .route("/api/v1/artifacts/i-1", incident)
            .route("/api/v1/artifacts/i-2", get(async || r#"{"id": "i-2", "kind": "incidents", "files": [{"name": "stderr.txt"}, {"name": "gone"}]}"#))
            .route("/api/v1/artifacts/i-2/content", files.clone())
            .route("/api/v1/artifacts/a-3", get(async || r#"{"id": "a-3", "kind": "heap"}"#))
            .route("/api/v1/artifacts/a-3/content", get(async || Body::new(Endless::default())))
            .route("/api/v1/artifacts/i-1/content", files)
    }

    #[tokio::test]
    async fn a_file_under_the_agents_name_verified_and_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut api, _stop) = client(router()).await;
        let path = fetch(&mut api, "a-1", Some(folder.path()), false).await.expect("fetched").expect("a file");
        assert_eq!(path, folder.path().join("shop-heap.pb.gz"));
        assert_eq!(fs::read(&path).expect("there"), PROFILE);
        let said = format!("{:#}", fetch(&mut api, "a-1", Some(&path), false).await.expect_err("there already"));
        assert!(said.contains("is there already"), "{said}");
        fetch(&mut api, "a-1", Some(&path), true).await.expect("forced");

        let named = folder.path().join("b");
        let said = format!("{:#}", fetch(&mut api, "a-2", Some(&named), false).await.expect_err("other bytes"));
        assert!(said.contains("another checksum"), "{said}");
        assert!(
            !named.exists() && fs::read_dir(folder.path()).expect("a folder").count() == 1,
            "nothing of it is left"
        );
        assert!(fetch(&mut api, "nowhere", Some(&named), false).await.is_err());
    }

    #[tokio::test]
    async fn of_an_incident_all_files_in_a_folder_and_none_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut api, _stop) = client(router()).await;
        let to = folder.path().join("incident");
        let path = fetch(&mut api, "i-1", Some(&to), false).await.expect("fetched").expect("a folder");
        assert_eq!(path, to);
        let mut names: Vec<_> =
            fs::read_dir(&to).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        assert_eq!(names, ["exit.json", "stderr.txt"]);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        assert!(fetch(&mut api, "i-1", Some(&to), false).await.is_err(), "there already");
        fs::write(to.join("mine"), "").expect("written");
        fetch(&mut api, "i-1", Some(&to), true).await.expect("forced");
        assert_eq!(fs::read_dir(&to).expect("a folder").count(), 3, "the part is gone, and what else was there is not");

        // What breaks in the middle leaves what was there, and nothing where nothing was.
        let broken = folder.path().join("broken");
        assert!(fetch(&mut api, "i-2", Some(&broken), false).await.is_err());
        assert!(fetch(&mut api, "i-2", Some(&to), true).await.is_err());
        assert_eq!(fs::read_dir(&to).expect("a folder").count(), 3);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        fs::write(&broken, "").expect("written");
        assert!(fetch(&mut api, "i-1", Some(&broken), true).await.is_err(), "no folder");
    }

    #[tokio::test]
    async fn evidence_is_its_owners_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut api, _stop) = client(router()).await;
        let file = fetch(&mut api, "a-1", Some(folder.path()), false).await.expect("fetched").expect("a file");
        let to =
            fetch(&mut api, "i-1", Some(&folder.path().join("i")), false).await.expect("fetched").expect("a folder");
        for (path, expected) in [(&file, 0o600), (&to, 0o700), (&to.join("stderr.txt"), 0o600)] {
            assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, expected, "{}", path.display());
        }
    }

    #[tokio::test]
    async fn a_download_that_is_interrupted_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut api, _stop) = client(router()).await;
        let begun = async {
            while fs::read_dir(folder.path()).expect("a folder").count() == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let to = folder.path().join("heap");
        let ended = unless(begun, fetch(&mut api, "a-3", Some(&to), false)).await;
        assert_eq!(ended.expect("no failure"), None);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
