//! The index page of net/http/pprof: how many entries each profile has, at no cost to the program.
//!
//! Rows are `<tr><td>COUNT</td><td><a href='NAME?debug=1'>NAME</a></td></tr>`, as `indexTmplExecute` in `src/net/http/pprof/pprof.go`
//! prints them.

use crate::limits::{INDEX_NAME_BYTES_MAX, INDEX_PAGE_BYTES_MAX, INDEX_PROFILES_MAX};
use crate::text::{decimal, split_once};

/// Name and count of each profile, in the order of the page; of a name that comes twice, the first. A page that is none gives none.
///
/// `goroutine` is the number of goroutines, `threadcreate` that of threads ever created. `cmdline`, `profile`, `symbol` and `trace` have
/// count 0. Names are decoded. Only the first [`INDEX_PAGE_BYTES_MAX`] bytes are read.
#[must_use]
pub fn parse_index_page(page: &[u8]) -> Vec<(String, u64)> {
    let mut rest = page.get(..INDEX_PAGE_BYTES_MAX).unwrap_or(page);
    let mut profiles: Vec<(String, u64)> = Vec::new();
    while let Some((_, behind)) = split_once(rest, b"<td>") {
        rest = behind;
        if profiles.len() >= INDEX_PROFILES_MAX {
            break;
        }
        let Some((name, count)) = row(behind) else { continue };
        if profiles.iter().all(|(known, _)| *known != name) {
            profiles.push((name, count));
        }
    }
    profiles
}

/// `COUNT</td><td><a href='NAME?debug=1'>`, the same in 1.18 and 1.27; other quotes and spaces do no harm.
fn row(text: &[u8]) -> Option<(String, u64)> {
    let (count, link) = split_once(text, b"</td>")?;
    let link = link.trim_ascii_start().strip_prefix(b"<td>")?.trim_ascii_start().strip_prefix(b"<a href=")?;
    let link = link.strip_prefix(b"'").or_else(|| link.strip_prefix(b"\""))?;
    let end = link
        .iter()
        .take(INDEX_NAME_BYTES_MAX.saturating_add(1))
        .position(|byte| matches!(byte, b'?' | b'\'' | b'"' | b'<' | b'>'))?;
    let path = link.get(..end)?;
    // What net/url puts before a first element with a colon.
    let name = String::from_utf8(percent_decoded(path.strip_prefix(b"./").unwrap_or(path))).ok()?;
    let plain = !name.is_empty() && !name.contains(char::is_control);
    Some((plain.then_some(name)?, decimal(count.trim_ascii())?))
}

/// The text of a URL's path; a `%` without two digits behind it stays.
fn percent_decoded(mut text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = text.split_first() {
        let number = rest
            .first_chunk::<2>()
            .filter(|digits| byte == b'%' && digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match number.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                decoded.push(value);
                text = rest.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(byte);
                text = rest;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "<html><body>/debug/pprof/<br>\n<table>\n<thead><td>Count</td><td>Profile</td></thead>\n\
        <tr><td>12</td><td><a href='allocs?debug=1'>allocs</a></td></tr>\n\
        <tr><td>0</td><td><a href='cmdline?debug=1'>cmdline</a></td></tr>\n\
        <tr><td>10017</td><td><a href='goroutine?debug=1'>goroutine</a></td></tr>\n\
        <tr><td>7</td><td><a href='my%20own?debug=1'>my own</a></td></tr>\n\
        <tr><td>1</td><td><a href='./a:b%25x?debug=1'>a:b%x</a></td></tr>\n\
        </table>\n<a href=\"goroutine?debug=2\">full goroutine stack dump</a>";

    #[test]
    fn rows() {
        let expected = [("allocs", 12), ("cmdline", 0), ("goroutine", 10017), ("my own", 7), ("a:b%x", 1)];
        assert_eq!(parse_index_page(PAGE.as_bytes()), expected.map(|(name, count)| (name.to_owned(), count)));
    }

    #[test]
    fn foreign_pages() {
        for page in [
            "",
            "<td>",
            "<td>5</td>",
            "<td>5</td><td><a href='x",
            "<td>-5</td><td><a href='x?'",
            "<td>5</td><td><a href='?",
        ] {
            assert_eq!(parse_index_page(page.as_bytes()), [], "{page}");
        }
        for end in 0..PAGE.len() {
            assert!(parse_index_page(&PAGE.as_bytes()[..end]).len() <= 5);
        }
    }

    #[test]
    fn bounds_at_their_edges() {
        let row = |name: &str| format!("<td>1</td><td><a href='{name}?debug=1'>");
        let many: String = (0..=INDEX_PROFILES_MAX).map(|n| row(&n.to_string())).collect();
        assert_eq!(parse_index_page(many.as_bytes()).len(), INDEX_PROFILES_MAX);
        assert_eq!(parse_index_page(row(&"n".repeat(INDEX_NAME_BYTES_MAX)).as_bytes()).len(), 1);
        assert_eq!(parse_index_page(row(&"n".repeat(INDEX_NAME_BYTES_MAX + 1)).as_bytes()).len(), 0);
        let at = |start: usize| parse_index_page((" ".repeat(start) + &row("x")).as_bytes()).len();
        let len = row("x").len() - "debug=1'>".len();
        assert_eq!((at(INDEX_PAGE_BYTES_MAX - len), at(INDEX_PAGE_BYTES_MAX - len + 1)), (1, 0));
    }
}
