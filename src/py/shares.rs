//! The shares of a host's budget.

use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;

use super::seconds::length;
use crate::process::shares;

/// One budget, as this process uses it.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Shares(Arc<shares::Shares>);

#[pymethods]
impl Shares {
    /// The largest budget there may be.
    #[classattr]
    const MOST: u32 = shares::MOST;

    /// Begins to use the budget whose file is open at `descriptor`, which is never to be closed.
    #[new]
    fn new(descriptor: RawFd) -> PyResult<Self> {
        Ok(Self(Arc::new(shares::Shares::new(descriptor)?)))
    }

    /// False in a child of the process that made it, and where the descriptor was closed beside it.
    #[getter]
    fn usable(&self) -> bool {
        self.0.is_usable()
    }

    /// Says that this process goes by `total`: `(process id, number)` of one that does not, or None.
    fn declare(&self, total: u32) -> PyResult<Option<(i32, i64)>> {
        Ok(self.0.declare(total)?)
    }

    /// One of `total` shares, while nobody waits for one; or None.
    fn take(&self, total: u32) -> PyResult<Option<Share>> {
        share(self.0.take(total))
    }

    /// A place at the end of the line.
    fn queue(&self) -> PyResult<Turn> {
        Ok(Turn(Mutex::new(Some(self.0.queue()?))))
    }

    /// True when a caller, of this process or another, has waited for longer than `age_s` seconds.
    fn is_wanted(&self, age_s: f64) -> PyResult<bool> {
        Ok(self.0.is_wanted(length(age_s))?)
    }

    /// True when one of `total` shares is free, whoever waits for one.
    fn has_free(&self, total: u32) -> PyResult<bool> {
        Ok(self.0.has_free(total)?)
    }

    /// `[(process id, shares)]`, most first; 0 is a process that cannot be seen from here.
    fn holders(&self) -> PyResult<Vec<(i32, i64)>> {
        Ok(pairs(&self.0.holders()?))
    }

    /// `[(process id, callers that wait)]`, most first.
    fn waiting(&self) -> PyResult<Vec<(i32, i64)>> {
        Ok(pairs(&self.0.waiting()?))
    }
}

fn pairs(parts: &[shares::Part]) -> Vec<(i32, i64)> {
    parts.iter().map(|part| (part.pid, part.count)).collect()
}

fn share(taken: io::Result<Option<shares::Share>>) -> PyResult<Option<Share>> {
    Ok(taken?.map(|share| Share(Mutex::new(Some(share)))))
}

/// One share. Dropped, it is free, and its holder has left something behind.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Share(Mutex<Option<shares::Share>>);

#[pymethods]
impl Share {
    /// True when its last holder ended without giving it back.
    #[getter]
    fn was_left(&self) -> bool {
        let share = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        share.as_ref().is_some_and(shares::Share::was_left)
    }

    /// Gives it back; `clear` says that nothing of the holder is left. Does nothing the second time.
    fn give_back(&self, clear: bool) {
        let share = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(share) = share
            && clear
        {
            share.is_clear();
        }
    }
}

/// A place in the line. Dropped, it is left.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Turn(Mutex<Option<shares::Turn>>);

#[pymethods]
impl Turn {
    /// One of `total` shares, if there is one and nobody came before; with `passes`, whoever came before; or None.
    fn take(&self, total: u32, passes: bool) -> PyResult<Option<Share>> {
        let place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = place
            .as_ref()
            .map_or(Ok(None), |place| place.take(total, passes));
        share(taken)
    }

    /// Leaves the line. Does nothing the second time.
    fn leave(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
