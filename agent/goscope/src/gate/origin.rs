//! Whether a browser was lured here: the check against DNS rebinding and against requests that another site makes.
//!
//! A page of evil.example can point its own name at 127.0.0.1; its requests then carry `Host: evil.example`. So only names that nobody
//! can point elsewhere are served: IP literals, `localhost` and `*.localhost` (RFC 6761). Fetch metadata and `Origin` tell the rest.
//!
//! Over TLS (`listen.remote`) the names of our own certificate are served as well. Its authority has confirmed them to be ours, and evil.example is
//! not among them: neither a page of that name nor a client that checks no certificates gets in by pointing it here.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::HeaderMap;
use http::header::{HOST, HeaderName, ORIGIN};

use super::refuse::{Code, Refusal};
use crate::tls::Certificate;

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks `Host`, `Origin` and `Sec-Fetch-Site` of a request that came in clear, or over TLS with `certificate` as ours.
///
/// # Errors
/// 400 without exactly one readable `Host`, 421 for a name that could belong to somebody else, 403 for a request of another site.
pub fn check(headers: &HeaderMap, certificate: Option<&Certificate>) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Refusal::new(Code::BadHeader, "exactly one Host header is needed"));
    };
    let host = host.to_str().ok().filter(|host| !host.is_empty());
    let Some((host, name)) = host.and_then(|host| Some((host, name_of(host)?))) else {
        return Err(Refusal::new(
            Code::BadHeader,
            "the Host header is not a host name or address with an optional port",
        ));
    };
    if !is_ours(name) && !certificate.is_some_and(|certificate| certificate.is_for(name)) {
        let sentence = match certificate {
            None => {
                "this host name is not served, because anyone could point it here (DNS rebinding); use localhost or the IP address"
            }
            Some(_) => {
                "this host name is not served, because it is none of this listener's certificate, so anyone could point it here (DNS rebinding); use a name of the certificate or the IP address"
            }
        };
        return Err(Refusal::new(Code::Misdirected, sentence));
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    let same_origin = |origin: &str| {
        // What came in clear may have been TLS up to a proxy; a page in clear is never of the same origin as one over TLS.
        let clear = if certificate.is_none() { origin.strip_prefix("http://") } else { None };
        let authority = clear.or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    if !origins.all(|origin| origin.to_str().is_ok_and(same_origin)) {
        return Err(Refusal::new(
            Code::CrossSite,
            "the Origin header names another site; requests from other sites are refused",
        ));
    }
    let mut sites = headers.get_all(&SEC_FETCH_SITE).iter();
    if !sites.all(|site| site == "same-origin" || site == "none") {
        let sentence =
            "the browser says that another site makes this request (Sec-Fetch-Site); open the address directly";
        return Err(Refusal::new(Code::CrossSite, sentence));
    }
    Ok(())
}

/// The host of `host[:port]`, an IPv6 literal with its brackets; `None` if it is not written so.
fn name_of(host: &str) -> Option<&str> {
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, port) = host.split_at_checked(end)?;
    let port_ok = match port.strip_prefix(':') {
        Some(digits) => {
            (1..=5).contains(&digits.len())
                && digits.bytes().all(|b| b.is_ascii_digit())
                && digits.parse::<u16>().is_ok()
        }
        None => port.is_empty(),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let name_ok = name.starts_with('[') || (!name.is_empty() && name.bytes().all(plain));
    (port_ok && name_ok).then_some(name)
}

/// A name that resolves to this machine or is an address already. Short forms of addresses (`127.1`, `0x7f000001`) are names, not literals.
fn is_ours(name: &str) -> bool {
    if let Some(literal) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return literal.parse::<Ipv6Addr>().is_ok();
    }
    if name.parse::<Ipv4Addr>().is_ok() {
        return true;
    }
    let lower = name.to_ascii_lowercase();
    match lower.strip_suffix("localhost") {
        Some("") => true,
        Some(labels) => labels.strip_suffix('.').is_some_and(|labels| labels.split('.').all(|label| !label.is_empty())),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    type Headers = &'static [(&'static str, &'static str)];

    fn verdict(headers: &[(&'static str, &'static str)]) -> Option<Code> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        check(&map, None).err().map(|refusal| refusal.code)
    }

    #[test]
    fn hosts() {
        let cases: &[(Option<Code>, &[&str])] = &[
            (
                None,
                &[
                    "localhost",
                    "localhost:6061",
                    "LOCALHOST:6061",
                    "app.localhost:1",
                    "a.b.localhost",
                    "127.0.0.1",
                    "127.0.0.1:6061",
                    "10.1.2.3:80",
                    "[::1]",
                    "[::1]:6061",
                    "[fe80::1]:65535",
                    "[::ffff:127.0.0.1]",
                ],
            ),
            (
                Some(Code::Misdirected),
                &[
                    "evil.example",
                    "evil.example:6061",
                    "localhost.evil.example",
                    "notlocalhost",
                    "127.1",
                    "2130706433",
                    "0x7f.0.0.1",
                    "0177.0.0.1",
                    "127.0.0.1.nip.io",
                    "localhost.",
                    ".localhost",
                    "a..localhost",
                    "[::1%25lo]",
                    "[127.0.0.1]",
                    "[]",
                    "1.2.3.4.5",
                    "shop-6d5f",
                ],
            ),
            (
                Some(Code::BadHeader),
                &[
                    "",
                    ":",
                    ":6061",
                    "localhost:",
                    "localhost:0x1",
                    "localhost:65536",
                    "localhost:1:2",
                    "::1",
                    "[::1",
                    "[::1]x",
                    "user@localhost",
                    "localhost/",
                    "localhost ",
                    "local host",
                    "localhost#",
                    "localhost?x",
                    "http://localhost",
                    "localhost,evil.example",
                    "localhost:+1",
                ],
            ),
        ];
        for (expected, hosts) in cases {
            for host in *hosts {
                assert_eq!(verdict(&[("host", host)]), *expected, "{host}");
            }
        }
        assert_eq!(verdict(&[]), Some(Code::BadHeader));
        assert_eq!(verdict(&[("host", "localhost"), ("host", "localhost")]), Some(Code::BadHeader));
        let mut map = HeaderMap::new();
        map.insert(HOST, HeaderValue::from_bytes(b"localhost\xff").unwrap());
        assert_eq!(check(&map, None).unwrap_err().code, Code::BadHeader);
    }

    #[test]
    fn origins_and_fetch_metadata() {
        let host = ("host", "localhost:6061");
        let cases: &[(Headers, Option<Code>)] = &[
            (&[("origin", "http://localhost:6061")], None),
            (&[("origin", "http://LOCALHOST:6061")], None),
            (&[("origin", "https://localhost:6061")], None),
            (&[("origin", "null")], Some(Code::CrossSite)),
            (&[("origin", "")], Some(Code::CrossSite)),
            (&[("origin", "http://localhost:3000")], Some(Code::CrossSite)),
            (&[("origin", "http://evil.example")], Some(Code::CrossSite)),
            (&[("origin", "ftp://localhost:6061")], Some(Code::CrossSite)),
            (&[("origin", "http://localhost:6061"), ("origin", "http://evil.example")], Some(Code::CrossSite)),
            (&[("sec-fetch-site", "none")], None),
            (&[("sec-fetch-site", "same-origin")], None),
            (&[("sec-fetch-site", "same-site")], Some(Code::CrossSite)),
            (&[("sec-fetch-site", "cross-site")], Some(Code::CrossSite)),
            (&[("sec-fetch-site", "Cross-Site")], Some(Code::CrossSite)),
            (&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], Some(Code::CrossSite)),
        ];
        for (headers, expected) in cases {
            let all: Vec<_> = std::iter::once(host).chain(headers.iter().copied()).collect();
            assert_eq!(verdict(&all), *expected, "{headers:?}");
        }
    }

    #[test]
    fn over_tls_the_names_of_the_certificate_are_served_too() {
        let certificate = crate::tls::tests::certificate("DNS:shop.example,DNS:*.team.svc");
        let verdict = |headers: &[(&'static str, &'static str)]| {
            let headers =
                headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            check(&HeaderMap::from_iter(headers), Some(&certificate)).err().map(|refusal| refusal.code)
        };
        for (host, expected) in [
            ("shop.example", None),
            ("shop.example:6062", None),
            ("SHOP.EXAMPLE:6062", None),
            ("debug.team.svc:6062", None),
            ("10.1.2.3:6062", None),
            ("[fd00::1]:6062", None),
            ("localhost:6062", None),
            ("evil.example", Some(Code::Misdirected)),
            ("evil.example:6062", Some(Code::Misdirected)),
            ("shop.example.evil.example", Some(Code::Misdirected)),
            ("a.debug.team.svc", Some(Code::Misdirected)),
            ("shop.example@evil.example", Some(Code::BadHeader)),
            ("", Some(Code::BadHeader)),
        ] {
            assert_eq!(verdict(&[("host", host)]), expected, "{host}");
        }
        for (origin, expected) in [
            ("https://shop.example:6062", None),
            ("http://shop.example:6062", Some(Code::CrossSite)),
            ("https://shop.example", Some(Code::CrossSite)),
            ("https://evil.example:6062", Some(Code::CrossSite)),
            ("null", Some(Code::CrossSite)),
        ] {
            assert_eq!(verdict(&[("host", "shop.example:6062"), ("origin", origin)]), expected, "{origin}");
        }
        assert_eq!(verdict(&[("host", "shop.example"), ("sec-fetch-site", "same-site")]), Some(Code::CrossSite));
    }
}
