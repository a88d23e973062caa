//! The control plane for Python: a server, and operations whose end is waited for in slices.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;

use super::conninfo::Conninfo;
use super::errors::from_control;
use super::seconds::length;
use crate::control::error::ControlError;
use crate::control::lease_row;
use crate::control::pending::{Pending, pending};
use crate::control::plane;
use crate::control::questions;
use crate::control::server;
use crate::control::servers;
use crate::control::table::Table;
use crate::process::generation;

/// How long one operation of a person at a terminal may take.
const OPERATION: Duration = Duration::from_secs(10);
/// Signals are looked at this often: a condition variable swallows the interruption.
const SLICE: Duration = Duration::from_millis(50);

/// Waits for an answer without the interpreter, and lets Ctrl-C end the wait.
pub(crate) fn wait<T: Send>(py: Python<'_>, pending: &Pending<T>, seconds: f64) -> PyResult<bool> {
    let mut left = length(seconds);
    loop {
        let slice = left.min(SLICE);
        if py.detach(|| pending.wait(slice)) {
            return Ok(true);
        }
        py.check_signals()?;
        left -= slice;
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// How a server is reached: by what is known, or by asking.
#[derive(FromPyObject)]
enum Source<'py> {
    Known(PyRef<'py, Conninfo>),
    Asked(PyRef<'py, Questions>),
}

/// Where the control plane asks how the next session is to be made.
#[pyclass(frozen, module = "poolproof._native")]
pub(crate) struct Questions(Arc<questions::Questions>);

#[pymethods]
impl Questions {
    #[new]
    fn new() -> Self {
        Self(Arc::default())
    }

    /// Their number in this process, as `events` gives it.
    #[getter]
    fn number(&self) -> u64 {
        self.0.number()
    }

    /// The next question, if there is one; in a child there is none.
    fn take(&self) -> Option<Question> {
        self.0.take().map(|question| Question {
            inner: Mutex::new(Some(question)),
            generation: generation(),
        })
    }
}

/// One question, to be answered once. Dropping it answers that there is no answer.
#[pyclass(frozen, module = "poolproof._native")]
pub(crate) struct Question {
    inner: Mutex<Option<questions::Question>>,
    generation: u64,
}

impl Question {
    fn say(&self, said: questions::Said) {
        if self.generation != generation() {
            return;
        }
        let mut place = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let question = place.take();
        drop(place);
        if let Some(question) = question {
            question.answer(said);
        }
    }
}

#[pymethods]
impl Question {
    /// Answers with the parameters.
    fn answer(&self, conninfo: &Conninfo) {
        self.say(Ok(Arc::clone(&conninfo.0)));
    }

    /// Says why there are none, and whether trying again cannot help.
    fn fail(&self, what: String, is_final: bool) {
        self.say(Err(if is_final {
            ControlError::Parameters { what }
        } else {
            ControlError::NotReady { what }
        }));
    }
}

/// A server, and how to reach it.
#[pyclass(frozen, module = "poolproof._native")]
pub(crate) struct Server(pub(crate) Arc<server::Server>);

#[pymethods]
impl Server {
    #[new]
    #[pyo3(signature = (source, *, size))]
    fn new(source: Source<'_>, size: usize) -> PyResult<Self> {
        let source = match source {
            Source::Known(conninfo) => servers::Source::Known(Arc::clone(&conninfo.0)),
            Source::Asked(questions) => servers::Source::Asked(Arc::clone(&questions.0)),
        };
        let server = server::Server::new(source, size);
        Ok(Self(Arc::new(
            server.map_err(|error| from_control(&error))?,
        )))
    }

    /// True in the process that made it.
    #[getter]
    fn is_ours(&self) -> bool {
        self.0.is_ours()
    }

    /// Sessions that are open.
    #[getter]
    fn sessions(&self) -> usize {
        self.0.sessions()
    }

    /// Creates the table of leases, or checks it.
    fn init(&self, table: &str) -> PyResult<Operation> {
        let table = Table::named(table);
        self.start(async move |server| table.init(&server, OPERATION).await.map(|()| Vec::new()))
    }

    /// Reads the table of leases.
    fn rows(&self, table: &str) -> PyResult<Operation> {
        let table = Table::named(table);
        self.start(async move |server| {
            table.verify(&server, OPERATION).await?;
            table.rows(&server, OPERATION, None).await
        })
    }

    /// Takes a lease from its holder: its row, or none when nobody has it.
    fn free(&self, table: &str, name: String) -> PyResult<Operation> {
        let table = Table::named(table);
        self.start(async move |server| {
            table.verify(&server, OPERATION).await?;
            let rows = table.rows(&server, OPERATION, Some(&name)).await?;
            let freed = table.free(&server, OPERATION, &name).await?;
            Ok(if freed { rows } else { Vec::new() })
        })
    }
}

impl Server {
    fn start<F>(
        &self,
        work: impl FnOnce(Arc<server::Server>) -> F + Send + 'static,
    ) -> PyResult<Operation>
    where
        F: Future<Output = Result<Vec<lease_row::LeaseRow>, ControlError>> + Send + 'static,
    {
        self.0.check().map_err(|error| from_control(&error))?;
        let (pending, promise) = pending();
        let user = self.0.join();
        let work = work(Arc::clone(&self.0));
        let why = Arc::new(OnceLock::new());
        let failed = Arc::clone(&why);
        let work = async move {
            let answer = work.await;
            drop(user);
            promise.answer(answer);
        };
        plane::spawn(work, move |why| {
            // Told once.
            let _set = failed.set(why);
        })
        .map_err(|error| from_control(&error))?;
        Ok(Operation { pending, why })
    }
}

/// A row of the table of leases.
#[pyclass(frozen, get_all, module = "poolproof._native")]
pub(crate) struct LeaseRow {
    name: String,
    fence: i64,
    held: bool,
    host: String,
    pid: i64,
    thread: String,
    application: String,
    age_s: f64,
    silence_s: f64,
    left_s: f64,
}

/// Something that the control plane works on.
#[pyclass(frozen, module = "poolproof._native")]
pub(crate) struct Operation {
    pending: Pending<Result<Vec<lease_row::LeaseRow>, ControlError>>,
    /// Why there will be no answer.
    why: Arc<OnceLock<String>>,
}

#[pymethods]
impl Operation {
    /// Waits for so many seconds at most. True when it is done.
    fn wait(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        wait(py, &self.pending, seconds)
    }

    /// What came of it, once.
    fn take(&self) -> PyResult<Vec<LeaseRow>> {
        let rows = match self.pending.take() {
            None => Err(ControlError::Gone {
                what: self.why.get().cloned().unwrap_or_default(),
            }),
            Some(answer) => answer,
        };
        let rows = rows.map_err(|error| from_control(&error))?;
        Ok(rows
            .into_iter()
            .map(|row| LeaseRow {
                name: row.name,
                fence: row.fence,
                held: row.is_held,
                host: row.host,
                pid: row.pid,
                thread: row.thread,
                application: row.application,
                age_s: row.age,
                silence_s: row.silence,
                left_s: row.left,
            })
            .collect())
    }
}
