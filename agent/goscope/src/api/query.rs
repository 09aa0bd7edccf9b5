//! The query of a request: read once, every parameter known, none twice.
//!
//! Values may be percent-encoded, because clients encode the colons of a time; nobody reads the query after us, so there is no second reading to fear. A
//! plus sign is refused where it could mean a space.

use jiff::Timestamp;

use crate::config::units::parse_duration;
use crate::gate::refuse::{Code, Refusal};
use crate::gate::route::shown;

/// The parameters of one request.
#[derive(Debug, Default)]
pub struct Query<'q> {
    pairs: Vec<(&'q str, String)>,
}

impl<'q> Query<'q> {
    /// Reads `query`, which may hold `known` parameters.
    ///
    /// # Errors
    /// 400 an unknown parameter, one without a value, one that is given twice, or what cannot be decoded.
    pub fn read(query: Option<&'q str>, known: &[&str]) -> Result<Self, Refusal> {
        let refuse = |sentence: String| Err(Refusal::new(Code::BadQuery, sentence));
        let mut pairs: Vec<(&str, String)> = Vec::new();
        let query = query.unwrap_or_default();
        for pair in query.split('&').filter(|_| !query.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return refuse(format!("the parameter {} has no value", shown(pair)));
            };
            if !known.contains(&name) {
                let takes = if known.is_empty() { "none is taken here".to_owned() } else { known.join(", ") };
                return refuse(format!("unknown parameter {}; known: {takes}", shown(name)));
            }
            if pairs.iter().any(|(earlier, _)| *earlier == name) {
                return refuse(format!("{name} is given twice"));
            }
            let Some(value) = decoded(value).filter(|value| !value.is_empty()) else {
                return refuse(format!("{name} has no readable value: {}", shown(value)));
            };
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    /// The value of `name`.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// The value of `name`, as `parser` reads it; `expected` says in a few words what it should be.
    ///
    /// # Errors
    /// 400.
    pub fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        parser: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match parser(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Refusal::new(Code::BadQuery, format!("{name} must be {expected}, not {}", shown(value)))),
        }
    }

    /// A moment: `2026-11-23T08:57:04Z`, or `24h`, which is so long before `now`.
    ///
    /// # Errors
    /// 400.
    pub fn moment(&self, name: &str, now: Timestamp) -> Result<Option<Timestamp>, Refusal> {
        self.parsed(name, "a time such as 2026-11-23T08:57:04Z, or how long ago, such as 24h", |text| {
            text.parse().ok().or_else(|| now.checked_sub(parse_duration(text).ok()?).ok())
        })
    }

    /// A whole number from 1 to `max`.
    ///
    /// # Errors
    /// 400.
    pub fn count(&self, name: &str, max: usize) -> Result<Option<usize>, Refusal> {
        self.parsed(name, &format!("a whole number from 1 to {max}"), |text| {
            let plain = text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|count| plain && (1..=max).contains(count))
        })
    }
}

/// `None` for what is not the encoding of printable ASCII.
fn decoded(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit =
                    || bytes.next().and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
                digit()? << 4 | digit()?
            }
            b'+' | b';' => return None,
            byte => byte,
        };
        if !byte.is_ascii_graphic() {
            return None;
        }
        out.push(char::from(byte));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["since", "limit", "kind"];

    fn read(query: &str) -> Result<Query<'_>, Code> {
        Query::read(Some(query), &KNOWN).map_err(|refusal| refusal.code)
    }

    #[test]
    fn each_parameter_is_known_and_given_once() {
        let query = read("kind=heap&limit=5").unwrap();
        assert_eq!((query.value("kind"), query.value("limit"), query.value("since")), (Some("heap"), Some("5"), None));
        assert_eq!(Query::read(None, &[]).unwrap().value("kind"), None);
        assert!(read("").is_ok());
        for wrong in
            ["kind", "kind=", "kind=a&kind=a", "Kind=a", "host=a", "&", "kind=a&", "kind=%", "kind=%4", "kind=%zz"]
        {
            assert_eq!(read(wrong).map(|_| ()), Err(Code::BadQuery), "{wrong}");
        }
        for wrong in ["kind=a+b", "kind=a;b", "kind=%00", "kind=%20", "kind=%c3%a9", "kind=%0a"] {
            assert_eq!(read(wrong).map(|_| ()), Err(Code::BadQuery), "{wrong}");
        }
        assert_eq!(read("kind=%68ea%70").unwrap().value("kind"), Some("heap"));
    }

    #[test]
    fn moments_are_times_or_how_long_ago() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let at = |text: &str| read(text).unwrap().moment("since", now).map_err(|refusal| refusal.code);
        let time = |text: &str| Ok(Some(text.parse().unwrap()));
        assert_eq!(at("limit=1"), Ok(None));
        assert_eq!(at("since=2026-11-23T08:57:04Z"), time("2026-11-23T08:57:04Z"));
        assert_eq!(at("since=2026-11-23T08%3A57%3A04%2B01%3A00"), time("2026-11-23T07:57:04Z"));
        assert_eq!(at("since=24h"), time("2026-11-22T12:00:00Z"));
        for wrong in ["since=yesterday", "since=2026-11-23", "since=-5h", "since=5"] {
            assert_eq!(at(wrong), Err(Code::BadQuery), "{wrong}");
        }
    }

    #[test]
    fn counts_have_bounds() {
        let count = |text: &str| read(text).unwrap().count("limit", 500).map_err(|refusal| refusal.code);
        assert_eq!((count("limit=1"), count("limit=500"), count("kind=a")), (Ok(Some(1)), Ok(Some(500)), Ok(None)));
        for wrong in ["limit=0", "limit=501", "limit=-1", "limit=%2B1", "limit=x", "limit=99999999999999999999"] {
            assert_eq!(count(wrong), Err(Code::BadQuery), "{wrong}");
        }
    }
}
