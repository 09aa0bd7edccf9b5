//! Our standard error, with one owner that never blocks on a reader that is slow.
//!
//! The descriptor is shared with whoever started us, so it must not be made non-blocking: that would be seen by them. Instead it is
//! asked for room before each write, and no more is written than a pipe or terminal with room takes at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FileType;
use rustix::io::Errno;

/// A pipe that polls as writable takes this much without blocking (PIPE_BUF).
const PIPE_CHUNK: usize = 4096;
/// A terminal that polls as writable may have less room than it would like to have; a short chunk waits a short time at worst.
const TERMINAL_CHUNK: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pipe,
    Terminal,
    /// A file or a socket: takes what it is given.
    Other,
}

/// Passes bytes on, keeps those that find no room, and knows whether the stream stands at the start of a line.
#[derive(Debug)]
pub(super) struct Outlet<Fd> {
    fd: Fd,
    kind: Kind,
    /// Bytes before `done` are written.
    pending: Vec<u8>,
    done: usize,
    at_line_start: bool,
    is_gone: bool,
}

impl<Fd: AsFd> Outlet<Fd> {
    pub(super) fn new(fd: Fd) -> Self {
        let kind = if rustix::termios::isatty(&fd) {
            Kind::Terminal
        } else if rustix::fs::fstat(&fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo) {
            Kind::Pipe
        } else {
            Kind::Other
        };
        Self { fd, kind, pending: Vec::new(), done: 0, at_line_start: true, is_gone: false }
    }

    /// Takes bytes, in order: writes what finds room and keeps the rest.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        self.at_line_start = *last == b'\n';
        if self.is_gone {
            return;
        }
        let written = if self.pending.is_empty() { self.write_some(bytes) } else { 0 };
        if !self.is_gone {
            self.pending.extend_from_slice(bytes.get(written..).unwrap_or_default());
        }
    }

    /// Writes what was kept, as far as there is room.
    pub(super) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        self.done += self.write_some(pending.get(self.done..).unwrap_or_default());
        if self.done < pending.len() && !self.is_gone {
            self.pending = pending;
        } else {
            self.done = 0;
        }
    }

    /// Bytes that found no room yet.
    pub(super) fn pending(&self) -> usize {
        self.pending.len() - self.done
    }

    /// Everything taken so far ends with a line feed, or nothing was taken.
    pub(super) fn at_line_start(&self) -> bool {
        self.at_line_start
    }

    /// Nobody reads any more: whoever writes there gets EPIPE.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// What to poll for: room while something is pending, else only the end of the reader (an error is always reported).
    pub(super) fn interest(&self) -> PollFlags {
        if self.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT }
    }

    /// Polling it can tell something. A terminal that hung up would say so again and again.
    pub(super) fn is_worth_polling(&self) -> bool {
        !self.is_gone && (self.kind == Kind::Pipe || !self.pending.is_empty())
    }

    /// Tells what polling gave. A pipe without a reader is known before anything is written to it.
    pub(super) fn polled(&mut self, events: PollFlags) {
        if self.kind == Kind::Pipe && events.contains(PollFlags::ERR) {
            self.close();
        }
    }

    fn close(&mut self) {
        self.is_gone = true;
        self.pending = Vec::new();
        self.done = 0;
    }

    fn write_some(&mut self, bytes: &[u8]) -> usize {
        let chunk = match self.kind {
            Kind::Pipe => PIPE_CHUNK,
            Kind::Terminal => TERMINAL_CHUNK,
            Kind::Other => usize::MAX,
        };
        let mut written = 0;
        while let Some(rest) = bytes.get(written..)
            && !rest.is_empty()
            && self.has_room()
        {
            match rustix::io::write(&self.fd, rest.get(..chunk).unwrap_or(rest)) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                // Somebody else made the shared descriptor non-blocking.
                Err(Errno::AGAIN) => break,
                Err(Errno::PIPE) => {
                    self.close();
                    break;
                }
                // A full disk, a terminal that hung up: a bare app goes on there, and so do we, without these bytes.
                Err(_) => written = bytes.len(),
            }
        }
        written
    }

    fn has_room(&self) -> bool {
        if self.kind == Kind::Other {
            return true;
        }
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A failed poll says nothing: then the write decides.
        rustix::event::poll(&mut fds, Some(&now)).map_or(true, |_| !fds[0].revents().is_empty())
    }
}

impl<Fd: AsFd> AsFd for Outlet<Fd> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Writes a message of ours for the person, as far as anyone reads it; before the pump runs or after it has ended.
pub(super) fn say(text: &str) {
    use io::Write as _;
    drop(io::stderr().write_all(text.as_bytes()));
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe")
    }

    fn read(fd: &OwnedFd) -> Vec<u8> {
        let mut got = Vec::new();
        let mut chunk = [0; 1 << 16];
        while let Ok(count @ 1..) = rustix::io::read(fd, &mut chunk[..]) {
            got.extend_from_slice(&chunk[..count]);
        }
        got
    }

    #[test]
    fn bytes_beyond_the_room_are_kept_in_order() {
        let (reader, writer) = pipe();
        rustix::io::ioctl_fionbio(&writer, false).expect("blocking, as a shared descriptor is");
        let sent: Vec<u8> = (0..300_000_u32).map(|n| u8::try_from(n % 251).expect("small")).collect();
        let mut outlet = Outlet::new(writer);
        outlet.write(&sent[..200_000]);
        assert!(outlet.pending() > 0);
        outlet.write(&sent[200_000..]);
        let mut got = Vec::new();
        while outlet.pending() > 0 {
            assert_eq!(outlet.interest(), PollFlags::OUT);
            got.extend(read(&reader));
            outlet.flush();
        }
        got.extend(read(&reader));
        assert_eq!(got, sent);
        assert_eq!(outlet.interest(), PollFlags::empty());
    }

    #[test]
    fn knows_the_start_of_a_line() {
        let (_reader, writer) = pipe();
        let mut outlet = Outlet::new(writer);
        assert!(outlet.at_line_start());
        outlet.write(b"a\nb");
        assert!(!outlet.at_line_start());
        outlet.write(b"");
        assert!(!outlet.at_line_start());
        outlet.write(b"\n");
        assert!(outlet.at_line_start());
    }

    #[test]
    fn a_gone_reader_is_noticed_by_writing_and_by_polling() {
        let (reader, writer) = pipe();
        let mut outlet = Outlet::new(writer);
        drop(reader);
        outlet.write(b"x");
        assert!(outlet.is_gone());
        assert_eq!(outlet.pending(), 0);

        let (reader, writer) = pipe();
        let mut outlet = Outlet::new(writer);
        drop(reader);
        let mut fds = [PollFd::new(&outlet, outlet.interest())];
        rustix::event::poll(&mut fds, None).expect("poll");
        let events = fds[0].revents();
        outlet.polled(events);
        assert!(outlet.is_gone());
    }
}
