use super::*;
use crate::target::sampler::{Answer, IndexPage, STALE_AFTER};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

fn sample(answer: Answer) -> Sample {
    Sample { at: SystemTime::UNIX_EPOCH, taken: Instant::now(), cost: Duration::from_millis(250), answer }
}

fn page(profiles: &[(&str, u64)]) -> Answer {
    let profiles = profiles.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    Answer::Page(Arc::new(IndexPage { profiles }))
}

/// The series that are there, one per line, without help and type.
fn series(registry: &Registry) -> String {
    let text = crate::metrics::encode(registry).expect("encoded");
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

#[tokio::test(start_paused = true)]
async fn series_follow_the_latest_sample() {
    let (sample_tx, sample_rx) = watch::channel(None);
    let (build_tx, build_rx) = watch::channel(None);
    let registry = Registry::new();
    register(&registry, sample_rx, build_rx).expect("registered");
    assert_eq!(series(&registry), "goscope_target_up 0\n");

    sample_tx.send_replace(Some(sample(page(&[("goroutine", 41), ("threadcreate", 9)]))));
    assert_eq!(series(&registry), "go_goroutines 41\ngo_threads 9\ngoscope_sample_seconds 0.25\ngoscope_target_up 1\n");

    build_tx.send_replace(Some(BuildInfo { go_version: "go1.26.8".to_owned(), ..BuildInfo::default() }));
    sample_tx.send_replace(Some(sample(page(&[("goroutine", 42)]))));
    assert_eq!(
        series(&registry),
        "go_goroutines 42\ngo_info{version=\"go1.26.8\"} 1\ngoscope_sample_seconds 0.25\ngoscope_target_up 1\n"
    );

    tokio::time::advance(STALE_AFTER + Duration::from_millis(1)).await;
    assert_eq!(series(&registry), "goscope_target_up 0\n");

    for answer in [Answer::NotListening, Answer::NoPprof, Answer::Failed] {
        sample_tx.send_replace(Some(sample(answer)));
        assert_eq!(series(&registry), "goscope_target_up 0\n");
    }
}
