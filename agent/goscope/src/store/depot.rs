//! The store for those who start before its volume can be used.
//!
//! The recorder opens the store and tries again until it can: a volume may come back. The others hold a [`Depot`], which says meanwhile what is wrong.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;

use super::metrics::StoreMetrics;
use super::{Store, StoreError};
use crate::config::StoreConfig;
use crate::telemetry;

/// The place where the store is found once it is open. Clones share it.
#[derive(Clone, Debug)]
pub struct Depot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: OnceLock<Store>,
    metrics: StoreMetrics,
    problem: Mutex<Option<String>>,
}

/// There is no store yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    #[error("the store is not open yet")]
    Opening,
    #[error("the store cannot be opened: {0}")]
    Broken(String),
}

impl Depot {
    #[must_use]
    pub fn new(metrics: StoreMetrics) -> Self {
        Self(Arc::new(Inner { store: OnceLock::new(), metrics, problem: Mutex::new(None) }))
    }

    /// The store. Does not wait.
    ///
    /// # Errors
    /// It could not be opened so far.
    pub fn store(&self) -> Result<&Store, Closed> {
        self.0.store.get().ok_or_else(|| self.problem().map_or(Closed::Opening, Closed::Broken))
    }

    /// What is wrong with the volume, as far as the latest attempt to use it tells. Does not wait.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.0.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens the store, if nobody has yet. Waits for the disk.
    ///
    /// # Errors
    /// It cannot be opened; counted, and noted as the problem.
    pub fn open(&self, config: &StoreConfig, host: &str, now: Timestamp) -> Result<&Store, StoreError> {
        if let Some(store) = self.0.store.get() {
            return Ok(store);
        }
        let store = self.note(Store::open(config, host, now, self.0.metrics.clone()))?;
        Ok(self.0.store.get_or_init(|| store))
    }

    /// Notes how an attempt to use the volume ended: a failure is counted and is the problem until the next success. Does not wait.
    ///
    /// # Errors
    /// What it was given.
    pub fn note<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.0.metrics.errors.inc();
        }
        let problem = result.as_ref().err().map(|error| telemetry::chain(error));
        *self.0.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::config;

    #[test]
    fn it_says_what_is_wrong_until_there_is_a_store() {
        let registry = prometheus::Registry::new();
        let (depot, dir) = (Depot::new(StoreMetrics::register(&registry).unwrap()), tempfile::tempdir().unwrap());
        assert_eq!(depot.store().unwrap_err(), Closed::Opening);
        let (path, now) = (dir.path().join("data"), Timestamp::now());
        std::fs::write(&path, "in the way").unwrap();
        assert!(depot.open(&config(&path), "pod-1", now).is_err());
        let closed = depot.clone().store().unwrap_err().to_string();
        assert!(closed.starts_with("the store cannot be opened: cannot prepare "), "{closed}");
        std::fs::remove_file(&path).unwrap();
        let root = depot.open(&config(&path), "pod-1", now).unwrap().root();
        assert_eq!((depot.store().unwrap().root(), depot.problem()), (root, None));
        let full = StoreError::Write { path, source: std::io::ErrorKind::StorageFull.into() };
        assert!(depot.note::<()>(Err(full)).is_err());
        assert!(depot.store().is_ok() && depot.problem().is_some());
        let text = crate::metrics::encode(&registry).unwrap();
        assert!(text.contains("goscope_store_errors_total 2\n"), "{text}");
    }
}
