//! Lengths of time that Python gives in seconds.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// So long that nothing comes after it, and that a clock can add it to an instant a few times.
const LONGEST: Duration = Duration::from_secs(u64::MAX / 4);

/// A length that was checked before; one that no clock can count is the longest there is.
pub(crate) fn length(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(LONGEST)
}

/// A limit: one that no clock can count is the longest there is, one below zero is none at all.
///
/// # Errors
///
/// `ValueError` for NaN.
pub(crate) fn limit(seconds: f64) -> PyResult<Duration> {
    if seconds.is_nan() {
        return Err(PyValueError::new_err("a deadline of NaN s is not possible"));
    }
    Ok(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}
