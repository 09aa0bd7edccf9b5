//! An incident told to a person: what died, where in their own code, and who else was there.

use std::fmt::Write as _;

use goscope_formats::{CreatedBy, Frame, Goroutine, Incident, IncidentKind, Origin, RaceAccess, Stack};

use crate::groups::{Group, group};
use crate::text::{Colour, plural, printable};

/// How to tell it.
#[derive(Clone, Copy, Debug)]
pub struct Style<'a> {
    /// Colours or none.
    pub colour: Colour,
    /// The program's module path, where known; without it a frame's file tells whose it is.
    pub module: Option<&'a str>,
    /// Groups that are listed; the rest are counted.
    pub groups_max: usize,
}

/// Frames of one stack that a group's line shows.
const GROUP_FRAMES_MAX: usize = 4;
/// Frames of the faulting goroutine that are shown.
const FRAMES_MAX: usize = 24;
/// Width to which places are aligned.
const FUNC_WIDTH: usize = 44;

/// The headline of `incident`: `panic: boom`, `fatal error: …`, `SIGQUIT: quit`.
#[must_use]
pub fn headline(incident: &Incident) -> String {
    let reason = printable(&incident.reason);
    match incident.kind {
        IncidentKind::Panic => format!("panic: {reason}"),
        IncidentKind::Fatal => format!("fatal error: {reason}"),
        IncidentKind::Signal => reason.into_owned(),
        IncidentKind::Race => format!("data race: {reason}"),
        IncidentKind::HttpPanic => format!("panic in an HTTP handler: {reason}"),
        IncidentKind::Stack => format!("stack: {reason}"),
    }
}

/// The whole report, several lines, each ending in LF.
#[must_use]
pub fn incident(incident: &Incident, style: Style<'_>) -> String {
    let mut out = String::new();
    line(&mut out, &style.colour.alarm(&headline(incident)));
    for link in incident.chain.iter().rev().skip(1) {
        let mark = if link.recovered { " [recovered]" } else { "" };
        line(&mut out, &format!("  after panic: {}{mark}", printable(&link.value)));
    }
    let signal = incident.signal.as_ref().or_else(|| incident.chain.iter().rev().find_map(|l| l.signal.as_ref()));
    if let Some(signal) = signal.filter(|_| incident.kind != IncidentKind::Signal) {
        let mut text = format!("  {}", printable(&signal.name));
        for (name, value) in [("code", &signal.code), ("addr", &signal.addr), ("pc", &signal.pc)] {
            if let Some(value) = value {
                write!(text, " {name}={}", printable(value)).expect("writing to a string cannot fail");
            }
        }
        line(&mut out, &text);
    }
    for text in &incident.prelude {
        line(&mut out, &style.colour.dim(&format!("  {}", printable(text))));
    }
    for access in &incident.race {
        race_access(&mut out, access, style);
    }
    if let Some(faulting) = incident.faulting() {
        goroutine(&mut out, faulting, incident.goroutines.stack_of(faulting), style);
    }
    others(&mut out, incident, style);
    if !incident.complete {
        line(&mut out, &style.colour.dim("  (the text is incomplete: it was cut before its end)"));
    }
    out
}

fn goroutine(out: &mut String, goroutine: &Goroutine, stack: Option<&Stack>, style: Style<'_>) {
    line(out, &style.colour.strong(&format!("  goroutine {} [{}]", goroutine.id, state(goroutine))));
    let Some(stack) = stack else { return };
    frames(out, &stack.frames, style);
    if let Some(elided) = stack.elided_frames {
        let text = if elided == 0 { "more frames".to_owned() } else { plural(elided.into(), "frame") };
        line(out, &style.colour.dim(&format!("    … {text} that Go left out")));
    }
    if let Some(created) = &stack.created_by {
        line(out, &style.colour.dim(&format!("    {}", created_by(created, goroutine.creator))));
    }
}

fn state(goroutine: &Goroutine) -> String {
    let mut text = printable(&goroutine.state).into_owned();
    if goroutine.wait_minutes > 0 {
        write!(text, ", {}", plural(goroutine.wait_minutes.into(), "minute")).expect("writing to a string cannot fail");
    }
    if goroutine.locked {
        text.push_str(", locked to thread");
    }
    text
}

/// The frames of the person's own code, runs of other frames dimmed to one line. Where no frame is theirs, all are shown.
fn frames(out: &mut String, frames: &[Frame], style: Style<'_>) {
    let own = |frame: &Frame| frame.origin(style.module) == Origin::App;
    let none_own = !frames.iter().any(own);
    let mut hidden = 0_u64;
    let mut shown = 0;
    for frame in frames {
        if shown < FRAMES_MAX && (none_own || own(frame)) {
            elided(out, &mut hidden, style);
            line(out, &format!("    {}", place(frame)));
            shown += 1;
        } else {
            hidden += 1;
        }
    }
    elided(out, &mut hidden, style);
}

fn elided(out: &mut String, hidden: &mut u64, style: Style<'_>) {
    if *hidden > 0 {
        line(out, &style.colour.dim(&format!("    … {}", plural(*hidden, "other frame"))));
        *hidden = 0;
    }
}

fn place(frame: &Frame) -> String {
    let func = printable(&frame.func);
    if frame.file.is_empty() {
        return func.into_owned();
    }
    format!("{func:<FUNC_WIDTH$} {}:{}", printable(short_file(&frame.file)), frame.line)
}

/// The last two elements of a path: enough to find the file, short enough to read.
fn short_file(file: &str) -> &str {
    file.rmatch_indices('/').nth(1).and_then(|(at, _)| file.get(at + 1..)).unwrap_or(file)
}

fn created_by(created: &CreatedBy, creator: Option<u64>) -> String {
    let mut text = format!("created by {}", printable(&created.func));
    if let Some(id) = creator {
        write!(text, " in goroutine {id}").expect("writing to a string cannot fail");
    }
    if !created.file.is_empty() {
        write!(text, " at {}:{}", printable(short_file(&created.file)), created.line)
            .expect("writing to a string cannot fail");
    }
    text
}

fn race_access(out: &mut String, access: &RaceAccess, style: Style<'_>) {
    let operation = match (access.previous, access.write) {
        (false, false) => "read",
        (false, true) => "write",
        (true, false) => "previous read",
        (true, true) => "previous write",
    };
    let who = if access.thread == 1 { "main goroutine".to_owned() } else { format!("goroutine #{}", access.thread) };
    line(out, &style.colour.strong(&format!("  {operation} at {} by {who}", printable(&access.addr))));
    frames(out, &access.frames, style);
    if let Some(created) = &access.created {
        let end = if created.finished { "finished" } else { "running" };
        line(out, &style.colour.dim(&format!("    created ({end}) at")));
        frames(out, &created.frames, style);
    }
}

/// Everybody but the faulting goroutine, in groups.
fn others(out: &mut String, incident: &Incident, style: Style<'_>) {
    let total = incident.goroutines.total();
    if total < 2 {
        return;
    }
    let groups = group(&incident.goroutines);
    line(
        out,
        &format!(
            "  {} in {}",
            plural(total, "goroutine"),
            plural(u64::try_from(groups.len()).unwrap_or(u64::MAX), "group")
        ),
    );
    for group in groups.iter().take(style.groups_max) {
        line(out, &format!("  {:>7}  {}", group.count, group_line(group, style)));
    }
    let (rest, more) = groups.iter().skip(style.groups_max).fold((0, 0), |(rest, more), g| (rest + g.count, more + 1));
    if more > 0 && style.groups_max > 0 {
        line(out, &style.colour.dim(&format!("  {rest:>7}  in {}", plural(more, "more group"))));
    }
    if incident.goroutines.dropped > 0 {
        line(out, &style.colour.dim(&format!("  {:>7}  past the bound, counted only", incident.goroutines.dropped)));
    }
}

fn group_line(group: &Group<'_>, style: Style<'_>) -> String {
    let mut text = String::new();
    for (index, (state, count)) in group.states.iter().take(3).enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        let times = if group.states.len() > 1 { format!("{count}× ") } else { String::new() };
        write!(text, "{separator}{times}{}", printable(state)).expect("writing to a string cannot fail");
    }
    if group.oldest_wait_minutes > 0 {
        write!(text, " (up to {})", plural(group.oldest_wait_minutes.into(), "minute"))
            .expect("writing to a string cannot fail");
    }
    let own: Vec<&Frame> = group.stack.frames.iter().filter(|f| f.origin(style.module) == Origin::App).collect();
    let shown: Vec<&Frame> = if own.is_empty() { group.stack.frames.iter().collect() } else { own };
    let path: Vec<String> = shown.iter().take(GROUP_FRAMES_MAX).map(|f| printable(&f.func).into_owned()).collect();
    if !path.is_empty() {
        write!(text, "  {}", path.join(" ← ")).expect("writing to a string cannot fail");
    }
    if let Some(first) = shown.first().filter(|f| !f.file.is_empty()) {
        write!(text, "  {}", style.colour.dim(&format!("{}:{}", printable(short_file(&first.file)), first.line)))
            .expect("writing to a string cannot fail");
    }
    text
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

#[cfg(test)]
pub(crate) mod tests;
