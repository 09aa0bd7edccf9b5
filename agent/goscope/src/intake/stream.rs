//! One run's stderr as events.

use std::io;
use std::path::Path;

use goscope_formats::{Classifier, Ending, Event, Timestamp};

use super::reader::{Read, Reader};

/// What one step did.
#[derive(Debug)]
pub enum Step {
    /// Bytes were read; the incidents that ended in them.
    Read(Vec<Event>),
    /// Bytes are missing; the incidents that the gap cut.
    Gap { bytes: u64, events: Vec<Event> },
    /// Nothing new for now.
    Idle,
}

/// Reader and classifier of one run.
#[derive(Debug)]
pub struct Stream {
    reader: Reader,
    classifier: Classifier,
}

impl Stream {
    /// Begins at a checkpoint's offset.
    #[must_use]
    pub fn new(run: &Path, offset: u64) -> Self {
        Self { reader: Reader::new(run, offset), classifier: Classifier::starting_at(offset) }
    }

    /// Reads and classifies at most one buffer.
    ///
    /// # Errors
    /// The run cannot be read.
    pub fn step(&mut self, buffer: &mut [u8], now: Timestamp) -> io::Result<Step> {
        Ok(match self.reader.read(buffer)? {
            Read::Bytes(read) => Step::Read(self.classifier.push(buffer.get(..read).unwrap_or_default(), now)),
            Read::Gap { from, to } => Step::Gap { bytes: to - from, events: self.restart(to, Ending::Unknown, now) },
            Read::Idle => Step::Idle,
        })
    }

    /// Ends what is open, as if the stream had ended here, and goes on behind it. `ending` is what is known of the process.
    pub fn flush(&mut self, ending: Ending, now: Timestamp) -> Vec<Event> {
        self.restart(self.reader.offset(), ending, now)
    }

    /// Whether an incident has begun and not ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.classifier.is_open()
    }

    /// Where reading has to begin again after a restart.
    #[must_use]
    pub fn safe_offset(&self) -> u64 {
        self.classifier.safe_offset()
    }

    /// The offset of the next byte that will be read.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.reader.offset()
    }

    fn restart(&mut self, offset: u64, ending: Ending, now: Timestamp) -> Vec<Event> {
        std::mem::replace(&mut self.classifier, Classifier::starting_at(offset)).finish_after(ending, now)
    }
}
