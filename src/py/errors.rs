//! The one map from the core's errors to Python's exceptions.

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::control::error::ControlError;
use crate::pool::Stale;
use crate::process::RegisterError;
use crate::socket::deadline::WatchError;

create_exception!(
    poolproof._native,
    Forked,
    PyException,
    "The gate was made before a fork. Never leaves the package."
);
create_exception!(
    poolproof._native,
    Refused,
    PyException,
    "An operation of the control plane has no answer: kind, text, SQLSTATE. Never leaves the package."
);

/// A gate that a parent process made.
pub(crate) fn from_stale(error: Stale) -> PyErr {
    Forked::new_err(error.to_string())
}

/// A descriptor that cannot be registered.
pub(crate) fn from_register(error: RegisterError) -> PyErr {
    match error {
        RegisterError::NotASocket { .. } => PyValueError::new_err(error.to_string()),
        RegisterError::Examine { ref source, .. } if source.raw_os_error() == Some(libc::EBADF) => {
            PyValueError::new_err(error.to_string())
        }
        RegisterError::Full { .. } => PyRuntimeError::new_err(error.to_string()),
        RegisterError::Examine { ref source, .. } | RegisterError::Install { ref source } => {
            PyOSError::new_err((source.raw_os_error(), error.to_string()))
        }
    }
}

/// A socket that cannot be watched.
pub(crate) fn from_watch(error: WatchError) -> PyErr {
    match error {
        WatchError::Register(error) => from_register(error),
        WatchError::Duplicate { ref source, .. } | WatchError::Start { ref source } => {
            PyOSError::new_err((source.raw_os_error(), error.to_string()))
        }
        WatchError::Full { .. } => PyRuntimeError::new_err(error.to_string()),
    }
}

/// An operation of the control plane that has no answer: `(kind, text, sqlstate)`.
pub(crate) fn from_control(error: &ControlError) -> PyErr {
    let kind = match error {
        ControlError::Parameters { .. } => "parameters",
        ControlError::Table { .. } => "table",
        ControlError::Start { .. } => "start",
        _ => "server",
    };
    let sqlstate = error.sqlstate().map(str::to_owned);
    Refused::new_err((kind, error.to_string(), sqlstate))
}
