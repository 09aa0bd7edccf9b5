use super::*;
use crate::config::TargetAddress;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

/// What Go 1.26 serves, without its description list.
const PAGE: &str = "<html>\n<head>\n<title>/debug/pprof/</title>\n</head>\n<body>\n/debug/pprof/\n<br>\n\
    <p>Set debug=1 as a query parameter to export in legacy text format</p>\n<br>\nTypes of profiles available:\n\
    <table>\n<thead><td>Count</td><td>Profile</td></thead>\n\
    <tr><td>3</td><td><a href='allocs?debug=1'>allocs</a></td></tr>\n\
    <tr><td>5</td><td><a href='goroutine?debug=1'>goroutine</a></td></tr>\n\
    <tr><td>8</td><td><a href='threadcreate?debug=1'>threadcreate</a></td></tr>\n\
    </table>\n<a href=\"goroutine?debug=2\">full goroutine stack dump</a>\n<br>\n</body>\n</html>\n";

fn sample(answer: Answer) -> Sample {
    Sample { at: SystemTime::UNIX_EPOCH, taken: Instant::now(), cost: Duration::from_millis(2), answer }
}

#[test]
fn only_the_page_of_pprof_is_one() {
    let Answer::Page(page) = read_page(PAGE.as_bytes()) else { panic!("no page") };
    assert_eq!(page.count("goroutine"), Some(5));
    assert_eq!(page.count("threadcreate"), Some(8));
    assert_eq!(page.count("mutex"), None);
    for other in ["", "ok", "<html><body>Welcome to nginx!</body></html>"] {
        assert!(matches!(read_page(other.as_bytes()), Answer::NoPprof), "{other}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sample_goes_stale() {
    let answered = sample(read_page(PAGE.as_bytes()));
    assert!(answered.page(answered.taken).is_some());
    assert!(answered.page(answered.taken + STALE_AFTER).is_some());
    assert!(answered.page(answered.taken + STALE_AFTER + Duration::from_millis(1)).is_none());
    assert!(sample(Answer::NotListening).page(Instant::now()).is_none());
}

/// Serves a page to each connection, counting the goroutines up from 1.
async fn serve_pages(listener: UnixListener) {
    for goroutines in 1.. {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.expect("read"), 0, "the request ended early");
        }
        let page = PAGE.replace("<td>5</td>", &format!("<td>{goroutines}</td>"));
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{page}", page.len());
        stream.write_all(answer.as_bytes()).await.expect("written");
    }
}

#[test]
fn the_target_is_asked_each_second_until_it_answers() {
    assert_eq!(interval(false), Duration::from_secs(1));
    assert_eq!(interval(true), Duration::from_secs(15));
}

#[tokio::test]
async fn a_target_that_opens_late_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("debug.sock");
    let registry = Registry::new();
    let metrics = SamplerMetrics::register(&registry).expect("registered");
    let (sampler, mut sample_rx) = Sampler::new(Client::new(TargetAddress::Unix(path.clone())), metrics);
    assert!(sample_rx.borrow().is_none());
    let stop = CancellationToken::new();
    let running = tokio::spawn(sampler.run(stop.clone()));
    let mut next = async || {
        sample_rx.changed().await.expect("the sampler runs");
        sample_rx.borrow_and_update().clone().expect("a sample")
    };

    assert!(matches!(next().await.answer, Answer::NotListening));
    let _serving = tokio::spawn(serve_pages(UnixListener::bind(path).expect("bound")));
    let sample = next().await;
    assert_eq!(sample.page(sample.taken).and_then(|page| page.count("goroutine")), Some(1));

    stop.cancel();
    running.await.expect("the sampler ends without a panic");
    let text = crate::metrics::encode(&registry).expect("encoded");
    for (result, count) in [("answered", 1), ("not_listening", 1), ("no_pprof", 0), ("failed", 0)] {
        let line = format!("goscope_target_samples_total{{result=\"{result}\"}} {count}\n");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}
