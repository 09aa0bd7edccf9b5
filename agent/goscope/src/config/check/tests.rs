use super::super::SelfTestConfig;
use super::*;
use crate::config::render::{Comments, render};

fn none(_: &str) -> Option<String> {
    None
}

fn mistakes(text: &str, environment: Environment<'_>) -> Vec<String> {
    check(text, Config::sidecar(), environment).expect_err("has mistakes").iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_file_is_the_defaults() {
    for text in ["", "# nothing\n", "gate:\n", "{}"] {
        assert_eq!(check(text, Config::sidecar(), &none).unwrap(), Config::sidecar(), "{text:?}");
    }
}

#[test]
fn every_setting_reaches_its_place() {
    let text = r#"
target: { address: "unix:///run/goscope/debug.sock" }
listen:
  debug: "127.0.0.1:7061"
  metrics: "[::1]:7464"
  remote: { address: "0.0.0.0:6062", tls: { cert: /t/tls.crt, key: /t/tls.key, clientCa: /t/ca.crt } }
gate:
  tokens: { files: [/a/*.yaml, /b.yaml] }
  allow: ["!10.1.0.0/16", 10.0.0.0/8]
  limits:
    perSource: { rate: 30/m, burst: 2, nodelay: false, dryRun: true }
    perIdentity: { rate: 10/s, burst: 0 }
    api: { rate: 50/s, burst: 7, nodelay: false, dryRun: true }
  caps: { cpuSeconds: 120, traceSeconds: 5 }
intake: { spool: /s }
store: { path: /d, maxBytes: 2GiB, maxAge: 7d, reserveBytes: 1MiB }
selftest: { enabled: false, every: 1h }
"#;
    let config = check(text, Config::sidecar(), &none).unwrap();
    assert_eq!(config.target, TargetAddress::Unix("/run/goscope/debug.sock".into()));
    assert_eq!(config.listen.debug.to_string(), "127.0.0.1:7061");
    assert_eq!(config.listen.metrics.to_string(), "[::1]:7464");
    assert_eq!(config.gate.token_files, [PathBuf::from("/a/*.yaml"), PathBuf::from("/b.yaml")]);
    let tls = TlsFiles { cert: "/t/tls.crt".into(), key: "/t/tls.key".into(), client_ca: Some("/t/ca.crt".into()) };
    assert_eq!(config.listen.remote, Some(Remote { address: "0.0.0.0:6062".parse().unwrap(), tls }));
    assert!(config.gate.allow[0].deny && !config.gate.allow[1].deny);
    let per_source = LimitConfig { rate_per_kilosecond: 500, burst: 2, nodelay: false, dry_run: true };
    assert_eq!(config.gate.per_source, per_source);
    assert_eq!((config.gate.per_identity.rate_per_kilosecond, config.gate.per_identity.burst), (10_000, 0));
    let api = LimitConfig { rate_per_kilosecond: 50_000, burst: 7, nodelay: false, dry_run: true };
    assert_eq!(config.gate.api, api);
    assert_eq!((config.gate.caps.cpu_seconds, config.gate.caps.trace_seconds), (120, 5));
    assert_eq!(config.intake.spool, PathBuf::from("/s"));
    assert_eq!(
        (config.store.max_bytes, config.store.max_age.as_secs(), config.store.reserve_bytes),
        (2 << 30, 604_800, 1 << 20)
    );
    assert_eq!(config.selftest, SelfTestConfig { enabled: false, every: Duration::from_secs(3600) });
    // What is shown reads back as the same.
    for comments in [Comments::On, Comments::Off] {
        assert_eq!(check(&render(&config, comments), Config::sidecar(), &none).unwrap(), config);
    }
}

#[test]
fn every_mistake_is_reported_in_one_go_with_its_path_and_line() {
    let text = "target: { adress: 127.0.0.1:6060 }\nlisten:\n  debug: nonsense\ngate:\n  allow: [10.0.0.1/8]\n  caps: { cpuSeconds: 0 }\nstore: { maxAge: 5s }\nrule: []\n";
    let found = mistakes(text, &none);
    let expected = [
        "target.adress: unknown key (line 1); did you mean \"address\"?",
        "listen.debug: expected an address such as 127.0.0.1:6061 or [::1]:6061, found \"nonsense\" (line 3)",
        "gate.allow[0]: ",
        "gate.caps.cpuSeconds: expected whole seconds from 1 to 3600, found \"0\" (line 6)",
        "store.maxAge: expected at least 1m, found \"5s\" (line 7)",
        "rule: unknown key (line 8)",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn the_environment_wins_and_its_mistakes_are_named_too() {
    let environment = |name: &str| match name {
        "GOSCOPE_TARGET_ADDRESS" => Some("localhost:7000".to_owned()),
        "GOSCOPE_GATE_LIMITS_PER_SOURCE_RATE" => Some("2/s".to_owned()),
        "GOSCOPE_GATE_ALLOW" => Some("10.0.0.0/8, ::1/128".to_owned()),
        _ => None,
    };
    let config = check("target: { address: 127.0.0.1:1 }", Config::sidecar(), &environment).unwrap();
    assert_eq!(config.target, TargetAddress::Tcp("127.0.0.1:7000".parse().unwrap()));
    assert_eq!(config.gate.per_source.rate_per_kilosecond, 2000);
    assert_eq!(config.gate.allow.len(), 2);
    let wrong = |name: &str| (name == "GOSCOPE_STORE_MAX_AGE").then(|| "soon".to_owned());
    assert!(mistakes("", &wrong)[0].starts_with("GOSCOPE_STORE_MAX_AGE: expected a duration"));
}

#[test]
fn the_self_test_is_not_made_all_the_time() {
    let every = |text: &str| check(&format!("selftest: {{ every: {text} }}"), Config::sidecar(), &none);
    assert_eq!(every("10s").unwrap().selftest.every, Duration::from_secs(10));
    for (text, expected) in [("9999ms", "expected at least 10s, found \"9999ms\""), ("often", "expected a duration")] {
        let found = every(text).unwrap_err()[0].to_string();
        assert!(found.starts_with(&format!("selftest.every: {expected}")), "{found}");
    }
    let environment = |name: &str| (name == "GOSCOPE_SELFTEST_ENABLED").then(|| "false".to_owned());
    assert!(!check("", Config::sidecar(), &environment).unwrap().selftest.enabled);
}

#[test]
fn the_remote_listener_is_off_or_has_all_that_it_needs() {
    let remote =
        |text: &str| check(&format!("listen: {{ remote: {text} }}"), Config::sidecar(), &none).map(|c| c.listen.remote);
    for off in
        ["{}", "{ address: \"\" }", "{ address: \"\", tls: { cert: /c, key: \"\" } }", "{ tls: { cert: /c, key: /k } }"]
    {
        assert_eq!(remote(off).unwrap(), None, "{off}");
    }
    let on = remote("{ address: \"[::]:6062\", tls: { cert: /c, key: /k } }").unwrap().unwrap();
    assert_eq!((on.address.to_string().as_str(), on.tls.client_ca), ("[::]:6062", None));
    for (text, path) in [
        ("{ address: \"0.0.0.0:1\" }", &["listen.remote.tls.cert: missing", "listen.remote.tls.key: missing"][..]),
        ("{ address: \"0.0.0.0:1\", tls: { cert: /c } }", &["listen.remote.tls.key: missing"]),
        ("{ address: \"0.0.0.0:1\", tls: { key: /k, cert: \"\" } }", &["listen.remote.tls.cert: missing"]),
        ("{ address: everywhere, tls: { key: /k } }", &["listen.remote.address: expected an address"]),
        ("{ address: \"0.0.0.0:1\", tls: { cert: /c, key: /k, ca: /a } }", &["listen.remote.tls.ca: unknown key"]),
    ] {
        let found: Vec<String> = remote(text).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), path.len(), "{text}: {found:?}");
        for (found, path) in found.iter().zip(path) {
            assert!(found.starts_with(path), "{found}");
        }
    }
    // One variable turns it off.
    let environment = |name: &str| (name == "GOSCOPE_LISTEN_REMOTE_ADDRESS").then(String::new);
    let text = "listen: { remote: { address: \"0.0.0.0:1\", tls: { cert: /c, key: /k } } }";
    assert_eq!(check(text, Config::sidecar(), &environment).unwrap().listen.remote, None);
    let environment = |name: &str| (name == "GOSCOPE_LISTEN_REMOTE_TLS_CLIENT_CA").then(|| "/a".to_owned());
    let tls = check(text, Config::sidecar(), &environment).unwrap().listen.remote.unwrap().tls;
    assert_eq!(tls.client_ca, Some("/a".into()));
}

#[test]
fn targets() {
    let tcp = |text: &str| Ok(TargetAddress::Tcp(text.parse().unwrap()));
    for (text, expected) in [
        ("127.0.0.1:6060", tcp("127.0.0.1:6060")),
        ("http://127.0.0.1:6060/", tcp("127.0.0.1:6060")),
        ("http://localhost:6060", tcp("127.0.0.1:6060")),
        ("[::1]:6060", tcp("[::1]:6060")),
        ("unix:///run/debug.sock", Ok(TargetAddress::Unix("/run/debug.sock".into()))),
    ] {
        assert_eq!(parse_target(text), expected, "{text}");
    }
    for text in [
        "",
        "6060",
        "example.com:6060",
        "unix://relative",
        "unix://",
        "https://127.0.0.1:6060",
        "127.0.0.1:0",
        "http://127.0.0.1:6060/debug/pprof",
    ] {
        assert!(parse_target(text).is_err(), "{text}");
    }
    let error = parse_target("http://me:secret@example.com:1").unwrap_err();
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn what_can_be_understood_holds_for_who_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("goscope.yaml");
    let environment = |name: &str| (name == "GOSCOPE_LISTEN_METRICS").then(|| "127.0.0.1:1".to_owned());
    let salvaged = |text: Option<&str>| {
        drop(std::fs::remove_file(&path));
        text.iter().for_each(|text| std::fs::write(&path, text).unwrap());
        let (config, error) = salvage(Some(&path), Config::sidecar(), &environment);
        assert_eq!(config.listen.metrics.port(), 1, "the environment holds in any case");
        (config.store.max_bytes, error.map(|error| error.to_string()))
    };
    let default = Config::sidecar().store.max_bytes;
    assert_eq!(salvaged(Some("store: { maxBytes: 1MiB }")), (1 << 20, None));
    let (bytes, error) = salvaged(Some("store: { maxBytes: 1MiB, maxAge: never }\ntarget: { address: x }"));
    assert!(bytes == 1 << 20 && error.is_some_and(|error| error.contains("2 mistakes")));
    let (bytes, error) = salvaged(Some("store: { maxBytes: 1MiB"));
    assert!(bytes == default && error.is_some_and(|error| error.contains("not valid YAML")));
    let (bytes, error) = salvaged(None);
    assert!(bytes == default && error.is_some_and(|error| error.contains("cannot read")));
}
