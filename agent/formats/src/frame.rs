//! The two lines of a frame, `main.f(0x1, {0x2, 0x3})` and `TAB /src/main.go:12 +0x1d fp=0x7f sp=0x7e pc=0x7d`.
//!
//! Source of the form: `traceback2` and `printcreatedby1` in `src/runtime/traceback.go`; for race reports `PrintStack` in
//! `tsan_report.cpp`.

use crate::limits::NAME_BYTES_MAX;
use crate::text::{decimal, hex, rsplit_once, split_digits, split_once};

/// The function line of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a [u8],
    /// With its parentheses.
    pub(crate) args: &'a [u8],
}

/// The place line of a frame, or of `created by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a [u8],
    pub(crate) line: u32,
    pub(crate) offset: Option<u64>,
    pub(crate) pc: Option<u64>,
    /// `fp=` and `sp=` were printed, which happens at level 2 only.
    pub(crate) detailed: bool,
}

/// `name(args)`. Strict, because a line of somebody's log may stand in its place.
pub(crate) fn function(line: &[u8]) -> Option<Function<'_>> {
    let inside = line.strip_suffix(b")")?;
    let open = memchr::memrchr(b'(', inside)?;
    let (name, args) = line.split_at_checked(open)?;
    let values = inside.get(open.checked_add(1)?..)?;
    (is_name(name) && values.iter().copied().all(is_arg)).then_some(Function { name, args })
}

fn is_arg(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'x' | b',' | b' ' | b'{' | b'}' | b'?' | b'_' | b'.')
}

/// Spaces stand in the brackets of a generic name only. A name has a package, except `panic`.
fn is_name(name: &[u8]) -> bool {
    if name.len() > NAME_BYTES_MAX {
        return false;
    }
    if name == b"panic" {
        return true;
    }
    let mut depth = 0_i32;
    let mut dots = 0_u32;
    for &byte in name {
        match byte {
            b'[' => depth = depth.saturating_add(1),
            b']' => depth = depth.saturating_sub(1),
            b' ' if depth <= 0 => return false,
            b'.' => dots = dots.saturating_add(1),
            0..=0x1f | b'"' | b'=' | 0x7f => return false,
            _ => {}
        }
    }
    // The name of a C function behind `_cgoexp_` has no dot.
    dots > 0 || name.starts_with(b"_cgoexp_")
}

/// `TAB file:line`, then what the level shows.
pub(crate) fn place(line: &[u8]) -> Option<Place<'_>> {
    place_text(line.strip_prefix(b"\t")?)
}

/// The same without its indentation.
pub(crate) fn place_text(mut text: &[u8]) -> Option<Place<'_>> {
    let mut place = Place { file: &[], line: 0, offset: None, pc: None, detailed: false };
    // At most four values stand behind the line, each after one space.
    while let Some((before, value)) = rsplit_once(text, b' ') {
        if let Some(value) = value.strip_prefix(b"pc=") {
            place.pc = Some(hex(value)?);
        } else if value.starts_with(b"sp=0x") || value.starts_with(b"fp=0x") {
            place.detailed = true;
        } else if let Some(offset) = value.strip_prefix(b"+").and_then(hex) {
            place.offset = Some(offset);
        } else {
            break;
        }
        text = before;
    }
    let (file, line) = rsplit_once(text, b':')?;
    if file.is_empty() || file.len() > NAME_BYTES_MAX {
        return None;
    }
    // Corrupt tables give negative lines.
    let digits = line.strip_prefix(b"-").unwrap_or(line);
    let number = decimal(digits)?;
    place.line = if digits.len() == line.len() { u32::try_from(number).unwrap_or(u32::MAX) } else { 0 };
    place.file = file;
    Some(place)
}

/// `created by NAME in goroutine N`: the name, and the creator since Go 1.21.
pub(crate) fn created_by(line: &[u8]) -> Option<(&[u8], Option<u64>)> {
    let text = line.strip_prefix(b"created by ")?;
    let (name, creator) = match split_once(text, b" in goroutine ") {
        Some((name, id)) => (name, Some(decimal(id)?)),
        None => (text, None),
    };
    (!name.is_empty() && is_name(name)).then_some((name, creator))
}

/// `...additional frames elided...` (0: how many was not said) and, since Go 1.21, `...N frames elided...`.
pub(crate) fn elided(line: &[u8]) -> Option<u32> {
    let text = line.strip_prefix(b"...")?.strip_suffix(b" frames elided...")?;
    if text == b"additional" {
        return Some(0);
    }
    decimal(text).map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// `[originating from goroutine N]:` of GODEBUG=tracebackancestors.
pub(crate) fn is_ancestor(line: &[u8]) -> bool {
    line.strip_prefix(b"[originating from goroutine ")
        .map(split_digits)
        .is_some_and(|(id, rest)| !id.is_empty() && rest == b"]:")
}

/// A frame of C code: `TAB [FILE:LINE ]pc=HEX` behind a line with a bare name, or all in `non-Go function at pc=HEX`.
pub(crate) fn cgo_place(line: &[u8]) -> Option<Place<'_>> {
    let text = line.strip_prefix(b"\t")?;
    if let Some(pc) = text.strip_prefix(b"pc=") {
        return Some(Place { file: &[], line: 0, offset: None, pc: Some(hex(pc)?), detailed: false });
    }
    place_text(text).filter(|place| place.pc.is_some() && !place.detailed)
}

/// The whole of a C frame without symboliser.
pub(crate) fn cgo_unknown(line: &[u8]) -> Option<u64> {
    line.strip_prefix(b"non-Go function at pc=").and_then(hex)
}

/// What may stand before a place line of a C frame.
pub(crate) fn cgo_name(line: &[u8]) -> bool {
    line == b"non-Go function"
        || (!line.is_empty() && line.len() <= NAME_BYTES_MAX && line.iter().all(|byte| byte.is_ascii_graphic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions() {
        let table = [
            ("main.main()", "main.main", "()"),
            ("main.(*T).M(0x1, {0x2, 0xc000?}, ...)", "main.(*T).M", "(0x1, {0x2, 0xc000?}, ...)"),
            ("main.main.func1.2(...)", "main.main.func1.2", "(...)"),
            ("main.F[...](_, 0x3)", "main.F[...]", "(_, 0x3)"),
            ("main.(*G[...]).M[...](0x0)", "main.(*G[...]).M[...]", "(0x0)"),
            ("main.F[go.shape.struct { a int }]()", "main.F[go.shape.struct { a int }]", "()"),
            ("gopkg.in/yaml%2ev3.Unmarshal({0x1, 0x2, 0x3})", "gopkg.in/yaml%2ev3.Unmarshal", "({0x1, 0x2, 0x3})"),
            ("panic({0x66bb40?, 0x73fa90?})", "panic", "({0x66bb40?, 0x73fa90?})"),
            ("type:.eq.main.T(0x1)", "type:.eq.main.T", "(0x1)"),
            ("_cgoexp_4bd8f2c1_goCallback(0x1)", "_cgoexp_4bd8f2c1_goCallback", "(0x1)"),
        ];
        for (line, name, args) in table {
            let found = function(line.as_bytes()).expect(line);
            assert_eq!((found.name, found.args), (name.as_bytes(), args.as_bytes()));
        }
        for line in [
            "",
            "()",
            "main()",
            "done (5)",
            "main.f",
            "main.f(hello)",
            "2026/01/02 main.f(0x1)",
            "a.b=c(1)",
            "main.f(0x1) ",
            ")",
        ] {
            assert_eq!(function(line.as_bytes()), None, "{line}");
        }
        assert!(function(format!("main.{}()", "f".repeat(NAME_BYTES_MAX - 5)).as_bytes()).is_some());
        assert!(function(format!("main.{}()", "f".repeat(NAME_BYTES_MAX - 4)).as_bytes()).is_none());
    }

    #[test]
    fn places() {
        let table = [
            ("\t/src/main.go:12", "/src/main.go", 12, None, None, false),
            ("\t/src/main.go:12 +0x1d", "/src/main.go", 12, Some(0x1d), None, false),
            ("\t/a b/c:d.go:12 +0x1d fp=0x3 sp=0x2 pc=0x1", "/a b/c:d.go", 12, Some(0x1d), Some(1), true),
            ("\tC:/src/main.go:7 fp=0x3 sp=0x2 pc=0x1", "C:/src/main.go", 7, None, Some(1), true),
            ("\t<autogenerated>:1 +0x2c", "<autogenerated>", 1, Some(0x2c), None, false),
            ("\t??:0 +0x2c", "??", 0, Some(0x2c), None, false),
            ("\t/src/main.go:-5", "/src/main.go", 0, None, None, false),
        ];
        for (line, file, number, offset, pc, detailed) in table {
            assert_eq!(
                place(line.as_bytes()),
                Some(Place { file: file.as_bytes(), line: number, offset, pc, detailed }),
                "{line}"
            );
        }
        for line in [
            "",
            "\t",
            "\t:12",
            "\t/src/main.go",
            "\t/src/main.go:",
            "\t/src/main.go:x",
            " /src/main.go:1",
            "\t/src/main.go:1 +0xzz",
        ] {
            assert_eq!(place(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn trailers() {
        assert_eq!(created_by(b"created by main.start"), Some((&b"main.start"[..], None)));
        assert_eq!(
            created_by(b"created by main.(*T).run[...] in goroutine 34"),
            Some((&b"main.(*T).run[...]"[..], Some(34)))
        );
        assert_eq!(created_by(b"created by a man"), None);
        assert_eq!(created_by(b"created by main.f in goroutine x"), None);
        assert_eq!(elided(b"...additional frames elided..."), Some(0));
        assert_eq!(elided(b"...217 frames elided..."), Some(217));
        assert_eq!(elided(b"... frames elided..."), None);
        assert!(is_ancestor(b"[originating from goroutine 7]:"));
        assert!(!is_ancestor(b"[originating from goroutine ]:"));
        assert_eq!(cgo_unknown(b"non-Go function at pc=0x1f"), Some(0x1f));
        assert!(cgo_place(b"\tpc=0x1f").is_some());
        assert!(cgo_place(b"\t/src/x.c:7 pc=0x1f").is_some());
        assert!(cgo_place(b"\t/src/x.go:7 +0x1").is_none());
    }
}
