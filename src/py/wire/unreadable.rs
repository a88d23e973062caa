//! Why a value of a server's cannot be one of Python's.

use pyo3::prelude::*;

use super::error::unsent;
use crate::wire::failure::FailureKind;

/// Why a value cannot be read.
pub(crate) enum Unreadable {
    /// In words.
    Text(&'static str),
    /// What Python has raised.
    Raised(PyErr),
}

impl From<PyErr> for Unreadable {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl Unreadable {
    /// The exception.
    pub(crate) fn raised(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Text(what) => unsent(py, FailureKind::Data, what),
            Self::Raised(error) => error,
        }
    }
}

pub(super) type Read<'py> = Result<Bound<'py, PyAny>, Unreadable>;

pub(super) const NO_DATE: Unreadable = Unreadable::Text(
    "a date or timestamp has no value in Python: it is infinite, before the year 1, after the year 9999, or written in \
     another DateStyle than ISO. Select it as text, or register a loader for its type",
);

pub(super) const NO_TIME: Unreadable = Unreadable::Text(
    "the time 24:00:00 has no value in Python: select it as text, or register a loader for its type",
);
