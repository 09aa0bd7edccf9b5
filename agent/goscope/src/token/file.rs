//! Token files: `tokens: [{ name: alice, sha256: "…", tiers: [basic, cpu], allow: [127.0.0.1/32], expires: 2027-01-01T00:00:00Z }]`.

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;

use super::Digest;
use super::tier::{Tier, TierSet};
use crate::config::AddressRule;
use crate::config::check::Environment;
use crate::config::units::{address_rule_text, parse_address_rule};
use crate::config::walk::{self, Item, Mistake, Mistakes};

/// Tokens in one file.
pub const TOKENS_MAX: usize = 10_000;
/// Characters of a token's name.
pub const NAME_CHARS_MAX: usize = 64;

/// One entry: who, what they may, from where, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Appears in audit lines and keys the identity limit: letters, digits and `._@-`, at most [`NAME_CHARS_MAX`]. Two entries may share a name,
    /// so that a token can be rotated.
    pub name: Arc<str>,
    pub sha256: Digest,
    /// `[basic]` where the file says nothing.
    pub tiers: TierSet,
    /// Asked in addition to the gate's own list; empty admits every address.
    pub allow: Vec<AddressRule>,
    /// Refused from this moment on.
    pub expires: Option<Timestamp>,
    /// Refused before this moment.
    pub not_before: Option<Timestamp>,
}

/// Reads a token file.
///
/// # Errors
/// Every mistake in it, in the order of its lines. None of them holds a hash.
pub fn parse(text: &str) -> Result<Vec<Entry>, Vec<Mistake>> {
    let document = walk::parse(text).map_err(|mistake| vec![mistake])?;
    let mistakes = Mistakes::default();
    let mut entries: Vec<Entry> = Vec::new();
    {
        let mut file = document.walk(&mistakes);
        let list = file.require("tokens");
        let items = list.as_ref().and_then(Item::list).unwrap_or_default();
        if let Some(list) = list.filter(|_| items.len() > TOKENS_MAX) {
            list.refuse(format!("at most {TOKENS_MAX} tokens are read, found {}", items.len()));
        }
        for item in items.iter().take(TOKENS_MAX) {
            let Some(entry) = read_entry(item) else { continue };
            if entries.iter().any(|earlier| earlier.sha256 == entry.sha256) {
                item.refuse("the same sha256 stands in an earlier entry");
            }
            entries.push(entry);
        }
    }
    if mistakes.is_empty() { Ok(entries) } else { Err(mistakes.into_vec()) }
}

/// Reads the tokens of [`super::ENV_TOKENS`], if it is set.
///
/// # Errors
/// One sentence with every mistake.
pub fn of_environment(environment: Environment<'_>) -> Result<Vec<Entry>, String> {
    let Some(text) = environment(super::ENV_TOKENS) else { return Ok(Vec::new()) };
    parse(&text).map_err(|mistakes| {
        let mistakes: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        format!("{}: {}", super::ENV_TOKENS, mistakes.join("; "))
    })
}

fn read_entry(item: &Item<'_>) -> Option<Entry> {
    let mut entry = item.map();
    let name = entry.require("name").and_then(|item| item.parsed(check_name).map(Arc::from));
    let sha256 = entry.require("sha256").and_then(|item| {
        item.parsed(|text| {
            Digest::parse_hex(text).ok_or("expected the 64 hexadecimal digits that `goscope token hash` prints")
        })
    });
    let tiers = match entry.take("tiers") {
        None => Some(TierSet::default().with(Tier::Basic)),
        Some(item) => item.list().map(|items| items.iter().filter_map(|item| item.parsed(Tier::parse)).collect()),
    };
    let allow = match entry.take("allow") {
        None => Some(Vec::new()),
        Some(item) => item.list().map(|items| {
            if items.is_empty() {
                item.refuse("an empty list would admit every address; leave the key out for that");
            }
            items.iter().filter_map(|item| item.parsed(parse_address_rule)).collect()
        }),
    };
    let moment = |item: Item<'_>| item.parsed(parse_time);
    let expires = entry.take("expires").map(moment);
    let not_before = entry.take("notBefore").map(moment);
    if let (Some(Some(end)), Some(Some(start))) = (expires, not_before)
        && end <= start
    {
        item.refuse("expires is not after notBefore, so the token would never be valid");
    }
    // A value that is there but wrong must not become "none": a token without its expiry would live for ever.
    Some(Entry {
        name: name?,
        sha256: sha256?,
        tiers: tiers?,
        allow: allow?,
        expires: match expires {
            None => None,
            Some(read) => Some(read?),
        },
        not_before: match not_before {
            None => None,
            Some(read) => Some(read?),
        },
    })
}

/// Checks the name of a token.
///
/// # Errors
/// Empty, longer than [`NAME_CHARS_MAX`], or with other characters than letters, digits and `._@-`.
pub fn check_name(name: &str) -> Result<&str, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
    if !name.is_empty() && name.len() <= NAME_CHARS_MAX && name.bytes().all(good) && !name.contains(super::PREFIX) {
        Ok(name)
    } else {
        Err(format!("expected a name of 1 to {NAME_CHARS_MAX} letters, digits and ._@-"))
    }
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        format!("expected a time such as 2027-01-01T00:00:00Z, found {:?}", text.chars().take(40).collect::<String>())
    })
}

/// One entry as it stands in a file, indented by two.
#[must_use]
pub fn entry(name: &str, sha256: Digest, tiers: TierSet, allow: &[AddressRule], expires: Option<Timestamp>) -> String {
    let tiers: Vec<_> = tiers.iter().map(Tier::name).collect();
    let mut text =
        format!("  - name: {:?}\n    sha256: \"{}\"\n    tiers: [{}]\n", name, sha256.hex(), tiers.join(", "));
    if !allow.is_empty() {
        let rules: Vec<_> = allow.iter().map(|rule| format!("{:?}", address_rule_text(*rule))).collect();
        let _infallible = writeln!(text, "    allow: [{}]", rules.join(", "));
    }
    if let Some(expires) = expires {
        let _infallible = writeln!(text, "    expires: {expires}");
    }
    text
}

/// A whole file that holds one entry.
#[must_use]
pub fn document(entry: &str) -> String {
    format!("tokens:\n{entry}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn mistakes(text: &str) -> Vec<String> {
        parse(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn reads_what_the_promise_shows() {
        let text = format!(
            "tokens: [{{ name: alice, sha256: \"{SHA}\", tiers: [basic, cpu], allow: [127.0.0.1/32, '!10.0.0.0/8'], \
             expires: 2027-01-01T00:00:00Z, notBefore: 2026-01-01T00:00:00+01:00 }}]"
        );
        let entries = parse(&text).unwrap();
        assert_eq!(entries.len(), 1);
        let alice = &entries[0];
        assert_eq!((&*alice.name, alice.sha256.hex().as_str()), ("alice", SHA));
        assert_eq!(alice.tiers, [Tier::Basic, Tier::Cpu].into_iter().collect());
        assert_eq!(alice.allow.len(), 2);
        assert_eq!(alice.expires.unwrap().to_string(), "2027-01-01T00:00:00Z");
        assert_eq!(alice.not_before.unwrap().to_string(), "2025-12-31T23:00:00Z");
    }

    #[test]
    fn written_entries_read_back() {
        let sha = Digest::parse_hex(SHA).unwrap();
        let allow = [parse_address_rule("!10.0.0.0/8").unwrap(), parse_address_rule("::1").unwrap()];
        let expires: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
        let text = document(&entry("a.b@c-1", sha, TierSet::ALL, &allow, Some(expires)));
        let read = parse(&text).unwrap();
        assert_eq!(
            read,
            [Entry {
                name: "a.b@c-1".into(),
                sha256: sha,
                tiers: TierSet::ALL,
                allow: allow.to_vec(),
                expires: Some(expires),
                not_before: None
            }]
        );
        // A name that YAML would take for a number or a truth value stays a name.
        for name in ["123", "true", "1e5", "-"] {
            assert_eq!(&*parse(&document(&entry(name, sha, TierSet::ALL, &[], None))).unwrap()[0].name, name);
        }
    }

    #[test]
    fn every_mistake_is_found_and_none_shows_a_hash() {
        let text = format!(
            "tokens:\n  - name: a b\n    sha256: {SHA}\n  - sha256: 12ab\n    name: x\n    tier: [basic]\n  - name: y\n    sha256: {SHA}\n    \
             tiers: [basic, root]\n    allow: []\n    expires: tomorrow\n  - {{}}\n  - name: z\n    sha256: {SHA}\n    expires:\n\
             extra: 1\n"
        );
        assert_eq!(
            mistakes(&text),
            [
                "tokens[0].name: expected a name of 1 to 64 letters, digits and ._@- (line 2)",
                "tokens[1].sha256: expected the 64 hexadecimal digits that `goscope token hash` prints (line 4)",
                "tokens[1].tier: unknown key (line 6); did you mean \"tiers\"?",
                "tokens[2].tiers[1]: expected a tier (basic, cpu, trace, dump, vars, cmdline, artifacts, capture, admin), found \"root\" (line 9)",
                "tokens[2].allow: an empty list would admit every address; leave the key out for that (line 10)",
                "tokens[2].expires: expected a time such as 2027-01-01T00:00:00Z, found \"tomorrow\" (line 11)",
                "tokens[3].name: missing (line 12)",
                "tokens[3].sha256: missing (line 12)",
                "tokens[4].expires: expected text, found nothing (line 15)",
                "extra: unknown key (line 16)",
            ]
        );
        assert!(!mistakes(&text).concat().contains(SHA));
        let twice = format!("tokens: [{{name: a, sha256: \"{SHA}\"}}, {{name: b, sha256: \"{SHA}\"}}]");
        assert_eq!(mistakes(&twice), ["tokens[1]: the same sha256 stands in an earlier entry (line 1)"]);
        assert_eq!(mistakes(""), ["tokens: missing"]);
        assert_eq!(mistakes("tokens: 5"), ["tokens: expected a list, found \"5\" (line 1)"]);
    }

    #[test]
    fn the_environment_holds_a_whole_file() {
        let read =
            |text: Option<&str>| of_environment(&|name| text.filter(|_| name == "GOSCOPE_TOKENS").map(str::to_owned));
        assert_eq!(read(None), Ok(Vec::new()));
        let entry = entry("a", Digest::parse_hex(SHA).unwrap(), TierSet::ALL, &[], None);
        assert_eq!(read(Some(&document(&entry))).unwrap().len(), 1);
        assert_eq!(
            read(Some("tokens: [{name: a}]\nextra: 1")),
            Err("GOSCOPE_TOKENS: tokens[0].sha256: missing (line 1); extra: unknown key (line 2)".to_owned())
        );
    }

    #[test]
    fn a_token_that_could_never_be_valid_is_refused() {
        let text = format!(
            "tokens: [{{name: a, sha256: \"{SHA}\", expires: 2026-01-01T00:00:00Z, notBefore: 2026-01-01T00:00:00Z}}]"
        );
        assert_eq!(mistakes(&text).len(), 1);
    }
}
