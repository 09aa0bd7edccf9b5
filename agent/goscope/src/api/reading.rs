//! Reading the volume for requests: off the async thread, a few at a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::gate::refuse::{Code, Refusal};
use crate::store::catalogue::Volume;

/// Requests, and downloads between two pieces, that read the volume at the same moment.
pub const SLOTS: usize = 4;
/// How long a request waits for its turn before it is sent away.
const SLOT_PATIENCE: Duration = Duration::from_secs(2);

/// The volume, for those who may not wait; clones share the slots.
#[derive(Clone, Debug)]
pub struct Reading {
    volume: Arc<Volume>,
    slots: Arc<Semaphore>,
}

impl Reading {
    #[must_use]
    pub fn new(volume: Volume) -> Self {
        Self { volume: Arc::new(volume), slots: Arc::new(Semaphore::new(SLOTS)) }
    }

    /// Does `work` on a thread that may wait for the disk. It is done to its end also when the client leaves.
    ///
    /// # Errors
    /// 503 when all slots stay taken, 500 when the volume fails.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Volume) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let taken = tokio::time::timeout(SLOT_PATIENCE, self.slot()).await;
        let slot = taken.map_err(|_| {
            let mut refusal = Refusal::new(Code::Busy, "others are reading the volume at this moment; try again");
            refusal.retry_after = Some(SLOT_PATIENCE);
            refusal
        })?;
        let volume = Arc::clone(&self.volume);
        let done = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            work(&volume)
        });
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(path = %self.volume.root().display(), %error, "volume cannot be read");
            Refusal::new(Code::VolumeFailed, "the volume could not be read; the agent's log says why")
        };
        match done.await {
            Ok(result) => Ok(result.map_err(|error| failed(&error))?),
            Err(error) => Err(failed(&error).into()),
        }
    }

    /// A place among the readers, however long it takes.
    pub(super) async fn slot(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.slots).acquire_owned().await.expect("nobody closes the semaphore")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn when_all_slots_are_taken_for_long_it_is_busy() {
        let dir = tempfile::tempdir().unwrap();
        let reading = Reading::new(Volume::new(dir.path().into(), None));
        let mut taken = Vec::new();
        for _ in 0..SLOTS {
            taken.push(reading.slot().await);
        }
        let refused = reading.run(|_| Ok(())).await.unwrap_err();
        assert_eq!(refused.code(), Code::Busy);
        taken.pop();
        assert!(reading.run(|_| Ok(())).await.is_ok());
    }

    #[tokio::test]
    async fn a_volume_that_fails_is_told_without_its_path() {
        let reading = Reading::new(Volume::new("/nowhere/at/all".into(), None));
        let failed = reading.run(|volume| volume.totals()).await.unwrap_err();
        assert_eq!(failed.code(), Code::VolumeFailed);
        let panicked = reading.run(|_| -> io::Result<()> { panic!("on purpose") }).await.unwrap_err();
        assert_eq!(panicked.code(), Code::VolumeFailed);
    }
}
