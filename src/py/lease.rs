//! Leases and heartbeats for Python.

use std::sync::Arc;

use pyo3::prelude::*;

use super::control::{Server, wait};
use super::errors::{Refused, from_control};
use super::seconds::length;
use crate::control;
use crate::control::active;
use crate::control::error::ControlError;
use crate::control::heartbeat::{self, Rhythm, Text};
use crate::control::lease::{self, LeaseState, Refusal, Terms};
use crate::control::pending::Pending;
use crate::control::table::{DURABLE, Table};

/// A lease that is asked for, held, or over. Dropping it gives it back.
#[pyclass(frozen, module = "poolproof._native")]
pub(crate) struct Lease {
    inner: Arc<lease::Lease>,
    acquired: Pending<Result<i64, Refusal>>,
    over: Pending<()>,
}

#[pymethods]
impl Lease {
    #[new]
    #[pyo3(signature = (
        server, *, name, table, ttl_s, timeout_s, steal_grace_s, max_silence_s, host, pid, thread, application, token
    ))]
    #[allow(clippy::too_many_arguments, reason = "what is asked for, and by whom")]
    fn new(
        server: &Server,
        name: String,
        table: &str,
        ttl_s: f64,
        timeout_s: Option<f64>,
        steal_grace_s: f64,
        max_silence_s: Option<f64>,
        host: String,
        pid: i64,
        thread: String,
        application: String,
        token: String,
    ) -> PyResult<Self> {
        let terms = Terms {
            name,
            table: Table::named(table),
            ttl: length(ttl_s),
            timeout: timeout_s.map(length),
            steal_grace: length(steal_grace_s),
            max_silence: max_silence_s.map(length),
            host,
            pid,
            thread,
            application,
            token,
        };
        let asked = lease::Lease::ask(&server.0, terms);
        let (inner, acquired, over) = asked.map_err(|error| from_control(&error))?;
        Ok(Self {
            inner,
            acquired,
            over,
        })
    }

    /// Its number in this process, as `events` gives it.
    #[getter]
    fn number(&self) -> u64 {
        self.inner.number()
    }

    /// True in the process that asked for it.
    #[getter]
    fn is_ours(&self) -> bool {
        self.inner.is_ours()
    }

    /// Waits for so many seconds at most. True when it was granted or refused.
    fn wait(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        wait(py, &self.acquired, seconds)
    }

    /// Has `events` tell of the end of that wait, under the number that is returned; what has ended is not told.
    fn announce(&self) -> u64 {
        self.acquired.announce()
    }

    /// The fence, once it was granted.
    fn take(&self) -> PyResult<Option<i64>> {
        match self.acquired.take() {
            None => match self.inner.phase() {
                LeaseState::Lost(what) => Err(from_control(&ControlError::Gone { what })),
                _ => Ok(None),
            },
            Some(Ok(fence)) => Ok(Some(fence)),
            Some(Err(Refusal::Left)) => Err(refused("left", "the wait was given up")),
            Some(Err(Refusal::Failed(error))) => Err(from_control(&error)),
            Some(Err(Refusal::Held(row))) => {
                let who = row.map_or_else(
                    || "another holder has just taken it".into(),
                    |row| {
                        let until = if row.left == f64::INFINITY {
                            "it never expires".into()
                        } else if row.left < 0.0 {
                            format!("it expired {:.1} s ago", -row.left)
                        } else {
                            format!("it expires in {:.1} s", row.left)
                        };
                        format!(
                            "it is held by process {} on {} ({}, {}) since {:.1} s, with fence {}, \
                             and renewed {:.1} s ago; {until}",
                            row.pid,
                            row.host,
                            row.thread,
                            row.application,
                            row.age,
                            row.fence,
                            row.silence
                        )
                    },
                );
                Err(refused("held", &who))
            }
        }
    }

    /// Fence and token.
    #[getter]
    fn right(&self) -> (i64, String) {
        self.inner.right()
    }

    /// The table that keeps it, as it stands in a statement.
    #[getter]
    fn table(&self) -> String {
        self.inner.table().quoted().to_owned()
    }

    /// `"waiting"`, `"held"`, `"lost"` or `"over"`, and why it was lost.
    fn phase(&self) -> (&'static str, String) {
        match self.inner.phase() {
            LeaseState::Waiting => ("waiting", String::new()),
            LeaseState::Held => ("held", String::new()),
            LeaseState::Lost(reason) => ("lost", reason),
            LeaseState::Over => ("over", String::new()),
        }
    }

    /// Notes a sign of life.
    fn touch(&self) {
        self.inner.touch();
    }

    /// `(renewals, attempts that failed, seconds for which it is certain)`.
    fn counts(&self) -> (u64, u64, f64) {
        let (renewals, blips, left) = self.inner.counts();
        (renewals, blips, left.as_secs_f64())
    }

    /// Notices that its server has sent.
    #[getter]
    fn notices(&self) -> u64 {
        self.inner.notices()
    }

    /// `(attempts that failed, those since the last renewal, why the last of them failed)`.
    fn trouble(&self) -> (u64, u32, String) {
        let trouble = self.inner.trouble();
        (trouble.blips, trouble.in_a_row, trouble.last)
    }

    /// True when it was lost because this process was told to end.
    #[getter]
    fn is_ending(&self) -> bool {
        self.inner.is_ending()
    }

    /// Loses it: whoever holds it was refused under it.
    fn disown(&self, reason: String) {
        self.inner.disown(reason);
    }

    /// Gives it back, or gives the wait up. Returns at once.
    fn leave(&self) {
        if self.inner.is_ours() {
            self.inner.leave();
        }
    }

    /// Waits for the end after `leave`. True when it has come.
    fn wait_over(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        wait(py, &self.over, seconds)
    }

    /// The same as `announce`, of the end after `leave`.
    fn announce_over(&self) -> u64 {
        self.over.announce()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leave();
    }
}

fn refused(kind: &'static str, text: &str) -> PyErr {
    Refused::new_err((kind, text.to_owned(), None::<String>))
}

/// Starts the control plane, unless it runs.
#[pyfunction]
pub(crate) fn start_control() -> PyResult<()> {
    control::plane::start().map_err(|error| from_control(&error))
}

/// An expression that makes the transaction which evaluates it commit to disk at least.
#[pyfunction]
pub(crate) fn durable_commit() -> &'static str {
    DURABLE
}

/// What has happened since the last call: leases that were lost, answers that were announced, by their numbers. Waits
/// for so many seconds at most.
#[pyfunction]
pub(crate) fn events(py: Python<'_>, seconds: f64) -> Vec<u64> {
    let at_most = length(seconds);
    py.detach(|| control::events::wait(at_most))
}

/// Wakes whoever waits in `events`, and tells of this number; 0 is none.
#[pyfunction]
#[pyo3(signature = (number = 0))]
pub(crate) fn wake_events(number: u64) {
    control::events::tell(number);
}

/// Has every lease of this process given back, and every wait for one given up. Returns at once.
#[pyfunction]
pub(crate) fn leave_all() {
    active::leave_all();
}

/// Renewals of leases that servers have granted to this process.
#[pyfunction]
pub(crate) fn lease_renewals() -> u64 {
    control::counts::renewals()
}

/// Waits for so many seconds at most until nothing is left to give back. True when that is so.
#[pyfunction]
pub(crate) fn wait_all_over(py: Python<'_>, seconds: f64) -> bool {
    let at_most = length(seconds);
    py.detach(|| active::wait_over(at_most))
}

/// A statement that is run again and again. Dropping it ends it.
#[pyclass(frozen, module = "poolproof._native")]
pub(crate) struct Heartbeat {
    inner: Arc<heartbeat::Heartbeat>,
    first: Pending<Result<(), ControlError>>,
    over: Pending<()>,
}

/// What a heartbeat has done.
#[pyclass(frozen, get_all, module = "poolproof._native")]
pub(crate) struct BeatCounts {
    beats: u64,
    failures: u64,
    last_error: Option<String>,
    /// Whether it rests for want of a sign of life.
    is_stale: bool,
}

#[pymethods]
impl Heartbeat {
    #[new]
    #[pyo3(signature = (server, *, statement, values, every_s, stale_after_s))]
    fn new(
        server: &Server,
        statement: String,
        values: Vec<Option<String>>,
        every_s: f64,
        stale_after_s: Option<f64>,
    ) -> PyResult<Self> {
        let rhythm = Rhythm {
            statement,
            values: values.into_iter().map(Text).collect(),
            every: length(every_s),
            stale_after: stale_after_s.map(length),
        };
        let started = heartbeat::Heartbeat::start(&server.0, rhythm);
        let (inner, first, over) = started.map_err(|error| from_control(&error))?;
        Ok(Self { inner, first, over })
    }

    /// Its number in this process, as `events` gives it.
    #[getter]
    fn number(&self) -> u64 {
        self.inner.number()
    }

    /// True in the process that started it.
    #[getter]
    fn is_ours(&self) -> bool {
        self.inner.is_ours()
    }

    /// Waits for the first beat. True when it was tried.
    fn wait(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        wait(py, &self.first, seconds)
    }

    /// Has `events` tell of the end of that wait, under the number that is returned; what has ended is not told.
    fn announce(&self) -> u64 {
        self.first.announce()
    }

    /// What came of the first beat; raises only what trying again cannot mend.
    fn take(&self) -> PyResult<()> {
        match self.first.take() {
            Some(Err(error)) if heartbeat::is_hopeless(&error) => Err(from_control(&error)),
            _ => Ok(()),
        }
    }

    /// Notes a sign of life of the application.
    fn touch(&self) {
        if self.inner.is_ours() {
            self.inner.touch();
        }
    }

    /// What it has done until now.
    fn beats(&self) -> BeatCounts {
        let beats = self.inner.beats();
        BeatCounts {
            beats: beats.beats,
            failures: beats.failures,
            last_error: beats.last_error,
            is_stale: beats.is_stale,
        }
    }

    /// Ends it. Returns at once.
    fn leave(&self) {
        if self.inner.is_ours() {
            self.inner.leave();
        }
    }

    /// Waits for the end after `leave`. True when it has come.
    fn wait_over(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        wait(py, &self.over, seconds)
    }

    /// The same as `announce`, of the end after `leave`.
    fn announce_over(&self) -> u64 {
        self.over.announce()
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.leave();
    }
}
