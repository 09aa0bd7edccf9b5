//! Properties: whatever the bytes, and however they are cut.

use proptest::prelude::*;

use super::*;

/// Lines of every production, whole and torn, that hostile or unlucky streams mix.
const LINES: &[&str] = &[
    "panic: boom\n",
    "panic: a [recovered]\n",
    "\tpanic: b [recovered, repanicked]\n",
    "\tfatal error: sync: unlock of unlocked mutex\n",
    "fatal error: concurrent map writes\n",
    "fatal error: all goroutines are asleep - deadlock!\n",
    "fatal error: panic on system stack\n",
    "fatal: morestack on g0\n",
    "[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x4a]\n",
    "runtime: goroutine stack exceeds 1000000000-byte limit\n",
    "runtime stack:\n",
    "goroutine 1 [running]:\n",
    "goroutine 7 gp=0xc0 m=nil [chan receive, 3 minutes] {a: b}:\n",
    "goroutine 18446744073709551615 [select (durable), locked to thread, synctest bubble 3]:\n",
    "goroutine 9 [run",
    "goroutine running on other thread; stack unavailable\n",
    "\tgoroutine running on other thread; stack unavailable\n",
    "main.f(0x1, {0x2, 0x3?}, ...)\n",
    "main.(*T[...]).M(...)\n",
    "runtime/debug.Stack()\n",
    "panic({0x1, 0x2})\n",
    "\t/src/main.go:12 +0x1d\n",
    "\t/src/main.go:12 +0x1d fp=0x3 sp=0x2 pc=0x1\n",
    "\t/src/main.go:99999999999\n",
    "created by main.start in goroutine 1\n",
    "...additional frames elided...\n",
    "...7 frames elided...\n",
    "[originating from goroutine 3]:\n",
    "non-Go function at pc=0x1\n",
    "cfunc\n",
    "\tpc=0x1f\n",
    "SIGQUIT: quit\n",
    "PC=0x46 m=0 sigcode=0\n",
    "signal 42\n",
    "instruction bytes: 0x1 0x2\n",
    "rax    0x0\n",
    "r0   0x0\tr1   0x1\n",
    "-----\n",
    "2026/01/02 http: panic serving 1.2.3.4:5: boom\n",
    "==================\n",
    "WARNING: DATA RACE\n",
    "Write at 0x00c0000b8298 by main goroutine:\n",
    "Previous read at 0x00c0000b8298 by goroutine 7:\n",
    "Goroutine 7 (running) created at:\n",
    "  main.f()\n",
    "      /src/main.go:1 +0x2\n",
    "exit status 2\n",
    "signal: killed\n",
    "\n",
    "\r\n",
    "\n",
    "2026/01/02 15:04:05 served /cart\n",
    "served\n",
    "\t\n",
    "\u{fffd}\0 \n",
];

fn lines() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(LINES), 0..60).prop_map(|lines| lines.concat().into_bytes())
}

/// Whole deaths and alarms among logs.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let quit =
        format!("SIGQUIT: quit\nPC=0x1 m=0 sigcode=0\n\n{}\n{}\nrax    0x0\n", block(1, "running"), block(2, "select"));
    let http =
        "http: panic serving 1.2.3.4:5: boom\ngoroutine 70 [running]:\nmain.g(0x1)\n\t/src/main.go:2 +0x1\n".to_owned();
    let parts = vec![
        LOG.to_owned(),
        LOG.repeat(5),
        "panic: only a word\n".to_owned() + LOG,
        panic("boom", &[1, 7, 8]),
        format!("fatal error: all goroutines are asleep - deadlock!\n\n{}", block(1, "chan receive")),
        quit,
        http + LOG,
        race(),
        "goroutine 5 [running]:\nmain.g(0x1)\n\t/src/main.go:2 +0x1\n".to_owned() + LOG,
    ];
    prop::collection::vec(prop::sample::select(parts), 0..8).prop_map(|parts| parts.concat().into_bytes())
}

/// Where to cut; the last piece is what remains.
fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..12)
}

fn in_chunks(text: &[u8], cuts: &[prop::sample::Index]) -> Vec<Event> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    places.sort_unstable();
    places.push(text.len());
    let mut classifier = Classifier::new();
    let mut events = Vec::new();
    let (mut start, mut safe) = (0, 0);
    for end in places {
        events.extend(classifier.push(&text[start..end], Timestamp(0)));
        start = end;
        let offset = classifier.safe_offset();
        assert!(offset <= end as u64 && offset >= safe, "{offset} after {safe}");
        assert!(offset == 0 || text[offset as usize - 1] == b'\n');
        safe = offset;
    }
    events.extend(classifier.finish(Timestamp(0)));
    events
}

fn check_spans(text: &[u8], events: &[Event]) {
    for Event::Incident(incident) in events {
        assert!(incident.span.start < incident.span.end && incident.span.end <= text.len() as u64);
        assert_eq!(incident.complete, incident.truncated_by.is_none());
        let goroutines = &incident.goroutines;
        assert!(goroutines.list.iter().all(|goroutine| goroutines.stack_of(goroutine).is_some()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chunking_gives_the_same_events(text in lines(), cuts in cuts()) {
        let whole = in_chunks(&text, &[]);
        check_spans(&text, &whole);
        prop_assert_eq!(&whole, &in_chunks(&text, &cuts));
        let every: Vec<Event> = {
            let mut classifier = Classifier::new();
            let mut events: Vec<Event> = text.iter().flat_map(|byte| classifier.push(&[*byte], Timestamp(0))).collect();
            events.extend(classifier.finish(Timestamp(0)));
            events
        };
        prop_assert_eq!(whole, every);
    }

    #[test]
    fn random_bytes_are_no_incident(text in prop::collection::vec(any::<u8>(), 0..4000), cuts in cuts()) {
        prop_assert_eq!(in_chunks(&text, &cuts), Vec::new());
    }

    #[test]
    fn torn_lines_do_no_harm(text in lines(), holes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20), cuts in cuts()) {
        let mut text = text;
        for (at, byte) in holes {
            if !text.is_empty() {
                let at = at.index(text.len());
                text[at] = byte;
            }
        }
        let whole = in_chunks(&text, &[]);
        check_spans(&text, &whole);
        prop_assert_eq!(whole, in_chunks(&text, &cuts));
    }

    #[test]
    fn a_restart_at_the_safe_offset_loses_and_doubles_nothing(text in stream(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(text.len() + 1);
        let mut first = Classifier::new();
        let mut events = first.push(&text[..cut], Timestamp(0));
        let offset = first.safe_offset();
        let mut second = Classifier::starting_at(offset);
        events.extend(second.push(&text[offset as usize..], Timestamp(0)));
        events.extend(second.finish(Timestamp(0)));
        prop_assert_eq!(events, in_chunks(&text, &[]));
    }
}
