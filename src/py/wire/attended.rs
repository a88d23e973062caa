//! Waiting on a thread of Python's: in slices, so that signals arrive, or by what a hub waits with.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::wire::waits::{self, Interrupted, Waits};

/// Waits with the interpreter's lock released; what interrupts it is kept.
#[derive(Debug, Default)]
pub(crate) struct Attended {
    /// Called with descriptor, whether to write, seconds; says whether it is ready.
    hub: Option<Py<PyAny>>,
    /// When others last had a chance.
    breathed: Option<Instant>,
    error: Option<PyErr>,
}

/// Python handles signals this often.
const SLICE: Duration = Duration::from_millis(50);
/// Where something is to be sent a hub waits for that alone, and looks for what has come as often.
const BOTH: Duration = Duration::from_millis(20);

impl Attended {
    pub(crate) fn new(hub: Option<Py<PyAny>>) -> Self {
        Self {
            hub,
            breathed: None,
            error: None,
        }
    }

    /// Does what waits by this, with the interpreter's lock released; but not where a hub waits: to call it switches
    /// to other greenlets of this thread, and `PyO3` counts for the thread, not for the greenlet, what is released.
    pub(crate) fn released<T: Send>(
        &mut self,
        py: Python<'_>,
        work: impl FnOnce(&mut Self) -> T + Send,
    ) -> T {
        if self.hub.is_some() {
            work(self)
        } else {
            py.detach(|| work(self))
        }
    }

    /// Lets signals arrive, and other threads or greenlets have their turn, now and then: one for whom there is always
    /// more to read never waits.
    pub(crate) fn breathe(&mut self, py: Python<'_>, fd: Option<RawFd>) -> Result<(), Interrupted> {
        let now = self.now();
        let last = *self.breathed.get_or_insert(now);
        if now.saturating_duration_since(last) < SLICE {
            return Ok(());
        }
        self.breathed = Some(now);
        if let Some(fd) = fd.filter(|_| self.hub.is_some()) {
            return self.ask_hub(fd, false, Some(now)).map(drop);
        }
        py.detach(std::thread::yield_now);
        py.check_signals().map_err(|error| {
            self.error = Some(error);
            Interrupted
        })
    }

    /// Takes what has interrupted it.
    pub(crate) fn take_error(&mut self) -> Option<PyErr> {
        self.error.take()
    }

    fn ask_hub(
        &mut self,
        fd: RawFd,
        writing: bool,
        until: Option<Instant>,
    ) -> Result<bool, Interrupted> {
        let now = self.now();
        let left = until.map(|until| until.saturating_duration_since(now));
        let left = if writing {
            Some(left.map_or(BOTH, |left| left.min(BOTH)))
        } else {
            left
        };
        let hub = &self.hub;
        #[allow(clippy::disallowed_methods, reason = "the hub is Python's")]
        let asked = Python::attach(|py| match hub {
            Some(hub) => hub
                .call1(py, (fd, writing, left.map(|left| left.as_secs_f64())))?
                .is_truthy(py),
            None => Ok(false),
        });
        match asked {
            Ok(is_ready) => {
                let is_looked_for = writing && until.is_none_or(|until| self.now() < until);
                Ok(is_ready || is_looked_for)
            }
            Err(error) => {
                self.error = Some(error);
                Err(Interrupted)
            }
        }
    }
}

impl Waits for Attended {
    #[allow(clippy::disallowed_methods, reason = "a deadline counts from now")]
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wait(
        &mut self,
        fd: RawFd,
        writing: bool,
        until: Option<Instant>,
    ) -> Result<bool, Interrupted> {
        if self.hub.is_some() {
            return self.ask_hub(fd, writing, until);
        }
        loop {
            let slice = match until {
                None => SLICE,
                Some(until) => waits::slice(Some(until), self.now(), SLICE),
            };
            if waits::is_ready(fd, writing, slice) == Some(true) {
                return Ok(true);
            }
            self.pause()?;
            if until.is_some_and(|until| self.now() >= until) {
                return Ok(false);
            }
        }
    }

    fn may_receive_waiting(&self) -> bool {
        self.hub.is_none()
    }

    fn pause(&mut self) -> Result<(), Interrupted> {
        #[allow(
            clippy::disallowed_methods,
            clippy::redundant_closure_for_method_calls,
            reason = "Python handles its signals itself; the method alone is of one lifetime"
        )]
        let handled = Python::attach(|py| py.check_signals());
        handled.map_err(|error| {
            self.error = Some(error);
            Interrupted
        })
    }
}
