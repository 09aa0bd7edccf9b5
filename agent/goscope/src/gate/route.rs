//! Which profile a request asks for: an exact table, a query that is read once and written anew.
//!
//! Whatever two readers could read differently is refused rather than understood: percent-encoding, `;`, `+`, repeated parameters, empty values,
//! paths that need cleaning. So what reaches Go is always one of the few forms that [`Route::path_and_query`] can write.
//!
//! `/debug/pprof` without the slash is answered with 301 to `/debug/pprof/`, which is what Go's own multiplexer does.

use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::uri::Uri;
use http::{HeaderMap, Method, Version};

use super::refuse::{Code, Refusal};
use crate::config::Caps;
use crate::target::profile::Parameter;
pub use crate::target::profile::{Profile, Route, Seconds};

/// Bytes of a request target; Go's tools send less than 100.
const TARGET_BYTES_MAX: usize = 512;
/// Digits and point of `seconds`.
const SECONDS_CHARS_MAX: usize = 8;
/// What a request line and the headers that frame it ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routed {
    /// A profile of the target.
    Profile(Route),
    /// `/debug/pprof`, to be sent on to the index.
    ToIndex,
}

/// Reads a request's target and framing.
///
/// # Errors
/// 400 whatever could be read in two ways, goes over a cap or has a body; 404 an unknown path; 405 other methods than GET and HEAD.
pub fn route(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
    caps: &Caps,
) -> Result<Routed, Refusal> {
    recent(version)?;
    let path = plain_path(uri, "/debug/pprof/heap")?;
    let profile = Profile::of_path(path);
    if profile.is_none() && path != "/debug/pprof" {
        return Err(Refusal::new(Code::UnknownRoute, unknown_path()));
    }
    if method != Method::GET && method != Method::HEAD {
        return Err(Refusal::new(Code::MethodNotAllowed, "only GET and HEAD are served here"));
    }
    framing(headers)?;
    let query = uri.query().unwrap_or_default();
    match profile {
        Some(profile) => query_of(profile, query, caps).map(Routed::Profile),
        None if query.is_empty() => Ok(Routed::ToIndex),
        None => Err(Refusal::new(Code::BadQuery, "the index takes no parameters")),
    }
}

/// # Errors
/// 400 below HTTP/1.1.
pub(crate) fn recent(version: Version) -> Result<(), Refusal> {
    if version < Version::HTTP_11 {
        return Err(Refusal::new(
            Code::BadHeader,
            "HTTP/1.1 is needed; an answer to HTTP/1.0 could be cut short without anyone noticing",
        ));
    }
    Ok(())
}

/// The path, if it is one that nobody would clean or decode; `example` is one for the sentence of a refusal.
///
/// # Errors
/// 400.
pub(crate) fn plain_path<'u>(uri: &'u Uri, example: &str) -> Result<&'u str, Refusal> {
    let refuse = |what: String| Err(Refusal::new(Code::BadTarget, what));
    if uri.scheme().is_some() || uri.authority().is_some() {
        return refuse(format!("the request target must be a path, such as {example}, without scheme and host"));
    }
    let path = uri.path();
    if path.len() + uri.query().map_or(0, str::len) > TARGET_BYTES_MAX {
        return refuse("the request target is longer than any that is served here".to_owned());
    }
    if !path.starts_with('/') {
        return refuse(format!("the request target must be a path, such as {example}"));
    }
    if path.contains('%') {
        return refuse("the path holds percent-encoding; every path served here is written without it".to_owned());
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    let cleaned = path.contains("//") || path.split('/').any(|part| part == "." || part == "..");
    if cleaned || !path.bytes().all(plain) {
        return refuse(format!(
            "the path is not in its plain form; write it as {example}, with letters and single slashes"
        ));
    }
    Ok(path)
}

fn unknown_path() -> String {
    let names: Vec<_> = Profile::EVERY
        .into_iter()
        .filter_map(|profile| profile.path().strip_prefix("/debug/pprof/"))
        .filter(|name| !name.is_empty())
        .collect();
    format!(
        "nothing is served under this path; there are /debug/vars, /debug/pprof/ and, under it, {}",
        names.join(", ")
    )
}

/// Nothing that makes bytes after the headers mean something.
///
/// # Errors
/// 400.
pub(crate) fn framing(headers: &HeaderMap) -> Result<(), Refusal> {
    let body =
        headers.contains_key(TRANSFER_ENCODING) || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
    if body {
        return Err(Refusal::new(Code::BodyNotAllowed, "the request has a body, and this one takes none"));
    }
    no_change_of_protocol(headers)
}

/// # Errors
/// 400 with `Upgrade` or `Expect`.
pub(crate) fn no_change_of_protocol(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(UPGRADE) || headers.contains_key(EXPECT) {
        return Err(Refusal::new(Code::BadHeader, "the headers Upgrade and Expect are not accepted here"));
    }
    Ok(())
}

/// A token in the URL ends up in logs and histories.
///
/// # Errors
/// 400.
pub(crate) fn no_token(query: &str) -> Result<(), Refusal> {
    if query.contains("token=") || query.contains(crate::token::PREFIX) {
        let sentence = "a token in the URL ends up in logs and histories, so it is not accepted there; send it as the password \
                        (http://me:TOKEN@host/…), as Authorization: Bearer or as X-Debug-Token, and replace this one if it was real";
        return Err(Refusal::new(Code::QueryToken, sentence));
    }
    Ok(())
}

/// Reads the parameters of a profile, as they stand in a query; empty for none.
///
/// # Errors
/// 400 unknown, malformed or repeated parameters, those that the profile does not take, and what goes over a cap.
pub fn query_of(profile: Profile, query: &str, caps: &Caps) -> Result<Route, Refusal> {
    let refuse = |sentence: String| Err(Refusal::new(Code::BadQuery, sentence));
    let mut route = Route { profile, seconds: None, debug: None, gc: None };
    no_token(query)?;
    if let Some(odd) = query.chars().find(|c| matches!(c, '%' | '+' | ';')) {
        return refuse(format!("the query holds {odd:?}; parameters are written plainly, as seconds=5&debug=1"));
    }
    for pair in query.split('&').filter(|_| !query.is_empty()) {
        let (name, value) = match pair.split_once('=') {
            Some(pair) => pair,
            None if pair.is_empty() => return refuse("the query has an empty parameter between two &".to_owned()),
            None => return refuse(format!("the parameter {} has no value; write {0}=1", shown(pair))),
        };
        let parameter = match name {
            "seconds" => Parameter::Seconds,
            "debug" => Parameter::Debug,
            "gc" => Parameter::Gc,
            _ => return refuse(format!("unknown parameter {}; {}", shown(name), takes(profile))),
        };
        if !profile.takes(parameter) {
            return refuse(format!("{} does not take {name}; {}", profile.name(), takes(profile)));
        }
        let given_before = match parameter {
            Parameter::Seconds => route.seconds.replace(seconds(profile, value)?).is_some(),
            Parameter::Debug => route.debug.replace(digit(name, value, 2)?).is_some(),
            Parameter::Gc => route.gc.replace(digit(name, value, 1)?).is_some(),
        };
        if given_before {
            return refuse(format!("{name} is given twice"));
        }
    }
    if route.seconds.is_some() && route.debug.is_some_and(|debug| debug != 0) {
        return refuse(
            "seconds and debug cannot be asked for together; a difference over time has no text form".to_owned(),
        );
    }
    over_cap(&route, caps).map_or(Ok(route), Err)
}

/// Refused, never clamped: whoever asks for an hour must know that they did not get it.
fn over_cap(route: &Route, caps: &Caps) -> Option<Refusal> {
    let (cap, name) = match route.profile {
        Profile::Trace => (caps.trace_seconds, "gate.caps.traceSeconds"),
        _ => (caps.cpu_seconds, "gate.caps.cpuSeconds"),
    };
    if route.duration_ms() <= u64::from(cap) * 1000 {
        return None;
    }
    let sentence = match &route.seconds {
        Some(seconds) => format!("seconds={} is over the cap of {cap} s ({name})", seconds.text),
        None => format!(
            "without seconds Go takes {} s, which is over the cap of {cap} s ({name}); ask with seconds={cap}",
            route.duration_ms() / 1000
        ),
    };
    Some(Refusal::new(Code::OverCap, sentence))
}

/// `seconds`: a positive decimal integer, for a trace also with a fraction, as Go's `ParseInt` and `ParseFloat` take them.
fn seconds(profile: Profile, value: &str) -> Result<Seconds, Refusal> {
    let expected = if profile == Profile::Trace {
        "a positive decimal number, as 5 or 0.5"
    } else {
        "a positive decimal integer, as 5"
    };
    let refuse = || Refusal::new(Code::BadQuery, format!("seconds must be {expected}, not {}", shown(value)));
    let (whole, fraction) = match value.split_once('.') {
        Some((whole, fraction)) if profile == Profile::Trace && !fraction.is_empty() => (whole, fraction),
        Some(_) => return Err(refuse()),
        None => (value, ""),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let padded = whole.len() > 1 && whole.starts_with('0');
    if whole.is_empty() || padded || value.len() > SECONDS_CHARS_MAX || !digits(whole) || !digits(fraction) {
        return Err(refuse());
    }
    // Rounded up to the millisecond, so that no fraction slips under the cap. At most eight digits: nothing overflows.
    let scale = 10u64.pow(u32::try_from(fraction.len()).map_err(|_| refuse())?);
    let parts = format!("{whole}{fraction}").parse::<u64>().map_err(|_| refuse())?;
    let millis = (parts * 1000).div_ceil(scale);
    if parts == 0 { Err(refuse()) } else { Ok(Seconds { text: value.to_owned(), millis }) }
}

fn digit(name: &str, value: &str, max: u8) -> Result<u8, Refusal> {
    let read = match value.as_bytes() {
        [b @ b'0'..=b'9'] => Some(b - b'0').filter(|digit| *digit <= max),
        _ => None,
    };
    read.ok_or_else(|| {
        let expected = if max == 1 { "0 or 1" } else { "0, 1 or 2" };
        Refusal::new(Code::BadQuery, format!("{name} must be {expected}, not {}", shown(value)))
    })
}

fn takes(profile: Profile) -> String {
    let taken: Vec<_> = [(Parameter::Seconds, "seconds"), (Parameter::Debug, "debug"), (Parameter::Gc, "gc")]
        .into_iter()
        .filter_map(|(parameter, name)| profile.takes(parameter).then_some(name))
        .collect();
    if taken.is_empty() {
        format!("{} takes no parameters", profile.name())
    } else {
        format!("{} takes {}", profile.name(), taken.join(", "))
    }
}

/// Foreign text in a sentence: quoted, escaped and cut.
pub(crate) fn shown(text: &str) -> String {
    let start: String = text.chars().take(24).collect();
    if start.len() < text.len() { format!("{start:?}…") } else { format!("{start:?}") }
}

#[cfg(test)]
mod tests;
