//! A number that threads count up together.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;

/// How often something has happened. No lock, which a fork could copy while it is held, and no count is lost.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

#[pymethods]
impl Counter {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Counts `more`.
    #[pyo3(signature = (more = 1))]
    fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::AcqRel);
    }

    /// Begins at 0 again.
    fn reset(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// The count at this instant.
    #[getter]
    fn value(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
