//! Puts what is downloaded into files: under the name that the agent gives, whole and verified or not at all, and never over a file that is there.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use http::HeaderMap;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, ETAG};
use ring::digest::{self, SHA256};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::api::Download;
use super::progress::{Progress, Unit};
use super::say;

/// Characters of a file name that another machine chose.
const NAME_CHARS_MAX: usize = 200;

/// Where a download goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To {
    Stdout,
    /// Exactly there.
    File(PathBuf),
    /// Into this folder, by the name that the agent gives.
    Folder(PathBuf),
}

impl To {
    /// As `-o` says it: `-`, a folder that is there, or a file; without it the folder that we are in.
    pub(super) fn of(output: Option<&Path>) -> Self {
        match output {
            None => Self::Folder(PathBuf::from(".")),
            Some(path) if path == Path::new("-") => Self::Stdout,
            Some(path) if path.is_dir() => Self::Folder(path.to_owned()),
            Some(path) => Self::File(path.to_owned()),
        }
    }
}

/// Writes a download to where it belongs, and returns the file's path if it is one. `fallback` is its name where the agent gives none.
///
/// # Errors
/// The file is there already and `force` is not given, the stream broke, or the bytes are not those that the agent has stored.
pub(super) async fn save(download: Download, to: &To, fallback: &str, force: bool) -> anyhow::Result<Option<PathBuf>> {
    let path = match to {
        To::Stdout => {
            copy(download, &mut io::stdout().lock(), fallback).await?;
            return Ok(None);
        }
        To::File(path) => path.clone(),
        To::Folder(folder) => {
            let name = announced_name(&download.headers).unwrap_or_else(|| clean(fallback));
            if folder == Path::new(".") { PathBuf::from(name) } else { folder.join(name) }
        }
    };
    save_file(download, &path, &path.display().to_string(), force).await?;
    Ok(Some(path))
}

/// As [`save`], into this file, which messages name as `shown`.
///
/// # Errors
/// As [`save`].
pub(super) async fn save_file(download: Download, path: &Path, shown: &str, force: bool) -> anyhow::Result<()> {
    if !force && path.symlink_metadata().is_ok() {
        bail!("{shown} is there already; name another file with -o, or say --force");
    }
    let part = Part::create(path)?;
    let mut file = &part.file;
    copy(download, &mut file, shown).await?;
    part.finish(path, force)
}

/// Copies to the end and compares the checksum.
async fn copy(mut download: Download, out: &mut impl io::Write, label: &str) -> anyhow::Result<()> {
    let total = header(&download.headers, &CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let expected = header(&download.headers, &ETAG).and_then(checksum);
    let mut progress = Progress::new(label, Unit::Bytes, total);
    let mut sum = digest::Context::new(&SHA256);
    let mut done = 0;
    while let Some(piece) = download.next().await? {
        sum.update(&piece);
        out.write_all(&piece).with_context(|| format!("cannot write {label}"))?;
        done += piece.len() as u64;
        progress.at(done);
    }
    out.flush().with_context(|| format!("cannot write {label}"))?;
    drop(progress);
    let found: String = sum.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    match expected {
        Some(expected) if expected == found => Ok(()),
        Some(expected) => {
            bail!(
                "{label}: the bytes have another checksum ({found}) than the agent has stored ({expected}); try again"
            )
        }
        None => {
            say(&format!("{label}: the agent gave no checksum to compare"));
            Ok(())
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The SHA-256 that an entity tag holds.
fn checksum(tag: &str) -> Option<String> {
    let tag = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
    (tag.len() == 64 && tag.bytes().all(|b| b.is_ascii_hexdigit())).then(|| tag.to_ascii_lowercase())
}

/// The file name of `Content-Disposition`, made safe.
fn announced_name(headers: &HeaderMap) -> Option<String> {
    let value = header(headers, &CONTENT_DISPOSITION)?;
    let (_, after) = value.split_once("filename=")?;
    let name = match after.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => after.split(';').next()?.trim(),
    };
    Some(clean(name)).filter(|name| !name.is_empty())
}

/// A name without a path and without anything that a shell or a terminal could take for something else; empty if nothing is left.
pub(super) fn clean(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._+-".contains(c) { c } else { '_' };
    let cleaned: String = base.chars().map(plain).take(NAME_CHARS_MAX).collect();
    cleaned.trim_start_matches(['.', '-']).to_owned()
}

/// A file on its way, removed unless it is finished.
struct Part {
    file: File,
    path: PathBuf,
}

impl Part {
    /// Beside `target`, so that it can be renamed. Its owner's alone: a profile or a dump may hold what the app was told in confidence.
    fn create(target: &Path) -> anyhow::Result<Self> {
        let name = target.file_name().with_context(|| format!("{} names no file", target.display()))?;
        let path = target.with_file_name(part_name(name));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { file, path })
    }

    fn finish(self, target: &Path, force: bool) -> anyhow::Result<()> {
        place(&self.path, target, force)
    }
}

/// What a file or folder is called while it is on its way.
fn part_name(name: &OsStr) -> OsString {
    let mut part = OsString::from(".");
    part.push(name);
    part.push(format!(".{}.part", std::process::id()));
    part
}

/// Renames, over what is there only if forced to.
fn place(path: &Path, target: &Path, force: bool) -> anyhow::Result<()> {
    let flags = if force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    match renameat_with(CWD, path, CWD, target, flags) {
        // A file system that cannot tell: the name was free a moment ago.
        Err(rustix::io::Errno::INVAL) if !force && target.symlink_metadata().is_err() => fs::rename(path, target),
        renamed => renamed.map_err(io::Error::from),
    }
    .with_context(|| format!("cannot put {} into place", target.display()))
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already where it was finished.
        fs::remove_file(&self.path).ok();
    }
}

/// A folder on its way, removed unless it is finished: it is whole or not there.
pub(super) struct PartFolder {
    path: PathBuf,
    target: PathBuf,
    /// The target was there before, and gets the files one by one.
    is_there: bool,
}

impl PartFolder {
    /// Its owner's alone, as the files in it.
    ///
    /// # Errors
    /// The target is there and `force` is not given or it is no folder, or the folder cannot be made.
    pub(super) fn create(target: &Path, force: bool) -> anyhow::Result<Self> {
        let shown = target.display();
        let is_there = target.symlink_metadata().is_ok();
        if is_there && !(force && target.is_dir()) {
            bail!("{shown} is there already; name another folder with -o, or say --force");
        }
        let path = if is_there {
            target.join(part_name(OsStr::new("incident")))
        } else {
            target.with_file_name(part_name(target.file_name().with_context(|| format!("{shown} names no folder"))?))
        };
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make the folder {shown}"))?;
        Ok(Self { path, target: target.to_owned(), is_there })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// # Errors
    /// Something took the target's name meanwhile.
    pub(super) fn finish(self) -> anyhow::Result<PathBuf> {
        if self.is_there {
            let shown = self.target.display();
            for entry in fs::read_dir(&self.path).with_context(|| format!("cannot fill {shown}"))? {
                let name = entry.with_context(|| format!("cannot fill {shown}"))?.file_name();
                place(&self.path.join(&name), &self.target.join(&name), true)?;
            }
        } else {
            place(&self.path, &self.target, false)?;
        }
        Ok(self.target.clone())
    }
}

impl Drop for PartFolder {
    fn drop(&mut self) {
        // Gone already where it was finished.
        fs::remove_dir_all(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::io::Write as _;

    #[test]
    fn names_of_another_machine_are_made_safe() {
        let name = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static(value));
            announced_name(&headers)
        };
        for (value, expected) in [
            (
                "attachment; filename=\"shop-heap-2026-11-23T08-57-04Z.pb.gz\"",
                Some("shop-heap-2026-11-23T08-57-04Z.pb.gz"),
            ),
            ("attachment; filename=a.txt; size=5", Some("a.txt")),
            ("attachment; filename=\"../../etc/passwd\"", Some("passwd")),
            ("attachment; filename=\"..\\\\..\\\\x\"", Some("x")),
            ("attachment; filename=\".bashrc\"", Some("bashrc")),
            ("attachment; filename=\"-rf\"", Some("rf")),
            ("attachment; filename=\"a b;$(c)\"", Some("a_b___c_")),
            ("attachment; filename=\"..\"", None),
            ("attachment; filename=\"\"", None),
            ("attachment", None),
        ] {
            assert_eq!(name(value).as_deref(), expected, "{value}");
        }
        assert_eq!(clean(&"x".repeat(1000)).len(), NAME_CHARS_MAX);
    }

    #[test]
    fn entity_tags() {
        let sum = "9F86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(checksum(&format!("\"{sum}\"")), Some(sum.to_ascii_lowercase()));
        assert_eq!(checksum(&format!("W/\"{sum}\"")), Some(sum.to_ascii_lowercase()));
        assert_eq!(checksum("\"abc\""), None);
    }

    #[test]
    fn nothing_is_overwritten_unless_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("a");
        let write = |text: &str, force: bool| {
            let part = Part::create(&target).expect("a part");
            (&part.file).write_all(text.as_bytes()).expect("written");
            part.finish(&target, force)
        };
        write("first", false).expect("the name is free");
        assert!(write("second", false).is_err());
        assert_eq!(fs::read_to_string(&target).expect("there"), "first");
        write("third", true).expect("forced");
        assert_eq!(fs::read_to_string(&target).expect("there"), "third");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "no part is left");
    }

    #[test]
    fn where_it_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(To::of(None), To::Folder(".".into()));
        assert_eq!(To::of(Some(Path::new("-"))), To::Stdout);
        assert_eq!(To::of(Some(folder.path())), To::Folder(folder.path().to_owned()));
        assert_eq!(To::of(Some(&folder.path().join("a"))), To::File(folder.path().join("a")));
    }
}
