//! `goroutine 7 gp=0xc000002380 m=0 mp=0x5e8 [chan receive, 3 minutes, locked to thread]:`
//!
//! Source of the form: `goroutineheader` in `src/runtime/traceback.go`.

use crate::Goroutine;
use crate::limits::{LABELS_MAX, NAME_BYTES_MAX};
use crate::text::{bounded, decimal, lossy, split_digits, split_once, unquote};

const START: &[u8] = b"goroutine ";

/// Reads a header line; `None` where it is none. `stack` and `creator` of the result are not known yet.
pub(crate) fn parse(line: &[u8]) -> Option<Goroutine> {
    let (id, rest) = split_digits(line.strip_prefix(START)?);
    let id = decimal(id)?;
    let rest = rest.strip_suffix(b":")?;
    let rest = if rest.starts_with(b" gp=0x") {
        let at = memchr::memchr(b'[', rest)?;
        rest.get(at.checked_add(1)?..)?
    } else {
        rest.strip_prefix(b" [")?
    };
    let (states, labels) = match rest.strip_suffix(b"]") {
        // Go 1.26 prints labels inside the bracket, always quoted, so that a value may hold a bracket.
        Some(inside) => match split_once(inside, b" labels:{") {
            Some((states, labels)) => (states, labels.strip_suffix(b"}")?),
            None => (inside, &b""[..]),
        },
        None => {
            let (states, labels) = split_once(rest, b"] {")?;
            (states, labels.strip_suffix(b"}")?)
        }
    };
    if states.is_empty() || states.len() > NAME_BYTES_MAX || memchr::memchr2(b'[', b']', states).is_some() {
        return None;
    }
    let mut goroutine = Goroutine { id, ..Goroutine::default() };
    let mut state = states;
    if let Some((first, suffixes)) = split_once(states, b", ") {
        state = first;
        for suffix in suffixes.split(|byte| *byte == b',') {
            let suffix = suffix.trim_ascii_start();
            if suffix == b"locked to thread" {
                goroutine.locked = true;
            } else if let Some(minutes) = suffix.strip_suffix(b" minutes").and_then(decimal) {
                goroutine.wait_minutes = u32::try_from(minutes).unwrap_or(u32::MAX);
            }
        }
    }
    // ` (durable)` stays: it is part of some wait reasons.
    loop {
        if let Some(shorter) = state.strip_suffix(b" (scan)") {
            state = shorter;
        } else if let Some(shorter) = state.strip_suffix(b" (leaked)") {
            state = shorter;
            goroutine.leaked = true;
        } else {
            break;
        }
    }
    goroutine.state = lossy(state);
    goroutine.labels = parse_labels(labels);
    Some(goroutine)
}

/// `k: v, "a b": "c\"d", none: `: quoted only where needed (1.27), or always (1.26); a value may be empty.
fn parse_labels(mut text: &[u8]) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    while !text.is_empty() && labels.len() < LABELS_MAX {
        let (name, rest) = label_text(text, b':');
        let rest = rest.strip_prefix(b":").unwrap_or(rest);
        let (value, rest) = label_text(rest.strip_prefix(b" ").unwrap_or(rest), b',');
        labels.push((name, value));
        let rest = rest.strip_prefix(b",").unwrap_or(rest);
        let rest = rest.strip_prefix(b" ").unwrap_or(rest);
        if rest.len() >= text.len() {
            break;
        }
        text = rest;
    }
    labels
}

/// A bare or quoted text up to `end`, and the rest from there.
fn label_text(text: &[u8], end: u8) -> (String, &[u8]) {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let at = memchr::memchr(end, text).unwrap_or(text.len());
        let (value, rest) = text.split_at_checked(at).unwrap_or((text, &[]));
        return (bounded(value, NAME_BYTES_MAX), rest);
    };
    let (value, rest) = unquote(quoted);
    (bounded(&value, NAME_BYTES_MAX), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(line: &str) -> Vec<(String, String)> {
        parse(line.as_bytes()).unwrap().labels
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn states_and_suffixes() {
        let table = [
            ("goroutine 1 [running]:", 1, "running", 0, false, false),
            ("goroutine 0 gp=0x5b4a60 m=3 mp=0xc000100008 [idle]:", 0, "idle", 0, false, false),
            (
                "goroutine 7 gp=0xc000002380 m=nil [chan receive (nil chan), 12 minutes]:",
                7,
                "chan receive (nil chan)",
                12,
                false,
                false,
            ),
            ("goroutine 9 [syscall, 2 minutes, locked to thread]:", 9, "syscall", 2, true, false),
            ("goroutine 9 [force gc (idle) (scan)]:", 9, "force gc (idle)", 0, false, false),
            ("goroutine 9 [chan send (leaked) (scan), synctest bubble 3]:", 9, "chan send", 0, false, true),
            ("goroutine 9 [select (durable), synctest bubble 3]:", 9, "select (durable)", 0, false, false),
            ("goroutine 18446744073709551615 [running, locked to thread]:", u64::MAX, "running", 0, true, false),
        ];
        for (line, id, state, minutes, locked, leaked) in table {
            let goroutine = parse(line.as_bytes()).expect(line);
            assert_eq!(
                (goroutine.id, goroutine.state.as_str(), goroutine.wait_minutes, goroutine.locked, goroutine.leaked),
                (id, state, minutes, locked, leaked),
                "{line}"
            );
            assert!(goroutine.labels.is_empty(), "{line}");
        }
    }

    #[test]
    fn labels_of_both_releases() {
        assert_eq!(
            labels(r#"goroutine 7 [sleep labels:{"route": "/cart", "who": "a b\"]c", "none": ""}]:"#),
            [pair("route", "/cart"), pair("who", "a b\"]c"), pair("none", "")]
        );
        assert_eq!(
            labels(r#"goroutine 7 [sleep, 1 minutes] {none: , route: /cart, who: "a b\"]c\x41\u00e4\n", "q q": 1}:"#),
            [pair("none", ""), pair("route", "/cart"), pair("who", "a b\"]cA\u{e4}\n"), pair("q q", "1")]
        );
        for broken in
            [r#"goroutine 7 [sleep] {a}:"#, r#"goroutine 7 [sleep] {"a: b}:"#, r#"goroutine 7 [sleep] {"\u12": "\}:"#]
        {
            labels(broken);
        }
    }

    #[test]
    fn other_lines() {
        for line in [
            "goroutine 1 [running]",
            "goroutine [running]:",
            "goroutine x [running]:",
            "goroutine 1 []:",
            "goroutine 1: [running]:",
            "goroutine 1 running:",
            "goroutine 99999999999999999999 [running]:",
            " goroutine 1 [running]:",
            "goroutine 1 [a] [b]:",
            "",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }
}
