//! Conditions and ranges of a request for bytes (RFC 9110), over content that never changes: pure.

use std::ops::Range;

use http::HeaderMap;
use http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};

/// What of the content is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// Never empty, within the content.
    Some(Range<u64>),
    /// The client has it already.
    NotModified,
    NotSatisfiable,
}

/// Reads the conditions against content of so many `bytes` with the entity tag `etag`, quotes included.
#[must_use]
pub fn part(headers: &HeaderMap, bytes: u64, etag: &str) -> Part {
    let listed = |value: &str| {
        value.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
    };
    if headers.get_all(IF_NONE_MATCH).iter().any(|value| value.to_str().is_ok_and(listed)) {
        return Part::NotModified;
    }
    let mut ranges = headers.get_all(RANGE).iter();
    let Some(range) = ranges.next() else { return Part::Whole };
    // A date cannot be compared: what is sent has none.
    let mut conditions = headers.get_all(IF_RANGE).iter();
    if conditions.any(|condition| condition.as_bytes() != etag.as_bytes()) {
        return Part::Whole;
    }
    let range = range.to_str().ok().filter(|_| ranges.next().is_none());
    match range.and_then(|range| bytes_range(range, bytes)) {
        Some(range) => Part::Some(range),
        None => Part::NotSatisfiable,
    }
}

/// One range in one of the three forms `a-b`, `a-` and `-n`.
fn bytes_range(text: &str, bytes: u64) -> Option<Range<u64>> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // More digits than a number holds: beyond the end in any case.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (first, last) = text.trim().strip_prefix("bytes=")?.trim().split_once('-')?;
    let range = match (first, last) {
        ("", last) => bytes.saturating_sub(number(last)?)..bytes,
        (first, "") => number(first)?..bytes,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(bytes)
        }
    };
    (range.start < range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn ask(headers: &[(&'static str, &str)]) -> Part {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::try_from(*value).unwrap()));
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value)| {
            map.append(name, value);
        });
        part(&map, 100, "\"abc\"")
    }

    #[test]
    fn ranges() {
        for (text, expected) in [
            ("bytes=0-0", Part::Some(0..1)),
            ("bytes=0-99", Part::Some(0..100)),
            ("bytes=0-100", Part::Some(0..100)),
            ("bytes=99-", Part::Some(99..100)),
            ("bytes=-1", Part::Some(99..100)),
            ("bytes=-1000", Part::Some(0..100)),
            ("bytes=10-99999999999999999999999", Part::Some(10..100)),
            ("bytes=100-", Part::NotSatisfiable),
            ("bytes=100-200", Part::NotSatisfiable),
            ("bytes=-0", Part::NotSatisfiable),
            ("bytes=5-4", Part::NotSatisfiable),
            ("bytes=0-1,3-4", Part::NotSatisfiable),
            ("bytes=-", Part::NotSatisfiable),
            ("bytes=a-b", Part::NotSatisfiable),
            ("bytes=+1-2", Part::NotSatisfiable),
            ("lines=0-1", Part::NotSatisfiable),
            ("", Part::NotSatisfiable),
        ] {
            assert_eq!(ask(&[("range", text)]), expected, "{text}");
        }
        assert_eq!(ask(&[("range", "bytes=0-0"), ("range", "bytes=0-0")]), Part::NotSatisfiable, "two of them");
        assert_eq!(ask(&[]), Part::Whole);
    }

    #[test]
    fn conditions() {
        let range = ("range", "bytes=0-0");
        for (headers, expected) in [
            (&[("if-none-match", "\"abc\"")][..], Part::NotModified),
            (&[("if-none-match", "W/\"abc\"")], Part::NotModified),
            (&[("if-none-match", "\"x\", \"abc\"")], Part::NotModified),
            (&[("if-none-match", "*")], Part::NotModified),
            (&[("if-none-match", "\"x\"")], Part::Whole),
            (&[("if-none-match", "abc")], Part::Whole),
            (&[("if-none-match", "\"abc\""), range], Part::NotModified),
            (&[("if-range", "\"abc\""), range], Part::Some(0..1)),
            (&[("if-range", "\"x\""), range], Part::Whole),
            (&[("if-range", "W/\"abc\""), range], Part::Whole),
            (&[("if-range", "Mon, 23 Nov 2026 08:57:04 GMT"), range], Part::Whole),
            (&[("if-range", "\"abc\"")], Part::Whole),
        ] {
            assert_eq!(ask(headers), expected, "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn a_range_is_never_empty_and_within_the_content(text in "(bytes=)?[0-9]{0,21}-?[0-9]{0,21}", bytes in 0_u64..1000) {
            if let Some(range) = bytes_range(&text, bytes) {
                prop_assert!(range.start < range.end && range.end <= bytes);
            }
        }
    }
}
