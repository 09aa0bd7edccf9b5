use super::*;

const PPROF: Heard = Heard::Pprof { profiles: 11, vars: false };

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn addresses(texts: &[&str]) -> BTreeSet<SocketAddr> {
    texts.iter().map(|text| address(text)).collect()
}

fn asked(known: &mut Known, listening: &[&str], own: &[&str]) -> Vec<String> {
    let own: Vec<SocketAddr> = own.iter().map(|text| address(text)).collect();
    known.round(&addresses(listening), &own).ask.iter().map(SocketAddr::to_string).collect()
}

#[test]
fn reach_is_by_the_address_that_is_listened_on() {
    for (text, expected) in [
        ("127.0.0.1:1", Reach::Loopback),
        ("127.9.9.9:1", Reach::Loopback),
        ("[::1]:1", Reach::Loopback),
        ("[::ffff:127.0.0.1]:1", Reach::Loopback),
        ("0.0.0.0:1", Reach::Network),
        ("[::]:1", Reach::Network),
        ("10.1.2.3:1", Reach::Network),
        ("[fd00::1]:1", Reach::Network),
    ] {
        assert_eq!(Reach::of(address(text)), expected, "{text}");
    }
}

#[test]
fn a_wildcard_is_asked_by_loopback() {
    for (text, expected) in [
        ("0.0.0.0:6060", &["127.0.0.1:6060"][..]),
        ("[::]:6060", &["[::1]:6060", "127.0.0.1:6060"]),
        ("127.0.0.1:6060", &["127.0.0.1:6060"]),
        ("10.1.2.3:6060", &["10.1.2.3:6060"]),
        ("[fd00::1]:6060", &["[fd00::1]:6060"]),
    ] {
        let doors: Vec<String> = doors(address(text)).iter().map(SocketAddr::to_string).collect();
        assert_eq!(doors, expected, "{text}");
    }
}

#[test]
fn all_but_our_own_are_asked_and_the_silent_only_once() {
    let mut known = Known::default();
    let listening = ["0.0.0.0:80", "127.0.0.1:6060", "127.0.0.1:6061", "0.0.0.0:9464"];
    let own = ["127.0.0.1:6061", "0.0.0.0:9464"];
    assert_eq!(asked(&mut known, &listening, &own), ["0.0.0.0:80", "127.0.0.1:6060"]);
    known.heard(address("0.0.0.0:80"), Heard::Nothing);
    known.heard(address("127.0.0.1:6060"), Heard::Http);
    assert_eq!(asked(&mut known, &listening, &own), ["127.0.0.1:6060"]);
    // Another socket of the same port is another socket.
    let more = ["0.0.0.0:80", "127.0.0.1:6060", "10.1.2.3:6061"];
    assert_eq!(asked(&mut known, &more, &own), ["10.1.2.3:6061", "127.0.0.1:6060"]);
    // Gone once, it is new.
    assert_eq!(asked(&mut known, &["127.0.0.1:6060"], &own), ["127.0.0.1:6060"]);
    assert_eq!(asked(&mut known, &["0.0.0.0:80"], &own), ["0.0.0.0:80"]);
}

#[test]
fn a_round_has_a_bound_and_everyone_has_a_turn() {
    let all = |count: usize| -> BTreeSet<SocketAddr> {
        (1..=count).map(|port| SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()))).collect()
    };
    let mut known = Known::default();
    let round = known.round(&all(ASKED_MAX), &[]);
    assert_eq!((round.ask.len(), round.left_out), (ASKED_MAX, 0));
    let listening = all(ASKED_MAX + 1);
    let round = known.round(&listening, &[]);
    assert_eq!((round.ask.len(), round.left_out), (ASKED_MAX, 1));
    round.ask.iter().for_each(|address| known.heard(*address, Heard::Http));
    let round = known.round(&listening, &[]);
    assert_eq!((round.ask.len(), round.left_out), (ASKED_MAX, 1));
    assert_eq!(round.ask[0].port(), 33, "what was left out comes first");
    assert_eq!(round.ask[1].port(), 1, "then what was asked longest ago");
    round.ask.iter().for_each(|address| known.heard(*address, Heard::Http));
    assert_eq!(known.round(&listening, &[]).ask[0].port(), 32);
}

#[test]
fn what_is_exposed_stays_so_until_it_is_gone_or_says_otherwise() {
    let mut known = Known::default();
    let (pod, loopback) = (address("0.0.0.0:8080"), address("127.0.0.1:6060"));
    known.heard(loopback, PPROF);
    known.heard(pod, PPROF);
    let both = BTreeSet::from([(Reach::Network, pod), (Reach::Loopback, loopback)]);
    assert_eq!(known.exposed(), both);
    known.heard(pod, Heard::Nothing);
    assert_eq!(known.exposed(), both, "the app may be busy");
    known.heard(pod, Heard::Http);
    assert_eq!(known.exposed(), BTreeSet::from([(Reach::Loopback, loopback)]));
    known.round(&BTreeSet::from([pod]), &[]);
    assert_eq!(known.exposed(), BTreeSet::new());
}

#[test]
fn a_finding_says_who_gets_past_and_how_to_close_it() {
    let mut known = Known::default();
    known.heard(address("0.0.0.0:8080"), Heard::Pprof { profiles: 11, vars: true });
    known.heard(address("127.0.0.1:6060"), PPROF);
    known.heard(address("127.0.0.1:7000"), Heard::Http);
    let findings = known.findings(&TargetAddress::Tcp(address("127.0.0.1:6060")));
    let [network, loopback] = &findings[..] else { panic!("{findings:?}") };
    let lines = "import (\"net\"; \"net/http\"; _ \"net/http/pprof\"; \"os\")\nos.Remove(\"/run/goscope/debug.sock\") // first lines of main\n\
                 if l, err := net.Listen(\"unix\", \"/run/goscope/debug.sock\"); err == nil { go http.Serve(l, nil) }";
    assert_eq!(
        *network,
        Finding {
            id: "bypass",
            severity: Severity::Error,
            claim: "pprof answers at 0.0.0.0:8080 without a token: whoever reaches the pod on the network gets past the gate".to_owned(),
            evidence: vec![
                "GET /debug/pprof/ at 0.0.0.0:8080 lists 11 profiles".to_owned(),
                "GET /debug/vars at 0.0.0.0:8080 answers too".to_owned(),
            ],
            next: format!(
                "Set the chart's value debug-sidecar.sealed.enabled=true, and serve pprof on a unix socket and take it off that port:\n{lines}"
            ),
        }
    );
    assert_eq!((loopback.severity, loopback.evidence.len()), (Severity::Warning, 1));
    assert!(loopback.claim.contains("127.0.0.1:6060") && loopback.claim.contains("port-forward"), "{}", loopback.claim);
    assert!(
        loopback.next.ends_with(&format!("serve pprof on a unix socket in place of the port:\n{lines}")),
        "{}",
        loopback.next
    );
    // Sealed already, and open all the same.
    let sealed = known.findings(&TargetAddress::Unix("/run/app/d.sock".into()));
    assert!(sealed[0].next.starts_with("The app serves pprof on /run/app/d.sock already; take it off 0.0.0.0:8080."));
}

#[test]
fn a_tcp_target_is_stated_where_nothing_is_probed() {
    let finding = unsealed(&TargetAddress::Tcp(address("127.0.0.1:6060"))).unwrap();
    assert_eq!((finding.id, finding.severity), ("bypass", Severity::Info));
    assert!(finding.claim.contains("127.0.0.1:6060"), "{}", finding.claim);
    assert_eq!(unsealed(&TargetAddress::Unix("/run/app/d.sock".into())), None);
}
