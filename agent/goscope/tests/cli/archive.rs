//! The archive as a process: when it is ready, and what it says of itself.

use super::agent::{command, free_address, terminate, until_readyz_says};
use super::{goscope, said};

#[test]
fn it_is_ready_when_the_volume_can_be_listed_and_the_tokens_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (debug, metrics) = (free_address(), free_address());
    let data = folder.path().join("goscope-data");
    std::fs::create_dir(&data).expect("made");
    let mut archive = command(debug, metrics);
    let mut archive = archive.arg("archive").arg("--data").arg(&data).spawn().expect("it starts");
    until_readyz_says(metrics, "\r\n\r\nwaiting for: store gate\n");
    std::fs::write(data.join("tokens.yaml"), "tokens: []").expect("written");
    until_readyz_says(metrics, "\r\n\r\nwaiting for: store\n");
    assert!(!data.join("data").exists(), "it makes nothing");
    std::fs::create_dir(data.join("data")).expect("made");
    until_readyz_says(metrics, "\r\n\r\nready\n");
    terminate(&archive);
    assert!(archive.wait().expect("it ended").success());
    assert_eq!(std::fs::read_dir(data.join("data")).expect("listed").count(), 0);
}

#[test]
fn help_begins_with_an_example_and_a_wrong_configuration_is_refused() {
    let (status, stdout, _) = said(goscope(&["help", "archive"]));
    assert_eq!(status, Some(0));
    assert!(stdout.starts_with("Example: goscope archive --data ./goscope-data"), "{stdout}");
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("goscope.yaml");
    std::fs::write(&config, "archive: {}\n").expect("written");
    let (status, stdout, stderr) = said(goscope(&["archive", "--config", config.to_str().expect("text")]));
    assert_eq!((status, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("archive: unknown key"), "{stderr}");
}
