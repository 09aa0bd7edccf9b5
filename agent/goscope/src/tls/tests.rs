use std::path::Path;
use std::process::Command;

use prometheus::Registry;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use super::*;

/// A folder with pairs that openssl made, and a keeper of `cert.pem` and `key.pem` in it.
struct Place {
    folder: TempDir,
    registry: Registry,
    keeper: Arc<Keeper>,
}

impl Place {
    fn new(client_ca: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let files =
            TlsFiles { cert: path("cert.pem"), key: path("key.pem"), client_ca: client_ca.then(|| path("ca.pem")) };
        let registry = Registry::new();
        let keeper = Arc::new(Keeper::new(files, RemoteMetrics::register(&registry).unwrap()));
        Self { folder, registry, keeper }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts files in their places as an exchange would: by renaming, so that each is another file.
    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path("new"), content).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn put_pair(&self, pair: &(Vec<u8>, Vec<u8>)) {
        self.put("cert.pem", &pair.0);
        self.put("key.pem", &pair.1);
    }

    fn problem(&self) -> String {
        match self.keeper.reload() {
            Reload::Broken(problem) => problem.replace(&format!("{}/", self.folder.path().display()), ""),
            other => panic!("{other:?}"),
        }
    }

    fn series(&self) -> String {
        crate::metrics::encode(&self.registry).unwrap()
    }
}

/// A self-signed certificate and its key, in PEM.
fn made(names: &str, days: u32) -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let days = days.to_string();
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=t"]);
    command.args(["-days", &days, "-addext", &format!("subjectAltName={names}")]);
    let output = command.arg("-keyout").arg(path("k")).arg("-out").arg(path("c")).output().expect("openssl starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |path: &Path| std::fs::read(path).unwrap();
    (read(&path("c")), read(&path("k")))
}

/// A certificate with these alternative names.
pub(crate) fn certificate(names: &str) -> Arc<Certificate> {
    let place = Place::new(false);
    place.put_pair(&made(names, 30));
    assert!(matches!(place.keeper.reload(), Reload::Loaded(_)));
    let current = place.keeper.current.read().unwrap();
    Arc::clone(&current.as_ref().expect("loaded").certificate)
}

#[test]
fn a_bad_pair_changes_nothing_and_a_good_one_everything() {
    let place = Place::new(false);
    assert_eq!(place.problem(), "cert.pem: No such file or directory (os error 2)");
    assert!(place.series().contains("goscope_remote_certificate_broken 1\n"), "{}", place.series());
    assert!(!place.series().contains("expiry_timestamp_seconds"), "{}", place.series());

    let (first, second) = (made("DNS:a.example", 30), made("DNS:b.example", 60));
    place.put_pair(&first);
    let Reload::Loaded(end) = place.keeper.reload() else { panic!("not loaded") };
    let days = (end.as_second() - jiff::Timestamp::now().as_second()) / 86_400;
    assert!((29..=30).contains(&days), "{end}");
    assert_eq!(place.keeper.reload(), Reload::Unchanged);
    let expiry = format!("goscope_remote_certificate_expiry_timestamp_seconds {}\n", end.as_second());
    assert!(place.series().contains(&expiry), "{}", place.series());

    let text = String::from_utf8(second.1.clone()).unwrap();
    let secret = text.lines().nth(1).unwrap();
    for (name, content, expected) in [
        ("cert.pem", second.0.clone(), "key.pem: this key does not belong to the certificate in "),
        ("cert.pem", b"nonsense".to_vec(), "cert.pem: expected a certificate in PEM, found none"),
        (
            "cert.pem",
            second.0[..200].to_vec(),
            "cert.pem: expected a certificate in PEM, found one without its END line",
        ),
        (
            "key.pem",
            second.1[..second.1.len() - 20].to_vec(),
            "key.pem: expected a private key in PEM, found one without its END line",
        ),
        (
            "key.pem",
            text.replace(secret, &secret.replace('M', "-M")).into_bytes(),
            "key.pem: expected a private key in PEM, found one that is not well-formed",
        ),
        ("key.pem", vec![b'\n'; pair::FILE_BYTES_MAX as usize + 1], "key.pem: larger than 1048576 bytes"),
    ] {
        place.put_pair(&first);
        place.keeper.reload();
        place.put(name, content);
        let problem = place.problem();
        assert!(problem.starts_with(expected), "{problem}");
        assert!(!problem.contains(&secret[4..20]), "{problem}");
        assert!(place.keeper.current.read().unwrap().as_ref().unwrap().certificate.is_for("a.example"));
        assert!(place.series().contains("goscope_remote_certificate_broken 1\n"));
        assert!(place.series().contains(&expiry));
    }

    // At the bound it is read.
    let mut padded = second.1.clone();
    padded.resize(pair::FILE_BYTES_MAX as usize, b'\n');
    place.put_pair(&(second.0, padded));
    assert!(matches!(place.keeper.reload(), Reload::Loaded(_)));
    assert!(place.keeper.current.read().unwrap().as_ref().unwrap().certificate.is_for("b.example"));
    assert!(place.series().contains("goscope_remote_certificate_broken 0\n"));
}

#[test]
fn a_client_authority_must_be_one() {
    let place = Place::new(true);
    let pair = made("DNS:a.example", 30);
    place.put_pair(&pair);
    assert_eq!(place.problem(), "ca.pem: No such file or directory (os error 2)");
    place.put("ca.pem", "");
    assert_eq!(place.problem(), "ca.pem: expected a certificate in PEM, found none");
    place.put("ca.pem", &pair.0);
    assert!(matches!(place.keeper.reload(), Reload::Loaded(_)));
}

#[test]
fn names_are_those_of_the_certificate_as_a_client_judges_them() {
    let certificate = certificate("DNS:shop.example,DNS:*.team.svc,IP:10.1.2.3");
    for (name, expected) in [
        ("shop.example", true),
        ("SHOP.example", true),
        ("debug.team.svc", true),
        ("team.svc", false),
        ("a.debug.team.svc", false),
        ("shop.example.evil.example", false),
        ("evil.example", false),
        ("t", false),
        ("10.1.2.3", false),
        ("", false),
        ("*.team.svc", false),
    ] {
        assert_eq!(certificate.is_for(name), expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_come_is_given_up() {
    let place = Place::new(false);
    let peer = "192.0.2.1:1".parse().unwrap();
    let shake = |bytes: &'static [u8]| {
        let keeper = Arc::clone(&place.keeper);
        async move {
            let (mut client, server) = tokio::io::duplex(1024);
            tokio::io::AsyncWriteExt::write_all(&mut client, bytes).await.unwrap();
            let shaken = keeper.shake(server, peer).await.is_some();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            (shaken, answer)
        }
    };
    assert_eq!(shake(b"").await, (false, Vec::new()));
    place.put_pair(&made("DNS:a.example", 30));
    place.keeper.reload();
    let before = tokio::time::Instant::now();
    assert!(!shake(b"\x16\x03\x01\x02\x00").await.0);
    assert_eq!(before.elapsed(), HANDSHAKE_TIME, "virtual time");
    let (shaken, answer) = shake(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    // A fatal alert, so that the other side knows what it spoke to.
    assert!(!shaken && answer.starts_with(&[0x15, 3, 3]), "{answer:?}");
    for (result, count) in [("no_certificate", 1), ("timed_out", 1), ("failed", 1), ("done", 0)] {
        let line = format!("goscope_remote_handshakes_total{{result=\"{result}\"}} {count}\n");
        assert!(place.series().contains(&line), "{line}{}", place.series());
    }
}
