use super::*;
use crate::launcher::record::run_name;

const RUN: &str = "2026-01-02T00-00-00Z-0000000";

/// `segments` are bytes on the volume; the offsets are 0, 1, 2, …
fn run(is_held: bool, segments: &[u64], records: u64) -> Found {
    let segments = (0..).zip(segments.iter().copied()).collect();
    Found { is_held, started: None, segments, records, end: 0 }
}

#[test]
fn the_oldest_goes_first_and_no_more_than_has_to() {
    let segment = |run, offset| Deletion::Segment { run, offset };
    let two = [run(false, &[10, 10], 3), run(false, &[10], 3)];
    let held_first = [run(true, &[10, 10], 3), run(false, &[10], 3)];
    let all = [segment(0, 0), segment(0, 1), Deletion::Run(0), segment(1, 0), Deletion::Run(1)];
    let check = |runs: &[Found], own, total, expected: &[Deletion]| {
        assert_eq!(plan(runs, Limits { own, total, runs: RUNS_MAX }), expected, "own {own} of {total}: {runs:?}");
    };
    check(&[], 10, 0, &[]);
    check(&two, 4, 40, &[]);
    check(&two, 5, 40, &all[..1]);
    check(&two, 14, 40, &all[..1]);
    check(&two, 15, 40, &all[..2]);
    check(&two, 24, 40, &all[..2]);
    check(&two, 25, 40, &all[..3]);
    check(&two, 27, 40, &all[..3]);
    check(&two, 28, 40, &all[..4]);
    check(&two, 38, 40, &all);
    check(&two, u64::MAX, 40, &all);
    // What lives counts and stays, also where that is not enough.
    check(&held_first, 4, 40, &[]);
    check(&held_first, 5, 40, &all[3..4]);
    check(&held_first, 30, 40, &all[3..]);
    check(&[run(true, &[50], 3)], 10, 40, &[]);
    // A run without segments has only its records to give.
    check(&[run(false, &[], 3), run(false, &[10], 3)], 25, 40, &[Deletion::Run(0)]);
}

#[test]
fn only_what_a_launcher_named_is_a_run() {
    assert!(spool::is_run_name(&run_name(SystemTime::now(), 0xabcd_ef01)));
    for other in [
        "",
        "data",
        "2026-11-23T08-57-04Z-1f2e3d4",
        "2026-11-23T08-57-04Z-1F2E3D4C",
        "2026-11-23T08:57:04Z-1f2e3d4c",
        "2026-11-23T08-57-04Z-1f2e3d4c.tmp",
    ] {
        assert!(!spool::is_run_name(other), "{other}");
    }
}

/// A spool with runs 1, 2, …, each with a launcher that is gone, two segments of two blocks, and an exit record of as many bytes.
fn spool_of(runs: usize) -> tempfile::TempDir {
    let spool = tempfile::tempdir().unwrap();
    for number in 1..=runs {
        let folder = spool.path().join(format!("{RUN}{number}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(START), "{}").unwrap();
        for offset in [0, 2 * BLOCK_BYTES] {
            fs::write(folder.join(spool::segment_name(offset)), vec![b'x'; 2 * 4096]).unwrap();
        }
        write_exit(&folder, 4 * BLOCK_BYTES, 0);
    }
    spool
}

fn write_exit(folder: &Path, stderr_bytes: u64, forgotten_bytes: u64) {
    let cleared = Cleared { forgotten_bytes, error: None };
    let record = crate::launcher::record::Exit::new(SystemTime::UNIX_EPOCH).record(stderr_bytes, 0, cleared);
    fs::write(folder.join(EXIT), serde_json::to_vec(&record).unwrap()).unwrap();
}

/// Blocks that one such run takes: its folder, two records, its segments.
const BLOCKS: u64 = 3 + 4;

fn limits(total_blocks: u64) -> Limits {
    Limits { own: BLOCK_BYTES, total: total_blocks * BLOCK_BYTES, runs: RUNS_MAX }
}

fn left(spool: &Path) -> Vec<(String, usize)> {
    let names = run_names(spool, "").unwrap();
    names.into_iter().map(|name| (name[28..].to_owned(), spool::segments(&spool.join(&name)).unwrap().len())).collect()
}

fn runs(list: &[(&str, usize)]) -> Vec<(String, usize)> {
    list.iter().map(|(name, segments)| ((*name).to_owned(), *segments)).collect()
}

#[test]
fn what_is_forgotten_is_counted_and_carried_on() {
    let spool = spool_of(3);
    let path = |number: u32| spool.path().join(format!("{RUN}{number}"));
    assert_eq!(clear(spool.path(), "own", limits(3 * BLOCKS + 1)), Cleared::default());
    assert_eq!(left(spool.path()), runs(&[("1", 2), ("2", 2), ("3", 2)]));
    // Segments alone are no matter of ours: the agent sees the gap.
    assert_eq!(clear(spool.path(), "own", limits(3 * BLOCKS)), Cleared::default());
    assert_eq!(left(spool.path()), runs(&[("1", 1), ("2", 2), ("3", 2)]));
    Checkpoint { offset: 100, ..Checkpoint::default() }.write(&path(1)).unwrap();
    write_exit(&path(1), 4 * BLOCK_BYTES, 7);
    let cleared = clear(spool.path(), "own", limits(2 * BLOCKS + 1));
    assert_eq!(cleared, Cleared { forgotten_bytes: 4 * BLOCK_BYTES - 100 + 7, error: None });
    assert_eq!(left(spool.path()), runs(&[("2", 2), ("3", 2)]));
    // One is handled, of the other there is no record.
    Checkpoint { done: true, ..Checkpoint::default() }.write(&path(2)).unwrap();
    fs::remove_file(path(3).join(EXIT)).unwrap();
    let cleared = clear(spool.path(), "own", limits(0));
    assert_eq!(cleared, Cleared { forgotten_bytes: 4 * BLOCK_BYTES, error: None });
    assert_eq!(left(spool.path()), []);
}

#[test]
fn of_runs_that_began_in_the_same_second_the_older_goes_first() {
    let spool = spool_of(3);
    for (number, second) in [(1, 3), (2, 1), (3, 2)] {
        let start = File::options().write(true).open(spool.path().join(format!("{RUN}{number}")).join(START)).unwrap();
        start.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
    }
    clear(spool.path(), "own", limits(2 * BLOCKS + 1));
    assert_eq!(left(spool.path()), runs(&[("1", 2), ("3", 2)]));
    clear(spool.path(), "own", limits(BLOCKS + 1));
    assert_eq!(left(spool.path()), runs(&[("1", 2)]));
}

#[test]
fn what_somebody_holds_or_nobody_knows_stays() {
    let spool = spool_of(4);
    let path = |number: u32| spool.path().join(format!("{RUN}{number}"));
    let launcher = File::open(path(1).join(START)).unwrap();
    rustix::fs::flock(&launcher, FlockOperation::LockExclusive).unwrap();
    let agent = File::open(path(2)).unwrap();
    rustix::fs::flock(&agent, FlockOperation::LockExclusive).unwrap();
    // Its launcher is about to write its first record.
    fs::remove_file(path(3).join(START)).unwrap();
    fs::create_dir(spool.path().join("data")).unwrap();
    std::os::unix::fs::symlink(path(1), path(5)).unwrap();
    let own = format!("{RUN}4");
    assert_eq!(clear(spool.path(), &own, limits(0)), Cleared::default());
    assert_eq!(left(spool.path()), runs(&[("1", 2), ("2", 0), ("3", 2), ("4", 2)]));
    assert!(path(2).join(EXIT).exists(), "the agent tells of it");
    assert!(spool.path().join("data").exists() && path(5).is_symlink());
    drop((launcher, agent));
    clear(spool.path(), &own, limits(0));
    assert_eq!(left(spool.path()), runs(&[("3", 2), ("4", 2)]));
}

#[test]
fn so_many_runs_and_no_more_are_looked_at() {
    let spool = spool_of(4);
    let bounded = Limits { runs: 4, ..limits(100) };
    assert_eq!(clear(spool.path(), "own", bounded), Cleared::default());
    let cleared = clear(spool.path(), "own", Limits { runs: 3, ..bounded });
    assert_eq!(cleared, Cleared { forgotten_bytes: 4 * BLOCK_BYTES, error: None });
    assert_eq!(left(spool.path()), runs(&[("2", 2), ("3", 2), ("4", 2)]));
}

#[test]
fn an_error_is_told_and_the_rest_goes_on() {
    let spool = spool_of(2);
    // A folder where a segment should be cannot be deleted as one.
    let folder = spool.path().join(format!("{RUN}1"));
    fs::remove_file(folder.join(spool::segment_name(0))).unwrap();
    fs::create_dir(folder.join(spool::segment_name(0))).unwrap();
    let cleared = clear(spool.path(), "own", limits(0));
    assert!(cleared.error.is_some());
    assert_eq!(cleared.forgotten_bytes, 4 * BLOCK_BYTES, "of the other");
    assert_eq!(left(spool.path()).len(), 1);
    assert!(clear(&spool.path().join("none"), "own", limits(0)).error.is_some());
}
