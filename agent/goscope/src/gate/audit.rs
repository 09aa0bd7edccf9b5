//! The audit trail: one JSON line when a request arrives and one when it is over.
//!
//! Field names are those of `audit.k8s.io/v1` `Event` where the meaning is the same; `code`, `profile`, `operation`, `seconds`, `bytes`,
//! `ended` and `limit` are ours.
//! A line holds nothing that a client wrote freely except the Basic user name of an accepted token: the request URI is written anew from the
//! route, so no token, no hash and no unlisted parameter can get into it.
//!
//! Lines are gathered in memory and written by one thread, so that a slow disk delays no request. Memory is bounded: when [`BUFFER_BYTES_MAX`]
//! wait to be written, further lines are dropped and counted.

use std::fmt;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::refuse::Code;
use jiff::Timestamp;

/// Bytes of lines that wait to be written.
pub const BUFFER_BYTES_MAX: usize = 1 << 20;
/// Lines are gathered this long, so that a flood costs few writes.
const GATHER: Duration = Duration::from_millis(20);

/// Where in a request's life a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    ResponseComplete,
}

/// How the answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// To its last byte.
    Complete,
    /// The client went away.
    ClientGone,
    /// The target broke off; the client's answer was broken off as well.
    TargetCut,
    /// The target sent nothing for too long.
    TargetStalled,
    /// The volume could not be read to the end; the client's answer was broken off as well.
    VolumeCut,
}

/// What was asked for, by a name of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Of the gate.
    Profile(&'static str),
    /// Of the API; with the profile, where it asks the target for one.
    Operation { name: &'static str, profile: Option<&'static str> },
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseComplete => "ResponseComplete",
        }
    }
}

impl Ended {
    fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::TargetCut => "target_cut",
            Self::TargetStalled => "target_stalled",
            Self::VolumeCut => "volume_cut",
        }
    }
}

/// One line. Every text but the names is one of ours or was written anew from digits.
#[derive(Debug)]
pub struct Event<'a> {
    pub audit_id: AuditId,
    pub stage: Stage,
    pub time: Timestamp,
    pub verb: &'static str,
    /// As it is sent to the target; `-` where no route was recognised.
    pub request_uri: &'a str,
    /// The token's name, or `system:anonymous`.
    pub username: &'a str,
    /// The user name of Basic authentication, which nobody checked.
    pub basic_user: Option<&'a str>,
    pub source: IpAddr,
    pub code: Code,
    pub subject: Subject,
    pub seconds: Option<&'a str>,
    /// In the line at the end.
    pub answer: Option<Answer>,
    /// `REJECTED`, or `REJECTED_DRY_RUN` for a request that passed only because a limit is on trial.
    pub limit: Option<&'static str>,
}

/// What the client got.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub status: u16,
    pub bytes: u64,
    pub ended: Ended,
}

impl Event<'_> {
    /// Written by hand, because this is done twice for each request.
    fn append_to(&self, line: &mut Vec<u8>) -> io::Result<()> {
        write!(
            line,
            r#"{{"auditID":"{}","stage":"{}","stageTimestamp":"{}""#,
            self.audit_id,
            self.stage.name(),
            self.time
        )?;
        for (name, text) in [(r#","verb":""#, self.verb), (r#"","requestURI":""#, self.request_uri)] {
            line.extend_from_slice(name.as_bytes());
            line.extend_from_slice(text.as_bytes());
        }
        line.extend_from_slice(br#"","user":{"username":"#);
        serde_json::to_writer(&mut *line, self.username)?;
        if let Some(user) = self.basic_user {
            line.extend_from_slice(br#","extra":{"basicUser":["#);
            serde_json::to_writer(&mut *line, user)?;
            line.extend_from_slice(b"]}");
        }
        write!(line, r#"}},"sourceIPs":["{}"]"#, self.source)?;
        if let Some(answer) = &self.answer {
            write!(line, r#","responseStatus":{{"code":{}}}"#, answer.status)?;
        }
        let (operation, profile) = match self.subject {
            Subject::Profile(profile) => (None, Some(profile)),
            Subject::Operation { name, profile } => (Some(name), profile),
        };
        let texts = [
            (r#","code":""#, Some(self.code.name())),
            (r#"","operation":""#, operation),
            (r#"","profile":""#, profile),
        ];
        for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            line.extend_from_slice(name.as_bytes());
            line.extend_from_slice(text.as_bytes());
        }
        line.push(b'"');
        if let Some(seconds) = self.seconds {
            write!(line, r#","seconds":"{seconds}""#)?;
        }
        if let Some(answer) = &self.answer {
            write!(line, r#","bytes":{},"ended":"{}""#, answer.bytes, answer.ended.name())?;
        }
        if let Some(limit) = self.limit {
            write!(line, r#","limit":"{limit}""#)?;
        }
        line.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// Names the lines of one request: a random part for each start of the agent and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditId {
    pub start: u64,
    pub number: u64,
}

impl fmt::Display for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.start, self.number)
    }
}

/// The gate's end of the audit trail; clones share it.
#[derive(Clone)]
pub struct AuditSink(Arc<Shared>);

/// The thread that writes. Dropped, it writes what waits and ends.
#[derive(Debug)]
pub struct AuditWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    failed_writes: u64,
    closed: bool,
}

/// What went wrong so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditLosses {
    /// Lines that found no room.
    pub dropped: u64,
    /// Batches of lines that could not be written.
    pub failed_writes: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for AuditSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditSink")
    }
}

/// Starts the trail; `writer` gets whole lines, many at a time.
///
/// # Errors
/// The thread cannot be started.
pub fn start(writer: impl io::Write + Send + 'static) -> io::Result<(AuditSink, AuditWriter)> {
    let shared = Arc::new(Shared::default());
    let theirs = Arc::clone(&shared);
    let thread = std::thread::Builder::new()
        .name("audit".to_owned())
        .stack_size(128 << 10)
        .spawn(move || write_all(&theirs, writer))?;
    Ok((AuditSink(Arc::clone(&shared)), AuditWriter { shared, thread: Some(thread) }))
}

fn write_all(shared: &Shared, mut writer: impl io::Write) {
    let mut batch = Vec::new();
    loop {
        let mut state = shared.lock();
        while state.lines.is_empty() && !state.closed {
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.closed {
            let waited = shared
                .work
                .wait_timeout_while(state, GATHER, |state| !state.closed)
                .unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
        }
        let last = state.closed;
        std::mem::swap(&mut batch, &mut state.lines);
        drop(state);
        if !batch.is_empty()
            && let Err(error) = writer.write_all(&batch).and_then(|()| writer.flush())
        {
            shared.lock().failed_writes += 1;
            tracing::error!(%error, "cannot write the audit trail");
        }
        batch.clear();
        // A flood's buffer is not kept for the quiet time after it.
        if batch.capacity() > 64 << 10 {
            batch = Vec::new();
        }
        if last {
            return;
        }
    }
}

impl AuditSink {
    /// Adds a line, or counts it as dropped when too many wait.
    pub fn write(&self, event: &Event<'_>) {
        let mut state = self.0.lock();
        let start = state.lines.len();
        if start > BUFFER_BYTES_MAX {
            state.dropped += 1;
            return;
        }
        if event.append_to(&mut state.lines).is_err() {
            state.lines.truncate(start);
            state.dropped += 1;
            return;
        }
        drop(state);
        if start == 0 {
            self.0.work.notify_one();
        }
    }

    #[must_use]
    pub fn losses(&self) -> AuditLosses {
        let state = self.0.lock();
        AuditLosses { dropped: state.dropped, failed_writes: state.failed_writes }
    }
}

impl Drop for AuditWriter {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the audit thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn event(number: u64) -> Event<'static> {
        Event {
            audit_id: AuditId { start: 0xab, number },
            stage: Stage::ResponseComplete,
            time: "2026-11-23T08:57:04.5Z".parse().unwrap(),
            verb: "get",
            request_uri: "/debug/pprof/profile?seconds=5",
            username: "alice",
            basic_user: Some("me \"x\"\u{1}"),
            source: "127.0.0.1".parse().unwrap(),
            code: Code::Passed,
            subject: Subject::Profile("profile"),
            seconds: Some("5"),
            answer: Some(Answer { status: 200, bytes: 1234, ended: Ended::Complete }),
            limit: Some("REJECTED_DRY_RUN"),
        }
    }

    fn text(event: &Event<'_>) -> String {
        let mut line = Vec::new();
        event.append_to(&mut line).unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn one_line_in_the_words_of_kubernetes() {
        let expected = concat!(
            r#"{"auditID":"00000000000000ab-1f","stage":"ResponseComplete","stageTimestamp":"2026-11-23T08:57:04.5Z","verb":"get","#,
            r#""requestURI":"/debug/pprof/profile?seconds=5","user":{"username":"alice","extra":{"basicUser":["me \"x\"\u0001"]}},"#,
            r#""sourceIPs":["127.0.0.1"],"responseStatus":{"code":200},"code":"passed","profile":"profile","seconds":"5","bytes":1234,"#,
            r#""ended":"complete","limit":"REJECTED_DRY_RUN"}"#,
            "\n"
        );
        assert_eq!(text(&event(31)), expected);
        let plain = Event {
            stage: Stage::RequestReceived,
            answer: None,
            seconds: None,
            basic_user: None,
            limit: None,
            ..event(1)
        };
        let operation = Event { subject: Subject::Operation { name: "artifact", profile: None }, ..event(3) };
        assert!(
            text(&operation).contains(r#""code":"passed","operation":"artifact","seconds""#),
            "{}",
            text(&operation)
        );
        let capture =
            Event { subject: Subject::Operation { name: "capture_start", profile: Some("heap") }, ..event(4) };
        assert!(
            text(&capture).contains(r#""code":"passed","operation":"capture_start","profile":"heap","seconds""#),
            "{}",
            text(&capture)
        );
        for event in [&event(2), &plain, &operation, &capture] {
            let read: serde_json::Value = serde_json::from_str(&text(event)).unwrap();
            assert_eq!(read["responseStatus"].is_object(), event.answer.is_some());
        }
    }

    /// Blocks in its first write until it is let go, then collects.
    struct Gated {
        go: mpsc::Receiver<()>,
        lines: Arc<Mutex<Vec<u8>>>,
    }

    impl io::Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The sender is gone when the test no longer wants to hold the writer up.
            let _gone = self.go.recv();
            self.lines.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_written_or_counted() {
        let (go_tx, go) = mpsc::channel();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sink, writer) = start(Gated { go, lines: Arc::clone(&lines) }).unwrap();
        let sent = 20_000;
        for number in 0..sent {
            sink.write(&event(number));
            assert!(sink.0.lock().lines.len() <= BUFFER_BYTES_MAX + 1024);
        }
        drop(go_tx);
        drop(writer);
        let losses = sink.losses();
        let written = lines.lock().unwrap().iter().filter(|b| **b == b'\n').count() as u64;
        assert!(losses.dropped > 0, "twenty thousand lines are more than the buffer holds");
        assert_eq!((written + losses.dropped, losses.failed_writes), (sent, 0));
    }

    #[test]
    fn a_disk_that_fails_is_counted_and_stops_nothing() {
        struct Full;
        impl io::Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sink, writer) = start(Full).unwrap();
        sink.write(&event(1));
        drop(writer);
        assert_eq!(sink.losses(), AuditLosses { dropped: 0, failed_writes: 1 });
    }
}
