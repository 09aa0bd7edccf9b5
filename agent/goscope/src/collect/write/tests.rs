use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use flate2::read::GzDecoder;
use tokio::sync::mpsc;

use super::*;
use crate::config::StoreConfig;
use crate::store::meta::{SCHEMA, Trigger};
use crate::store::metrics::StoreMetrics;

const GZIP: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\xff, as far as the first bytes tell";
const TRACE: &[u8] = b"go 1.26 trace\0\0\0\x01\x02\x03";

fn open(dir: &Path, max_bytes: u64, reserve_bytes: u64) -> Store {
    let config = StoreConfig { path: dir.into(), max_bytes, max_age: Duration::from_secs(3600), reserve_bytes };
    let metrics = StoreMetrics::register(&prometheus::Registry::new()).unwrap();
    Store::open(&config, "pod-1", Timestamp::now(), metrics).unwrap()
}

fn meta(staged: &Staged) -> Meta {
    Meta {
        schema: SCHEMA.into(),
        id: String::new(),
        kind: String::new(),
        created: String::new(),
        host: String::new(),
        pod: None,
        run: None,
        bytes: staged.bytes(),
        files: staged.files().to_vec(),
        pinned: false,
        requested_by: "alice".into(),
        trigger: Some(Trigger::Api),
        reason: None,
        incident: None,
        seconds: None,
        debug: None,
        summary: None,
    }
}

fn run(store: &Store, form: Form, chunks: &[&[u8]], is_whole: bool) -> Result<u64, WriteError> {
    let (piece_tx, piece_rx) = mpsc::channel(chunks.len() + 1);
    for chunk in chunks {
        piece_tx.try_send(Piece::Bytes(Bytes::copy_from_slice(chunk))).unwrap();
    }
    if is_whole {
        piece_tx.try_send(Piece::End).unwrap();
    }
    drop(piece_tx);
    write(store, piece_rx, form, &ArtifactId::new(Timestamp::now(), "x"), "heap", meta)
}

/// The stored file, where there is one.
fn stored(store: &Store) -> Option<Vec<u8>> {
    let folder = fs::read_dir(store.folder("heap")).ok()?.next()?.unwrap().path();
    Some(fs::read(folder.join(CONTENT)).unwrap())
}

fn nothing_is_left(store: &Store) {
    assert_eq!((stored(store), store.holding().artifacts), (None, 0));
    let staging = fs::read_dir(store.root().join(".staging")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_dir(staging).unwrap().count(), 0);
}

#[test]
fn a_profile_is_stored_as_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 20, 0);
    let bytes = run(&store, Form::Profile, &[GZIP, b"more"], true).unwrap();
    assert_eq!(stored(&store).unwrap(), [GZIP, b"more"].concat());
    assert_eq!(bytes, store.holding().bytes);
}

#[test]
fn traces_and_text_are_compressed_here() {
    for (form, head) in [(Form::Trace, TRACE), (Form::Text, &b"goroutine 1 [running]:\n"[..])] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), 8 << 20, 0);
        let rest = vec![b'x'; 1 << 20];
        let bytes = run(&store, form, &[head, &rest, &rest], true).unwrap();
        let mut inflated = Vec::new();
        GzDecoder::new(&stored(&store).unwrap()[..]).read_to_end(&mut inflated).unwrap();
        assert_eq!(inflated, [head, &rest, &rest].concat());
        assert!(bytes < 1 << 16, "{bytes}");
    }
}

#[test]
fn what_is_not_whole_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 20, 0);
    assert!(matches!(run(&store, Form::Profile, &[GZIP], false), Err(WriteError::Cut)));
    nothing_is_left(&store);
    assert!(matches!(run(&store, Form::Profile, &[b"<html>, and what follows"], true), Err(WriteError::Unexpected(_))));
    nothing_is_left(&store);
    assert!(matches!(run(&store, Form::Trace, &[], true), Err(WriteError::Unexpected(_))));
    nothing_is_left(&store);
}

#[test]
fn half_of_the_quota_is_the_most() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 200, 0);
    let rest = vec![0; 100 - GZIP.len()];
    assert_eq!(run(&store, Form::Profile, &[GZIP, &rest], true).unwrap(), 100);
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 199, 0);
    let error = run(&store, Form::Profile, &[GZIP, &rest], true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the capture is longer than 99B, which is the most that one may hold; nothing of it is kept"
    );
    nothing_is_left(&store);
}

#[test]
fn the_reserve_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 20, u64::MAX);
    assert!(matches!(run(&store, Form::Profile, &[GZIP], true), Err(WriteError::Reserve { .. })));
    nothing_is_left(&store);
}

#[test]
fn the_new_one_is_there_before_an_old_one_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 2 * GZIP.len() as u64, 0);
    for n in 0..4 {
        let (piece_tx, piece_rx) = mpsc::channel(2);
        piece_tx.try_send(Piece::Bytes(Bytes::from_static(GZIP))).unwrap();
        piece_tx.try_send(Piece::End).unwrap();
        let id = ArtifactId::new(Timestamp::now(), &n.to_string());
        write(&store, piece_rx, Form::Profile, &id, "heap", meta).unwrap();
        assert!(store.locate(&id).unwrap().is_some());
    }
    assert!(store.holding().bytes <= 2 * GZIP.len() as u64);
}

#[test]
fn sizes_are_told_roughly() {
    let cases = [
        (0, "0B"),
        (99, "99B"),
        (10_240, "10KiB"),
        (11_000, "10KiB"),
        (9 << 20, "9MiB"),
        (64 << 20, "64MiB"),
        ((64 << 20) + 1, "64MiB"),
        (512 << 20, "512MiB"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(rough(bytes), expected, "{bytes}");
    }
}
