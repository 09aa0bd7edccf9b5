use super::*;
use crate::limits::*;
use crate::{IncidentKind, TracebackLevel, TruncatedBy};

mod chunks;

fn run_after(text: &[u8], ending: Ending) -> Vec<Incident> {
    let mut classifier = Classifier::new();
    let mut events = classifier.push(text, Timestamp(7));
    events.extend(classifier.finish_after(ending, Timestamp(8)));
    events.into_iter().map(|Event::Incident(incident)| *incident).collect()
}

fn run(text: &str) -> Vec<Incident> {
    run_after(text.as_bytes(), Ending::Unknown)
}

/// `kind reason goroutines` and the incident's text.
fn brief(text: &str) -> Vec<(String, String)> {
    let line = |i: &Incident| format!("{} {} {}", i.kind.name(), i.reason, i.goroutines.total());
    run(text).iter().map(|i| (line(i), text[i.span.start as usize..i.span.end as usize].to_owned())).collect()
}

fn block(id: u32, state: &str) -> String {
    format!(
        "goroutine {id} [{state}]:\nmain.f{id}(0x1)\n\t/src/main.go:{id} +0x1d\ncreated by main.main in goroutine 1\n\t/src/main.go:5 +0x2\n"
    )
}

fn panic(value: &str, ids: &[u32]) -> String {
    let states = ["running", "chan receive", "select"];
    let blocks: Vec<String> = ids.iter().enumerate().map(|(n, id)| block(*id, states[n.min(2)])).collect();
    format!("panic: {value}\n\n{}", blocks.join("\n"))
}

const LOG: &str = "2026/01/02 15:04:05 served /cart\n";

#[track_caller]
fn check(text: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(line, span)| ((*line).to_owned(), (*span).to_owned())).collect();
    assert_eq!(brief(text), expected, "in\n{text}");
}

#[test]
fn a_panic_among_logs() {
    let death = panic("boom", &[1, 7]);
    check(&format!("{LOG}{LOG}{death}{LOG}"), &[("panic boom 2", &death)]);
    check(&format!("{death}\n"), &[("panic boom 2", &death)]);
    check(&format!("{death}exit status 2\n{LOG}"), &[("panic boom 2", &format!("{death}exit status 2\n"))]);
    check(&death.replace('\n', "\r\n"), &[("panic boom 2", &death.replace('\n', "\r\n"))]);
}

#[test]
fn values_of_an_incident() {
    let text = "panic: a\n\tb [recovered]\n\tpanic: c\n[signal SIGSEGV: segmentation violation code=0x1 addr=0x8 pc=0x4a]\n\n\
        goroutine 7 gp=0xc0 m=1 mp=0xc1 [running, locked to thread]:\npanic({0x1, 0x2})\n\t/go/src/runtime/panic.go:9 +0x1 fp=0x3 sp=0x2 pc=0x1\n\
        ...additional frames elided...\ncreated by main.main in goroutine 1\n\t/src/main.go:5 +0x2\n";
    let [incident] = run(text).try_into().unwrap();
    assert_eq!(
        (incident.complete, incident.truncated_by, incident.traceback),
        (true, None, Some(TracebackLevel::System))
    );
    let [first, last] = incident.chain.as_slice() else { panic!("two links") };
    assert_eq!((first.value.as_str(), first.recovered, first.repanicked), ("a\nb", true, false));
    assert_eq!((last.value.as_str(), last.recovered, last.goexit), ("c", false, false));
    assert_eq!(last.signal.as_ref().unwrap().addr.as_deref(), Some("0x8"));
    let goroutine = incident.faulting().unwrap();
    assert_eq!((goroutine.id, goroutine.locked, goroutine.creator), (7, true, Some(1)));
    let stack = incident.goroutines.stack_of(goroutine).unwrap();
    assert_eq!((stack.frames[0].func.as_str(), stack.frames[0].pc, stack.elided_frames), ("panic", Some(1), Some(0)));
    assert_eq!(stack.created_by.as_ref().unwrap().line, 5);
    assert_eq!(incident.seen, Timestamp(7));
}

#[test]
fn words_are_no_death() {
    for text in [
        "the panic: boom\n",
        "panic: boom\nlistening on :8080\n",
        "panic: boom\n\nlistening on :8080\n",
        "fatal error: no cart\nlistening on :8080\n",
        "fatal: not a git repository\n",
        "goroutine 5 [running]:\n",
        "goroutine 5 [running]:\nlistening on :8080\n",
        "panic: boom\ngoroutine 5 [running]:\nlistening on :8080\n",
        "SIGTERM: leaving\n",
        "SIGQUIT: quit\nlistening on :8080\n",
        "runtime: cannot set cpu profile rate until previous profile has finished.\n",
        "==================\nWARNING: no race\n",
        "http: panic serving nobody\nmain.f(0x1)\n\t/src/main.go:1\n",
        "exit status 2\n",
    ] {
        check(text, &[]);
    }
    assert_eq!(run_after(b"panic: boom\nlistening on :8080\n", Ending::Crashed).len(), 1);
}

#[test]
fn the_end_of_the_stream_proves_a_head() {
    for text in
        ["panic: boom\n", "panic: boom\n\tmore\n", "panic: a\n\tpanic: boom\n", "panic: a [recovered]\n\tpanic: boom\n"]
    {
        let found = run(&format!("{LOG}{text}"));
        assert_eq!(
            (found.len(), found[0].complete, found[0].traceback),
            (1, true, Some(TracebackLevel::None)),
            "{text}"
        );
        assert_eq!(found[0].reason, "boom");
    }
    check("fatal error: fault\n", &[("fatal fault 0", "fatal error: fault\n")]);
    check("SIGQUIT: quit\n", &[("signal SIGQUIT: quit 0", "SIGQUIT: quit\n")]);
    check(
        "runtime: mmap: access denied\n",
        &[("fatal runtime: mmap: access denied 0", "runtime: mmap: access denied\n")],
    );
    for (text, complete) in [
        ("panic: boom", false),
        ("panic: boom\n\n", false),
        ("panic: boom\n\ngoroutine 1 [running]:\nmain.f()\n", false),
    ] {
        let [incident] = run(text).try_into().unwrap();
        assert_eq!((incident.complete, incident.truncated_by), (complete, Some(TruncatedBy::EndOfInput)), "{text}");
    }
}

#[test]
fn lines_of_others_stay_inside() {
    let whole = panic("boom", &[1, 7, 8]);
    for (at, _) in whole.match_indices('\n') {
        let (head, tail) = whole.split_at(at + 1);
        let text = format!("{head}{LOG}{LOG}{tail}");
        let found = brief(&text);
        let span = if tail.is_empty() { &whole } else { &text };
        assert_eq!(found, [("panic boom 3".to_owned(), span.clone())], "{text}");
    }
}

#[test]
fn one_death_after_another() {
    let (first, second) = (panic("one", &[1, 7]), panic("two", &[1, 9]));
    check(&format!("{first}{second}"), &[("panic one 2", &first), ("panic two 2", &second)]);
    check(&format!("{first}{LOG}{second}"), &[("panic one 2", &first), ("panic two 2", &second)]);
    let fatal = format!("fatal error: all goroutines are asleep - deadlock!\n\n{}", block(1, "chan receive"));
    check(&format!("{fatal}{LOG}{fatal}"), &[("fatal all goroutines are asleep - deadlock! 1", fatal.as_str()); 2]);
    let overflow = format!(
        "runtime: goroutine stack exceeds 9-byte limit\nfatal error: stack overflow\n\nruntime stack:\nruntime.throw(0x1)\n\t/p.go:1 +0x1\n\n{}",
        block(1, "running")
    );
    check(
        &format!("{first}{overflow}{overflow}"),
        &[("panic one 2", &first), ("fatal stack overflow 1", &overflow), ("fatal stack overflow 1", &overflow)],
    );
    let quit = format!("SIGQUIT: quit\nPC=0x1 m=0 sigcode=0\n\n{}\nrax    0x0\n", block(1, "running"));
    check(
        &format!("{quit}{quit}{first}"),
        &[("signal SIGQUIT: quit 1", &quit), ("signal SIGQUIT: quit 1", &quit), ("panic one 2", &first)],
    );
    check(
        "panic: one\nexit status 2\npanic: two\nexit status 2\n",
        &[("panic one 0", "panic: one\nexit status 2\n"), ("panic two 0", "panic: two\nexit status 2\n")],
    );
}

#[test]
fn threads_that_fail_together_are_one_death() {
    let line = "fatal error: concurrent map writes\n";
    let other = block(9, "running")
        .replace("main.f9(0x1)\n\t/src/main.go:9 +0x1d", "\tgoroutine running on other thread; stack unavailable");
    let all = format!("{line}\n{}\n{}\n{other}\n{}", block(7, "running"), block(1, "sleep"), block(8, "select"));
    for (at, _) in all.match_indices('\n') {
        let (head, tail) = all.split_at(at + 1);
        let text = format!("{head}{line}{tail}");
        let found = run(&text);
        assert_eq!((found.len(), found[0].goroutines.total()), (1, 4), "{text}");
        assert_eq!(found[0].goroutines.list[2].creator, Some(1));
    }
}

#[test]
fn kinds_of_heads() {
    let one = block(1, "running");
    let check_one = |head: &str, line: &str| {
        let text = format!("{head}\n{one}");
        check(&text, &[(line, &text)]);
        run(&text).remove(0)
    };
    let pending = check_one(
        "panic: a\n\tpanic: b\n\tfatal error: sync: unlock of unlocked mutex\n",
        "fatal sync: unlock of unlocked mutex 1",
    );
    assert_eq!(pending.chain.len(), 2);
    check_one("panic: boom\npreempt off reason: x\nfatal error: panic on system stack\n", "panic boom 1");
    check_one("panic: a\npanic: b\n", "panic b 1");
    check_one("fatal error: a\n\tb\n[signal SIGSEGV: x code=0x1 addr=0x0 pc=0x1]\n", "fatal a 1");
    let fault = check_one("unexpected fault address 0x8\nfatal error: fault\n", "fatal fault 1");
    assert_eq!(fault.prelude, ["unexpected fault address 0x8"]);
    check_one(
        "runtime/cgo: pthread_create failed: x\nSIGABRT: abort\nPC=0x1 m=0 sigcode=18446744073709551610\n",
        "signal SIGABRT: abort 1",
    );
    let raw = check_one("panic: a\nb\n\nc\n", "panic a 1");
    assert_eq!(raw.chain[0].value, "a\nb\n\nc");
    let morestack =
        check_one("fatal: morestack on g0\nSIGTRAP: trace trap\nPC=0x1 m=0 sigcode=0\n", "fatal morestack on g0 1");
    assert_eq!(morestack.signal.unwrap().name, "SIGTRAP");
    let text = "fatal error: no goroutines (main called runtime.Goexit) - deadlock!\n";
    check(&format!("{text}{LOG}"), &[("fatal no goroutines (main called runtime.Goexit) - deadlock! 0", text)]);
}

#[test]
fn all_threads_of_a_crash_are_one_death() {
    let section =
        |id| format!("SIGQUIT: quit\nPC=0x1 m=2 sigcode=0\n\n{}\nrax    0x{id}\nrip    0x2\n", block(id, "running"));
    let text = format!("{}\n-----\n\n{}\n-----\n\n{}", section(1), section(2), section(3));
    let [incident] = run(&text).try_into().unwrap();
    assert_eq!((incident.goroutines.total(), incident.traceback), (3, Some(TracebackLevel::Crash)));
    assert_eq!(incident.registers, [("rax".to_owned(), "0x1".to_owned()), ("rip".to_owned(), "0x2".to_owned())]);
    assert_eq!(incident.span.len(), text.len() as u64);
    let text = format!("{}\n-----\n\n{}", panic("boom", &[1]), section(2));
    check(&text, &[("panic boom 2", &text)]);
}

#[test]
fn alarms() {
    let stack =
        "goroutine 7 [running]:\nruntime/debug.Stack()\n\t/go/debug.go:1 +0x1\nmain.f(0x1)\n\t/src/main.go:2 +0x1\n";
    check(&format!("{LOG}{stack}{LOG}{stack}{stack}"), &[("stack stack printed by main.f 1", stack); 3]);
    let http = format!("2026/01/02 http: panic serving 127.0.0.1:5: boom\nmore\n{stack}");
    check(&format!("{http}{LOG}{http}{http}"), &[("http_panic boom 1", http.as_str()); 3]);
    assert_eq!(run(&http)[0].chain[0].value, "boom\nmore");
    let all = format!("{}\n{}\n{}", block(1, "running"), block(2, "select"), block(3, "sleep"));
    check(&format!("{all}{LOG}\n{LOG}"), &[("stack stacks of 3 goroutines 3", &all)]);
    check(&format!("panic: boom\n\n{stack}{LOG}"), &[("stack boom 1", &format!("panic: boom\n\n{stack}"))]);
    // A stack says nothing about the death behind it.
    let death = panic("boom", &[1, 7]);
    check(&format!("{stack}{death}"), &[("stack stack printed by main.f 1", stack), ("panic boom 2", &death)]);
    check(&format!("{http}{death}"), &[("http_panic boom 1", &http), ("panic boom 2", &death)]);
    check(&format!("http: panic serving 127.0.0.1:5: boom\n{death}"), &[("panic boom 2", &death)]);
}

#[test]
fn an_alarm_inside_a_death_does_not_end_it() {
    let stack = "goroutine 70 [running]:\nmain.g(0x1)\n\t/src/main.go:2 +0x1\n";
    let far = LOG.repeat(RESTART_LINES_MIN as usize - 1);
    for alarm in [
        format!("{LOG}{stack}"),
        format!("{far}{stack}"),
        format!("http: panic serving 127.0.0.1:5: soft\n{stack}"),
        race(),
    ] {
        let text = format!("panic: boom\n\n{}{alarm}\n{}", block(1, "running"), block(7, "select"));
        let found = brief(&text);
        assert_eq!(found.len(), 2, "{text}");
        assert_eq!(found[0], ("panic boom 2".to_owned(), text.clone()));
        assert!(alarm.ends_with(&found[1].1));
    }
    // After that many lines it is another process's.
    let text = format!("panic: boom\n\n{}{LOG}{far}{stack}\n{}", block(1, "running"), block(7, "select"));
    let lines: Vec<String> = brief(&text).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, ["panic boom 1", "stack stacks of 2 goroutines 2"]);
}

fn race() -> String {
    "==================\nWARNING: DATA RACE\nWrite at 0x00c0000b8298 by main goroutine:\n  main.f()\n      /src/main.go:18 +0x28\n\n\
        Previous read at 0x00c0000b8298 by goroutine 7:\n  main.(*P[go.shape.map[string]int]).g()\n      /src/main.go:15 +0x3a\n  \
        main.main()\n      /src/main.go:1 +0x3\n\nGoroutine 7 (finished) created at:\n  main.main()\n      /src/main.go:2 +0x4\n\
        ==================\n"
        .to_owned()
}

#[test]
fn races() {
    let race = race();
    let line = "race data race: write in main.f, previous read in main.(*P[go.shape.map[string]int]).g 0";
    check(&format!("{LOG}{race}{race}Found 2 data race(s)\n"), &[(line, &race), (line, &race)]);
    let [incident] = run(&race).try_into().unwrap();
    let [first, second] = incident.race.as_slice() else { panic!("two accesses") };
    assert_eq!((first.write, first.previous, first.thread, first.addr.as_str()), (true, false, 1, "0x00c0000b8298"));
    assert_eq!((second.write, second.previous, second.thread, second.frames.len()), (false, true, 7, 2));
    let created = second.created.as_ref().unwrap();
    assert_eq!(
        (created.finished, created.frames[0].func.as_str(), created.frames[0].offset),
        (true, "main.main", Some(4))
    );
    // Other lines in it, and its end missing.
    check(
        &race.replace("\n\nPrev", &format!("\n{LOG}\nPrev")),
        &[(line, &race.replace("\n\nPrev", &format!("\n{LOG}\nPrev")))],
    );
    let cut = &run(&race[..race.len() - 30])[0];
    assert_eq!((cut.complete, cut.truncated_by), (false, Some(TruncatedBy::EndOfInput)));
}

#[test]
fn line_bounds_at_their_edges() {
    let head = "panic: boom\n\n";
    let count = |foreign: u32, bound_of: fn(&str, &str) -> String| {
        brief(&bound_of(&LOG.repeat(foreign as usize), &block(7, "select"))).len()
    };
    // Between blocks.
    let between = |logs: &str, tail: &str| format!("panic: boom\n\n{}{logs}\n{tail}", block(1, "running"));
    let goroutines =
        |foreign: u32| run(&between(&LOG.repeat(foreign as usize), &block(7, "select")))[0].goroutines.total();
    assert_eq!((goroutines(FOREIGN_LINES_MAX), goroutines(FOREIGN_LINES_MAX + 1)), (2, 1));
    // Between a head and its proof; behind it only a bare stack is left.
    let kinds = |foreign: u32| run(&format!("{head}{}{}", LOG.repeat(foreign as usize), block(1, "running")))[0].kind;
    assert_eq!((kinds(HEAD_LINES_MAX), kinds(HEAD_LINES_MAX + 1)), (IncidentKind::Panic, IncidentKind::Stack));
    // Between a prelude and its fatal error.
    let preludes =
        |foreign: u32| run(&format!("runtime: x\n{}fatal error: y\n", LOG.repeat(foreign as usize)))[0].prelude.len();
    assert_eq!((preludes(PRELUDE_GAP_LINES_MAX), preludes(PRELUDE_GAP_LINES_MAX + 1)), (1, 0));
    let many = |lines: usize| run(&format!("{}fatal error: y\n", "runtime: x\n".repeat(lines)))[0].prelude.len();
    assert_eq!((many(PRELUDE_LINES_MAX), many(PRELUDE_LINES_MAX + 1)), (PRELUDE_LINES_MAX, PRELUDE_LINES_MAX));
    // The value of a handler's panic.
    let http = |logs: &str, stack: &str| format!("http: panic serving 1.2.3.4:5: boom\n{logs}{stack}");
    let kind = |foreign: u32| run(&http(&LOG.repeat(foreign as usize), &block(7, "running")))[0].kind;
    assert_eq!(
        (kind(HTTP_VALUE_LINES_MAX), kind(HTTP_VALUE_LINES_MAX + 1)),
        (IncidentKind::HttpPanic, IncidentKind::Stack)
    );
    assert_eq!(count(1, http), 1);
    // Inside an alarm, where a frame lacks its place.
    let torn = |foreign: u32| {
        let logs = LOG.repeat(foreign as usize);
        run(&format!("goroutine 7 [running]:\nmain.f()\n\t/a.go:1\nmain.g()\n{logs}\t/b.go:2\n"))[0].goroutines.stacks
            [0]
        .frames[1]
            .line
    };
    assert_eq!((torn(ALARM_FOREIGN_LINES_MAX), torn(ALARM_FOREIGN_LINES_MAX + 1)), (2, 0));
    // A chain.
    let chain = |links: usize| {
        run(&format!("panic: 0\n{}", "\tpanic: x\n".repeat(links - 2) + "\tpanic: last\n"))[0].chain.len()
    };
    assert_eq!((chain(CHAIN_LINKS_MAX), chain(CHAIN_LINKS_MAX + 1)), (CHAIN_LINKS_MAX, CHAIN_LINKS_MAX));
    assert_eq!(run(&format!("panic: 0\n{}", "\tpanic: x\n".repeat(100) + "\tpanic: last\n"))[0].reason, "last");
}

#[test]
fn byte_bounds_at_their_edges() {
    // A line.
    let value = |len: usize| run(&format!("panic: {}\n\n{}", "v".repeat(len), block(1, "running")));
    let room = LINE_BYTES_MAX - "panic: ".len();
    assert_eq!(value(room)[0].truncated_by, None);
    let cut = &value(room + 1)[0];
    assert_eq!((cut.truncated_by, cut.complete, cut.goroutines.total()), (Some(TruncatedBy::LineBytes), false, 1));
    // A value and a reason, marked.
    assert_eq!(value(VALUE_BYTES_MAX)[0].chain[0].value.len(), VALUE_BYTES_MAX);
    let long = &value(VALUE_BYTES_MAX + 1)[0].chain[0].value;
    assert!(long.len() <= VALUE_BYTES_MAX && long.ends_with('…'));
    assert_eq!(value(REASON_BYTES_MAX)[0].reason.len(), REASON_BYTES_MAX);
    assert!(value(REASON_BYTES_MAX + 1)[0].reason.ends_with('…'));
    // A monstrous line of a log is skipped, in whatever chunks it comes.
    let log = "x".repeat(3 * LINE_BYTES_MAX);
    let mut classifier = Classifier::new();
    for chunk in log.as_bytes().chunks(1000) {
        assert!(classifier.push(chunk, Timestamp(0)).is_empty());
        assert!(classifier.partial.capacity() <= 2 * (LINE_BYTES_MAX + 1), "{}", classifier.partial.capacity());
    }
    assert_eq!(classifier.safe_offset(), 0);
    assert!(classifier.push(b"\npanic: boom", Timestamp(0)).is_empty());
    assert_eq!(classifier.safe_offset(), log.len() as u64 + 1);
    assert!(classifier.partial.capacity() <= 64 << 10);
    assert_eq!(classifier.finish(Timestamp(0)).len(), 1);
}

#[test]
fn the_bytes_of_an_incident_at_their_edge() {
    let head = panic("boom", &[1]);
    let last = format!("\n{}", block(7, "select"));
    let filler = "2026/01/02 15:04:05 ".to_owned() + &"y".repeat(LINE_BYTES_MAX / 8) + "\n";
    for over in [0, 1] {
        let mut classifier = Classifier::new();
        let mut events = classifier.push(head.as_bytes(), Timestamp(0));
        let room = INCIDENT_BYTES_MAX as usize - head.len() - last.len() + over;
        for _ in 0..room / filler.len() {
            events.extend(classifier.push(filler.as_bytes(), Timestamp(0)));
        }
        let rest = room % filler.len();
        events.extend(classifier.push((" ".repeat(rest - 1) + "\n").as_bytes(), Timestamp(0)));
        events.extend(classifier.push(last.as_bytes(), Timestamp(0)));
        events.extend(classifier.push(last.as_bytes(), Timestamp(0)));
        events.extend(classifier.finish(Timestamp(0)));
        let [Event::Incident(incident)] = events.as_slice() else { panic!("one incident") };
        assert_eq!(incident.truncated_by, Some(TruncatedBy::IncidentBytes));
        assert_eq!((incident.goroutines.list.len(), incident.goroutines.total()), (2, 3));
        // The line that crosses the bound is the place of the creator.
        let creator = incident.goroutines.stacks[1].created_by.as_ref().unwrap();
        assert_eq!(creator.line, if over == 0 { 5 } else { 0 });
        assert!(incident.span.len() <= INCIDENT_BYTES_MAX);
    }
}

#[test]
fn races_without_end_end_a_death() {
    for (head, bound) in [(panic("boom", &[1]), FOREIGN_LINES_MAX), ("panic: boom\n".to_owned(), HEAD_LINES_MAX)] {
        let mut classifier = Classifier::new();
        classifier.push(head.as_bytes(), Timestamp(0));
        for _ in 0..bound {
            assert_eq!(classifier.push(race().as_bytes(), Timestamp(0)).len(), 0);
            assert_eq!(classifier.safe_offset(), 0);
        }
        assert!(classifier.push(race().as_bytes(), Timestamp(0)).len() > bound as usize);
        assert_eq!(classifier.safe_offset(), classifier.offset);
    }
}

#[test]
fn where_to_begin_again() {
    let mut classifier = Classifier::starting_at(1000);
    let mut feed = |text: &str| {
        let events = classifier.push(text.as_bytes(), Timestamp(0)).len();
        (classifier.safe_offset(), classifier.is_open(), events)
    };
    assert_eq!(feed("a log line\n"), (1011, false, 0));
    assert_eq!(feed("half a"), (1011, false, 0));
    assert_eq!(feed(" line\n"), (1023, false, 0));
    assert_eq!(feed("runtime: something\n"), (1023, false, 0));
    assert_eq!(feed("fatal error: x\n"), (1023, true, 0));
    assert_eq!(feed("\ngoroutine 1 [running]:\nmain.f()\n\t/a.go:1\n"), (1023, true, 0));
    assert!(!feed("exit status 2\n").1);
    let (offset, open, events) = feed("goroutine 1 [running]:\n");
    assert_eq!((open, events), (true, 0));
    assert_eq!(feed("main.f()\n\t/a.go:1\n"), (offset, true, 0));
    assert_eq!(feed("a log line\n").2, 1);
}
