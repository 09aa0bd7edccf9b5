//! Reading what a person wrote in YAML, so that every mistake is reported in one go.
//!
//! serde stops at the first mistake. Here a file becomes a [`Value`] that knows its lines, and a [`Walker`] takes the keys it knows out of each mapping.
//! A wrong value is noted in [`Mistakes`] and the walk goes on with `None`; what nobody took is an unknown key when the walker is dropped.
//!
//! ```
//! # use goscope::config::walk::{Mistakes, parse};
//! let value = parse("port: 80\nhots: a").unwrap();
//! let mistakes = Mistakes::default();
//! {
//!     let mut file = value.walk(&mistakes);
//!     let port = file.take("port").and_then(|item| item.integer(1..=65535));
//!     let host = file.take("host").and_then(|item| item.string());
//!     assert_eq!((port, host), (Some(80), None));
//! }
//! assert_eq!(mistakes.into_vec()[0].to_string(), "hots: unknown key (line 2); did you mean \"host\"?");
//! ```

use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};

/// Bytes of one configuration or token file. A larger one is refused unread.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Nesting of mappings and lists.
const DEPTH_MAX: usize = 32;

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// `gate.limits.perSource.rate`, `tokens[2].sha256`; empty for the document as a whole.
    pub path: String,
    /// Counted from 1; 0 where it is not known.
    pub line: u64,
    /// What was expected and what was found.
    pub message: String,
    /// The known key that an unknown one resembles.
    pub suggestion: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if self.line > 0 {
            write!(f, " (line {})", self.line)?;
        }
        self.suggestion.as_ref().map_or(Ok(()), |key| write!(f, "; did you mean \"{key}\"?"))
    }
}

/// Collects mistakes while a file is walked.
#[derive(Debug, Default)]
pub struct Mistakes(RefCell<Vec<Mistake>>);

impl Mistakes {
    /// Notes a mistake that the walk itself cannot see, for example two values that contradict each other.
    pub fn note(&self, path: impl Into<String>, line: u64, message: impl Into<String>) {
        self.push(Mistake { path: path.into(), line, message: message.into(), suggestion: None });
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// In the order of the file's lines.
    #[must_use]
    pub fn into_vec(self) -> Vec<Mistake> {
        let mut all = self.0.into_inner();
        all.sort_by_key(|mistake| mistake.line);
        all
    }

    fn push(&self, mistake: Mistake) {
        self.0.borrow_mut().push(mistake);
    }
}

/// A YAML node that knows its line and, for scalars, the text as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    line: u64,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Null,
    Scalar {
        text: String,
        kind: Kind,
    },
    List(Vec<Value>),
    /// Keys in the order of the file, repeated ones included.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    key: String,
    /// Of the key; the value may begin below it.
    line: u64,
    value: Value,
}

/// What YAML makes of a scalar. A number's or truth value's text stays as written, so that `2e3` can still be a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool(bool),
    Number,
    Text,
}

/// Parses one document. An empty one is an empty mapping.
///
/// # Errors
/// The text is not YAML, is larger than [`FILE_BYTES_MAX`], nests too deep or has several documents.
pub fn parse(text: &str) -> Result<Value, Mistake> {
    let refuse = |line, message| Mistake { path: String::new(), line, message, suggestion: None };
    if text.len() > FILE_BYTES_MAX {
        return Err(refuse(0, format!("the file has {} bytes, at most {FILE_BYTES_MAX} are read", text.len())));
    }
    let mut options = serde_saphyr::Options::default();
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    options.merge_keys = MergeKeyPolicy::AsOrdinary;
    options.non_finite_float_policy = NonFiniteFloatPolicy::PassThrough;
    options.strict_booleans = true;
    options.with_snippet = false;
    if let Some(budget) = &mut options.budget {
        budget.max_depth = DEPTH_MAX;
        budget.max_documents = 1;
        budget.max_nodes = 200_000;
        budget.max_aliases = 100;
    }
    let node: Option<Node> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(0, |at| at.line());
        refuse(line, format!("not valid YAML: {}", one_line(&error.to_string())))
    })?;
    Ok(node.map_or_else(|| Value { line: 0, content: Content::Null }, |node| node.value(text)))
}

impl Value {
    /// The document as a mapping. Anything else is noted as a mistake and walked as an empty one.
    #[must_use]
    pub fn walk<'a>(&'a self, mistakes: &'a Mistakes) -> Walker<'a> {
        Item { value: self, path: String::new(), mistakes }.map()
    }

    /// `text "5"`, `a list`: for the sentence that says what was found. A long text is cut.
    fn found(&self) -> String {
        match &self.content {
            Content::Null => "nothing".to_owned(),
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a mapping".to_owned(),
            Content::Scalar { text, .. } => {
                let shown: String = text.chars().take(40).collect();
                if shown.len() < text.len() { format!("{shown:?}…") } else { format!("{shown:?}") }
            }
        }
    }
}

/// The keys of one mapping. Dropped, it reports those that nobody took.
#[derive(Debug)]
pub struct Walker<'a> {
    entries: Vec<&'a Entry>,
    known: Vec<&'static str>,
    line: u64,
    path: String,
    mistakes: &'a Mistakes,
}

impl<'a> Walker<'a> {
    /// The value under a key that may be absent. A key given twice is a mistake; the first one counts.
    pub fn take(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.known.push(key);
        let mut taken = None;
        self.entries.retain(|entry| {
            if entry.key != key {
                return true;
            }
            if taken.is_some() {
                self.mistakes.note(join(&self.path, key), entry.line, "given twice");
            } else {
                taken = Some(&entry.value);
            }
            false
        });
        taken.map(|value| Item { value, path: join(&self.path, key), mistakes: self.mistakes })
    }

    /// The value under a key that must be there.
    pub fn require(&mut self, key: &'static str) -> Option<Item<'a>> {
        let item = self.take(key);
        if item.is_none() {
            self.mistakes.note(join(&self.path, key), self.line, "missing");
        }
        item
    }

    /// The mapping under a key; an absent one is walked as an empty one, so that defaults need no second path.
    pub fn section(&mut self, key: &'static str) -> Walker<'a> {
        match self.take(key) {
            Some(item) => item.map(),
            None => Walker {
                entries: Vec::new(),
                known: Vec::new(),
                line: self.line,
                path: join(&self.path, key),
                mistakes: self.mistakes,
            },
        }
    }

    /// Refuses a key that has another name now.
    pub fn renamed(&mut self, old: &'static str, new: &str) {
        if let Some(entry) = self.entries.iter().find(|entry| entry.key == old) {
            self.mistakes.note(join(&self.path, old), entry.line, format!("is now called \"{new}\""));
            self.entries.retain(|entry| entry.key != old);
        }
    }

    /// Where this mapping stands, for [`Mistakes::note`].
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }
}

impl Drop for Walker<'_> {
    fn drop(&mut self) {
        for entry in &self.entries {
            let shown: String = entry.key.chars().take(60).collect();
            self.mistakes.push(Mistake {
                path: join(&self.path, &shown),
                line: entry.line,
                message: "unknown key".to_owned(),
                suggestion: nearest(&shown, &self.known).map(str::to_owned),
            });
        }
    }
}

/// One value and where it stands.
#[derive(Debug)]
pub struct Item<'a> {
    value: &'a Value,
    path: String,
    mistakes: &'a Mistakes,
}

impl<'a> Item<'a> {
    /// A scalar's text as written; numbers and truth values count as text, so that a name may be `123`.
    #[must_use]
    pub fn string(&self) -> Option<&'a str> {
        match &self.value.content {
            Content::Scalar { text, .. } => Some(text),
            _ => self.wrong("text"),
        }
    }

    /// A scalar in a notation of its own, such as those of [`units`](super::units). The parser's error says what it expects.
    pub fn parsed<T, E: fmt::Display>(&self, parser: impl FnOnce(&'a str) -> Result<T, E>) -> Option<T> {
        match parser(self.string()?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(error.to_string());
                None
            }
        }
    }

    /// A decimal integer within the range.
    #[must_use]
    pub fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let number = match &self.value.content {
            Content::Scalar { text, .. } if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if range.contains(&number) => Some(number),
            _ => self.wrong(&format!("an integer from {} to {}", range.start(), range.end())),
        }
    }

    /// `true` or `false`.
    #[must_use]
    pub fn boolean(&self) -> Option<bool> {
        match self.value.content {
            Content::Scalar { kind: Kind::Bool(value), .. } => Some(value),
            _ => self.wrong("true or false"),
        }
    }

    /// The items of a list.
    #[must_use]
    pub fn list(&self) -> Option<Vec<Item<'a>>> {
        let Content::List(values) = &self.value.content else {
            return self.wrong("a list");
        };
        let item = |(index, value)| Item { value, path: format!("{}[{index}]", self.path), mistakes: self.mistakes };
        Some(values.iter().enumerate().map(item).collect())
    }

    /// A mapping. Nothing (`gate:` with every line below it commented out) is an empty one; anything else is noted and walked as an empty one.
    #[must_use]
    pub fn map(&self) -> Walker<'a> {
        let entries = match &self.value.content {
            Content::Map(entries) => entries.iter().collect(),
            Content::Null => Vec::new(),
            _ => self.wrong::<()>("a mapping").map_or_else(Vec::new, |()| Vec::new()),
        };
        let known = Vec::new();
        Walker { entries, known, line: self.value.line, path: self.path.clone(), mistakes: self.mistakes }
    }

    /// Notes a mistake at this value.
    pub fn refuse(&self, message: impl Into<String>) {
        self.mistakes.note(self.path.clone(), self.value.line, message);
    }

    fn wrong<T>(&self, expected: &str) -> Option<T> {
        self.refuse(format!("expected {expected}, found {}", self.value.found()));
        None
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The known key that was probably meant: equal but for case and `_`/`-`, or a few letters away.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = |key: &str| key.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    let wanted = plain(name);
    let candidates = known.iter().map(|key| (distance(&wanted, &plain(key)), *key));
    let (edits, key) = candidates.min_by_key(|(edits, _)| *edits)?;
    (edits <= wanted.len().min(key.len()) / 3).then_some(key)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words, after Damerau.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (row, from) in a.chars().enumerate() {
        let mut line = vec![row + 1];
        for (column, to) in b.iter().enumerate() {
            let mut edits = (line[column] + 1).min(last[column + 1] + 1).min(last[column] + usize::from(from != *to));
            if column > 0 && previous == Some(*to) && b[column - 1] == from {
                edits = edits.min(before[column - 1] + 1);
            }
            line.push(edits);
        }
        before = std::mem::replace(&mut last, line);
        previous = Some(from);
    }
    last[b.len()]
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What the YAML reader hands over: content with its place in the text.
struct Node(Spanned<Raw>);

enum Raw {
    Null,
    Bool(bool),
    Number,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    fn value(self, source: &str) -> Value {
        let at = self.0.referenced;
        let span = at.span();
        let written = || {
            let start = usize::try_from(span.byte_offset()?).ok()?;
            let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
            source.get(start..end).map(|text| text.trim().to_owned())
        };
        let content = match self.0.value {
            Raw::Null => Content::Null,
            Raw::Bool(value) => Content::Scalar { text: value.to_string(), kind: Kind::Bool(value) },
            Raw::Number => Content::Scalar { text: written().unwrap_or_default(), kind: Kind::Number },
            Raw::Text(text) => Content::Scalar { text, kind: Kind::Text },
            Raw::List(nodes) => Content::List(nodes.into_iter().map(|node| node.value(source)).collect()),
            Raw::Map(nodes) => Content::Map(
                nodes
                    .into_iter()
                    .map(|(key, node)| {
                        let line = key.0.referenced.line();
                        let key = match key.value(source).content {
                            Content::Scalar { text, .. } => text,
                            Content::Null => "null".to_owned(),
                            Content::List(_) => "[…]".to_owned(),
                            Content::Map(_) => "{…}".to_owned(),
                        };
                        Entry { key, line, value: node.value(source) }
                    })
                    .collect(),
            ),
        };
        Value { line: at.line(), content }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Node)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests;
