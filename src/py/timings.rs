//! The times of a pool, and the scope of whoever asks for a connection, for Python.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::seconds::length;
use crate::metrics;
use crate::metrics::ScopeId;
use crate::metrics::bounds::EXPORTED;

/// How many bytes all histograms of this process take.
#[pyfunction]
pub(crate) fn histogram_bytes() -> usize {
    metrics::bytes()
}

/// How long callers of one pool waited for a slot and held it, how long connecting and asking took.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Timings(pub(super) Arc<metrics::Timings>);

#[pymethods]
impl Timings {
    #[new]
    fn new() -> Self {
        Self(Arc::new(metrics::Timings::new(now())))
    }

    /// Counts an attempt to connect that succeeded, in seconds.
    fn record_connect(&self, seconds: f64) {
        self.0.connect.record(length(seconds));
    }

    /// Counts a question to a server, in seconds.
    fn record_ping(&self, seconds: f64) {
        self.0.ping.record(length(seconds));
    }

    /// Adds what another has counted.
    fn absorb(&self, other: &Self) {
        self.0.absorb(&other.0);
    }

    /// Waits for a slot, of callers who got a connection.
    fn wait(&self) -> Distribution {
        Distribution(self.0.wait.read())
    }

    /// Opening a connection.
    fn connect(&self) -> Distribution {
        Distribution(self.0.connect.read())
    }

    /// Asking whether one is at rest.
    fn ping(&self) -> Distribution {
        Distribution(self.0.ping.read())
    }

    /// How late loops have let tasks go on whose turn had come; None where no task has waited.
    fn lag(&self) -> Option<Distribution> {
        self.0.lag().map(Distribution)
    }

    /// How long connections were held.
    fn hold(&self) -> Distribution {
        Distribution(self.0.hold())
    }

    /// The same for each scope that has held one, by number; 0 is no scope.
    fn holds_by_scope(&self) -> Vec<(ScopeId, Distribution)> {
        let by_scope = self.0.holds_by_scope().into_iter();
        by_scope
            .map(|(scope, held)| (scope, Distribution(held)))
            .collect()
    }
}

/// What a histogram had at one instant.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Distribution(metrics::Distribution);

#[pymethods]
impl Distribution {
    /// How many there were.
    #[getter]
    fn count(&self) -> u64 {
        self.0.count()
    }

    /// How many of them took no time at all.
    #[getter]
    fn none(&self) -> u64 {
        self.0.none()
    }

    /// Of all together, in seconds.
    #[getter]
    fn sum_s(&self) -> f64 {
        self.0.sum.as_secs_f64()
    }

    /// The longest, in seconds.
    #[getter]
    fn max_s(&self) -> f64 {
        self.0.longest.as_secs_f64()
    }

    /// The seconds that this share of them, 0 to 1, did not exceed; None where there was none.
    fn quantile(&self, share: f64) -> PyResult<Option<f64>> {
        if !(0.0..=1.0).contains(&share) {
            return Err(PyValueError::new_err(format!(
                "a share is between 0 and 1, not {share}"
            )));
        }
        Ok(self.0.quantile(share).map(|found| found.as_secs_f64()))
    }

    /// How many there were up to each of `EXPORTED_BOUNDS`.
    fn exported(&self) -> Vec<u64> {
        self.0.up_to(&EXPORTED)
    }
}

/// The bounds of what is exported, in seconds.
#[allow(clippy::cast_precision_loss, reason = "the longest is 30 s")]
pub(crate) fn exported_bounds() -> Vec<f64> {
    EXPORTED.iter().map(|&bound| bound as f64 / 1e9).collect()
}

/// Says which scope the caller is in: the `get` of a context variable.
///
/// It is told at the import. A fork in the middle of telling would leave the child a cell that is taken for ever, and
/// without the interpreter's lock nothing else keeps a fork from coming there.
static SCOPE: OnceLock<Py<PyAny>> = OnceLock::new();

/// Whether this process has ever named a scope.
static ARE_USED: AtomicBool = AtomicBool::new(false);

/// Tells what says which scope the caller is in. Returns whether nothing had been told before: the first counts.
#[pyfunction]
pub(crate) fn tell_scopes(get: Py<PyAny>) -> bool {
    SCOPE.set(get).is_ok()
}

/// Has each checkout ask for its scope's number from now on.
#[pyfunction]
pub(crate) fn use_scopes() {
    // Whose thread names a scope sees it; others need not see it before they have heard of that thread in another way.
    ARE_USED.store(true, Ordering::Relaxed);
}

/// The scope of whoever asks; 0 for none. As long as there is no scope it costs a load.
pub(super) fn scope(py: Python<'_>) -> ScopeId {
    if !ARE_USED.load(Ordering::Relaxed) {
        return 0;
    }
    // A variable with a default, whose numbers are ours, always answers.
    SCOPE.get().map_or(0, |get| {
        let found = get.call0(py).and_then(|number| number.extract(py));
        found.unwrap_or(0)
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "a time is counted from when it was begun"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}
