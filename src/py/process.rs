//! Generation, registrations, severing, and forgetting.

use std::os::fd::RawFd;

use pyo3::prelude::*;

use super::errors::from_register;
use crate::process;
use crate::socket::probe::{self, Verdict};

/// A socket that a child of this process cannot use. Ends with the object.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Registration {
    registration: process::Registration,
}

#[pymethods]
impl Registration {
    #[new]
    fn new(fd: RawFd) -> PyResult<Self> {
        let registration = process::Registration::new(fd).map_err(from_register)?;
        Ok(Self { registration })
    }

    /// True when the socket was severed, here or by a fork.
    #[getter]
    fn severed(&self) -> bool {
        self.registration.fd().is_none()
    }

    /// Ends the registration, once the connection is closed.
    fn end(&self) {
        self.registration.end();
    }

    /// Severs the socket in this process: nothing is sent, and the server learns that it has ended.
    fn sever(&self) -> bool {
        self.registration.sever()
    }

    /// Peeks at the socket, which must be idle: None at rest, else `"dead"`, `"desynchronised"`, `"unknown"`.
    fn probe(&self) -> Option<&'static str> {
        match self.registration.fd().map(probe::probe) {
            Some(Verdict::AtRest) => None,
            Some(Verdict::Desynchronised) => Some("desynchronised"),
            Some(Verdict::Unknown) => Some("unknown"),
            Some(Verdict::Dead) | None => Some("dead"),
        }
    }
}

/// How many forks this process is away from the one that loaded the module.
#[pyfunction]
pub(crate) fn generation() -> u64 {
    process::generation()
}

/// How many inherited sockets were severed when this process was forked.
#[pyfunction]
pub(crate) fn severed() -> u64 {
    process::severed()
}

/// Does by hand what the fork handler does: for a child whose fork bypassed the C library.
#[pyfunction]
pub(crate) fn forked() {
    process::forked();
}

/// Puts a dead socket over a descriptor of this process; the peer and other copies learn nothing.
#[pyfunction]
pub(crate) fn sever(fd: RawFd) {
    process::sever(fd);
}

/// Makes an object immortal: its destructor never runs in this process.
///
/// For driver connections that came over a fork: their destructors take locks that a thread of the parent may
/// have held, or write goodbyes. A leak on purpose, bounded by what the parent had open.
#[pyfunction]
pub(crate) fn forget(object: Bound<'_, PyAny>) {
    std::mem::forget(object.unbind());
}
