//! What a statement gave.

use pyo3::prelude::*;
use pyo3::types::{PyList, PyMapping, PyTuple};

use super::error::{raised, unsent};
use super::values::Decoder;
use crate::wire::column::{self, ColumnDescription};
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

/// What a statement gave.
#[pyclass(frozen, get_all, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Answer {
    tag: String,
    count: i64,
    columns: Option<Vec<Py<Column>>>,
    rows: Option<Py<PyList>>,
}

/// A result that is coming in.
pub(crate) struct Gathering<'py, 'a> {
    py: Python<'py>,
    loaders: Option<&'a Bound<'py, PyMapping>>,
    /// Whether rows are kept.
    keeps: bool,
    decoders: Vec<Decoder<'py>>,
    columns: Option<Vec<ColumnDescription>>,
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
            columns: None,
            rows: None,
            is_begun: false,
            tag: String::new(),
            count: -1,
            failure: None,
            is_certain: false,
        }
    }

    /// A result begins.
    pub(crate) fn begin(&mut self, columns: Vec<ColumnDescription>) {
        let made: PyResult<Vec<_>> = columns
            .iter()
            .map(|column| Decoder::of(column.oid, self.loaders))
            .collect();
        match made {
            Ok(decoders) => self.decoders = decoders,
            Err(error) => self.fail(error),
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

    fn try_row(&self, row: &[u8]) -> PyResult<()> {
        let mut values = Vec::with_capacity(self.decoders.len());
        for (decoder, field) in self.decoders.iter().zip(column::fields(row)) {
            values.push(match field {
                None => self.py.None().into_bound(self.py),
                Some(value) => decoder
                    .read(self.py, value)
                    .map_err(|unreadable| unreadable.raised(self.py))?,
            });
        }
        match &self.rows {
            Some(rows) => rows.append(PyTuple::new(self.py, values)?),
            None => Ok(()),
        }
    }

    /// A statement has come to its end.
    pub(crate) fn complete(&mut self, tag: String, is_refused: bool) {
        self.count = verb::rows(&tag).unwrap_or(-1);
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

    /// The answer, with another number of rows if one is given.
    pub(crate) fn finish(self, count: Option<i64>) -> PyResult<Answer> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        let py = self.py;
        let columns = self.columns.map(|columns| {
            columns
                .into_iter()
                .map(|column| {
                    let described = Column {
                        name: String::from_utf8_lossy(&column.name).into_owned(),
                        oid: column.oid,
                        size: column.size,
                        modifier: column.modifier,
                        table: column.table,
                        number: column.number,
                    };
                    Py::new(py, described)
                })
                .collect::<PyResult<Vec<_>>>()
        });
        Ok(Answer {
            tag: self.tag,
            count: count.unwrap_or(self.count),
            columns: columns.transpose()?,
            rows: self.rows.map(Bound::unbind),
        })
    }
}
