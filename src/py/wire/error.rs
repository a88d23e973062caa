//! Failures of the wire, as one exception of Python's.

use std::collections::HashMap;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::wire::failure::{FailureKind, RequestFate, WireFailure};

/// Why a request has no answer. Never leaves `poolproof.driver`.
#[pyclass(frozen, extends = PyException, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct WireError {
    #[pyo3(get)]
    kind: String,
    #[pyo3(get)]
    message: String,
    #[pyo3(get)]
    sqlstate: Option<String>,
    #[pyo3(get)]
    fields: HashMap<String, String>,
    #[pyo3(get)]
    outcome: String,
    #[pyo3(get)]
    lost: bool,
}

#[pymethods]
impl WireError {
    #[new]
    #[pyo3(signature = (message, kind="usage", sqlstate=None, fields=None, outcome="not done", lost=false))]
    fn new(
        message: String,
        kind: &str,
        sqlstate: Option<String>,
        fields: Option<HashMap<String, String>>,
        outcome: &str,
        lost: bool,
    ) -> Self {
        Self {
            kind: kind.to_owned(),
            message,
            sqlstate,
            fields: fields.unwrap_or_default(),
            outcome: outcome.to_owned(),
            lost,
        }
    }

    fn __str__(&self) -> &str {
        &self.message
    }
}

fn name(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Server => "server",
        FailureKind::Closed | FailureKind::Interrupted => "closed",
        FailureKind::Connect => "connect",
        FailureKind::Timeout => "timeout",
        FailureKind::OutOfStep => "out_of_step",
        FailureKind::Forked => "forked",
        FailureKind::Busy => "busy",
        FailureKind::Data => "data",
        FailureKind::Usage => "usage",
        FailureKind::Unsupported => "unsupported",
        FailureKind::RolledBack => "rolled_back",
    }
}

/// Whether the connection is of no use after it.
fn is_end(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::Closed
            | FailureKind::Connect
            | FailureKind::Timeout
            | FailureKind::OutOfStep
            | FailureKind::Interrupted
    )
}

/// The exception.
pub(crate) fn raised(py: Python<'_>, failure: &WireFailure) -> PyErr {
    let said = failure.said.as_deref();
    let fields: HashMap<String, String> = said
        .map(|said| {
            said.fields()
                .map(|(letter, value)| (char::from(letter).to_string(), value.to_owned()))
                .collect()
        })
        .unwrap_or_default();
    let outcome = match failure.fate {
        RequestFate::NotDone => "not done",
        RequestFate::Unknown => "unknown",
    };
    let sqlstate = said.and_then(|said| said.sqlstate());
    let is_lost = is_end(failure.kind) || failure.kind == FailureKind::Forked;
    let arguments = (
        failure.what.as_str(),
        name(failure.kind),
        sqlstate,
        fields,
        outcome,
        is_lost,
    );
    match py.get_type::<WireError>().call1(arguments) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// One of which nothing was sent.
pub(crate) fn unsent(py: Python<'_>, kind: FailureKind, what: impl Into<String>) -> PyErr {
    raised(py, &WireFailure::unsent(kind, what))
}
