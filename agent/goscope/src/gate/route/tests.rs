use super::*;
use http::HeaderValue;
use proptest::prelude::*;

use crate::token::tier::Tier;

const CAPS: Caps = Caps { cpu_seconds: 60, trace_seconds: 30 };

type Headers = &'static [(&'static str, &'static str)];

fn ask(method: &str, target: &str) -> Result<Routed, Refusal> {
    let uri: Uri = target.parse().unwrap();
    route(&method.parse().unwrap(), &uri, Version::HTTP_11, &HeaderMap::new(), &CAPS)
}

fn get(target: &str) -> Result<Routed, Refusal> {
    ask("GET", target)
}

#[test]
fn what_is_served_and_what_it_takes() {
    let cases = [
        ("/debug/pprof/", "/debug/pprof/", Tier::Basic, 0),
        ("/debug/pprof/?", "/debug/pprof/", Tier::Basic, 0),
        ("/debug/pprof/allocs", "/debug/pprof/allocs", Tier::Basic, 0),
        ("/debug/pprof/block?debug=1", "/debug/pprof/block?debug=1", Tier::Basic, 0),
        ("/debug/pprof/cmdline", "/debug/pprof/cmdline", Tier::Cmdline, 0),
        ("/debug/pprof/goroutine", "/debug/pprof/goroutine", Tier::Basic, 0),
        ("/debug/pprof/goroutine?debug=1", "/debug/pprof/goroutine?debug=1", Tier::Basic, 0),
        ("/debug/pprof/goroutine?debug=2", "/debug/pprof/goroutine?debug=2", Tier::Dump, 0),
        ("/debug/pprof/goroutineleak?debug=2", "/debug/pprof/goroutineleak?debug=2", Tier::Dump, 0),
        ("/debug/pprof/goroutineleak", "/debug/pprof/goroutineleak", Tier::Basic, 0),
        ("/debug/pprof/heap?gc=1&debug=0&seconds=5", "/debug/pprof/heap?seconds=5&debug=0&gc=1", Tier::Basic, 5000),
        ("/debug/pprof/mutex?seconds=60", "/debug/pprof/mutex?seconds=60", Tier::Basic, 60_000),
        ("/debug/pprof/profile", "/debug/pprof/profile", Tier::Cpu, 30_000),
        ("/debug/pprof/profile?seconds=2", "/debug/pprof/profile?seconds=2", Tier::Cpu, 2000),
        ("/debug/pprof/symbol", "/debug/pprof/symbol", Tier::Basic, 0),
        ("/debug/pprof/threadcreate", "/debug/pprof/threadcreate", Tier::Basic, 0),
        ("/debug/pprof/trace", "/debug/pprof/trace", Tier::Trace, 1000),
        ("/debug/pprof/trace?seconds=0.25", "/debug/pprof/trace?seconds=0.25", Tier::Trace, 250),
        ("/debug/pprof/trace?seconds=0.0001", "/debug/pprof/trace?seconds=0.0001", Tier::Trace, 1),
        ("/debug/pprof/trace?seconds=30.00", "/debug/pprof/trace?seconds=30.00", Tier::Trace, 30_000),
        ("/debug/vars", "/debug/vars", Tier::Vars, 0),
    ];
    for (target, upstream, tier, millis) in cases {
        for method in ["GET", "HEAD"] {
            let Ok(Routed::Profile(route)) = ask(method, target) else { panic!("{target}") };
            assert_eq!(
                (route.path_and_query().as_str(), route.tier(), route.duration_ms()),
                (upstream, tier, millis),
                "{target}"
            );
        }
    }
    assert_eq!(get("/debug/pprof"), Ok(Routed::ToIndex));
    assert_eq!(get("/debug/pprof?"), Ok(Routed::ToIndex));
}

#[test]
fn what_is_refused() {
    let cases: &[(Code, &[&str])] = &[
        (
            Code::UnknownRoute,
            &[
                "/",
                "/debug",
                "/debug/",
                "/debug/pprof/Heap",
                "/debug/pprof/heap/",
                "/debug/pprof/heap1",
                "/debug/vars/",
                "/DEBUG/pprof/",
                "/metrics",
                "/debug/pprof/heap.",
                "/debug/pprof/.heap",
                "/debug/pprof/cpu",
            ],
        ),
        (
            Code::BadTarget,
            &[
                "/debug/pprof/%68eap",
                "/debug%2fpprof/heap",
                "/debug/pprof/heap%00",
                "//debug/pprof/heap",
                "/debug//pprof/heap",
                "/debug/pprof//heap",
                "/debug/./pprof/heap",
                "/debug/x/../pprof/heap",
                "/debug/pprof/..",
                "/debug/pprof/heap;x=1",
                "/debug/pprof/heap,",
                "/debug/pprof/@",
                "http://127.0.0.1/debug/pprof/heap",
                "HTTP://a/debug/pprof/heap",
                "127.0.0.1:80",
                "*",
                "/debug/pprof/%2e%2e/vars",
            ],
        ),
        (
            Code::BadQuery,
            &[
                "/debug/pprof/profile?seconds",
                "/debug/pprof/profile?seconds=",
                "/debug/pprof/profile?seconds=0",
                "/debug/pprof/profile?seconds=-1",
                "/debug/pprof/profile?seconds=+1",
                "/debug/pprof/profile?seconds=1+",
                "/debug/pprof/profile?seconds=%31",
                "/debug/pprof/profile?seconds=1e1",
                "/debug/pprof/profile?seconds=0x1",
                "/debug/pprof/profile?seconds=01",
                "/debug/pprof/profile?seconds=1.0",
                "/debug/pprof/profile?seconds=1_0",
                "/debug/pprof/profile?seconds=000000001",
                "/debug/pprof/profile?seconds=99999999999999999999",
                "/debug/pprof/profile?seconds=1&seconds=1",
                "/debug/pprof/profile?seconds=1;debug=1",
                "/debug/pprof/profile?second%73=1",
                "/debug/pprof/profile?Seconds=1",
                "/debug/pprof/profile?debug=1",
                "/debug/pprof/profile?seconds=1&",
                "/debug/pprof/profile?&seconds=1",
                "/debug/pprof/profile?seconds=1&&",
                "/debug/pprof/profile?=1",
                "/debug/pprof/profile?seconds==1",
                "/debug/pprof/profile?x=1",
                "/debug/pprof/profile?gc=1",
                "/debug/pprof/trace?seconds=0.0",
                "/debug/pprof/trace?seconds=.5",
                "/debug/pprof/trace?seconds=5.",
                "/debug/pprof/trace?seconds=1.2.3",
                "/debug/pprof/trace?seconds=NaN",
                "/debug/pprof/trace?seconds=Inf",
                "/debug/pprof/trace?seconds=1e1",
                "/debug/pprof/trace?seconds=0.00000001",
                "/debug/pprof/heap?debug=3",
                "/debug/pprof/heap?debug=-1",
                "/debug/pprof/heap?debug=01",
                "/debug/pprof/heap?debug=",
                "/debug/pprof/heap?gc=2",
                "/debug/pprof/heap?debug=1&debug=1",
                "/debug/pprof/heap?seconds=1&debug=1",
                "/debug/pprof/goroutine?gc=1",
                "/debug/pprof/cmdline?debug=1",
                "/debug/pprof/symbol?0x1+0x2",
                "/debug/pprof/symbol?0x1",
                "/debug/vars?x=1",
                "/debug/pprof/?debug=1",
                "/debug/pprof?debug=1",
            ],
        ),
        (
            Code::QueryToken,
            &[
                "/debug/pprof/heap?token=abc",
                "/debug/pprof/heap?access_token=abc",
                "/debug/pprof/heap?x=gsc_abc",
                "/debug/vars?gsc_abc",
            ],
        ),
        (
            Code::OverCap,
            &[
                "/debug/pprof/profile?seconds=61",
                "/debug/pprof/heap?seconds=99999999",
                "/debug/pprof/trace?seconds=31",
                "/debug/pprof/trace?seconds=30.001",
                "/debug/pprof/trace?seconds=30.0001",
            ],
        ),
    ];
    for (code, targets) in cases {
        for target in *targets {
            assert_eq!(get(target).map_err(|refusal| refusal.code), Err(*code), "{target}");
        }
    }
    let long = format!("/debug/pprof/heap?{}", "a".repeat(600));
    assert_eq!(get(&long).unwrap_err().code, Code::BadTarget);
}

#[test]
fn other_methods() {
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get", "PROPFIND"] {
        assert_eq!(ask(method, "/debug/pprof/heap").unwrap_err().code, Code::MethodNotAllowed, "{method}");
        assert_eq!(ask(method, "/nothing").unwrap_err().code, Code::UnknownRoute, "{method}");
    }
}

#[test]
fn framing_headers() {
    let cases: &[(Headers, Option<Code>)] = &[
        (&[("content-length", "0")], None),
        (&[("content-length", "1")], Some(Code::BodyNotAllowed)),
        (&[("content-length", "00")], Some(Code::BodyNotAllowed)),
        (&[("content-length", "0"), ("content-length", "5")], Some(Code::BodyNotAllowed)),
        (&[("transfer-encoding", "chunked")], Some(Code::BodyNotAllowed)),
        (&[("transfer-encoding", "identity"), ("content-length", "0")], Some(Code::BodyNotAllowed)),
        (&[("upgrade", "h2c")], Some(Code::BadHeader)),
        (&[("expect", "100-continue")], Some(Code::BadHeader)),
    ];
    let uri = Uri::from_static("/debug/pprof/heap");
    for (headers, expected) in cases {
        let mut map = HeaderMap::new();
        for (name, value) in *headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let routed = route(&Method::GET, &uri, Version::HTTP_11, &map, &CAPS);
        assert_eq!(routed.err().map(|refusal| refusal.code), *expected, "{headers:?}");
    }
    assert_eq!(
        route(&Method::GET, &uri, Version::HTTP_10, &HeaderMap::new(), &CAPS).unwrap_err().code,
        Code::BadHeader
    );
}

#[test]
fn sentences_say_what_was_found_and_what_is_expected() {
    let cases = [
        ("/debug/pprof/profile?seconds=90", "seconds=90 is over the cap of 60 s (gate.caps.cpuSeconds)"),
        ("/debug/pprof/profile?seconds=1.5", "seconds must be a positive decimal integer, as 5, not \"1.5\""),
        ("/debug/pprof/heap?debg=1", "unknown parameter \"debg\"; heap takes seconds, debug, gc"),
        ("/debug/pprof/goroutine?debug", "the parameter \"debug\" has no value; write \"debug\"=1"),
        ("/debug/pprof/trace?debug=1", "trace does not take debug; trace takes seconds"),
        ("/debug/vars?a=b", "unknown parameter \"a\"; vars takes no parameters"),
    ];
    for (target, sentence) in cases {
        assert_eq!(get(target).unwrap_err().sentence, sentence);
    }
    let caps = Caps { cpu_seconds: 10, trace_seconds: 1 };
    let refusal = query_of(Profile::Cpu, "", &caps).unwrap_err();
    assert_eq!(
        refusal.sentence,
        "without seconds Go takes 30 s, which is over the cap of 10 s (gate.caps.cpuSeconds); ask with seconds=10"
    );
}

proptest! {
    /// Whatever passes is written anew in the same form, and that form passes again as the same route.
    #[test]
    fn what_passes_is_canonical(query in "(seconds|debug|gc|x)?[=&;.%+0-9a-z]{0,12}", profile in prop::sample::select(Profile::EVERY.to_vec())) {
        let Ok(route) = query_of(profile, &query, &CAPS) else { return Ok(()) };
        let written = route.path_and_query();
        prop_assert!(written.query().unwrap_or_default().bytes().all(|b| b.is_ascii_alphanumeric() || b"=&.".contains(&b)));
        prop_assert_eq!(query_of(profile, written.query().unwrap_or_default(), &CAPS), Ok(route));
    }
}
