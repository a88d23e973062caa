//! One connection for Python: requests, one at a time, and what is known of it between them.
//!
//! Long, because it is one idea: all that Python asks of a connection.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use pyo3::prelude::*;
use pyo3::types::PyMapping;

use super::answer::{Answer, Gathering};
use super::attended::Attended;
use super::error::unsent;
use super::parameters::add_all;
use super::pipeline::Piped;
use super::question::{Question, Rows};
use super::request::{Request, copying, why};
use super::seat::{Seat, Whereabouts};
use super::statement::text_of;
use crate::process::generation;
use crate::py::conninfo::Conninfo;
use crate::py::seconds::limit;
use crate::wire::cancel;
use crate::wire::failure::FailureKind;
use crate::wire::opening;
use crate::wire::outgoing::ParameterList;
use crate::wire::session::Standing;
use crate::wire::statement_text::StatementText;
use crate::wire::verb::Tags;

/// One connection to one server.
#[pyclass(frozen, module = "poolproof._native", weakref)]
#[derive(Debug)]
pub(crate) struct Wire {
    seat: Arc<Seat>,
}

/// What a hub waits with, for one call.
pub(super) type Hub<'py> = Option<Bound<'py, PyAny>>;

#[pymethods]
impl Wire {
    /// Connects.
    #[staticmethod]
    #[pyo3(signature = (conninfo, *, timeout_s=None, wait=None))]
    fn connect(
        py: Python<'_>,
        conninfo: &Conninfo,
        timeout_s: Option<f64>,
        wait: Hub<'_>,
    ) -> PyResult<Self> {
        let timeout = timeout_s.map(limit).transpose()?;
        let conninfo = Arc::clone(&conninfo.0);
        let mut waits = attended(wait);
        let opened = waits.released(py, |waits| opening::open(&conninfo, timeout, waits));
        let connected = opened.map_err(|failure| why(py, &failure, &mut waits))?;
        Ok(Self {
            seat: Arc::new(Seat::new(connected)),
        })
    }

    /// Runs a statement.
    #[pyo3(signature = (sql, parameters=None, begin=None, adapt=None, loaders=None, wait=None, *, tag=None))]
    #[allow(clippy::too_many_arguments, reason = "each is a fact of its own")]
    fn execute(
        &self,
        py: Python<'_>,
        sql: &Bound<'_, PyAny>,
        parameters: Option<Bound<'_, PyAny>>,
        begin: Option<Bound<'_, PyAny>>,
        adapt: Option<Bound<'_, PyAny>>,
        loaders: Option<Bound<'_, PyMapping>>,
        wait: Hub<'_>,
        tag: Option<String>,
    ) -> PyResult<Answer> {
        let text = text_of(sql)?;
        checked(py, &text)?;
        let begin = begin.as_ref().map(text_of).transpose()?;
        let list = match &parameters {
            None => None,
            Some(parameters) => {
                let mut list = ParameterList::default();
                add_all(&mut list, parameters, adapt.as_ref())?;
                Some(list)
            }
        };
        let mut request = self.take(py, attended(wait))?;
        let is_idle = request.standing() == Some(Standing::Idle);
        let begin = begin.filter(|_| is_idle);
        let ends = is_idle && begin.is_none();
        let tags = tag.map_or_else(|| text.tags.clone(), Tags::begin);
        let question = Question {
            text: &text,
            list: list.as_ref(),
            begin: begin.as_deref(),
            commits: ends || text.is_several || tags.ends(),
            tags,
        };
        request.learn(py, &question)?;
        let mut incoming = Gathering::new(py, loaders.as_ref(), true);
        request.ask(py, &question, &mut incoming)?;
        let is_stale = request.session(py)?.statements.take_stale();
        if is_stale && is_idle && incoming.has_failed() {
            // Nothing of it was done, and it is the first of its transaction: it is asked anew.
            if request.standing() == Some(Standing::Failed) {
                request.roll_back(py)?;
            }
            incoming = Gathering::new(py, loaders.as_ref(), true);
            request.ask(py, &question, &mut incoming)?;
        }
        incoming.finish(None)
    }

    /// Runs a statement for each of `rows`, in one pipeline, of which no more is in memory at once than travels.
    #[pyo3(signature = (sql, rows, *, begin=None, adapt=None, loaders=None, wait=None))]
    #[allow(clippy::too_many_arguments, reason = "each is a fact of its own")]
    fn execute_many(
        &self,
        py: Python<'_>,
        sql: &Bound<'_, PyAny>,
        rows: &Bound<'_, PyAny>,
        begin: Option<Bound<'_, PyAny>>,
        adapt: Option<Bound<'_, PyAny>>,
        loaders: Option<Bound<'_, PyMapping>>,
        wait: Hub<'_>,
    ) -> PyResult<Answer> {
        let text = text_of(sql)?;
        checked(py, &text)?;
        let begin = begin.as_ref().map(text_of).transpose()?;
        let mut rows = Rows {
            rows: rows.try_iter()?,
            adapt: adapt.as_ref(),
        };
        // An error in the first ones leaves the transaction as it is, for nothing was sent.
        let first = rows.some()?;
        let mut request = self.take(py, attended(wait))?;
        let is_idle = request.standing() == Some(Standing::Idle);
        let begin = begin.filter(|_| is_idle);
        if begin.is_some() {
            request.begin_behind(py, false)?;
        } else {
            request.begin(py, is_idle)?;
        }
        let mut incoming = Gathering::new(py, loaders.as_ref(), false);
        let sum = request.stream(py, &text, begin.as_deref(), first, &mut rows, &mut incoming)?;
        incoming.finish(Some(sum))
    }

    /// Runs statements, each with its parameters, as one request. Returns an answer for each that was run; the last one
    /// may be an error instead, and then those behind it were not run.
    #[pyo3(signature = (statements, *, begin=None, adapt=None, loaders=None, wait=None))]
    #[allow(clippy::too_many_arguments, reason = "each is a fact of its own")]
    fn execute_each(
        &self,
        py: Python<'_>,
        statements: Vec<(Bound<'_, PyAny>, Option<Bound<'_, PyAny>>)>,
        begin: Option<Bound<'_, PyAny>>,
        adapt: Option<Bound<'_, PyAny>>,
        loaders: Option<Bound<'_, PyMapping>>,
        wait: Hub<'_>,
    ) -> PyResult<Vec<Py<PyAny>>> {
        let begin = begin.as_ref().map(text_of).transpose()?;
        let mut piped = Vec::with_capacity(statements.len());
        let mut unfit = None;
        for (sql, parameters) in &statements {
            match piped_of(py, sql, parameters.as_ref(), adapt.as_ref()) {
                Ok(one) => piped.push(one),
                Err(error) => {
                    // Those before it were to be run.
                    unfit = Some(error);
                    break;
                }
            }
        }
        let mut found = Vec::new();
        if !piped.is_empty() {
            let mut request = self.take(py, attended(wait))?;
            let is_idle = request.standing() == Some(Standing::Idle);
            let begin = begin.filter(|_| is_idle);
            let ends = piped.iter().any(|one| one.text.tags.ends());
            let commits = ends || (is_idle && begin.is_none());
            if begin.is_some() {
                request.begin_behind(py, commits)?;
            } else {
                request.begin(py, commits)?;
            }
            found = request.pipeline(py, &piped, begin.as_deref(), loaders.as_ref())?;
        }
        if found.iter().all(Result::is_ok) {
            found.extend(unfit.map(Err));
        }
        found
            .into_iter()
            .map(|one| match one {
                Ok(answer) => Py::new(py, answer).map(Py::into_any),
                Err(error) => Ok(error.into_value(py).into_any()),
            })
            .collect()
    }

    /// Commits, where a transaction is open.
    #[pyo3(signature = (wait=None))]
    fn commit(&self, py: Python<'_>, wait: Hub<'_>) -> PyResult<()> {
        self.end(py, "COMMIT", wait)
    }

    /// Rolls back, where a transaction is open.
    #[pyo3(signature = (wait=None))]
    fn rollback(&self, py: Python<'_>, wait: Hub<'_>) -> PyResult<()> {
        self.end(py, "ROLLBACK", wait)
    }

    /// Rolls back, where a transaction is open, and does not wait for the answer: that is read ahead of the next one's.
    /// Waits where not all of it can be sent at once.
    #[pyo3(signature = (wait=None))]
    fn send_rollback(&self, py: Python<'_>, wait: Hub<'_>) -> PyResult<()> {
        let mut request = self.take(py, attended(wait))?;
        request.begin_behind(py, false)?;
        if request.standing() == Some(Standing::Idle) {
            return Ok(());
        }
        request
            .session(py)?
            .query("ROLLBACK", Tags::begin("ROLLBACK"));
        if request.owe(py)? {
            return Ok(());
        }
        let mut incoming = Gathering::new(py, None, false);
        request.answered(py, &mut incoming, &mut 0)?;
        incoming.finish(None).map(drop)
    }

    /// After how many times a statement is prepared; none for never.
    #[getter]
    fn prepare_threshold(&self) -> Option<u32> {
        let mut place = self.seat.lock()?;
        place.connected()?.session.statements.threshold()
    }

    #[setter]
    fn set_prepare_threshold(&self, threshold: Option<u32>) {
        if let Some(Some(connected)) = self.seat.lock().as_deref_mut().map(Whereabouts::connected) {
            connected.session.statements.set_threshold(threshold);
        }
    }

    /// How many statements the server has prepared.
    #[getter]
    fn prepared(&self) -> usize {
        match self.seat.lock().as_deref_mut().map(Whereabouts::connected) {
            Some(Some(connected)) => connected.session.statements.count(),
            _ => 0,
        }
    }

    /// Asks whether the server answers: a bare Sync.
    #[pyo3(signature = (wait=None))]
    fn ping(&self, py: Python<'_>, wait: Hub<'_>) -> PyResult<()> {
        let mut request = self.take(py, attended(wait))?;
        request.begin_behind(py, false)?;
        request.session(py)?.sync();
        let mut incoming = Gathering::new(py, None, false);
        request.answered(py, &mut incoming, &mut 0)?;
        incoming.finish(None).map(drop)
    }

    /// Asks for the end of what is under way, from any thread; and of nothing else: what is asked next waits until the
    /// server has passed this on.
    #[pyo3(signature = (timeout_s=5.0, *, wait=None))]
    fn cancel(&self, py: Python<'_>, timeout_s: f64, wait: Hub<'_>) -> PyResult<()> {
        if self.seat.generation != generation() {
            return Err(unsent(
                py,
                FailureKind::Forked,
                "a child cannot cancel what its parent does",
            ));
        }
        let timeout = limit(timeout_s)?;
        let mut waits = attended(wait);
        let on_its_way = self.seat.cancels.begin();
        let _on_its_way =
            on_its_way.map_err(|error| unsent(py, FailureKind::Connect, error.to_string()))?;
        if self.seat.rests() {
            return Ok(());
        }
        let about = Arc::clone(&self.seat.about);
        let asked = waits.released(py, |waits| cancel::cancel(&about, timeout, waits));
        asked.map_err(|failure| why(py, &failure, &mut waits))
    }

    /// Closes it; a request that is under way fails.
    fn close(&self, py: Python<'_>) {
        self.seat.fd.store(-1, Ordering::Release);
        let found = self
            .seat
            .lock()
            .map(|mut place| mem::replace(&mut *place, Whereabouts::Closed));
        match found {
            Some(Whereabouts::Here(connected) | Whereabouts::Copying(connected)) => {
                py.detach(|| connected.close());
            }
            Some(Whereabouts::Out) | None if self.seat.generation == generation() => {
                // Whoever waits for an answer is told.
                if let Some(socket) = self.seat.socket.upgrade() {
                    socket.shut();
                }
            }
            _ => {}
        }
    }

    /// Its descriptor; -1 when it is closed.
    fn fileno(&self) -> i32 {
        self.seat.fd.load(Ordering::Acquire)
    }

    /// Whether it is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.fileno() < 0
    }

    /// Where it stands, in a letter.
    #[getter]
    fn status(&self) -> &'static str {
        match self.seat.lock().as_deref() {
            Some(Whereabouts::Here(connected)) => match connected.standing() {
                Standing::Idle => "I",
                Standing::Inside => "T",
                Standing::Failed => "E",
            },
            Some(Whereabouts::Closed) => "X",
            Some(Whereabouts::Out | Whereabouts::Copying(_) | Whereabouts::Left) | None => "A",
        }
    }

    /// The process id of its backend, as it was told; 0 where none was.
    #[getter]
    fn pid(&self) -> u32 {
        self.seat.about.backend.map_or(0, |(pid, _)| pid)
    }

    /// Whether this process made it.
    #[getter]
    fn is_ours(&self) -> bool {
        self.seat.generation == generation()
    }

    #[getter]
    fn host(&self) -> &str {
        let endpoint = &self.seat.about.place.endpoint;
        match &endpoint.hostaddr {
            Some(address) if endpoint.host.is_empty() => address,
            _ => &endpoint.host,
        }
    }

    #[getter]
    fn port(&self) -> u16 {
        self.seat.about.place.endpoint.port
    }

    #[getter]
    fn user(&self) -> &str {
        &self.seat.about.target.user
    }

    #[getter]
    fn database(&self) -> &str {
        &self.seat.about.target.database
    }

    /// The version of TLS, where there is TLS.
    #[getter]
    fn tls(&self) -> Option<&str> {
        self.seat.about.tls.as_deref()
    }

    /// A setting that the server tells by itself.
    fn parameter(&self, name: &str) -> Option<String> {
        let mut place = self.seat.lock()?;
        let connected = place.connected()?;
        connected.session.parameter(name).map(str::to_owned)
    }

    /// Takes the notices.
    fn notices(&self) -> Vec<HashMap<String, String>> {
        let found = match self.seat.lock().as_deref_mut().map(Whereabouts::connected) {
            Some(Some(connected)) => connected.session.take_notices(),
            _ => return Vec::new(),
        };
        let shown = |notice: &crate::wire::server_message::ServerMessage| {
            notice
                .fields()
                .map(|(letter, value)| (char::from(letter).to_string(), value.to_owned()))
                .collect()
        };
        found.iter().map(shown).collect()
    }

    /// Takes the notifications: process id, channel, payload.
    fn notifications(&self) -> Vec<(u32, String, String)> {
        match self.seat.lock().as_deref_mut().map(Whereabouts::connected) {
            Some(Some(connected)) => connected
                .session
                .take_notifications()
                .into_iter()
                .map(|one| (one.pid, one.channel, one.payload))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Waits for a notification; says whether there is one.
    #[pyo3(signature = (timeout_s, wait=None))]
    fn wait_notification(
        &self,
        py: Python<'_>,
        timeout_s: Option<f64>,
        wait: Hub<'_>,
    ) -> PyResult<bool> {
        let mut request = self.take(py, attended(wait))?;
        request.begin(py, false)?;
        let timeout = timeout_s.map(limit).transpose()?;
        request.notified(py, timeout)
    }
}

impl Wire {
    /// For whoever looks at the connection, and does not keep it.
    pub(crate) fn seat(&self) -> Weak<Seat> {
        Arc::downgrade(&self.seat)
    }

    pub(super) fn take<'a>(&'a self, py: Python<'_>, waits: Attended) -> PyResult<Request<'a>> {
        let found = match self.seat.lock() {
            Some(mut place) => match &*place {
                Whereabouts::Here(_) => Ok(mem::replace(&mut *place, Whereabouts::Out)),
                Whereabouts::Copying(_) => Err((FailureKind::Usage, COPYING)),
                Whereabouts::Out => Err((FailureKind::Busy, BUSY)),
                Whereabouts::Closed | Whereabouts::Left => Err((FailureKind::Closed, CLOSED)),
            },
            None => Err((FailureKind::Busy, BUSY)),
        };
        match found {
            Ok(Whereabouts::Here(connected)) => {
                let mut request = Request::new(&self.seat, connected, waits);
                request.wait_for_cancels(py)?;
                Ok(request)
            }
            Ok(_) => Err(unsent(py, FailureKind::Busy, BUSY)),
            Err((kind, what)) => Err(unsent(py, kind, what)),
        }
    }

    /// Whether it waits for the COPY of a number, or a request has it.
    pub(super) fn is_copying(&self, number: u64) -> bool {
        match self.seat.lock().as_deref_mut() {
            Some(Whereabouts::Copying(connected)) => {
                connected.session.copy_number() == Some(number)
            }
            Some(Whereabouts::Out) | None => true,
            Some(Whereabouts::Here(_) | Whereabouts::Closed | Whereabouts::Left) => false,
        }
    }

    /// Gives the connection up where it is in the middle of the COPY of a number. Nothing is sent.
    pub(super) fn drop_copying(&self, number: u64) {
        let found = self.seat.lock().and_then(|mut place| match &mut *place {
            Whereabouts::Copying(connected) if connected.session.copy_number() == Some(number) => {
                Some(mem::replace(&mut *place, Whereabouts::Left))
            }
            _ => None,
        });
        if found.is_some() {
            self.seat.fd.store(-1, Ordering::Release);
        }
    }

    /// Takes the connection in the middle of the COPY of a number.
    pub(super) fn take_copying<'a>(
        &'a self,
        py: Python<'_>,
        number: u64,
        waits: Attended,
    ) -> PyResult<Request<'a>> {
        let what = match self.seat.lock() {
            Some(mut place) => match &mut *place {
                Whereabouts::Copying(connected)
                    if connected.session.copy_number() == Some(number) =>
                {
                    let found = mem::replace(&mut *place, Whereabouts::Out);
                    if let Whereabouts::Copying(connected) = found {
                        return Ok(Request::new(&self.seat, connected, waits));
                    }
                    (FailureKind::Busy, BUSY)
                }
                Whereabouts::Here(_) | Whereabouts::Copying(_) => (
                    FailureKind::Usage,
                    "this COPY has come to its end: begin another with cursor.copy()",
                ),
                Whereabouts::Closed | Whereabouts::Left => (FailureKind::Closed, CLOSED),
                Whereabouts::Out => (FailureKind::Busy, BUSY),
            },
            None => (FailureKind::Busy, BUSY),
        };
        Err(unsent(py, what.0, what.1))
    }

    fn end(&self, py: Python<'_>, verb: &'static str, wait: Hub<'_>) -> PyResult<()> {
        let mut request = self.take(py, attended(wait))?;
        request.begin(py, verb == "COMMIT")?;
        if request.standing() == Some(Standing::Idle) {
            return Ok(());
        }
        request.session(py)?.query(verb, Tags::of(verb));
        let mut incoming = Gathering::new(py, None, false);
        request.answered(py, &mut incoming, &mut 0)?;
        incoming.finish(None).map(drop)
    }
}

const BUSY: &str = "another request is under way on this connection: one thread at a time uses one, and a signal's \
                    handler or a loader must not";

const CLOSED: &str = "the connection is closed";
const COPYING: &str = "a COPY is open on this connection, and takes no statement before its end: leave its with-block \
                       first, or use another connection";

pub(super) fn attended(wait: Hub<'_>) -> Attended {
    Attended::new(wait.map(Bound::unbind))
}

fn piped_of(
    py: Python<'_>,
    sql: &Bound<'_, PyAny>,
    parameters: Option<&Bound<'_, PyAny>>,
    adapt: Option<&Bound<'_, PyAny>>,
) -> PyResult<Piped> {
    let text = text_of(sql)?;
    checked(py, &text)?;
    let mut list = ParameterList::default();
    if let Some(parameters) = parameters {
        add_all(&mut list, parameters, adapt)?;
    }
    Ok(Piped { text, list })
}

fn checked(py: Python<'_>, text: &StatementText) -> PyResult<()> {
    text.check()
        .map_err(|unfit| unsent(py, FailureKind::Data, unfit.0))?;
    if text.copies {
        return Err(copying(py));
    }
    Ok(())
}
