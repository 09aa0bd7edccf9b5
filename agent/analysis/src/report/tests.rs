use goscope_formats::{ChainLink, Goroutines, SignalInfo, Span, Timestamp};

use super::*;

fn frame(func: &str, file: &str, line: u32) -> Frame {
    Frame { func: func.into(), file: file.into(), line, ..Frame::default() }
}

pub(crate) fn crash() -> Incident {
    let signal = SignalInfo {
        name: "SIGSEGV".into(),
        code: Some("0x1".into()),
        addr: Some("0x0".into()),
        pc: Some("0x4a".into()),
    };
    let reason = "runtime error: invalid memory address or nil pointer dereference";
    let mut goroutines = Goroutines {
        stacks: vec![
            Stack {
                frames: vec![
                    frame("panic", "/usr/local/go/src/runtime/panic.go", 770),
                    frame("example.com/shop/cart.(*Cart).Total", "/src/shop/cart/cart.go", 41),
                    frame("net/http.HandlerFunc.ServeHTTP", "/usr/local/go/src/net/http/server.go", 2166),
                    frame("net/http.(*conn).serve", "/usr/local/go/src/net/http/server.go", 2009),
                    frame("main.worker", "/src/shop/main.go", 12),
                ],
                created_by: Some(CreatedBy {
                    func: "main.main".into(),
                    file: "/src/shop/main.go".into(),
                    line: 8,
                    goroutine: Some(1),
                }),
                elided_frames: None,
                unavailable: false,
            },
            Stack {
                frames: vec![Frame { args: "(0x7)".into(), ..frame("main.idle", "/src/shop/idle.go", 3) }],
                ..Stack::default()
            },
        ],
        list: vec![Goroutine { id: 34, state: "running".into(), creator: Some(1), stack: 0, ..Goroutine::default() }],
        dropped: 0,
    };
    for id in 100..112 {
        goroutines.list.push(Goroutine {
            id,
            state: "chan receive".into(),
            wait_minutes: 3,
            stack: 1,
            ..Goroutine::default()
        });
    }
    Incident {
        kind: IncidentKind::Panic,
        reason: reason.into(),
        chain: vec![
            ChainLink { value: "first\nof all".into(), recovered: true, ..ChainLink::default() },
            ChainLink { value: reason.into(), signal: Some(signal), ..ChainLink::default() },
        ],
        signal: None,
        prelude: Vec::new(),
        span: Span { start: 0, end: 100 },
        complete: true,
        truncated_by: None,
        traceback: None,
        registers: Vec::new(),
        goroutines,
        race: Vec::new(),
        seen: Timestamp(0),
    }
}

#[test]
fn a_crash_shows_the_persons_own_frames_and_counts_the_rest() {
    let style = Style { colour: Colour::Off, module: Some("example.com/shop"), groups_max: 1 };
    let expected = "\
panic: runtime error: invalid memory address or nil pointer dereference
  after panic: first⏎ of all [recovered]
  SIGSEGV code=0x1 addr=0x0 pc=0x4a
  goroutine 34 [running]
    … 1 other frame
    example.com/shop/cart.(*Cart).Total          cart/cart.go:41
    … 2 other frames
    main.worker                                  shop/main.go:12
    created by main.main in goroutine 1 at shop/main.go:8
  13 goroutines in 2 groups
       12  chan receive (up to 3 minutes)  main.idle  shop/idle.go:3
        1  in 1 more group
";
    assert_eq!(incident(&crash(), style), expected);
}

#[test]
fn where_no_frame_is_the_persons_own_all_are_shown() {
    let mut crash = crash();
    crash.goroutines.stacks[0].frames.retain(|f| f.func.starts_with("net/http"));
    let text = incident(&crash, Style { colour: Colour::Off, module: Some("example.com/shop"), groups_max: 0 });
    assert!(
        text.contains("net/http.(*conn).serve") && text.contains("HandlerFunc") && !text.contains("other frame"),
        "{text}"
    );
}

#[test]
fn nothing_of_a_hostile_value_reaches_the_terminal() {
    let mut crash = crash();
    crash.reason = "\x1b]0;owned\x07".into();
    crash.chain.clear();
    let text = incident(&crash, Style { colour: Colour::Off, module: None, groups_max: 5 });
    assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
}
