//! Text for a person: colours, and foreign strings made safe for a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether to colour. On when the output is a terminal and `NO_COLOR` is unset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// SGR sequences.
    On,
    /// Plain text.
    Off,
}

impl Colour {
    /// `text` in bold red.
    #[must_use]
    pub fn alarm(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// `text` in bold.
    #[must_use]
    pub fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// `text` dimmed.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        match self {
            Self::On => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Off => text.to_owned(),
        }
    }
}

/// `text` on one line and without control characters: what a crashed program printed must not drive the reader's terminal.
///
/// LF becomes `⏎ `; other control characters, and those that change the direction of text, become `\u{…}`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("⏎ "),
            '\t' => out.push(' '),
            c if is_unsafe(c) => write!(out, "\\u{{{:x}}}", u32::from(c)).expect("writing to a string cannot fail"),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `1 goroutine`, `2 goroutines`: `count` with its noun.
#[must_use]
pub fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        for (input, expected) in [
            ("plain", "plain"),
            ("two\nlines", "two⏎ lines"),
            ("a\tb", "a b"),
            ("\x1b[2Jgone", "\\u{1b}[2Jgone"),
            ("\u{202e}txt.exe", "\\u{202e}txt.exe"),
            ("größe ∆", "größe ∆"),
        ] {
            assert_eq!(printable(input), expected);
        }
    }

    #[test]
    fn counts_agree_with_their_noun() {
        assert_eq!(plural(1, "group"), "1 group");
        assert_eq!(plural(0, "group"), "0 groups");
        assert_eq!(plural(12, "group"), "12 groups");
    }
}
