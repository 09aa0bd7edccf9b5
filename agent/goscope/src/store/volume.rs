//! A store as somebody sees it who did not write it: the artifacts of all hosts, one after the other.
//!
//! Agents write to it and delete from it meanwhile, so what was seen may be gone a moment later. Every name is opened below the folder that it was seen
//! in, and no symbolic link is followed there, so that a store which others can write to never leads its reader out of it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use rustix::io::Errno;

use super::{META, META_BYTES_MAX};
use crate::model::ArtifactId;

/// An open folder. It stays the same one whatever happens to its name.
#[derive(Debug)]
pub(super) struct Folder(File);

impl Folder {
    /// The folder that somebody named: a symbolic link in `path` is meant.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(File::from(openat(CWD, path, flags, Mode::empty())?)))
    }

    /// The folder `name` in this one; `None` where there is none of this name, or something else.
    pub(super) fn folder(&self, name: &str) -> io::Result<Option<Self>> {
        match self.open_below(name, OFlags::DIRECTORY) {
            Ok(folder) => Ok(Some(Self(File::from(folder)))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The regular file `name` in this one, for reading.
    pub(super) fn file(&self, name: &str) -> io::Result<File> {
        // Without NONBLOCK, opening a FIFO would wait for somebody to write to it.
        let file = File::from(self.open_below(name, OFlags::NONBLOCK)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
    }

    /// What `meta.json` holds, at most [`META_BYTES_MAX`] bytes of it.
    pub(super) fn meta(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        self.file(META)?.take(META_BYTES_MAX).read_to_end(&mut text)?;
        Ok(text)
    }

    /// Whether both are the same folder.
    pub(super) fn is_same(&self, other: &Self) -> io::Result<bool> {
        let (ours, theirs) = (self.0.metadata()?, other.0.metadata()?);
        Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
    }

    fn open_below(&self, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if !is_plain(name) {
            return Err(Errno::INVAL);
        }
        openat(&self.0, name, flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    /// Names that can be ours: of letters, digits, `-`, `.` and `_`, and not hidden. Left out is also `lost+found`, which nobody may read.
    pub(super) fn names(&self) -> io::Result<impl Iterator<Item = io::Result<String>>> {
        let is_ours = |name: &&str| {
            let is_plain = |byte| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_');
            !name.starts_with('.') && name.bytes().all(is_plain)
        };
        let names = Dir::read_from(&self.0)?.filter_map(move |entry| match entry {
            Ok(entry) => entry.file_name().to_str().ok().filter(is_ours).map(|name| Ok(name.to_owned())),
            Err(error) => Some(Err(error.into())),
        });
        Ok(names)
    }
}

/// Whether `name` names something in its own folder and nowhere else.
pub(super) fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

/// Where an artifact stands in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) kind: String,
    pub(super) id: ArtifactId,
}

impl Place {
    /// Below the store `root`.
    pub(super) fn path(&self, root: &Path) -> PathBuf {
        root.join(&self.host).join(&self.kind).join(self.id.as_str())
    }
}

/// What a walk comes across.
#[derive(Debug)]
pub(super) enum Seen<'a> {
    /// A folder that is named as an artifact is, and the folder that it stands in.
    Artifact { place: Place, folder: Folder, parent: &'a Folder },
    /// Something that cannot be read; `path` is relative to the store.
    Unreadable { path: PathBuf, error: io::Error },
}

/// Shows every artifact of the store `root` to `visit`, and ends early where that fails. Whatever does not look like a part of a store is passed over. It
/// holds one folder of each level open and nothing else, however many artifacts there are.
pub(super) fn each<E>(root: &Folder, visit: &mut dyn FnMut(Seen<'_>) -> Result<(), E>) -> Result<(), E> {
    each_folder(root, Path::new(""), visit, &mut |host_name, host, visit| {
        each_folder(&host, Path::new(host_name), visit, &mut |kind_name, kind, visit| {
            let path = Path::new(host_name).join(kind_name);
            each_folder(&kind, &path, visit, &mut |name, folder, visit| {
                let Some(id) = ArtifactId::parse(name) else { return Ok(()) };
                let place = Place { host: host_name.to_owned(), kind: kind_name.to_owned(), id };
                visit(Seen::Artifact { place, folder, parent: &kind })
            })
        })
    })
}

type Visit<'a, E> = &'a mut dyn FnMut(Seen<'_>) -> Result<(), E>;
type Enter<'a, E> = &'a mut dyn FnMut(&str, Folder, Visit<'_, E>) -> Result<(), E>;

fn each_folder<E>(parent: &Folder, path: &Path, visit: Visit<'_, E>, enter: Enter<'_, E>) -> Result<(), E> {
    let names = match parent.names() {
        Ok(names) => names,
        Err(error) => return visit(Seen::Unreadable { path: path.to_owned(), error }),
    };
    for name in names {
        let name = match name {
            Ok(name) => name,
            Err(error) => return visit(Seen::Unreadable { path: path.to_owned(), error }),
        };
        match parent.folder(&name) {
            Ok(Some(folder)) => enter(&name, folder, visit)?,
            Ok(None) => {}
            Err(error) => visit(Seen::Unreadable { path: path.join(&name), error })?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const ID: &str = "2026-11-23T08-57-04Z-0123456789";

    #[test]
    fn only_artifacts_are_shown_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        for folder in [
            format!("pod-1/incidents/{ID}"),
            format!("pod-2/heap/{ID}/inner"),
            format!(".staging/heap/{ID}"),
            format!("pod-1/.staging/{ID}"),
            format!("lost+found/heap/{ID}"),
            "pod-1/incidents/lost+found".to_owned(),
        ] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("README"), "a file").unwrap();
        fs::write(root.join("pod-2/heap/2026-11-23T08-57-04Z-abcdef0123"), "a file named as an artifact").unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir_all(outside.join("heap").join(ID)).unwrap();
        symlink(&outside, root.join("pod-3")).unwrap();
        symlink(outside.join("heap"), root.join("pod-2/trace")).unwrap();
        symlink(outside.join("heap").join(ID), root.join("pod-2/heap/2026-11-23T08-57-05Z-0123456789")).unwrap();
        let mut found = Vec::new();
        each::<Infallible>(&Folder::open(&root).unwrap(), &mut |seen| {
            let Seen::Artifact { place, .. } = seen else { panic!("{seen:?}") };
            found.push(place.path(Path::new("")).display().to_string());
            Ok(())
        })
        .unwrap();
        found.sort();
        assert_eq!(found, [format!("pod-1/incidents/{ID}"), format!("pod-2/heap/{ID}")]);
    }

    #[test]
    fn a_file_is_a_regular_one_below_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "text").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        rustix::fs::mkfifoat(CWD, dir.path().join("fifo"), Mode::RUSR).unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(io::read_to_string(folder.file("file").unwrap()).unwrap(), "text");
        for name in ["link", "fifo", ".", "..", "", "../file", "a/b", "/etc/passwd", "nul\0byte"] {
            assert!(folder.file(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_walk_ends_where_its_visitor_fails() {
        let dir = tempfile::tempdir().unwrap();
        for host in ["a", "b", "c"] {
            fs::create_dir_all(dir.path().join(host).join("heap").join(ID)).unwrap();
        }
        let mut visits = 0;
        let ended = each(&Folder::open(dir.path()).unwrap(), &mut |_| {
            visits += 1;
            if visits == 2 { Err("enough") } else { Ok(()) }
        });
        assert_eq!((ended, visits), (Err("enough"), 2));
    }
}
