//! Generation, severing, and forgetting.

use std::os::fd::RawFd;

use pyo3::prelude::*;

use crate::process;

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
/// have held, or write goodbyes. And for those whose number is somebody else's by now: they would write there,
/// and close it. A leak on purpose, bounded by what was open.
#[pyfunction]
pub(crate) fn forget(object: Bound<'_, PyAny>) {
    std::mem::forget(object.unbind());
}
