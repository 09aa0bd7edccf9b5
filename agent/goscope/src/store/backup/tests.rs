use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::{Value, json};

use super::*;
use crate::model::ArtifactId;
use crate::telemetry::chain;

/// A source and a destination.
struct Pair {
    dir: tempfile::TempDir,
}

impl Pair {
    fn new() -> Self {
        let pair = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(pair.from()).unwrap();
        fs::create_dir(pair.to()).unwrap();
        pair
    }

    fn from(&self) -> PathBuf {
        self.dir.path().join("from")
    }

    fn to(&self) -> PathBuf {
        self.dir.path().join("to")
    }

    /// Stores an artifact of 12:00:`second` as an agent of `host` does; returns its path below the store.
    fn put(&self, host: &str, kind: &str, second: u32, files: &[(&str, &[u8])], pinned: bool) -> PathBuf {
        put(&self.from(), host, kind, second, files, pinned)
    }

    fn plan(&self) -> Plan {
        Plan { from: self.from(), to: self.to(), keep_since: None }
    }

    /// What a backup counts, and the flaws that it tells.
    fn backup(&self) -> (Summary, Vec<String>) {
        backup(self.plan())
    }

    fn backup_since(&self, since: &str) -> (Summary, Vec<String>) {
        backup(Plan { keep_since: Some(since.parse().unwrap()), ..self.plan() })
    }
}

fn put(root: &Path, host: &str, kind: &str, second: u32, files: &[(&str, &[u8])], pinned: bool) -> PathBuf {
    let time: Timestamp = format!("2026-11-23T12:00:{second:02}Z").parse().unwrap();
    let place = Place { host: host.to_owned(), kind: kind.to_owned(), id: ArtifactId::new(time, kind) };
    commit(&staging(root, host), root, &place, files, pinned);
    place.path(Path::new(""))
}

fn staging(root: &Path, host: &str) -> StagingFolder {
    StagingFolder::open(&root.join(host).join(".staging"), now()).unwrap()
}

fn commit(staging: &StagingFolder, root: &Path, place: &Place, files: &[(&str, &[u8])], pinned: bool) {
    let mut staged = staging.stage().unwrap();
    for (name, content) in files {
        staged.file(name, |file| file.write_all(content)).unwrap();
    }
    let meta: Meta = serde_json::from_value(json!({
        "schema": "goscope.artifact/v1", "id": place.id.as_str(), "kind": place.kind, "created": "", "host": place.host,
        "bytes": staged.bytes(), "files": staged.files(), "pinned": pinned, "requested_by": "crash",
    }))
    .unwrap();
    fs::create_dir_all(root.join(&place.host).join(&place.kind)).unwrap();
    staged.finish(&meta, &place.id, &place.path(root)).unwrap();
}

fn now() -> Timestamp {
    "2026-11-24T00:00:00Z".parse().unwrap()
}

fn backup(plan: Plan) -> (Summary, Vec<String>) {
    let (mut summary, mut flaws) = (Summary::default(), Vec::new());
    let from = plan.from.clone();
    let backup = Backup::open(plan, now()).unwrap();
    backup
        .run(&mut summary, &mut |path, flaw| {
            let shown = path.strip_prefix(&from).unwrap_or(path).display().to_string();
            flaws.push(format!("{shown}: {}", chain(flaw)));
        })
        .unwrap();
    (summary, flaws)
}

/// Every file below `root` with its content, without what stands in staging folders.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap() {
                kind if kind.is_dir() && entry.file_name() != ".staging" => folders.push(entry.path()),
                kind if kind.is_file() => {
                    let content = fs::read(entry.path()).unwrap();
                    found.insert(entry.path().strip_prefix(root).unwrap().to_owned(), content);
                }
                _ => {}
            }
        }
    }
    found
}

/// Rewrites `meta.json` of an artifact.
fn edit(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join(META);
    let mut meta = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut meta);
    fs::write(path, serde_json::to_vec(&meta).unwrap()).unwrap();
}

#[test]
fn the_copy_is_the_store_and_only_what_is_new_is_copied_again() {
    let pair = Pair::new();
    let big = vec![7; 3 * BUFFER_BYTES + 1];
    pair.put("pod-1", "incidents", 1, &[("stderr.txt", b"panic: boom\n"), ("before.txt", b"")], false);
    pair.put("pod-2", "heap", 2, &[("content.gz", &big)], true);
    let before = tree(&pair.from());
    let bytes = 12 + big.len() as u64;
    let first = Summary { copied: 2, copied_bytes: bytes, ..Summary::default() };
    assert_eq!(pair.backup(), (first, Vec::new()));
    assert_eq!(tree(&pair.to()), before, "as it is at the source, byte for byte");
    assert_eq!(tree(&pair.from()), before, "the source is untouched");
    pair.put("pod-1", "incidents", 3, &[("stderr.txt", b"x")], false);
    let second = Summary { copied: 1, copied_bytes: 1, there_already: 2, ..Summary::default() };
    assert_eq!(pair.backup(), (second, Vec::new()));
    assert_eq!(tree(&pair.to()), tree(&pair.from()));
    assert_eq!(fs::read_dir(pair.to().join(".staging")).unwrap().count(), 0, "nothing is left in staging");
}

#[test]
fn a_later_version_s_meta_is_copied_as_it_is_written() {
    let pair = Pair::new();
    let path = pair.put("pod-1", "heap", 1, &[("content.gz", b"x")], false);
    edit(&pair.from().join(&path), |meta| meta["of_a_later_version"] = json!({ "a": [1, 2] }));
    pair.backup();
    assert_eq!(tree(&pair.to()), tree(&pair.from()));
}

#[test]
fn damaged_artifacts_are_told_and_left_out_and_the_others_copied() {
    type Damage = fn(&Path);
    let cases: [(Damage, &str); 12] = [
        (
            |folder| fs::write(folder.join("a.txt"), "contenT").unwrap(),
            "a.txt has not the SHA-256 that meta.json states",
        ),
        (
            |folder| fs::write(folder.join("a.txt"), "longer than stated").unwrap(),
            "a.txt has not the 7 bytes that meta.json states",
        ),
        (|folder| fs::write(folder.join("a.txt"), "cut").unwrap(), "a.txt has not the 7 bytes that meta.json states"),
        (
            |folder| fs::remove_file(folder.join("a.txt")).unwrap(),
            "cannot read a.txt: No such file or directory (os error 2)",
        ),
        (
            |folder| fs::remove_file(folder.join(META)).unwrap(),
            "cannot read meta.json: No such file or directory (os error 2)",
        ),
        (
            |folder| fs::write(folder.join(META), "{\"schema\":").unwrap(),
            "meta.json is not that of an artifact: EOF while parsing a value at line 1 column 10",
        ),
        (|folder| edit(folder, |meta| meta["id"] = "other".into()), "meta.json is that of \"other\""),
        (
            |folder| edit(folder, |meta| meta["files"][0]["name"] = "../a.txt".into()),
            "meta.json names a file \"../a.txt\"",
        ),
        (|folder| edit(folder, |meta| meta["files"][0]["name"] = META.into()), "meta.json names a file \"meta.json\""),
        (
            |folder| edit(folder, |meta| meta["files"] = json!([meta["files"][0], meta["files"][0]])),
            "meta.json names a file \"a.txt\"",
        ),
        (
            |folder| {
                fs::rename(folder.join("a.txt"), folder.join("b.txt")).unwrap();
                symlink("b.txt", folder.join("a.txt")).unwrap();
            },
            "cannot read a.txt: Too many levels of symbolic links (os error 40)",
        ),
        (
            |folder| {
                fs::remove_file(folder.join("a.txt")).unwrap();
                fs::create_dir(folder.join("a.txt")).unwrap();
            },
            "cannot read a.txt: not a regular file",
        ),
    ];
    for (damage, expected) in cases {
        let pair = Pair::new();
        let bad = pair.put("pod-1", "heap", 1, &[("a.txt", b"content")], false);
        let good = pair.put("pod-1", "heap", 2, &[("a.txt", b"content")], false);
        damage(&pair.from().join(&bad));
        let summary = Summary { copied: 1, copied_bytes: 7, damaged: 1, ..Summary::default() };
        assert_eq!(pair.backup(), (summary, vec![format!("{}: {expected}", bad.display())]));
        assert!(!pair.to().join(&bad).exists(), "{expected}");
        assert!(pair.to().join(&good).join(META).is_file(), "{expected}");
        assert_eq!(
            fs::read_dir(pair.to().join(".staging")).unwrap().count(),
            0,
            "nothing is left in staging: {expected}"
        );
    }
}

#[test]
fn what_is_no_artifact_stays_where_it_is() {
    let pair = Pair::new();
    let path = pair.put("pod-1", "heap", 1, &[("content.gz", b"x")], false);
    fs::create_dir_all(pair.from().join("pod-1/heap/lost+found")).unwrap();
    fs::write(pair.from().join("notes.txt"), "mine").unwrap();
    fs::create_dir_all(pair.to().join("pod-1/heap/kept")).unwrap();
    fs::write(pair.to().join("pod-1/heap/kept/file"), "mine").unwrap();
    let (summary, flaws) = pair.backup_since("2026-11-23T13:00:00Z");
    assert_eq!((summary.too_old, flaws), (1, Vec::new()));
    let (summary, flaws) = pair.backup_since("2026-11-23T11:00:00Z");
    assert_eq!((summary.copied, flaws), (1, Vec::new()));
    assert!(pair.to().join(path).is_dir());
    assert_eq!(fs::read(pair.to().join("pod-1/heap/kept/file")).unwrap(), b"mine");
    assert!(!pair.to().join("notes.txt").exists() && !pair.to().join("pod-1/heap/lost+found").exists());
}

#[test]
fn what_is_older_and_not_pinned_is_removed_at_the_destination_only() {
    let pair = Pair::new();
    let old = pair.put("pod-1", "heap", 1, &[("content.gz", b"x")], false);
    let pinned = pair.put("pod-1", "heap", 2, &[("content.gz", b"x")], true);
    let pinned_later = pair.put("pod-1", "heap", 3, &[("content.gz", b"x")], false);
    let edge = pair.put("pod-1", "heap", 10, &[("content.gz", b"x")], false);
    assert_eq!(pair.backup().0.copied, 4);
    edit(&pair.from().join(&pinned_later), |meta| meta["pinned"] = true.into());
    let source = tree(&pair.from());
    let expected =
        Summary { copied: 1, copied_bytes: 1, there_already: 2, too_old: 1, removed: 2, ..Summary::default() };
    assert_eq!(pair.backup_since("2026-11-23T12:00:10Z"), (expected, Vec::new()));
    assert!(!pair.to().join(old).exists());
    for kept in [pinned, pinned_later, edge] {
        assert!(pair.to().join(&kept).join(META).is_file(), "{}", kept.display());
    }
    assert_eq!(tree(&pair.from()), source);
    // It has settled.
    let settled = Summary { there_already: 3, too_old: 1, ..Summary::default() };
    assert_eq!(pair.backup_since("2026-11-23T12:00:10Z"), (settled, Vec::new()));
}

#[test]
fn a_damaged_copy_is_told_and_not_removed() {
    let pair = Pair::new();
    let path = put(&pair.to(), "pod-1", "heap", 1, &[("content.gz", b"x")], false);
    fs::write(pair.to().join(&path).join(META), "?").unwrap();
    let (summary, flaws) = pair.backup_since("2026-11-23T13:00:00Z");
    assert_eq!((summary.damaged, summary.removed, flaws.len()), (1, 0, 1), "{flaws:?}");
    assert!(pair.to().join(path).is_dir());
}

#[test]
fn what_stands_in_the_way_is_told_and_stays() {
    let pair = Pair::new();
    let path = pair.put("pod-1", "heap", 1, &[("content.gz", b"x")], false);
    fs::create_dir_all(pair.to().join(&path)).unwrap();
    fs::write(pair.to().join(&path).join("file"), "mine").unwrap();
    let (summary, flaws) = pair.backup();
    assert_eq!(summary, Summary { damaged: 1, ..Summary::default() });
    assert_eq!(flaws, [format!("{}: something else has its name at the destination", path.display())]);
    assert_eq!(fs::read(pair.to().join(&path).join("file")).unwrap(), b"mine");
}

#[test]
fn a_link_at_the_destination_does_not_lead_out_of_it() {
    let pair = Pair::new();
    pair.put("pod-1", "heap", 1, &[("content.gz", b"x")], false);
    let outside = pair.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, pair.to().join("pod-1")).unwrap();
    let error = Backup::open(pair.plan(), now()).unwrap().run(&mut Summary::default(), &mut |_, _| {}).unwrap_err();
    assert_eq!(chain(&error), format!("cannot use {}: it is no folder", pair.to().join("pod-1").display()));
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

#[test]
fn a_folder_that_cannot_be_a_destination_is_refused_before_anything_is_done() {
    let pair = Pair::new();
    let absent = pair.dir.path().join("absent");
    let check = |from: &Path, to: &Path, expected: &str| {
        let plan = Plan { from: from.into(), to: to.into(), keep_since: None };
        let error = chain(&Backup::open(plan, now()).unwrap_err());
        assert!(error.starts_with(expected), "{error}");
    };
    check(&absent, &pair.to(), "cannot read ");
    check(&pair.from(), &absent, "cannot use ");
    let link = pair.dir.path().join("link");
    symlink(pair.from(), &link).unwrap();
    check(&pair.from(), &link, &format!("{} and {} are the same folder", pair.from().display(), link.display()));
    assert!(!pair.from().join(".staging").exists());
}

/// As an agent evicts: the folder is renamed, then what is in it deleted.
#[test]
fn an_artifact_that_vanishes_is_no_flaw() {
    let pair = Pair::new();
    let path = pair.put("pod-1", "heap", 1, &[("content.gz", b"x")], false);
    let from = Folder::open(&pair.from()).unwrap();
    let mut seen_at_all = false;
    let backup = Backup::open(pair.plan(), now()).unwrap();
    let (mut summary, mut flaws) = (Summary::default(), 0);
    let mut damaged = |_: &Path, _: &Flaw| flaws += 1;
    let mut running =
        Running { plan: &backup.plan, staging: &backup.staging, summary: &mut summary, damaged: &mut damaged };
    each(&from, &mut |seen| {
        seen_at_all = true;
        let aside = pair.from().join("pod-1/.staging/evicted-1");
        fs::rename(pair.from().join(&path), &aside).unwrap();
        fs::remove_file(aside.join(META)).unwrap();
        running.take(seen)
    })
    .unwrap();
    assert!(seen_at_all);
    assert_eq!((summary, flaws), (Summary { vanished: 1, ..Summary::default() }, 0));
}

#[test]
fn an_agent_stores_and_evicts_while_it_copies() {
    let pair = Pair::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let staging = staging(&pair.from(), "pod-1");
            let place = |n: u32| Place {
                host: "pod-1".to_owned(),
                kind: "heap".to_owned(),
                id: ArtifactId::new(now(), &n.to_string()),
            };
            for n in 0.. {
                commit(&staging, &pair.from(), &place(n), &[("a", &[7; 500]), ("b", &[8; 500])], false);
                if let Some(old) = n.checked_sub(3) {
                    fs::remove_dir_all(staging.set_aside(&place(old).path(&pair.from())).unwrap()).unwrap();
                }
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
        });
        let (mut copied, mut flaws) = (0, Vec::new());
        for _ in 0..40 {
            let (summary, told) = pair.backup();
            copied += summary.copied;
            flaws.extend(told);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(flaws, Vec::<String>::new());
        assert!(copied > 0, "the agent stored nothing meanwhile");
    });
    // Every copy is whole: a backup of the backup finds no flaw.
    let again = Pair::new();
    let (summary, flaws) = backup(Plan { from: pair.to(), to: again.to(), keep_since: None });
    assert_eq!((summary.damaged, summary.vanished, flaws), (0, 0, Vec::new()));
    assert!(summary.copied > 0);
}

#[test]
fn two_backups_at_once_make_one_copy() {
    let pair = Pair::new();
    for second in 0..20 {
        pair.put("pod-1", "heap", second, &[("content.gz", b"x")], false);
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..3).map(|_| scope.spawn(|| pair.backup())).collect();
        let (mut copied, mut there) = (0, 0);
        for backup in running {
            let (summary, flaws) = backup.join().unwrap();
            assert_eq!(flaws, Vec::<String>::new());
            copied += summary.copied;
            there += summary.there_already;
        }
        assert_eq!((copied, there), (20, 40));
    });
    assert_eq!(tree(&pair.to()), tree(&pair.from()));
}

#[test]
fn a_host_that_cannot_be_read_is_told_and_the_others_copied() {
    let pair = Pair::new();
    pair.put("pod-1", "heap", 1, &[("content.gz", b"x")], false);
    pair.put("pod-2", "heap", 2, &[("content.gz", b"x")], false);
    let closed = pair.from().join("pod-1");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();
    let can_read_all_the_same = fs::read_dir(&closed).is_ok();
    let (summary, flaws) = pair.backup();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    if can_read_all_the_same {
        // The superuser is not kept out by permissions.
        assert_eq!((summary.copied, flaws), (2, Vec::new()));
    } else {
        assert_eq!((summary.copied, summary.damaged), (1, 1));
        assert_eq!(flaws, ["pod-1: cannot be read: Permission denied (os error 13)"]);
    }
}
