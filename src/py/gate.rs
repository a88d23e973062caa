//! The gate, and the tickets and places in the queue that it hands out.
//!
//! Long, because it is one idea: what Python may ask of a gate, and what it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyDict, PyList, PyString};

use super::errors::from_stale;
use super::seconds::length;
use super::snapshot::Snapshot;
use super::socket::{Socket, in_words};
use super::timings::{Timings, now, scope};
use crate::metrics::ScopeId;
use crate::pool;
use crate::pool::{Admission, Caller, Grant, Limits, Released, WaitResult};
use crate::process::thread_id;
use crate::socket::probe::ProbeResult;

/// Who may hold which slot of one pool, in one process.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Gate {
    gate: Arc<pool::Gate>,
}

#[pymethods]
impl Gate {
    /// Makes an empty gate: at most `kept` idle and `total` slots in all, and `waiting` callers who wait, `None` for no
    /// bound. With `timings` the times of its callers are counted there.
    #[new]
    #[pyo3(signature = (*, kept, total, lifo, waiting = None, timings = None, by_thread = false))]
    fn new(
        kept: Option<usize>,
        total: Option<usize>,
        lifo: bool,
        waiting: Option<usize>,
        timings: Option<&Bound<'_, Timings>>,
        by_thread: bool,
    ) -> Self {
        let timings = timings.map(|timings| Arc::clone(&timings.get().0));
        let limits = Limits {
            kept,
            total,
            lifo,
            waiting,
            by_thread,
        };
        Self {
            gate: Arc::new(pool::Gate::counted(limits, timings)),
        }
    }

    /// A ticket at once, or None.
    fn acquire(&self, py: Python<'_>) -> PyResult<Option<Ticket>> {
        let grant = self.gate.acquire(thread_id()).map_err(from_stale)?;
        Ok(grant.map(|grant| self.ticket(py, grant, Duration::ZERO)))
    }

    /// An entry out of `idle`, whose ticket is in it; or a ticket to open a connection with; or None.
    ///
    /// One step for Python: `acquire`, `take`, and the ticket into the entry.
    #[pyo3(signature = (idle, strand = None))]
    fn lend<'py>(
        &self,
        py: Python<'py>,
        idle: &Bound<'py, PyDict>,
        strand: Option<u64>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let taken = with_critical_section(idle, || self.take_one(py, idle))?;
        let Some((ticket, entry, now)) = taken else {
            return Ok(None);
        };
        if let Some(strand) = strand {
            ticket.get().name_strand(strand);
        }
        let Some(entry) = entry else {
            return Ok(Some(ticket.into_any()));
        };
        ticket.get().begin_hold(now);
        entry.setattr(attribute(py), ticket)?;
        Ok(Some(entry))
    }

    /// The ticket of one idle slot, or None when it is not idle.
    fn claim(&self, slot: u64) -> PyResult<Option<Ticket>> {
        let grant = self.gate.claim(slot, thread_id()).map_err(from_stale)?;
        Ok(grant.map(|grant| self.own_ticket(grant)))
    }

    /// A ticket to open a connection with, while fewer than `least` are idle and nobody waits; or None.
    fn spare(&self, least: usize) -> PyResult<Option<Ticket>> {
        let grant = self.gate.spare(least, thread_id()).map_err(from_stale)?;
        Ok(grant.map(|grant| self.own_ticket(grant)))
    }

    /// A ticket to open a connection with that is to take another's place, while nobody waits; or None.
    fn room(&self) -> PyResult<Option<Ticket>> {
        let grant = self.gate.room(thread_id()).map_err(from_stale)?;
        Ok(grant.map(|grant| self.own_ticket(grant)))
    }

    /// The ticket of one idle slot, while there are more than there may be; or None.
    fn surplus(&self) -> PyResult<Option<Ticket>> {
        let grant = self.gate.surplus(thread_id()).map_err(from_stale)?;
        Ok(grant.map(|grant| self.own_ticket(grant)))
    }

    /// Has other bounds from now on, as `Gate` takes them: the waiters to wake.
    #[pyo3(signature = (*, kept, total))]
    fn resize(&self, kept: Option<usize>, total: Option<usize>) -> PyResult<Vec<u64>> {
        self.gate.resize(kept, total).map_err(from_stale)
    }

    /// Has the next `count` connections that come back be surplus, in place of what was asked before.
    fn ask_back(&self, count: usize) -> PyResult<()> {
        self.gate.ask_back(count).map_err(from_stale)
    }

    /// True when `spare` would give a ticket.
    fn lacks(&self, least: usize) -> PyResult<bool> {
        self.gate.lacks(least).map_err(from_stale)
    }

    /// A ticket within `timeout_s` seconds (None: without bound), or None. Sleeps detached.
    ///
    /// A `QueueFull` where as many wait as may. With `tells`, a `Nested` where nothing came because nothing could; and a wait that has just made every
    /// holder wait does not begin: its place is returned, to sleep in.
    #[pyo3(signature = (timeout_s, *, tells = false))]
    fn wait(&self, py: Python<'_>, timeout_s: Option<f64>, tells: bool) -> PyResult<Py<PyAny>> {
        let caller = Caller::thread(thread_id());
        let limit = timeout_s.map(duration).transpose()?.flatten();
        let waiter = match self.gate.join(caller, limit, true).map_err(from_stale)? {
            Admission::Granted(grant) => {
                return Ok(Py::new(py, self.ticket(py, grant, Duration::ZERO))?.into_any());
            }
            Admission::Waiting(waiter) => waiter,
            Admission::Refused => return Ok(Py::new(py, QueueFull)?.into_any()),
        };
        if tells && waiter.nested().is_some() {
            return Ok(Py::new(py, self.place(waiter))?.into_any());
        }
        match sleep(py, &waiter, limit)? {
            WaitResult::Nested(_) if !tells => Ok(py.None()),
            ended => answer(py, &self.gate, &waiter, ended),
        }
    }

    /// A ticket at once, or a place in the queue for a caller that waits in its own way, `timeout_s` seconds at
    /// most, or a `QueueFull`; `strand` tells it from the other callers that its thread runs.
    #[pyo3(signature = (strand, timeout_s))]
    fn join(&self, py: Python<'_>, strand: u64, timeout_s: Option<f64>) -> PyResult<Py<PyAny>> {
        let thread = thread_id();
        let limit = timeout_s.map(duration).transpose()?.flatten();
        let caller = Caller { thread, strand };
        match self.gate.join(caller, limit, false).map_err(from_stale)? {
            Admission::Granted(grant) => {
                Ok(Py::new(py, self.ticket(py, grant, Duration::ZERO))?.into_any())
            }
            Admission::Waiting(waiter) => Ok(Py::new(py, self.place(waiter))?.into_any()),
            Admission::Refused => Ok(Py::new(py, QueueFull)?.into_any()),
        }
    }

    /// Makes every slot stale and empties `idle`: `(entries to close, waiters to wake)`.
    ///
    /// One step for Python: an interruption leaves no entry under a slot that nobody will look at again.
    fn expire_all<'py>(
        &self,
        idle: &Bound<'py, PyDict>,
    ) -> PyResult<(Bound<'py, PyList>, Vec<u64>)> {
        if self.gate.is_stale() {
            return Err(from_stale(pool::Stale));
        }
        // The entries are in the list: to empty the dictionary ends none of them.
        with_critical_section(idle, || {
            let entries = idle.values();
            idle.clear();
            let (_slots, waiters) = self.gate.expire_all().map_err(from_stale)?;
            Ok((entries, waiters))
        })
    }

    /// The numbers at one instant.
    fn snapshot(&self) -> PyResult<Snapshot> {
        Ok(self.gate.snapshot().map_err(from_stale)?.into())
    }

    /// `[(slot, thread, seconds)]`, longest first.
    fn holders(&self) -> PyResult<Vec<(u64, u64, f64)>> {
        let holders = self.gate.holders().map_err(from_stale)?;
        Ok(holders
            .into_iter()
            .map(|(holder, held)| (holder.slot, holder.thread, held.as_secs_f64()))
            .collect())
    }
}

impl Gate {
    /// The ticket of a caller who has waited for so long.
    fn ticket(&self, py: Python<'_>, grant: Grant, waited: Duration) -> Ticket {
        Ticket::of_caller(py, &self.gate, grant, waited)
    }

    /// A ticket for the pool's own work, which is no checkout.
    fn own_ticket(&self, grant: Grant) -> Ticket {
        Ticket::new(&self.gate, grant, None)
    }

    fn place(&self, waiter: pool::Waiter) -> Waiter {
        Waiter {
            gate: Arc::clone(&self.gate),
            waiter,
        }
    }

    /// A slot, and the entry that rests in it. Ends no object: nothing of Python's runs.
    fn take_one<'py>(
        &self,
        py: Python<'py>,
        idle: &Bound<'py, PyDict>,
    ) -> PyResult<Option<Taken<'py>>> {
        let lent = self.gate.acquire_dated(thread_id()).map_err(from_stale)?;
        let Some((grant, now)) = lent else {
            return Ok(None);
        };
        let ticket = Bound::new(py, self.ticket(py, grant, Duration::ZERO))?;
        let entry = ticket.get().take_out(idle)?;
        Ok(Some((ticket, entry, now)))
    }
}

/// A ticket, the entry of its slot, and the time.
type Taken<'py> = (Bound<'py, Ticket>, Option<Bound<'py, PyAny>>, Instant);

/// Sleeps in a place in the queue until the wait has ended.
fn sleep(py: Python<'_>, waiter: &pool::Waiter, limit: Option<Duration>) -> PyResult<WaitResult> {
    let mut spent = Duration::ZERO;
    loop {
        let left = limit.map(|limit| limit.saturating_sub(spent));
        let (outcome, slept) = py.detach(|| timed(|| waiter.sleep(left)));
        spent += slept;
        match outcome.map_err(from_stale)? {
            // A Ctrl-C raises here, and dropping the waiter leaves the queue.
            WaitResult::Interrupted => py.check_signals()?,
            ended => return Ok(ended),
        }
    }
}

/// What a wait that has ended is for Python.
fn answer(
    py: Python<'_>,
    gate: &Arc<pool::Gate>,
    waiter: &pool::Waiter,
    ended: WaitResult,
) -> PyResult<Py<PyAny>> {
    Ok(match ended {
        WaitResult::Granted(grant) => Py::new(
            py,
            Ticket::of_waiter(py, gate, grant, waiter, Duration::ZERO),
        )?
        .into_any(),
        WaitResult::Nested(nested) => Py::new(py, Nested::from(nested))?.into_any(),
        WaitResult::TimedOut | WaitResult::Interrupted => py.None(),
    })
}

/// As many callers wait as may: this one was refused.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct QueueFull;

/// Every slot was held by a caller who waited here for one more.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Nested {
    /// Callers who hold a slot, wait for one, or both.
    #[pyo3(get)]
    callers: usize,
    /// Slots of the caller who holds most.
    #[pyo3(get)]
    most: usize,
    /// Slots of the caller who asks.
    #[pyo3(get)]
    held: usize,
}

impl From<pool::Nested> for Nested {
    fn from(nested: pool::Nested) -> Self {
        let pool::Nested {
            callers,
            most,
            held,
        } = nested;
        Self {
            callers,
            most,
            held,
        }
    }
}

/// The right to one slot, used once. Dropped unused, it gives the slot back.
#[pyclass(frozen, module = "poolproof._native", freelist = 64)]
#[derive(Debug)]
pub(crate) struct Ticket {
    gate: Arc<pool::Gate>,
    grant: Grant,
    taken: AtomicBool,
    used: AtomicBool,
    /// What is counted of the caller; none of the pool's own work.
    caller: Option<Counted>,
    /// Since when the connection has been the caller's, as [`metrics::Timings::instant`] has it; or one of the marks.
    ///
    /// [`metrics::Timings::instant`]: crate::metrics::Timings::instant
    held_since: AtomicU64,
}

/// What a ticket knows of whoever asked for it.
#[derive(Clone, Copy, Debug)]
struct Counted {
    scope: ScopeId,
    waited: Duration,
}

/// [`Ticket::held_since`]: there is no connection yet.
const NOT_YET: u64 = 0;
/// [`Ticket::held_since`]: the end has been counted.
const OVER: u64 = u64::MAX;

#[pymethods]
impl Ticket {
    /// The slot's number.
    #[getter]
    fn slot(&self) -> u64 {
        self.grant.slot
    }

    /// Says which of the callers that its thread runs has the slot.
    fn name_strand(&self, strand: u64) {
        self.gate.name_strand(self.grant.slot, strand);
    }

    /// Takes the slot's entry out of `idle`; None when the slot is empty.
    ///
    /// From then on the entry is the caller's, and a ticket that is dropped leaves an empty slot.
    fn take<'py>(&self, idle: &Bound<'py, PyDict>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let entry = with_critical_section(idle, || self.take_out(idle))?;
        if entry.is_some() {
            self.begin_hold(now());
        }
        Ok(entry)
    }

    /// Says that a connection has been opened for the caller, who holds it from now on.
    fn opened(&self) {
        self.begin_hold(now());
    }

    /// The number of the scope that it was asked for in; 0 for none.
    #[getter]
    fn scope(&self) -> ScopeId {
        self.caller.map_or(0, |caller| caller.scope)
    }

    /// True when the slot is no longer this ticket's: it was given back, or the process was forked.
    #[getter]
    fn used(&self) -> bool {
        self.used.load(Ordering::Acquire) || self.gate.is_stale()
    }

    /// Puts `entry` back into `idle` and the slot back into the pool, in one step for Python.
    ///
    /// Looks at `socket` before, if there is one. Returns None when all is done, the number (0 or more) of a waiter
    /// to wake, `-1` when the entry must be closed and the ticket vacated, `-2` when the entry belongs to nobody; and
    /// in words what the look has found, when nothing was put back for that.
    #[pyo3(signature = (idle, entry, socket=None))]
    fn release(
        &self,
        idle: &Bound<'_, PyDict>,
        entry: &Bound<'_, PyAny>,
        socket: Option<&Bound<'_, Socket>>,
    ) -> PyResult<Option<Answer>> {
        if self.used() {
            return Ok(Some(Answer::Number(NOBODYS)));
        }
        match socket.map(|socket| socket.get().probe()) {
            // What only a question can tell is left to the next checkout.
            None | Some(ProbeResult::AtRest | ProbeResult::Unknown) => {}
            Some(found) => return Ok(in_words(found).map(Answer::Found)),
        }
        // Without the interpreter's lock, too, no `expire_all` comes between the entry and its slot.
        let released = with_critical_section(idle, || -> PyResult<Released> {
            // In its place before the slot is free: the next holder may look at once.
            idle.set_item(self.grant.slot, entry)?;
            let released = self.gate.release(self.grant.slot);
            if matches!(released, Released::Surplus | Released::Stale) {
                idle.del_item(self.grant.slot)?;
            }
            Ok(released)
        })?;
        let answer = match released {
            Released::Done => None,
            Released::Wake(waiter) => {
                Some(Answer::Number(i64::try_from(waiter).unwrap_or(i64::MAX)))
            }
            Released::Surplus => {
                self.end_hold();
                return Ok(Some(Answer::Number(SURPLUS)));
            }
            Released::Stale => Some(Answer::Number(NOBODYS)),
        };
        self.used.store(true, Ordering::Release);
        self.end_hold();
        Ok(answer)
    }

    /// Gives back a ticket that nobody made use of. Returns the waiter to wake, if one is to be woken.
    fn give_back(&self) -> Option<u64> {
        if self.used.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.put_back()
    }

    /// Gives the slot back empty. Returns the waiter to wake, if one is to be woken.
    fn vacate(&self) -> Option<u64> {
        if self.used.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.end_hold();
        self.gate.vacate(self.grant.slot)
    }
}

/// What [`Ticket::release`] says when all is not done.
#[derive(IntoPyObject)]
enum Answer {
    Number(i64),
    Found(&'static str),
}

/// [`Ticket::release`]: close the entry, then vacate.
const SURPLUS: i64 = -1;
/// [`Ticket::release`]: the slot is of an older generation.
const NOBODYS: i64 = -2;

impl Ticket {
    fn new(gate: &Arc<pool::Gate>, grant: Grant, caller: Option<Counted>) -> Self {
        Self {
            gate: Arc::clone(gate),
            grant,
            taken: AtomicBool::new(false),
            used: AtomicBool::new(false),
            caller,
            held_since: AtomicU64::new(NOT_YET),
        }
    }

    fn of_caller(py: Python<'_>, gate: &Arc<pool::Gate>, grant: Grant, waited: Duration) -> Self {
        let caller = gate.timings().map(|_| Counted {
            scope: scope(py),
            waited,
        });
        Self::new(gate, grant, caller)
    }

    fn of_waiter(
        py: Python<'_>,
        gate: &Arc<pool::Gate>,
        grant: Grant,
        waiter: &pool::Waiter,
        lag: Duration,
    ) -> Self {
        let since = now()
            .saturating_duration_since(waiter.joined())
            .saturating_sub(lag);
        // Who has waited is told from who has not, however short it was.
        Self::of_caller(py, gate, grant, since.max(Duration::from_nanos(1)))
    }

    fn take_out<'py>(&self, idle: &Bound<'py, PyDict>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.grant.must_open {
            return Ok(None);
        }
        let entry = idle.get_item(self.grant.slot)?;
        if entry.is_some() {
            idle.del_item(self.grant.slot)?;
        }
        self.taken.store(true, Ordering::Release);
        Ok(entry)
    }

    /// Counts a checkout: the caller has its connection from `now` on.
    fn begin_hold(&self, now: Instant) {
        let (Some(caller), Some(timings)) = (self.caller, self.gate.timings()) else {
            return;
        };
        if self.held_since.load(Ordering::Relaxed) == NOT_YET {
            self.held_since
                .store(timings.instant(now), Ordering::Relaxed);
            if caller.waited.is_zero() {
                timings.wait.record_none();
            } else {
                timings.wait.record(caller.waited);
            }
        }
    }

    /// Counts how long the caller has held it, once. A ticket is in one thread's hands at a time.
    fn end_hold(&self) {
        let (Some(caller), Some(timings)) = (self.caller, self.gate.timings()) else {
            return;
        };
        let since = self.held_since.load(Ordering::Relaxed);
        if since != NOT_YET && since != OVER {
            self.held_since.store(OVER, Ordering::Relaxed);
            let held = timings.instant(now()).saturating_sub(since);
            timings.record_hold(caller.scope, Duration::from_nanos(held));
        }
    }

    fn put_back(&self) -> Option<u64> {
        if self.taken.load(Ordering::Acquire) {
            self.gate.vacate(self.grant.slot)
        } else {
            self.gate.give_back(self.grant)
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.used.load(Ordering::Acquire) && !self.gate.is_stale() {
            self.end_hold();
            // Whoever waits in Python looks again by itself before long.
            let _next = self.put_back();
        }
    }
}

/// A place in the queue, for a caller that waits in its own way.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Waiter {
    gate: Arc<pool::Gate>,
    waiter: pool::Waiter,
}

#[pymethods]
impl Waiter {
    /// The number by which `release` and others name this waiter.
    #[getter]
    fn number(&self) -> u64 {
        self.waiter.id()
    }

    /// What this wait has completed, if every holder waits now.
    #[getter]
    fn nested(&self) -> Option<Nested> {
        self.waiter.nested().map(Nested::from)
    }

    /// A ticket within `timeout_s` seconds, None or a `Nested`. Sleeps detached.
    #[pyo3(signature = (timeout_s))]
    fn sleep(&self, py: Python<'_>, timeout_s: Option<f64>) -> PyResult<Py<PyAny>> {
        let limit = timeout_s.map(duration).transpose()?.flatten();
        let ended = sleep(py, &self.waiter, limit)?;
        answer(py, &self.gate, &self.waiter, ended)
    }

    /// Leaves the queue because the time is over: a ticket, None or a `Nested`.
    fn run_out(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let ended = self.waiter.run_out().map_err(from_stale)?;
        answer(py, &self.gate, &self.waiter, ended)
    }

    /// The ticket, if a slot has been offered.
    ///
    /// With `lag_s`, how long ago that was in seconds: it counts as the loop's, and not as waiting for the slot.
    #[pyo3(signature = (lag_s = None))]
    fn take(&self, py: Python<'_>, lag_s: Option<f64>) -> PyResult<Option<Ticket>> {
        let Some(grant) = self.waiter.take().map_err(from_stale)? else {
            return Ok(None);
        };
        let lag = lag_s.map_or(Duration::ZERO, length);
        if let (Some(_), Some(timings)) = (lag_s, self.gate.timings()) {
            timings.record_lag(lag);
        }
        let ticket = Ticket::of_waiter(py, &self.gate, grant, &self.waiter, lag);
        Ok(Some(ticket))
    }

    /// Leaves the queue for another reason; returns the ticket that was offered in the last instant, if one was.
    fn leave(&self, py: Python<'_>) -> Option<Ticket> {
        let grant = self.waiter.leave();
        grant.map(|grant| Ticket::of_waiter(py, &self.gate, grant, &self.waiter, Duration::ZERO))
    }
}

/// Seconds as a duration; None when it is longer than a clock can count.
fn duration(seconds: f64) -> PyResult<Option<Duration>> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(PyValueError::new_err(format!(
            "a timeout of {seconds} s is not possible"
        )));
    }
    Ok(Duration::try_from_secs_f64(seconds).ok())
}

/// The entry's attribute that has the ticket.
pub(crate) fn attribute(py: Python<'_>) -> &Bound<'_, PyString> {
    intern!(py, "ticket")
}

fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let started = now();
    let outcome = run();
    (outcome, started.elapsed())
}
