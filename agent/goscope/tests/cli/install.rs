use std::os::unix::fs::PermissionsExt as _;

use super::{goscope, said};

#[test]
fn the_copy_is_this_program_and_its_path_is_the_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let shown = folder.path().display().to_string();
    for _ in 0..2 {
        let (status, stdout, stderr) = said(goscope(&["install", &shown]));
        assert_eq!((status, stdout, stderr.as_str()), (Some(0), format!("{shown}/goscope\n"), ""));
    }
    let copy = folder.path().join("goscope");
    assert_eq!(copy.metadata().expect("the copy").permissions().mode() & 0o7777, 0o755);
    let version = |program: &std::path::Path| {
        std::process::Command::new(program).arg("--version").output().expect("it runs").stdout
    };
    assert_eq!(version(&copy), version(env!("CARGO_BIN_EXE_goscope").as_ref()));
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1, "nothing else is left");
}

#[test]
fn a_copy_that_is_running_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("goscope");
    std::fs::copy("/bin/sleep", &copy).expect("copied");
    let mut running = std::process::Command::new(&copy).arg("60").spawn().expect("it runs");
    let (status, ..) = said(goscope(&["install", &folder.path().display().to_string()]));
    assert!(running.try_wait().expect("asked").is_none(), "it goes on");
    running.kill().expect("killed");
    running.wait().expect("ended");
    assert_eq!(status, Some(0));
}

#[test]
fn a_folder_that_is_not_there_is_one_sentence() {
    let (status, stdout, stderr) = said(goscope(&["install", "/no/such/folder"]));
    assert_eq!((status, stdout.as_str()), (Some(2), ""));
    assert_eq!(stderr, "goscope: /no/such/folder does not exist; mount a volume there\n");
}
