//! Prints what the classifier finds on standard input: `classify [MODULE] < FILE`.
#![expect(clippy::print_stdout, reason = "its answer")]

use std::io::Read as _;

use goscope_formats::{Classifier, Event, Timestamp, fingerprint};

fn main() -> std::io::Result<()> {
    let module = std::env::args().nth(1);
    let mut classifier = Classifier::new();
    let mut chunk = vec![0; 64 << 10];
    let mut input = std::io::stdin().lock();
    loop {
        let len = input.read(&mut chunk)?;
        if len == 0 {
            break;
        }
        print(&classifier.push(chunk.get(..len).unwrap_or_default(), Timestamp(0)), module.as_deref());
    }
    print(&classifier.finish(Timestamp(0)), module.as_deref());
    Ok(())
}

fn print(events: &[Event], module: Option<&str>) {
    for event in events {
        let Event::Incident(incident) = event else { continue };
        println!(
            "{} [{}, {}) {} goroutines, {} stacks, {:?}, complete {}, {}\n  {}",
            incident.kind.name(),
            incident.span.start,
            incident.span.end,
            incident.goroutines.total(),
            incident.goroutines.stacks.len(),
            incident.traceback,
            incident.complete,
            fingerprint(incident, module),
            incident.reason
        );
        let frames = incident.faulting().and_then(|goroutine| incident.goroutines.stack_of(goroutine));
        for frame in frames.into_iter().flat_map(|stack| &stack.frames) {
            println!("  {:?} {} {}:{}", frame.origin(module), frame.func, frame.file, frame.line);
        }
    }
}
