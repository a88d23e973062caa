//! A statement's text for Python, which has found out what it is once.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::wire::statement_text::StatementText;

/// A statement in the server's form, which may be asked often.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Statement(Arc<StatementText>);

#[pymethods]
impl Statement {
    #[new]
    fn new(text: &str) -> Self {
        Self(Arc::new(StatementText::kept(text)))
    }

    /// Its text.
    #[getter]
    fn text(&self) -> &str {
        &self.0.sql
    }

    fn __repr__(&self) -> String {
        format!("<Statement {}>", self.0.word)
    }
}

/// The text of a statement, or of a str that is asked once.
pub(super) fn text_of(statement: &Bound<'_, PyAny>) -> PyResult<Arc<StatementText>> {
    match statement.cast::<Statement>() {
        Ok(kept) => Ok(Arc::clone(&kept.get().0)),
        Err(_) => Ok(Arc::new(StatementText::once(statement.extract::<&str>()?))),
    }
}
