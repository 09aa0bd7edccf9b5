//! Whether what came is what was asked for: pure, and told by the first bytes. That it is whole, HTTP's framing tells.

use crate::target::profile::{Profile, Route};

/// What the target writes for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `profile.proto`, compressed by Go.
    Profile,
    /// For people to read.
    Text,
    /// An execution trace.
    Trace,
}

impl Form {
    /// What `route` asks for.
    #[must_use]
    pub fn of(route: &Route) -> Self {
        match route.profile {
            Profile::Trace => Self::Trace,
            _ if route.debug.is_some_and(|debug| debug > 0) => Self::Text,
            _ => Self::Profile,
        }
    }

    /// Whether it comes compressed.
    #[must_use]
    pub fn is_gzip(self) -> bool {
        self == Self::Profile
    }

    /// With its article.
    fn name(self) -> &'static str {
        match self {
            Self::Profile => "a gzip-compressed profile",
            Self::Text => "a profile as text",
            Self::Trace => "an execution trace",
        }
    }
}

/// What came is something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the target sent is not {}, although it answered 200; is net/http/pprof what serves there?", .0.name())]
pub struct Unexpected(Form);

/// Looks at the first bytes of an answer as they come.
#[derive(Debug)]
pub struct Check {
    form: Form,
    head: Vec<u8>,
    is_judged: bool,
}

/// Bytes that are looked at: the header of a trace, the longest that there is.
const HEAD_BYTES: usize = 16;
const GZIP: &[u8] = &[0x1f, 0x8b];

impl Check {
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self { form, head: Vec::with_capacity(HEAD_BYTES), is_judged: false }
    }

    /// The next bytes.
    ///
    /// # Errors
    /// They begin something else.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Unexpected> {
        if self.is_judged {
            return Ok(());
        }
        self.head.extend(bytes.iter().take(HEAD_BYTES - self.head.len()));
        if self.head.len() == HEAD_BYTES { self.judge() } else { Ok(()) }
    }

    /// There are no more.
    ///
    /// # Errors
    /// There were none, or they were something else.
    pub fn finish(mut self) -> Result<(), Unexpected> {
        if self.is_judged { Ok(()) } else { self.judge() }
    }

    fn judge(&mut self) -> Result<(), Unexpected> {
        self.is_judged = true;
        let is_it = match self.form {
            Form::Profile => self.head.starts_with(GZIP),
            Form::Trace => is_trace(&self.head),
            // A page of some web application begins with a tag; no profile does.
            Form::Text => {
                !matches!(self.head.first(), None | Some(b'<'))
                    && !self.head.contains(&0)
                    && !self.head.starts_with(GZIP)
            }
        };
        if is_it { Ok(()) } else { Err(Unexpected(self.form)) }
    }
}

/// `go 1.NN trace` and three zeros.
fn is_trace(head: &[u8]) -> bool {
    let number = head.strip_prefix(b"go 1.").and_then(|rest| rest.strip_suffix(b" trace\0\0\0"));
    number.is_some_and(|number| number.len() == 2 && number.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Form::{Profile as Pprof, Text, Trace};

    fn check(form: Form, chunks: &[&[u8]]) -> bool {
        let mut check = Check::new(form);
        chunks.iter().all(|chunk| check.push(chunk).is_ok()) && check.finish().is_ok()
    }

    #[test]
    fn what_is_what() {
        let cases: [(Form, &[u8], bool); 17] = [
            (Pprof, b"\x1f\x8b\x08\0\0\0\0\0\0\xff", true),
            (Pprof, b"\x1f\x8b\x08\0\0\0\0\0\0\xff and much more of it", true),
            (Pprof, b"\x1f", false),
            (Pprof, b"", false),
            (Pprof, b"heap profile: 1: 2 [3: 4] @ heap/1048576\n", false),
            (Trace, b"go 1.26 trace\0\0\0", true),
            (Trace, b"go 1.11 trace\0\0\0\x01\x02", true),
            (Trace, b"go 1.26 trace\0\0", false),
            (Trace, b"go 1.2  trace\0\0\0", false),
            (Trace, b"go 2.26 trace\0\0\0", false),
            (Trace, b"", false),
            (Text, b"goroutine 1 [running]:\n", true),
            (Text, b"--- mutex:\n", true),
            (Text, b"", false),
            (Text, b"<!doctype html>", false),
            (Text, b"\x1f\x8b\x08", false),
            (Text, b"a\0b", false),
        ];
        for (form, bytes, expected) in cases {
            assert_eq!(check(form, &[bytes]), expected, "{form:?} {bytes:?}");
        }
    }

    #[test]
    fn the_form_follows_from_the_request() {
        let route = |profile, debug| Route { profile, seconds: None, debug, gc: None };
        assert_eq!(Form::of(&route(Profile::Heap, None)), Pprof);
        assert_eq!(Form::of(&route(Profile::Heap, Some(0))), Pprof);
        assert_eq!(Form::of(&route(Profile::Goroutine, Some(2))), Text);
        assert_eq!(Form::of(&route(Profile::Cpu, None)), Pprof);
        assert_eq!(Form::of(&route(Profile::Trace, None)), Trace);
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(bytes in prop::collection::vec(prop::sample::select(&b"go 1.26 trace\0\0\0\x1f\x8b<"[..]), 0..40), cut in 0_usize..40) {
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            for form in [Pprof, Text, Trace] {
                prop_assert_eq!(check(form, &[a, b]), check(form, &[&bytes]));
            }
        }

        #[test]
        fn a_trace_is_known_at_any_cut(cut in 0_usize..=16) {
            let (a, b) = b"go 1.26 trace\0\0\0".split_at(cut);
            prop_assert!(check(Trace, &[a, b]));
        }
    }
}
