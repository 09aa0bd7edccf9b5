//! Bytes to numbers and strings, without a panic.

/// A decimal without sign; `None` on anything else, an empty text included.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, &byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// `0x` and hexadecimal digits.
pub(crate) fn hex(text: &[u8]) -> Option<u64> {
    let digits = text.strip_prefix(b"0x")?;
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &byte| {
        let digit = match byte {
            b'0'..=b'9' => byte.wrapping_sub(b'0'),
            b'a'..=b'f' => byte.wrapping_sub(b'a').wrapping_add(10),
            b'A'..=b'F' => byte.wrapping_sub(b'A').wrapping_add(10),
            _ => return None,
        };
        Some((value << 4) | u64::from(digit))
    })
}

/// The leading decimal digits and what follows them.
pub(crate) fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at_checked(digits).unwrap_or((text, &[]))
}

/// What stands before and behind the first `needle`.
pub(crate) fn split_once<'a>(text: &'a [u8], needle: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = memchr::memmem::find(text, needle)?;
    Some((text.get(..at)?, text.get(at.checked_add(needle.len())?..)?))
}

/// What stands before and behind the last `byte`.
pub(crate) fn rsplit_once(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memrchr(byte, text)?;
    Some((text.get(..at)?, text.get(at.checked_add(1)?..)?))
}

/// Text for a person: invalid UTF-8 replaced, and at most `max` bytes; a cut is marked by an ellipsis.
pub(crate) fn bounded(text: &[u8], max: usize) -> String {
    const MARK: &str = "…";
    let head = text.get(..max.saturating_add(1)).unwrap_or(text);
    let whole = String::from_utf8_lossy(head);
    if whole.len() <= max {
        return whole.into_owned();
    }
    let keep = whole.floor_char_boundary(max.saturating_sub(MARK.len()));
    let mut cut = whole.get(..keep).unwrap_or_default().to_owned();
    cut.push_str(MARK);
    cut
}

/// The same, of everything.
pub(crate) fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// The text behind an opening `"`, as `strconv.Quote` writes it, and what stands behind the closing one.
pub(crate) fn unquote(mut text: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut value = Vec::new();
    while let Some((&byte, behind)) = text.split_first() {
        text = behind;
        match byte {
            b'"' => break,
            b'\\' => text = unescape(text, &mut value),
            _ => value.push(byte),
        }
    }
    (value, text)
}

/// Takes what a backslash stands for.
fn unescape<'a>(text: &'a [u8], value: &mut Vec<u8>) -> &'a [u8] {
    let Some((&kind, rest)) = text.split_first() else { return text };
    let letter = match kind {
        b'a' => 0x07,
        b'b' => 0x08,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 0x0b,
        b'f' => 0x0c,
        b'r' => b'\r',
        b'x' | b'u' | b'U' => {
            let digits = match kind {
                b'x' => 2,
                b'u' => 4,
                _ => 8,
            };
            let Some((number, behind)) = rest.split_at_checked(digits) else { return rest };
            let code = std::str::from_utf8(number).ok().and_then(|number| u32::from_str_radix(number, 16).ok());
            match code.map(u8::try_from) {
                Some(Ok(byte)) if kind == b'x' => value.push(byte),
                _ => {
                    let letter = code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
                    value.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
            return behind;
        }
        _ => kind,
    };
    value.push(letter);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "18446744073709551616", "1a", "-1", " 1"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(hex(b"0x1dF"), Some(0x1df));
        assert_eq!(hex(b"0xffffffffffffffff"), Some(u64::MAX));
        for bad in ["", "0x", "1d", "0xg", "0x10000000000000000"] {
            assert_eq!(hex(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(split_digits(b"12ab"), (&b"12"[..], &b"ab"[..]));
        assert_eq!(split_digits(b"12"), (&b"12"[..], &b""[..]));
    }

    #[test]
    fn quoted_text() {
        let table = [
            (r#"a b" c"#, "a b", " c"),
            (r#"a\"b\\c\n\t\x41\u00e4\U0001f600""#, "a\"b\\c\n\tA\u{e4}\u{1f600}", ""),
            (r#"open"#, "open", ""),
            (r#"\"#, "", ""),
            (r#"\u12"#, "12", ""),
            (r#"\ud800""#, "\u{fffd}", ""),
        ];
        for (text, value, rest) in table {
            assert_eq!(unquote(text.as_bytes()), (value.as_bytes().to_vec(), rest.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_cut_is_marked_and_within_the_bound() {
        assert_eq!(bounded(b"abcd", 4), "abcd");
        assert_eq!(bounded(b"abcde", 4), "a…");
        assert_eq!(bounded("ääää".as_bytes(), 7), "ää…");
        assert_eq!(bounded(b"\xff\xff\xff", 9), "\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(bounded(b"\xff\xff\xff", 8), "\u{fffd}…");
        assert_eq!(bounded(b"abcde", 2), "…");
    }
}
