//! Finds deaths and alarms in the bytes that a Go process writes to standard error.
//!
//! Push-fed: chunks go in as they come, incidents come out when their last line has been seen. While nothing is in progress a chunk is
//! only searched for line ends and for the first bytes of the few lines that can start something; nothing is copied but a line that
//! straddles two chunks, and nothing is allocated.
//!
//! Each line is offered, in this order, to
//!
//! 1. the race report in progress (it ends at its own closing rule);
//! 2. the alarm in progress: a bare stack, or a panic that net/http recovered. Both are written in one piece;
//! 3. the *heads*: lines such as `panic: x` that start a death only if what follows proves it;
//! 4. the death in progress. A death has no end mark: it lasts until another death is proven, `go run` notes the exit, the stream ends,
//!    or more than [`FOREIGN_LINES_MAX`](crate::limits::FOREIGN_LINES_MAX) lines in a row are not its own.
//!
//! So an alarm or a race report may stand inside a death, as another goroutine's last words do, without ending it.
//!
//! Sources of the text: `src/runtime/{panic,signal_unix,traceback}.go`, `src/net/http/server.go`, `src/runtime/debug/stack.go`.

use memchr::{memchr, memmem, memrchr};

use crate::limits::{FOREIGN_LINES_MAX, HEAD_LINES_MAX, LINE_BYTES_MAX, RESTART_LINES_MIN};
use crate::{Goroutine, Incident, Timestamp, frame, header, race};

mod head;
mod report;
#[cfg(test)]
mod tests;

use head::Head;
use report::{Fed, Report};

/// Something that the classifier found.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A death or an alarm, whole.
    Incident(Box<Incident>),
}

/// What is known about the process when its stream ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// Nothing: `panic: x` is believed at the very end of the stream only.
    #[default]
    Unknown,
    /// The process ended as Go ends after a panic or a fatal error (status 2, or SIGABRT), so that `panic: x` is believed also when lines
    /// of other goroutines, or a value of several lines as printed up to Go 1.22, stand behind it.
    Crashed,
}

/// The stream machine; see the module's text.
#[derive(Debug)]
pub struct Classifier {
    /// Offset of the first byte that has not been seen.
    offset: u64,
    /// The start of a line whose end has not been seen, at most [`LINE_BYTES_MAX`] of it.
    partial: Vec<u8>,
    /// Bytes of that line, kept or not.
    partial_len: u64,
    partial_seen: Timestamp,
    race: Option<Box<race::Report>>,
    alarm: Option<Box<Report>>,
    alarm_head: Option<Box<Report>>,
    death: Option<Box<Report>>,
    death_head: Option<Box<Report>>,
    /// A block that may be the first of `death_head`, one more of `death`, or nothing; its second line decides.
    contested: Option<(Goroutine, u64)>,
    /// Found, and held back while something that started earlier is in progress.
    #[expect(clippy::vec_box, reason = "moved into events as they are")]
    ready: Vec<Box<Incident>>,
    http: memmem::Finder<'static>,
}

/// One line without its LF (and CR).
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    text: &'a [u8],
    start: u64,
    /// Behind its LF.
    end: u64,
    seen: Timestamp,
    /// Over [`LINE_BYTES_MAX`]: `text` is its start.
    cut: bool,
    /// The stream ended before its LF.
    unterminated: bool,
}

impl Default for Classifier {
    fn default() -> Self {
        Self::new()
    }
}

impl Classifier {
    /// A classifier at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::starting_at(0)
    }

    /// A classifier whose first byte stands at `offset` of its stream, which must be the start of a line: see [`Self::safe_offset`].
    #[must_use]
    pub fn starting_at(offset: u64) -> Self {
        Self {
            offset,
            partial: Vec::new(),
            partial_len: 0,
            partial_seen: Timestamp::default(),
            race: None,
            alarm: None,
            alarm_head: None,
            death: None,
            death_head: None,
            contested: None,
            ready: Vec::new(),
            http: memmem::Finder::new(head::HTTP_PANIC),
        }
    }

    /// Feeds the next bytes; returns what they completed. How the stream is cut into chunks changes nothing but
    /// [`Incident::seen`](crate::Incident::seen), which is the `now` of the chunk that held the incident's first byte.
    pub fn push(&mut self, chunk: &[u8], now: Timestamp) -> Vec<Event> {
        let mut rest = chunk;
        if self.partial_len > 0 {
            let Some((head, tail)) = memchr(b'\n', rest).and_then(|at| rest.split_at_checked(at.saturating_add(1)))
            else {
                self.keep(rest, now);
                return Vec::new();
            };
            self.keep(head, now);
            self.end_partial(false);
            rest = tail;
        }
        if let Some((whole, tail)) = memrchr(b'\n', rest).and_then(|at| rest.split_at_checked(at.saturating_add(1))) {
            self.lines(whole, now);
            rest = tail;
        }
        if !rest.is_empty() {
            self.keep(rest, now);
        }
        self.drain()
    }

    /// Ends the stream, about whose process nothing is known.
    #[must_use]
    pub fn finish(self, now: Timestamp) -> Vec<Event> {
        self.finish_after(Ending::Unknown, now)
    }

    /// Ends the stream: what is in progress becomes an event.
    #[must_use]
    pub fn finish_after(mut self, ending: Ending, _now: Timestamp) -> Vec<Event> {
        if self.partial_len > 0 {
            self.end_partial(true);
        }
        self.settle(true);
        let race = self.race.take().and_then(|report| report.finish());
        let alarm = self.alarm.take().map(|report| report.close(true));
        let death = self.death.take().map(|report| (report.reason_text().to_vec(), report.close(true)));
        // Before 1.24 several threads may print the same fatal error; the last of them may stand behind the stacks.
        let echo = |head: &Report| {
            death.as_ref().is_some_and(|(reason, _)| head.is_fatal() && head.reason_text() == reason.as_slice())
        };
        let head =
            self.death_head.take().filter(|head| head.is_believed(ending) && !echo(head)).map(|head| head.close(true));
        self.ready.extend(race.into_iter().chain(alarm).chain(head).chain(death.map(|(_, incident)| incident)));
        self.drain()
    }

    /// The first byte that a fresh classifier would have to see again to find all that was not reported yet: the start of what is in
    /// progress or may be, else the start of the unfinished line. Always the start of a line.
    #[must_use]
    pub fn safe_offset(&self) -> u64 {
        let ready = self.ready.iter().map(|incident| incident.span.start).min();
        ready.unwrap_or(u64::MAX).min(self.open_start()).min(self.offset.saturating_sub(self.partial_len))
    }

    /// Whether an incident is in progress, or a line was seen that may turn out to have started one.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.alarm.is_some()
            || self.death.is_some()
            || self.race.as_ref().is_some_and(|race| race.is_certain())
            || self.death_head.as_ref().is_some_and(|head| !head.is_prelude())
            || self.alarm_head.is_some()
    }

    /// The start of the first thing that is in progress.
    fn open_start(&self) -> u64 {
        let race = self.race.as_ref().map(|race| race.start());
        let reports = [&self.alarm, &self.alarm_head, &self.death, &self.death_head];
        reports.into_iter().flatten().map(|report| report.start()).chain(race).min().unwrap_or(u64::MAX)
    }

    fn is_idle(&self) -> bool {
        self.death.is_none()
            && self.death_head.is_none()
            && self.alarm.is_none()
            && self.alarm_head.is_none()
            && self.race.is_none()
    }

    /// Moves what nothing in progress precedes out of `ready`, in the order of the stream.
    fn drain(&mut self) -> Vec<Event> {
        if self.ready.is_empty() {
            return Vec::new();
        }
        let open = self.open_start();
        self.ready.sort_by_key(|incident| incident.span.start);
        self.ready.extract_if(.., |incident| incident.span.start < open).map(Event::Incident).collect()
    }

    /// Adds to the unfinished line.
    fn keep(&mut self, text: &[u8], now: Timestamp) {
        if self.partial_len == 0 {
            self.partial_seen = now;
        }
        // One byte more than the bound shows that the line is over it; the LF does not count.
        let room = LINE_BYTES_MAX.saturating_add(1).saturating_sub(self.partial.len());
        let line = text.strip_suffix(b"\n").unwrap_or(text);
        self.partial.extend_from_slice(line.get(..room).unwrap_or(line));
        let len = u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.partial_len = self.partial_len.saturating_add(len);
        self.offset = self.offset.saturating_add(len);
    }

    fn end_partial(&mut self, unterminated: bool) {
        let text = std::mem::take(&mut self.partial);
        let start = self.offset.saturating_sub(self.partial_len);
        self.partial_len = 0;
        self.line(line_of(&text, start, self.offset, self.partial_seen, unterminated));
        self.partial = text;
        self.partial.clear();
        // A single monstrous line must not be paid for ever.
        self.partial.shrink_to(64 << 10);
    }

    /// Takes whole lines.
    fn lines(&mut self, whole: &[u8], now: Timestamp) {
        let base = self.offset;
        let absolute = |at: usize| base.saturating_add(u64::try_from(at).unwrap_or(u64::MAX));
        // Where the next mention of net/http's phrase ends; found again when passed.
        let mut http = None;
        let mut start = 0_usize;
        let mut idle = self.is_idle();
        for newline in memchr::memchr_iter(b'\n', whole) {
            let text = whole.get(start..newline).unwrap_or_default();
            let next = newline.saturating_add(1);
            if idle {
                let mention = *http.get_or_insert_with(|| self.http.find(whole).unwrap_or(usize::MAX));
                if !head::may_start(text) && mention >= newline {
                    start = next;
                    continue;
                }
                if mention < newline {
                    let behind = self.http.find(whole.get(next..).unwrap_or_default());
                    http = Some(behind.map_or(usize::MAX, |at| next.saturating_add(at)));
                }
            } else {
                http = http.filter(|at| *at >= next);
            }
            self.offset = absolute(next);
            self.line(line_of(text, absolute(start), absolute(next), now, false));
            start = next;
            idle = self.is_idle();
            if http.is_none() && idle {
                let behind = self.http.find(whole.get(next..).unwrap_or_default());
                http = Some(behind.map_or(usize::MAX, |at| next.saturating_add(at)));
            }
        }
        self.offset = absolute(whole.len());
    }

    fn line(&mut self, line: Line<'_>) {
        if self.feed_race(&line) {
            return;
        }
        if let Some(alarm) = &mut self.alarm {
            match alarm.feed(&line) {
                Fed::Taken => return,
                Fed::Foreign => {}
                Fed::Ended => return self.close_alarm(),
                Fed::Closed => self.close_alarm(),
            }
        }
        self.settle_by(&line);
        if self.feed_alarm_head(&line) || self.feed_death_head(&line) || self.feed_death(&line) {
            return;
        }
        self.open_head(&line);
    }

    fn feed_race(&mut self, line: &Line<'_>) -> bool {
        let Some(report) = &mut self.race else {
            self.race = race::Report::open(line.text, line.start, line.end, line.seen).map(Box::new);
            return self.race.is_some();
        };
        match report.feed(line.text, line.end) {
            race::Fed::Taken => return true,
            race::Fed::Foreign => return false,
            race::Fed::Nothing => {
                // This rule may be the first of the report.
                self.race = race::Report::open(line.text, line.start, line.end, line.seen).map(Box::new);
                return self.race.is_some();
            }
            race::Fed::Done(incident) => {
                self.ready.push(incident);
                self.race = None;
                self.count_foreign();
                return true;
            }
            race::Fed::Lost(incident) => self.ready.push(incident),
        }
        self.race = None;
        false
    }

    /// A report that nothing else in progress saw counts as one line that was not theirs, so that none lasts for ever.
    fn count_foreign(&mut self) {
        let over = |report: &mut Option<Box<Report>>, bound: u32| {
            report.as_mut().is_some_and(|report| {
                report.foreign = report.foreign.saturating_add(1);
                report.foreign > bound
            })
        };
        if over(&mut self.death, FOREIGN_LINES_MAX) {
            self.close_death();
        }
        for head in [&mut self.death_head, &mut self.alarm_head] {
            if over(head, HEAD_LINES_MAX) {
                *head = None;
            }
        }
    }

    fn close_alarm(&mut self) {
        self.ready.extend(self.alarm.take().map(|report| report.close(false)));
    }

    fn close_death(&mut self) {
        self.ready.extend(self.death.take().map(|report| report.close(false)));
    }

    fn feed_alarm_head(&mut self, line: &Line<'_>) -> bool {
        let Some(head) = &mut self.alarm_head else { return false };
        match head.feed_alarm_head(line, self.death_head.is_some()) {
            Head::Taken => true,
            Head::Foreign => false,
            Head::Confirmed => {
                self.close_alarm();
                self.alarm = self.alarm_head.take();
                // Close behind a death, the blocks after this one are rather the death's.
                if let (Some(alarm), Some(death)) = (&mut self.alarm, &self.death) {
                    alarm.single = death.foreign <= RESTART_LINES_MIN;
                }
                true
            }
            Head::Dropped | Head::Contested(_) | Head::Ended => {
                self.alarm_head = None;
                false
            }
        }
    }

    fn feed_death_head(&mut self, line: &Line<'_>) -> bool {
        let Some(head) = &mut self.death_head else { return false };
        // A place that the death waits for is not the second line of a panic's value.
        if self.death.as_ref().is_some_and(|death| death.awaits(line)) {
            return false;
        }
        match head.feed_head(line, self.death.is_some()) {
            Head::Taken => true,
            Head::Foreign => false,
            Head::Confirmed => {
                self.promote();
                true
            }
            Head::Ended => {
                self.promote();
                self.close_death();
                true
            }
            Head::Contested(goroutine) => {
                self.contested = Some((goroutine, line.end));
                true
            }
            Head::Dropped => {
                self.death_head = None;
                false
            }
        }
    }

    /// The head is a death; the one before has ended.
    fn promote(&mut self) {
        self.close_death();
        self.alarm_head = None;
        self.death = self.death_head.take();
    }

    /// Decides by its second line whose the contested block is.
    fn settle_by(&mut self, line: &Line<'_>) {
        if self.contested.is_none() {
            return;
        }
        // While one goroutine dies the others that run cannot be unwound, whereas the one that died always is.
        let unwound = !report::is_unavailable(line.text);
        let proven = self.death_head.as_ref().is_some_and(|head| head.blank) || frame::function(line.text).is_some();
        self.settle(unwound && proven);
    }

    fn settle(&mut self, anew: bool) {
        let Some((goroutine, end)) = self.contested.take() else { return };
        if anew {
            self.promote();
        } else {
            self.death_head = None;
        }
        if let Some(death) = &mut self.death {
            death.start_block(goroutine, end);
        }
    }

    fn feed_death(&mut self, line: &Line<'_>) -> bool {
        let Some(death) = &mut self.death else { return false };
        match death.feed(line) {
            Fed::Taken => {
                // A new death would have brought its own header before this frame.
                if death.is_inside_block() {
                    self.death_head = None;
                }
                true
            }
            Fed::Foreign => false,
            Fed::Ended => {
                self.close_death();
                self.death_head = None;
                true
            }
            Fed::Closed => {
                self.close_death();
                false
            }
        }
    }

    /// Nobody wanted the line: it may start something.
    fn open_head(&mut self, line: &Line<'_>) {
        if let Some(head) = Report::death_head(line) {
            if self.death_head.as_ref().is_none_or(|known| known.is_prelude() || !head.is_prelude()) {
                self.death_head = Some(Box::new(head));
                self.alarm_head = None;
                if self.death_head.as_ref().is_some_and(|head| head.is_confirmed()) {
                    self.promote();
                }
            }
        } else if let Some(head) = Report::http_head(line, &self.http) {
            self.alarm_head = Some(Box::new(head));
        } else if let Some(goroutine) = header::parse(line.text) {
            self.alarm_head = Some(Box::new(Report::stack_head(line, goroutine)));
        }
    }
}

fn line_of(text: &[u8], start: u64, end: u64, seen: Timestamp, unterminated: bool) -> Line<'_> {
    let (text, cut) = match text.get(..LINE_BYTES_MAX) {
        Some(head) if text.len() > LINE_BYTES_MAX => (head, true),
        _ => (text.strip_suffix(b"\r").unwrap_or(text), false),
    };
    Line { text, start, end, seen, cut, unterminated }
}
