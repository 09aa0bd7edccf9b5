//! The token files: read at the start, read again when they change, the last good set kept when they are broken.
//!
//! Reading waits for a disk, or for the server behind a mount: [`TokenStore::reload`] is for threads that may wait. Whoever decides about a request
//! takes [`TokenStore::current`], which waits for nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;

use super::identity::TokenSet;
use crate::config::walk::FILE_BYTES_MAX;
use crate::stamp::Stamp;
use crate::token::file;

/// Files that one pattern may name.
const FILES_MAX: usize = 1000;

/// The tokens of now. Readers take an [`Arc`] and are never in the way of a reload.
#[derive(Debug)]
pub struct TokenStore {
    patterns: Vec<PathBuf>,
    /// Known beside those of the files, and never changed.
    inline: Vec<file::Entry>,
    current: RwLock<Option<Arc<TokenSet>>>,
    seen: Mutex<Option<Vec<Stamp>>>,
    problem: watch::Sender<Option<String>>,
}

/// What a reload found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    Unchanged,
    /// This many tokens are known now.
    Loaded(usize),
    /// Every mistake; the earlier set stays.
    Broken(String),
}

impl TokenStore {
    /// Nothing is read yet, so that there is a [`problem`](Self::problem) until the first [`reload`](Self::reload). The last component of a pattern
    /// may hold `*`.
    #[must_use]
    pub fn new(patterns: Vec<PathBuf>) -> Self {
        let problem = watch::Sender::new(Some("the token files were not read yet".to_owned()));
        Self { patterns, inline: Vec::new(), current: RwLock::new(None), seen: Mutex::new(None), problem }
    }

    /// Adds tokens that stand in no file.
    #[must_use]
    pub fn with_inline(self, inline: Vec<file::Entry>) -> Self {
        Self { inline, ..self }
    }

    /// The same as [`Self::new`], read for the first time; [`problem`](Self::problem) tells whether that worked.
    #[must_use]
    pub fn open(patterns: Vec<PathBuf>) -> Self {
        let store = Self::new(patterns);
        store.reload();
        store
    }

    /// The last good set; `None` if there never was one.
    #[must_use]
    pub fn current(&self) -> Option<Arc<TokenSet>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the files as they are now cannot be used.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.borrow().clone()
    }

    /// Waits until the files as they are can be used.
    pub async fn usable(&self) {
        // The sender is ours, so it is there.
        drop(self.problem.subscribe().wait_for(Option::is_none).await);
    }

    /// Reads the files again if any of them changed, came or went. Waits for the disk.
    pub fn reload(&self) -> Reload {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = list(&self.patterns);
        let stamps = listed.as_ref().map(|paths| paths.iter().map(|path| Stamp::of(path)).collect::<Vec<_>>());
        if let (Ok(now), Some(before)) = (&stamps, &*seen)
            && now == before
        {
            return Reload::Unchanged;
        }
        let read = listed.as_ref().map_err(Clone::clone).and_then(|paths| read(paths, &self.inline));
        // Taken before reading: a change while we read shows next time.
        *seen = stamps.ok();
        match read {
            Ok(set) => {
                let count = set.len();
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(set));
                self.problem.send_replace(None);
                Reload::Loaded(count)
            }
            Err(problem) => {
                self.problem.send_replace(Some(problem.clone()));
                Reload::Broken(problem)
            }
        }
    }
}

/// The files that the patterns name, each once, in order.
fn list(patterns: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    for pattern in patterns {
        let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.contains('*') {
            paths.push(pattern.clone());
            continue;
        }
        let folder = match pattern.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            // A folder that is not there yet holds no tokens; one that cannot be read may hold some.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("{}: {error}", folder.display())),
        };
        let mut found: Vec<PathBuf> = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| format!("{}: {error}", folder.display()))?;
            if entry.file_name().to_str().is_some_and(|file| !file.starts_with('.') && matches(name, file)) {
                found.push(entry.path());
            }
            if found.len() > FILES_MAX {
                return Err(format!("{} names more than {FILES_MAX} files", pattern.display()));
            }
        }
        found.sort_unstable();
        paths.extend(found);
    }
    let mut once = Vec::new();
    for path in paths {
        if !once.contains(&path) {
            once.push(path);
        }
    }
    Ok(once)
}

fn read(paths: &[PathBuf], inline: &[file::Entry]) -> Result<TokenSet, String> {
    let mut problems = Vec::new();
    let mut entries: Vec<file::Entry> = inline.to_vec();
    for path in paths {
        let shown = path.display();
        let text = match fs::metadata(path) {
            Ok(meta) if meta.len() > FILE_BYTES_MAX as u64 => {
                Err(format!("{shown}: larger than {FILE_BYTES_MAX} bytes"))
            }
            Ok(_) => fs::read_to_string(path).map_err(|error| format!("{shown}: {error}")),
            Err(error) => Err(format!("{shown}: {error}")),
        };
        match text.map(|text| file::parse(&text)) {
            Ok(Ok(found)) => {
                for entry in found {
                    if entries.iter().any(|earlier| earlier.sha256 == entry.sha256) {
                        problems.push(format!("{shown}: the token {} stands in two files", entry.name));
                    }
                    entries.push(entry);
                }
            }
            Ok(Err(mistakes)) => problems.extend(mistakes.iter().map(|mistake| format!("{shown}: {mistake}"))),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(TokenSet::new(entries)) } else { Err(problems.join("; ")) }
}

/// Whether a file name matches a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Digest;
    use crate::token::tier::TierSet;

    fn document(name: &str) -> String {
        file::document(&file::entry(name, Digest::of(name.as_bytes()), TierSet::ALL, &[], None))
    }

    #[test]
    fn patterns() {
        let cases = [
            ("*.yaml", "a.yaml", true),
            ("*.yaml", ".yaml", true),
            ("*.yaml", "a.yaml~", false),
            ("*", "x", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "ac", false),
            ("a*", "ba", false),
            ("*a", "ab", false),
            ("**", "x", true),
            ("a*a", "a", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn changes_are_seen_and_a_broken_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let store = TokenStore::open(vec![path("*.yaml"), path("extra.yaml"), path("not/there/*.yaml")]);
        assert!(store.problem().unwrap().contains("extra.yaml"), "a file that is named must be there");
        assert!(store.current().is_none());

        fs::write(path("extra.yaml"), document("a")).unwrap();
        assert_eq!(store.reload(), Reload::Loaded(1), "named twice, read once");
        assert_eq!(store.reload(), Reload::Unchanged);

        fs::write(path("b.yaml"), document("b")).unwrap();
        fs::write(path(".hidden.yaml"), "tokens: 5").unwrap();
        assert_eq!(store.reload(), Reload::Loaded(2));

        fs::write(path("b.yaml"), "tokens:\n  - name: b\n").unwrap();
        let Reload::Broken(problem) = store.reload() else { panic!("broken") };
        assert!(problem.ends_with("b.yaml: tokens[0].sha256: missing (line 2)"), "{problem}");
        assert_eq!(store.current().unwrap().len(), 2);
        assert_eq!(store.problem(), Some(problem));

        fs::write(path("b.yaml"), document("a")).unwrap();
        assert!(matches!(store.reload(), Reload::Broken(problem) if problem.contains("stands in two files")));
        fs::remove_file(path("b.yaml")).unwrap();
        assert_eq!(store.reload(), Reload::Loaded(1));
        assert_eq!(store.problem(), None);
    }

    #[test]
    fn tokens_that_stand_in_no_file_are_known_beside_those_that_do() {
        let folder = tempfile::tempdir().unwrap();
        let inline = file::parse(&document("a")).unwrap();
        let store = TokenStore::new(vec![folder.path().join("*.yaml")]).with_inline(inline);
        assert_eq!(store.reload(), Reload::Loaded(1));
        assert_eq!(store.reload(), Reload::Unchanged);
        fs::write(folder.path().join("b.yaml"), document("b")).unwrap();
        assert_eq!(store.reload(), Reload::Loaded(2));
        fs::write(folder.path().join("b.yaml"), document("a")).unwrap();
        assert!(matches!(store.reload(), Reload::Broken(_)), "the same token twice");
        assert_eq!(store.current().unwrap().len(), 2);
    }

    #[test]
    fn a_swapped_link_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (version, token) in [("v1", "a"), ("v2", "b")] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("t.yaml"), document(token)).unwrap();
        }
        std::os::unix::fs::symlink("v1", path("..data")).unwrap();
        std::os::unix::fs::symlink("..data/t.yaml", path("t.yaml")).unwrap();
        let store = TokenStore::open(vec![path("*.yaml")]);
        std::os::unix::fs::symlink("v2", path("..new")).unwrap();
        fs::rename(path("..new"), path("..data")).unwrap();
        assert_eq!(store.reload(), Reload::Loaded(1));
    }
}
