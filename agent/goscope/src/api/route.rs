//! Which operation a request asks for: an exact table of paths and methods, with the tier that each needs.
//!
//! As at the gate, whatever two readers could read differently is refused. HEAD is served wherever GET is. A body belongs to POST alone, as JSON and with
//! its length said beforehand: an HTML form of another site can send neither.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Method, Version};

use super::body::{self, BODY_BYTES_MAX};
use super::problem::Problem;
use crate::gate::refuse::{Code, Refusal};
use crate::gate::route::{framing, no_change_of_protocol, no_token, plain_path, recent};
use crate::model::ArtifactId;
use crate::token::tier::Tier;

/// What stands before every path.
const PREFIX: &str = "/api/v1/";
/// In the place of an identifier.
const ID: &str = "{id}";

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// In audit lines and metrics.
    pub name: &'static str,
    pub method: Method,
    /// Below `/api/v1`, with `{id}` for an identifier.
    pub path: &'static str,
    pub tier: Tier,
}

impl Operation {
    /// Whether the target is asked for a profile because of it, so that it counts as one asked for at the gate does.
    #[must_use]
    pub fn takes_profile(&self) -> bool {
        self.name == CAPTURE_START
    }
}

/// The name of the operation that begins a capture.
const CAPTURE_START: &str = "capture_start";

/// All that the API does.
pub static OPERATIONS: [Operation; 12] = [
    Operation { name: "info", method: Method::GET, path: "info", tier: Tier::Basic },
    Operation { name: "artifact_list", method: Method::GET, path: "artifacts", tier: Tier::Artifacts },
    Operation { name: "artifact", method: Method::GET, path: "artifacts/{id}", tier: Tier::Artifacts },
    Operation { name: "artifact_content", method: Method::GET, path: "artifacts/{id}/content", tier: Tier::Artifacts },
    Operation { name: "artifact_delete", method: Method::DELETE, path: "artifacts/{id}", tier: Tier::Admin },
    Operation { name: "artifact_pin", method: Method::PUT, path: "artifacts/{id}/pin", tier: Tier::Admin },
    Operation { name: "artifact_unpin", method: Method::DELETE, path: "artifacts/{id}/pin", tier: Tier::Admin },
    Operation { name: "incident_list", method: Method::GET, path: "incidents", tier: Tier::Artifacts },
    Operation { name: "incident", method: Method::GET, path: "incidents/{id}", tier: Tier::Artifacts },
    Operation { name: CAPTURE_START, method: Method::POST, path: "captures", tier: Tier::Capture },
    Operation { name: "capture", method: Method::GET, path: "captures/{id}", tier: Tier::Capture },
    Operation { name: "capture_cancel", method: Method::DELETE, path: "captures/{id}", tier: Tier::Capture },
];

/// A request that is understood as far as its head tells.
#[derive(Debug)]
pub struct Routed {
    pub operation: &'static Operation,
    /// For the audit line: the path, with `{id}` for an identifier that is none of ours, and without the query.
    pub target: PathAndQuery,
}

/// Reads a request's target and framing.
///
/// # Errors
/// 400 whatever could be read in two ways, 404 an unknown path, 405 a method that the path does not take, 411, 413 and 415 a body that is not as it
/// must be.
pub fn route(method: &Method, uri: &Uri, version: Version, headers: &HeaderMap) -> Result<Routed, Problem> {
    recent(version)?;
    let path = plain_path(uri, "/api/v1/info")?;
    let below = path.strip_prefix(PREFIX).unwrap_or_default();
    let of_path = || OPERATIONS.iter().filter(|operation| matches(operation.path, below));
    if of_path().next().is_none() {
        return Err(Refusal::new(Code::UnknownRoute, unknown_path()).into());
    }
    let served = if method == Method::HEAD { &Method::GET } else { method };
    let Some(operation) = of_path().find(|operation| operation.method == served) else {
        return Err(Problem::method_not_allowed(&allowed(of_path())));
    };
    if operation.method == Method::POST {
        json_body(headers)?;
    } else {
        framing(headers)?;
    }
    no_token(uri.query().unwrap_or_default())?;
    Ok(Routed { operation, target: target(operation.path, below) })
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(ID), Some(part)) if !part.is_empty() => {}
            (Some(pattern), Some(part)) if pattern == part => {}
            _ => return false,
        }
    }
}

fn target(pattern: &str, path: &str) -> PathAndQuery {
    let parts = pattern.split('/').zip(path.split('/')).map(|(pattern, part)| match pattern {
        ID if ArtifactId::parse(part).is_some() => part,
        pattern => pattern,
    });
    let text = format!("{PREFIX}{}", parts.collect::<Vec<_>>().join("/"));
    // Braces are refused by some readers of paths, but not by this one.
    PathAndQuery::try_from(text).unwrap_or_else(|_| PathAndQuery::from_static("/api/v1/"))
}

fn allowed<'a>(operations: impl Iterator<Item = &'a Operation>) -> String {
    let mut methods = Vec::new();
    for operation in operations {
        methods.push(operation.method.as_str());
        if operation.method == Method::GET {
            methods.push("HEAD");
        }
    }
    methods.join(", ")
}

/// A small JSON document whose length is known.
fn json_body(headers: &HeaderMap) -> Result<(), Refusal> {
    no_change_of_protocol(headers)?;
    if headers.contains_key(TRANSFER_ENCODING) {
        return Err(Refusal::new(Code::LengthRequired, "the body must come with a Content-Length, not in chunks"));
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let (Some(length), None) = (lengths.next(), lengths.next()) else {
        return Err(Refusal::new(Code::LengthRequired, "exactly one Content-Length is needed"));
    };
    match length.to_str().ok().and_then(|length| length.parse::<u64>().ok()) {
        None => return Err(Refusal::new(Code::BadHeader, "the Content-Length is not a number")),
        Some(length) if length > BODY_BYTES_MAX => return Err(body::too_large()),
        Some(_) => {}
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let is_json = |value: &str| {
        let (essence, parameters) = value.split_once(';').unwrap_or((value, ""));
        let parameters = parameters.trim();
        essence.trim().eq_ignore_ascii_case("application/json")
            && (parameters.is_empty() || parameters.eq_ignore_ascii_case("charset=utf-8"))
    };
    match (types.next(), types.next()) {
        (Some(value), None) if value.to_str().is_ok_and(is_json) => Ok(()),
        _ => {
            let sentence = "the body must be JSON and say so: Content-Type: application/json";
            Err(Refusal::new(Code::UnsupportedMediaType, sentence))
        }
    }
}

fn unknown_path() -> String {
    let mut paths: Vec<_> = OPERATIONS.iter().map(|operation| operation.path).collect();
    paths.dedup();
    format!("nothing is served under this path; below /api/v1/ there are {}", paths.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Request};

    fn ask(method: &str, target: &str, headers: &[(&'static str, &str)]) -> Result<(&'static str, String), Code> {
        let mut request = Request::builder().method(method).uri(target).body(()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::try_from(*value).unwrap());
        }
        route(request.method(), request.uri(), request.version(), request.headers())
            .map(|routed| (routed.operation.name, routed.target.to_string()))
            .map_err(|problem| problem.code())
    }

    #[test]
    fn every_operation_is_found_by_its_own_path_and_method() {
        let id = "2026-11-23T08-57-04Z-0123456789";
        for operation in &OPERATIONS {
            let path = format!("{PREFIX}{}", operation.path.replace(ID, id));
            let json = [("content-type", "application/json"), ("content-length", "2")];
            let headers = if operation.method == Method::POST { &json[..] } else { &[] };
            let found = ask(operation.method.as_str(), &path, headers);
            assert_eq!(found, Ok((operation.name, path)), "{operation:?}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_refused() {
        for (method, target, expected) in [
            ("GET", "/api", Code::UnknownRoute),
            ("GET", "/api/", Code::UnknownRoute),
            ("GET", "/api/v1", Code::UnknownRoute),
            ("GET", "/api/v1/", Code::UnknownRoute),
            ("GET", "/api/v2/info", Code::UnknownRoute),
            ("GET", "/api/v1/info/", Code::UnknownRoute),
            ("GET", "/api/v1/Info", Code::UnknownRoute),
            ("GET", "/api/v1/artifacts/", Code::UnknownRoute),
            ("GET", "/api/v1/artifacts/x/content/y", Code::UnknownRoute),
            ("GET", "/api/v1//info", Code::BadTarget),
            ("GET", "/api/v1/../v1/info", Code::BadTarget),
            ("GET", "/api/v1/artifacts/..", Code::BadTarget),
            ("GET", "/api/v1/artifacts/%2e%2e", Code::BadTarget),
            ("GET", "/api/v1/artifacts/a%2fb", Code::BadTarget),
            ("GET", "/api/v1/artifacts/a:b", Code::BadTarget),
            ("GET", "http://localhost/api/v1/info", Code::BadTarget),
            ("POST", "/api/v1/info", Code::MethodNotAllowed),
            ("OPTIONS", "/api/v1/info", Code::MethodNotAllowed),
            ("GET", "/api/v1/captures", Code::MethodNotAllowed),
            ("HEAD", "/api/v1/artifacts/x/pin", Code::MethodNotAllowed),
            ("GET", "/api/v1/info?token=x", Code::QueryToken),
            ("GET", "/api/v1/info?x=gsc_x", Code::QueryToken),
        ] {
            assert_eq!(ask(method, target, &[]), Err(expected), "{method} {target}");
        }
        assert_eq!(ask("HEAD", "/api/v1/info", &[]), Ok(("info", "/api/v1/info".into())));
    }

    #[test]
    fn foreign_text_does_not_reach_the_audit_line() {
        for (target, expected) in [
            ("/api/v1/artifacts/secret-thing?cursor=x", "/api/v1/artifacts/{id}"),
            ("/api/v1/captures/gone~1", "/api/v1/captures/{id}"),
            (
                "/api/v1/artifacts/2026-11-23T08-57-04Z-0123456789/content?file=stderr.txt",
                "/api/v1/artifacts/2026-11-23T08-57-04Z-0123456789/content",
            ),
        ] {
            assert_eq!(ask("GET", target, &[]).map(|(_, target)| target), Ok(expected.to_owned()));
        }
    }

    #[test]
    fn a_body_is_json_of_known_length_or_not_there() {
        let json = ("content-type", "application/json");
        let length = ("content-length", "2");
        let max = BODY_BYTES_MAX.to_string();
        let over = (BODY_BYTES_MAX + 1).to_string();
        for (headers, expected) in [
            (&[json, length][..], None),
            (&[("content-type", "application/json; charset=UTF-8"), length], None),
            (&[json, ("content-length", &max)], None),
            (&[json, ("content-length", &over)], Some(Code::BodyTooLarge)),
            (&[json], Some(Code::LengthRequired)),
            (&[json, length, length], Some(Code::LengthRequired)),
            (&[json, ("transfer-encoding", "chunked")], Some(Code::LengthRequired)),
            (&[json, ("content-length", "two")], Some(Code::BadHeader)),
            (&[json, length, ("expect", "100-continue")], Some(Code::BadHeader)),
            (&[json, length, ("upgrade", "h2c")], Some(Code::BadHeader)),
            (&[length], Some(Code::UnsupportedMediaType)),
            (&[("content-type", "text/plain"), length], Some(Code::UnsupportedMediaType)),
            (&[("content-type", "application/x-www-form-urlencoded"), length], Some(Code::UnsupportedMediaType)),
            (&[json, json, length], Some(Code::UnsupportedMediaType)),
        ] {
            assert_eq!(ask("POST", "/api/v1/captures", headers).err(), expected, "{headers:?}");
        }
        for method in ["GET", "DELETE", "PUT"] {
            let path = if method == "PUT" { "/api/v1/artifacts/x/pin" } else { "/api/v1/artifacts/x" };
            assert_eq!(ask(method, path, &[length]).err(), Some(Code::BodyNotAllowed), "{method}");
            assert_eq!(ask(method, path, &[("transfer-encoding", "chunked")]).err(), Some(Code::BodyNotAllowed));
            assert_eq!(ask(method, path, &[("content-length", "0")]).err(), None, "{method}");
        }
    }
}
