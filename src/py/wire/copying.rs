//! A COPY for Python: bytes or rows in either direction, a piece at a time.
//!
//! Long, because it is one idea: what may be done with a COPY until its end, and how it ends.

use std::ops::Range;
use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMapping, PyString};

use super::copy_rows::{self, RowReader};
use super::error::{raised, unsent};
use super::parameters::{bytes_of, text_of};
use super::question::CHUNK;
use super::request::Request;
use super::requests::{Hub, Wire, attended};
use super::statement;
use crate::wire::failure::{FailureKind, WireFailure};
use crate::wire::outgoing::{ParameterList, check_statement};
use crate::wire::server_message::ServerMessage;
use crate::wire::session::{CopyShape, CopyState, Event, Standing};
use crate::wire::statement_text::StatementText;
use crate::wire::verb;

/// One COPY. The connection waits for it, and for nothing else, until it has ended.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct WireCopy {
    wire: Py<Wire>,
    shape: CopyShape,
    /// Which of the connection's it is.
    number: u64,
    /// Whether it commits by itself.
    commits: bool,
    /// Tag and number of rows, once it has come to a good end.
    told: OnceLock<(String, i64)>,
}

const NO_COPY: &str =
    "copy() is for COPY ... FROM STDIN and COPY ... TO STDOUT: other statements go by execute()";
const LONGEST_REASON: usize = 1000;

#[pymethods]
impl WireCopy {
    /// Begins one.
    #[new]
    #[pyo3(signature = (wire, sql, *, begin=None, wait=None))]
    fn new(
        py: Python<'_>,
        wire: Py<Wire>,
        sql: &str,
        begin: Option<Bound<'_, PyAny>>,
        wait: Hub<'_>,
    ) -> PyResult<Self> {
        check_statement(sql).map_err(|unfit| unsent(py, FailureKind::Data, unfit.0))?;
        if !verb::copies(sql) {
            return Err(unsent(py, FailureKind::Usage, NO_COPY));
        }
        let begin = begin.as_ref().map(statement::text_of).transpose()?;
        let (shape, number, commits) = begun(py, wire.get(), sql, begin.as_deref(), wait)?;
        Ok(Self {
            wire,
            shape,
            number,
            commits,
            told: OnceLock::new(),
        })
    }

    /// Whether it goes to the server.
    #[getter]
    fn is_in(&self) -> bool {
        self.shape.is_in
    }

    #[getter]
    fn is_binary(&self) -> bool {
        self.shape.is_binary
    }

    /// How many columns there are.
    #[getter]
    fn columns(&self) -> usize {
        self.shape.columns
    }

    /// Sends bytes, or a text.
    #[pyo3(signature = (data, wait=None))]
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>, wait: Hub<'_>) -> PyResult<()> {
        self.must_be(py, true)?;
        let mut request = self.take(py, wait)?;
        if let Ok(bytes) = data.cast::<PyBytes>() {
            return send(py, &mut request, bytes.as_bytes());
        }
        if let Ok(text) = data.cast::<PyString>() {
            return send(py, &mut request, text_of(text)?.as_bytes());
        }
        let bytes = bytes_of(data)?;
        send(py, &mut request, &bytes)
    }

    /// Sends rows, in the text format or the binary one. Nothing of a row is sent that cannot be written.
    #[pyo3(signature = (rows, *, types=None, adapt=None, wait=None))]
    fn write_rows(
        &self,
        py: Python<'_>,
        rows: &Bound<'_, PyAny>,
        types: Option<Vec<u32>>,
        adapt: Option<Bound<'_, PyAny>>,
        wait: Hub<'_>,
    ) -> PyResult<()> {
        self.check_types(py, types.as_deref())?;
        self.must_be(py, true)?;
        let mut request = self.take(py, wait)?;
        let adapt = adapt.as_ref();
        let mut buffer = std::mem::take(&mut self.state(py, &mut request)?.unsent);
        let mut work = || {
            for row in rows.try_iter()? {
                self.put(&mut request, &mut buffer, &row?, types.as_deref(), adapt)?;
                if buffer.len() >= CHUNK {
                    std::mem::swap(&mut self.state(py, &mut request)?.unsent, &mut buffer);
                    flush(py, &mut request)?;
                    std::mem::swap(&mut self.state(py, &mut request)?.unsent, &mut buffer);
                }
            }
            Ok(())
        };
        let done = work();
        // After a refusal, or a loss, there is nobody to have it.
        if let Ok(Some(state)) = request.session(py).map(|session| session.copy_state()) {
            state.unsent = buffer;
        }
        done
    }

    /// Sends a row, in the text format or the binary one, with others of its kind.
    #[pyo3(signature = (row, types=None, adapt=None, wait=None))]
    fn write_row(
        &self,
        py: Python<'_>,
        row: &Bound<'_, PyAny>,
        types: Option<Vec<u32>>,
        adapt: Option<Bound<'_, PyAny>>,
        wait: Hub<'_>,
    ) -> PyResult<()> {
        self.check_types(py, types.as_deref())?;
        self.must_be(py, true)?;
        let mut request = self.take(py, wait)?;
        let mut buffer = std::mem::take(&mut self.state(py, &mut request)?.unsent);
        let put = self.put(
            &mut request,
            &mut buffer,
            row,
            types.as_deref(),
            adapt.as_ref(),
        );
        let is_full = buffer.len() >= CHUNK;
        self.state(py, &mut request)?.unsent = buffer;
        put?;
        if is_full {
            flush(py, &mut request)?;
        }
        Ok(())
    }

    /// The messages that have come, at least one; None at the end.
    #[pyo3(signature = (wait=None))]
    fn read<'py>(&self, py: Python<'py>, wait: Hub<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        self.must_be(py, false)?;
        if self.told.get().is_some() {
            return Ok(None);
        }
        let mut request = self.take(py, wait)?;
        let found = PyList::empty(py);
        self.gather(py, &mut request, |request, data| {
            found.append(PyBytes::new(py, request.session(py)?.at(data)))
        })?;
        Ok((!found.is_empty()).then_some(found))
    }

    /// The rows that have come, at least one; None at the end. Without types they are texts, or bytes.
    #[pyo3(signature = (*, types=None, loaders=None, wait=None))]
    fn read_rows<'py>(
        &self,
        py: Python<'py>,
        types: Option<Vec<u32>>,
        loaders: Option<Bound<'py, PyMapping>>,
        wait: Hub<'py>,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        self.check_types(py, types.as_deref())?;
        self.must_be(py, false)?;
        if self.told.get().is_some() {
            return Ok(None);
        }
        let mut request = self.take(py, wait)?;
        let reader = RowReader::new(self.shape, types.as_deref(), loaders.as_ref())?;
        let found = PyList::empty(py);
        while found.is_empty() {
            let is_over = self.gather(py, &mut request, |request, data| {
                let session = request.session(py)?;
                let mut has_header =
                    self.shape.is_binary && session.copy_state().is_none_or(|copy| copy.has_header);
                let row = reader.row(py, session.at(data), &mut has_header)?;
                if let Some(copy) = session.copy_state() {
                    copy.has_header = has_header;
                }
                row.map_or(Ok(()), |row| found.append(row))
            })?;
            if is_over {
                break;
            }
        }
        Ok((!found.is_empty()).then_some(found))
    }

    /// Says that all was sent, and hears what the server makes of it; or else that nothing is to be kept, and why.
    /// Gives tag and number of rows.
    #[pyo3(signature = (*, refusal=None, wait=None))]
    fn finish(
        &self,
        py: Python<'_>,
        refusal: Option<&str>,
        wait: Hub<'_>,
    ) -> PyResult<(String, i64)> {
        self.must_be(py, true)?;
        let mut request = self.take(py, wait)?;
        if let Some(why) = refusal {
            let why: String = why
                .chars()
                .filter(|letter| *letter != '\0')
                .take(LONGEST_REASON)
                .collect();
            let session = request.session(py)?;
            if let Some(copy) = session.copy_state() {
                copy.unsent.clear();
            }
            session.copy_fail(&why);
            // It refuses what it was asked to refuse.
            let (_, _refused) = ended(py, &mut request)?;
            return Ok((String::new(), -1));
        }
        let state = self.state(py, &mut request)?;
        if self.shape.is_binary && state.has_header {
            state.unsent.extend_from_slice(copy_rows::TRAILER);
        }
        flush(py, &mut request)?;
        request.go_on(py, self.commits)?;
        request.session(py)?.copy_done();
        match ended(py, &mut request)? {
            (Some(tag), None) => {
                let rows = verb::rows(&tag).unwrap_or(-1);
                Ok(self.told.get_or_init(|| (tag, rows)).clone())
            }
            (_, Some(said)) => Err(raised(py, &WireFailure::server(said))),
            (None, None) => Err(unsent(py, FailureKind::Usage, NO_COPY)),
        }
    }

    /// Reads what is left, and drops it. False: there is more than so many bytes of it.
    #[pyo3(signature = (at_most=None, wait=None))]
    fn leave(&self, py: Python<'_>, at_most: Option<usize>, wait: Hub<'_>) -> PyResult<bool> {
        self.must_be(py, false)?;
        let mut request = self.take(py, wait)?;
        let mut dropped = 0;
        loop {
            match request.next(py)? {
                Event::CopyData(data) => dropped += data.len(),
                Event::Refused(said) => return Err(over(py, &mut request, said)?),
                Event::Complete { tag, .. } => self.complete(tag),
                Event::Ready => {
                    request.end(py)?;
                    return Ok(true);
                }
                _ => {}
            }
            if at_most.is_some_and(|most| dropped > most) {
                return Ok(false);
            }
        }
    }

    /// Tag and number of rows, once it has come to a good end.
    #[getter]
    fn told(&self) -> Option<(String, i64)> {
        self.told.get().cloned()
    }

    /// Whether the connection waits for it.
    #[getter]
    fn is_open(&self) -> bool {
        self.wire.get().is_copying(self.number)
    }
}

impl Drop for WireCopy {
    /// Nobody can end it any more, so its connection is of no use: an interruption has come where no block was yet.
    fn drop(&mut self) {
        self.wire.get().drop_copying(self.number);
    }
}

impl WireCopy {
    fn take<'a>(&'a self, py: Python<'_>, wait: Hub<'_>) -> PyResult<Request<'a>> {
        let wire = self.wire.get();
        let mut request = wire.take_copying(py, self.number, attended(wait))?;
        // Until the client says that all was sent, a server keeps nothing.
        request.go_on(py, self.commits && !self.shape.is_in)?;
        Ok(request)
    }

    /// Appends a row to what is to be sent; nothing of one that cannot be written.
    fn put(
        &self,
        request: &mut Request<'_>,
        buffer: &mut Vec<u8>,
        row: &Bound<'_, PyAny>,
        types: Option<&[u32]>,
        adapt: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = row.py();
        if self.shape.is_binary {
            let state = self.state(py, request)?;
            if !std::mem::replace(&mut state.has_header, true) {
                buffer.extend_from_slice(copy_rows::HEADER);
            }
        }
        let at = buffer.len();
        let written = if self.shape.is_binary {
            copy_rows::write_binary(buffer, row, types, adapt)
        } else {
            copy_rows::write_text(buffer, row, adapt)
        };
        let why = match written {
            Ok(columns) if columns == self.shape.columns => return Ok(()),
            Ok(columns) => self.unlike(py, columns),
            Err(error) => error,
        };
        buffer.truncate(at);
        Err(why)
    }

    fn complete(&self, tag: String) {
        let rows = verb::rows(&tag).unwrap_or(-1);
        self.told.get_or_init(|| (tag, rows));
    }

    fn must_be(&self, py: Python<'_>, is_in: bool) -> PyResult<()> {
        if self.shape.is_in == is_in {
            return Ok(());
        }
        let what = if is_in {
            "this COPY comes from the server: read from it, by read(), rows() or iteration"
        } else {
            "this COPY goes to the server: write to it, by write(), write_row() or write_rows()"
        };
        Err(unsent(py, FailureKind::Usage, what))
    }

    fn check_types(&self, py: Python<'_>, types: Option<&[u32]>) -> PyResult<()> {
        match types {
            Some(types) if types.len() != self.shape.columns => Err(unsent(
                py,
                FailureKind::Usage,
                format!(
                    "set_types() was given {} types, and this COPY has {} columns",
                    types.len(),
                    self.shape.columns
                ),
            )),
            _ => Ok(()),
        }
    }

    fn unlike(&self, py: Python<'_>, columns: usize) -> PyErr {
        unsent(
            py,
            FailureKind::Data,
            format!(
                "a row of {columns} values was given, and this COPY has {} columns",
                self.shape.columns
            ),
        )
    }

    #[allow(clippy::unused_self, reason = "it is this COPY's")]
    fn state<'a>(
        &self,
        py: Python<'_>,
        request: &'a mut Request<'_>,
    ) -> PyResult<&'a mut CopyState> {
        let state = request.session(py)?.copy_state();
        state.ok_or_else(|| unsent(py, FailureKind::Usage, "this COPY has come to its end"))
    }

    /// Gathers what has come, at least one message; true at the end.
    fn gather<'a>(
        &self,
        py: Python<'_>,
        request: &mut Request<'a>,
        mut take: impl FnMut(&mut Request<'a>, Range<usize>) -> PyResult<()>,
    ) -> PyResult<bool> {
        let mut is_any = false;
        loop {
            let event = if is_any {
                match request.look(py)? {
                    Some(event) => event,
                    None => return Ok(false),
                }
            } else {
                request.next(py)?
            };
            match event {
                Event::CopyData(data) => {
                    is_any = true;
                    take(request, data)?;
                }
                Event::Refused(said) => return Err(over(py, request, said)?),
                Event::Complete { tag, .. } => {
                    self.complete(tag);
                    is_any = false;
                }
                Event::Ready => {
                    request.end(py)?;
                    return Ok(true);
                }
                _ => {}
            }
        }
    }
}

/// Asks for one; waits until the server has begun it.
fn begun(
    py: Python<'_>,
    wire: &Wire,
    sql: &str,
    begin: Option<&StatementText>,
    wait: Hub<'_>,
) -> PyResult<(CopyShape, u64, bool)> {
    let mut request = wire.take(py, attended(wait))?;
    let is_idle = request.standing() == Some(Standing::Idle);
    let begin = begin.filter(|_| is_idle);
    let commits = is_idle && begin.is_none();
    request.begin(py, commits)?;
    let session = request.session(py)?;
    if let Some(begin) = begin {
        session.statement(&begin.sql, &ParameterList::none(), begin.tags.clone());
    }
    session.copy(sql);
    let mut refusal = None;
    loop {
        match request.next(py)? {
            Event::Copying(shape) => {
                let state = request.session(py)?.copy_state();
                return Ok((shape, state.map_or(0, |copy| copy.number), commits));
            }
            Event::Refused(said) => refusal = Some(raised(py, &WireFailure::server(said))),
            Event::Ready => {
                request.end(py)?;
                return Err(refusal.unwrap_or_else(|| unsent(py, FailureKind::Usage, NO_COPY)));
            }
            _ => {}
        }
    }
}

/// Sends bytes, as many as make a message.
fn send(py: Python<'_>, request: &mut Request<'_>, bytes: &[u8]) -> PyResult<()> {
    for piece in bytes.chunks(CHUNK) {
        let Some(copy) = request.session(py)?.copy_state() else {
            return Ok(());
        };
        copy.unsent.extend_from_slice(piece);
        if copy.unsent.len() >= CHUNK {
            flush(py, request)?;
        }
    }
    Ok(())
}

/// Sends what is unsent, and hears whether the server refuses it.
fn flush(py: Python<'_>, request: &mut Request<'_>) -> PyResult<()> {
    request.session(py)?.copy_data();
    loop {
        request.push(py)?;
        while let Some(event) = request.look(py)? {
            if let Event::Refused(said) = event {
                return Err(over(py, request, said)?);
            }
        }
        if request.session(py)?.pending().is_empty() {
            return Ok(());
        }
    }
}

/// What the server refused it with, at the end of the request.
fn over(py: Python<'_>, request: &mut Request<'_>, said: Box<ServerMessage>) -> PyResult<PyErr> {
    ended(py, request)?;
    Ok(raised(py, &WireFailure::server(said)))
}

/// Waits for the end of the request: the tag, or why there is none.
fn ended(
    py: Python<'_>,
    request: &mut Request<'_>,
) -> PyResult<(Option<String>, Option<Box<ServerMessage>>)> {
    let (mut tag, mut refused) = (None, None);
    loop {
        match request.next(py)? {
            Event::Complete { tag: told, .. } => tag = Some(told),
            Event::Refused(said) => refused = Some(said),
            Event::Ready => {
                request.end(py)?;
                return Ok((tag, refused));
            }
            _ => {}
        }
    }
}
