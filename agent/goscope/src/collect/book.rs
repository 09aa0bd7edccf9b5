//! The captures that are wanted, under way and done: pure. Times and identifiers come in, decisions go out.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use super::Request;
use crate::model::ArtifactId;
use crate::target::profile::Profile;

/// Captures that wait. Past it a request is refused.
pub const QUEUED_MAX: usize = 16;
/// Captures that have ended and are remembered. Past it the one that ended first is forgotten.
pub const REMEMBERED_MAX: usize = 256;

/// One capture from its request on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Has the tag of the artifact that it becomes; the time is that of the request.
    pub id: ArtifactId,
    pub request: Request,
    pub created: Timestamp,
    pub state: State,
    /// By the name of who asked: how many of their requests want it still. Whoever has taken all of theirs back stands here with zero. Names are those of
    /// tokens, so there are as many as tokens at most.
    pub wanted_by: BTreeMap<String, u32>,
}

/// How far a capture is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for others.
    Queued,
    Running {
        started: Timestamp,
    },
    Ended {
        /// Absent where it never began.
        started: Option<Timestamp>,
        ended: Timestamp,
        end: End,
    },
}

/// How a capture ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Stored {
        artifact: ArtifactId,
        /// As stored.
        bytes: u64,
    },
    /// Why, in a sentence.
    Failed(String),
    Cancelled,
}

/// The target has one CPU profiler and one tracer; the rest is cheap for it, and bounded for the sake of our own memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Cpu,
    Trace,
    Other,
}

impl Lane {
    fn of(request: &Request) -> Self {
        match request.route.profile {
            Profile::Cpu => Self::Cpu,
            Profile::Trace => Self::Trace,
            _ => Self::Other,
        }
    }

    /// Captures that run side by side.
    fn width(self) -> usize {
        match self {
            Self::Cpu | Self::Trace => 1,
            Self::Other => 2,
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub operation: Operation,
    /// The same was wanted already and has not ended.
    pub joined: bool,
}

/// [`QUEUED_MAX`] captures wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Who cancels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canceller<'a> {
    /// The name under which they asked for it.
    pub name: &'a str,
    /// May end what others want.
    pub is_admin: bool,
}

/// What a cancellation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// It had not begun, and is cancelled.
    Done(Operation),
    /// It runs; whoever runs it is to be told, and will say how it ended.
    Tell(Operation),
    /// It had ended already.
    Late(Operation),
    /// Others want it still, and it goes on for them.
    Left(Operation),
    /// It is none of theirs, and nothing was done.
    Foreign,
}

/// All captures that are known, in the order of their requests.
#[derive(Debug, Default)]
pub struct Book {
    operations: VecDeque<Operation>,
}

impl Book {
    /// Takes a request: joins the one that asks the target for the same, has not ended and is not being cut, or queues a new one under the name `id`.
    ///
    /// # Errors
    /// Too many wait.
    pub fn submit(&mut self, request: Request, id: ArtifactId, now: Timestamp) -> Result<Taken, Full> {
        let same =
            |known: &&mut Operation| !known.has_ended() && known.wanted() > 0 && known.request.route == request.route;
        if let Some(known) = self.operations.iter_mut().find(same) {
            let wanted = known.wanted_by.entry(request.requested_by).or_default();
            *wanted = wanted.saturating_add(1);
            return Ok(Taken { operation: known.clone(), joined: true });
        }
        if self.queued() >= QUEUED_MAX {
            return Err(Full);
        }
        let wanted_by = BTreeMap::from([(request.requested_by.clone(), 1)]);
        let operation = Operation { id, request, created: now, state: State::Queued, wanted_by };
        self.operations.push_back(operation.clone());
        Ok(Taken { operation, joined: false })
    }

    /// Starts the one that waits longest of those whose lane has room.
    pub fn start(&mut self, now: Timestamp) -> Option<Operation> {
        let has_room = |lane: Lane| {
            let running = self.operations.iter().filter(|o| o.is_running() && Lane::of(&o.request) == lane);
            running.count() < lane.width()
        };
        let next = self.operations.iter().position(|o| o.state == State::Queued && has_room(Lane::of(&o.request)))?;
        let operation = self.operations.get_mut(next)?;
        operation.state = State::Running { started: now };
        Some(operation.clone())
    }

    /// Notes how one that ran has ended. What has ended already stays as it is.
    pub fn finish(&mut self, id: &ArtifactId, end: End, now: Timestamp) {
        if let Some(operation) = self.operations.iter_mut().find(|o| o.id == *id) {
            operation.end(end, now);
        }
        self.forget();
    }

    /// Takes back one request of whoever cancels; the last one ends the capture, and so does an admin at once. `None` where there is none of that name.
    pub fn cancel(&mut self, id: &ArtifactId, by: Canceller<'_>, now: Timestamp) -> Option<Cancel> {
        let operation = self.operations.iter_mut().find(|o| o.id == *id)?;
        if !by.is_admin && !operation.wanted_by.contains_key(by.name) {
            return Some(Cancel::Foreign);
        }
        if !operation.has_ended() {
            operation.take_back(by);
            if operation.wanted() > 0 {
                return Some(Cancel::Left(operation.clone()));
            }
        }
        let cancel = match operation.state {
            State::Queued => {
                operation.end(End::Cancelled, now);
                Cancel::Done(operation.clone())
            }
            State::Running { .. } => Cancel::Tell(operation.clone()),
            State::Ended { .. } => Cancel::Late(operation.clone()),
        };
        self.forget();
        Some(cancel)
    }

    /// Ends all that wait, because nothing is begun any more; returns them.
    pub fn close(&mut self, end: &End, now: Timestamp) -> Vec<Operation> {
        let waiting = self.operations.iter_mut().filter(|o| o.state == State::Queued);
        let closed = waiting
            .map(|operation| {
                operation.end(end.clone(), now);
                operation.clone()
            })
            .collect();
        self.forget();
        closed
    }

    #[must_use]
    pub fn find(&self, id: &ArtifactId) -> Option<&Operation> {
        self.operations.iter().find(|o| o.id == *id)
    }

    /// How many wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.operations.iter().filter(|o| o.state == State::Queued).count()
    }

    fn forget(&mut self) {
        let ended = self.operations.iter().filter(|o| o.has_ended()).count();
        for _ in REMEMBERED_MAX..ended {
            let when = |o: &Operation| match &o.state {
                State::Ended { ended, .. } => Some(*ended),
                State::Queued | State::Running { .. } => None,
            };
            let oldest = self.operations.iter().enumerate().filter_map(|(i, o)| Some((when(o)?, i))).min();
            if let Some((_, oldest)) = oldest {
                self.operations.remove(oldest);
            }
        }
    }
}

impl Operation {
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended { .. })
    }

    /// How many requests want it. Zero of one that has not ended: it is being cut.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.wanted_by.values().map(|wanted| u64::from(*wanted)).sum()
    }

    fn take_back(&mut self, by: Canceller<'_>) {
        if by.is_admin {
            self.wanted_by.values_mut().for_each(|wanted| *wanted = 0);
        } else if let Some(wanted) = self.wanted_by.get_mut(by.name) {
            *wanted = wanted.saturating_sub(1);
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    fn end(&mut self, end: End, now: Timestamp) {
        let started = match self.state {
            State::Queued => None,
            State::Running { started } => Some(started),
            State::Ended { .. } => return,
        };
        self.state = State::Ended { started, ended: now, end };
    }
}

#[cfg(test)]
mod tests;
