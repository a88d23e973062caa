//! What a statement gave.

use std::sync::Arc;

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyMapping, PyTuple};

use super::error::{raised, unsent};
use super::values::Decoder;
use crate::wire::column;
use crate::wire::failure::{FailureKind, WireFailure};
use crate::wire::verb;

/// A column of a result.
#[pyclass(frozen, get_all, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Column {
    name: String,
    oid: u32,
    size: i16,
    modifier: i32,
    table: u32,
    number: i16,
}

/// The columns of a result: those of a statement that is prepared are the same each time.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Columns(Arc<column::Columns>);

#[pymethods]
impl Columns {
    fn __len__(&self) -> usize {
        self.0.list.len()
    }

    fn __getitem__(&self, number: usize) -> PyResult<Column> {
        let found = self.0.list.get(number);
        let column = found.ok_or_else(|| PyIndexError::new_err("there is no such column"))?;
        Ok(Column {
            name: String::from_utf8_lossy(&column.name).into_owned(),
            oid: column.oid,
            size: column.size,
            modifier: column.modifier,
            table: column.table,
            number: column.number,
        })
    }

    /// What a function makes of them, which is called once for those that are the same.
    fn described<'py>(
        slf: &Bound<'py, Self>,
        describe: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let beside = &slf.get().0.beside;
        if let Some(found) = beside.get().and_then(|any| any.downcast_ref::<Py<PyAny>>()) {
            return Ok(found.bind(slf.py()).clone());
        }
        let made = describe.call1((slf,))?;
        // Of two threads the first one's stays.
        drop(beside.set(Box::new(made.clone().unbind())));
        Ok(made)
    }
}

/// What a statement gave.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Answer {
    #[pyo3(get)]
    tag: String,
    #[pyo3(get)]
    count: i64,
    columns: Option<Arc<column::Columns>>,
    #[pyo3(get)]
    rows: Option<Py<PyList>>,
}

#[pymethods]
impl Answer {
    #[getter]
    fn columns(&self) -> Option<Columns> {
        self.columns.clone().map(Columns)
    }
}

/// A result that is coming in.
pub(crate) struct Gathering<'py, 'a> {
    py: Python<'py>,
    loaders: Option<&'a Bound<'py, PyMapping>>,
    /// Whether rows are kept.
    keeps: bool,
    decoders: Vec<Decoder<'py>>,
    /// Those of the row that is being read.
    values: Vec<Bound<'py, PyAny>>,
    /// What the decoders are for, where that was known before.
    expected: Option<Arc<column::Columns>>,
    columns: Option<Arc<column::Columns>>,
    rows: Option<Bound<'py, PyList>>,
    /// Whether columns have come since a statement has come to its end.
    is_begun: bool,
    tag: String,
    count: i64,
    /// What to raise once the request has come to its end.
    failure: Option<PyErr>,
    /// Whether that is so whatever the server says of it.
    is_certain: bool,
}

impl<'py, 'a> Gathering<'py, 'a> {
    pub(crate) fn new(
        py: Python<'py>,
        loaders: Option<&'a Bound<'py, PyMapping>>,
        keeps: bool,
    ) -> Self {
        Self {
            py,
            loaders,
            keeps,
            decoders: Vec::new(),
            values: Vec::new(),
            expected: None,
            columns: None,
            rows: None,
            is_begun: false,
            tag: String::new(),
            count: -1,
            failure: None,
            is_certain: false,
        }
    }

    /// Says of each column whether it is wanted as binary: where that is cheaper, and the value the same.
    pub(crate) fn expect(
        &mut self,
        columns: &Arc<column::Columns>,
        is_utc: bool,
    ) -> PyResult<Vec<bool>> {
        let mut formats = Vec::with_capacity(columns.list.len());
        self.decoders.clear();
        for column in &columns.list {
            let decoder = Decoder::of(column.oid, self.loaders)?.in_binary(self.py, is_utc)?;
            formats.push(decoder.is_binary());
            self.decoders.push(decoder);
        }
        self.expected = Some(Arc::clone(columns));
        Ok(formats)
    }

    /// A result begins.
    pub(crate) fn begin(&mut self, columns: Arc<column::Columns>) {
        let is_expected = self
            .expected
            .as_ref()
            .is_some_and(|expected| Arc::ptr_eq(expected, &columns));
        if !is_expected {
            let made: PyResult<Vec<_>> = columns
                .list
                .iter()
                .map(|column| Decoder::of(column.oid, self.loaders))
                .collect();
            match made {
                Ok(decoders) => self.decoders = decoders,
                Err(error) => self.fail(error),
            }
        }
        self.columns = Some(columns);
        self.rows = Some(PyList::empty(self.py));
        self.is_begun = true;
    }

    /// A row of it.
    pub(crate) fn row(&mut self, row: &[u8]) {
        if self.failure.is_some() || !self.keeps {
            return;
        }
        if let Err(error) = self.try_row(row) {
            self.fail(error);
        }
    }

    fn try_row(&mut self, row: &[u8]) -> PyResult<()> {
        self.values.clear();
        for (decoder, field) in self.decoders.iter().zip(column::fields(row)) {
            self.values.push(match field {
                None => self.py.None().into_bound(self.py),
                Some(value) => decoder
                    .read(self.py, value)
                    .map_err(|unreadable| unreadable.raised(self.py))?,
            });
        }
        match &self.rows {
            Some(rows) => rows.append(PyTuple::new(self.py, self.values.drain(..))?),
            None => Ok(()),
        }
    }

    /// A statement has come to its end.
    pub(crate) fn complete(&mut self, tag: String, is_refused: bool) {
        // Of EXPLAIN, SHOW and CALL the tag has no number, and the rows are there.
        let found = self.rows.as_ref().filter(|_| self.is_begun && self.keeps);
        let found = found.and_then(|rows| i64::try_from(rows.len()).ok());
        self.count = verb::rows(&tag).or(found).unwrap_or(-1);
        if is_refused {
            let what = "the transaction had failed, and was rolled back in place of being committed: none of it is done";
            self.fail(unsent(self.py, FailureKind::RolledBack, what));
        }
        if !std::mem::take(&mut self.is_begun) {
            self.columns = None;
            self.rows = None;
        }
        self.tag = tag;
    }

    /// What is told belongs to a statement that went ahead, and is left out.
    pub(crate) fn forget(&mut self) {
        self.tag.clear();
        self.count = -1;
        self.columns = None;
        self.rows = None;
        self.is_begun = false;
    }

    /// The server refuses.
    pub(crate) fn refuse(&mut self, failure: &WireFailure) {
        // What it refuses counts before a value that could not be read.
        if !self.is_certain {
            self.failure = Some(raised(self.py, failure));
        }
    }

    /// What was asked is not there; the server will say so in words of its own.
    pub(crate) fn fail_for_certain(&mut self, error: PyErr) {
        self.is_certain = true;
        self.failure = Some(error);
    }

    /// Something is to be raised at the end.
    pub(crate) fn fail(&mut self, error: PyErr) {
        if self.failure.is_none() {
            self.failure = Some(error);
        }
    }

    /// Whether something is to be raised.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// The answer, with another number of rows if one is given.
    pub(crate) fn finish(self, count: Option<i64>) -> PyResult<Answer> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        Ok(Answer {
            tag: self.tag,
            count: count.unwrap_or(self.count),
            columns: self.columns,
            rows: self.rows.map(Bound::unbind),
        })
    }
}
