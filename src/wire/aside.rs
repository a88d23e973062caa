//! Work that the system may not end for long (looking a name up, reading files), on a thread of its own: who waits for
//! it waits as for a socket, so that a deadline, a signal and a hub all reach it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::failure::{FailureKind, WireFailure};
use super::waits::Waits;
use crate::process::threads;
use crate::socket::owned::OwnedSocket;

/// Does `work`, and waits for it until a time has come. Given up, it goes on, and nobody hears of it.
///
/// # Errors
///
/// The time has come; an interruption; the system has no descriptors.
pub(crate) fn done<T: Send + 'static>(
    waits: &mut dyn Waits,
    until: Option<Instant>,
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WireFailure> {
    let connect =
        |error: std::io::Error| WireFailure::unsent(FailureKind::Connect, error.to_string());
    let (here, there) = OwnedSocket::pair().map_err(connect)?;
    let place = Arc::new(Mutex::new(None));
    // Taken by the thread; or here, where there is none.
    let todo = Arc::new(Mutex::new(Some((work, there))));
    let (result, taken) = (Arc::clone(&place), Arc::clone(&todo));
    let started = threads::spawn("poolproof-aside", move || {
        if let Some((work, there)) = take(&taken) {
            let done = work();
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
            // The end of the socket is what is waited for.
            drop(there);
        }
    });
    if started.is_err() {
        // No thread is to be had at this moment. Most names and files are quick, and a connection is wanted now.
        if let Some((work, _there)) = take(&todo) {
            return Ok(work());
        }
    }
    let fd = here
        .fd()
        .ok_or_else(|| WireFailure::unsent(FailureKind::Connect, "its descriptor was closed"))?;
    match waits.wait(fd, false, until) {
        Err(_interrupted) => Err(WireFailure::interrupted()),
        Ok(false) => Err(WireFailure::unsent(
            FailureKind::Timeout,
            format!("connection timeout expired: {what} was not done in time"),
        )),
        Ok(true) => take(&place).ok_or_else(|| {
            WireFailure::unsent(FailureKind::Connect, format!("a defect has ended {what}"))
        }),
    }
}

fn take<T>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}
