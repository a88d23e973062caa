//! The thread of the control plane: one a process, started at first use.
//!
//! A child of a fork has none and begins anew: the parent's runtime is forgotten, never dropped, because dropping it
//! would wait for a thread that is not there, and take the parent's sockets out of the poll set that both share.

use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};

use super::error::ControlError;
use crate::process::own::PerProcess;
use crate::process::quiet;

static PLANE: PerProcess<Plane> = PerProcess::new();

struct Plane {
    handle: Handle,
    state: Mutex<State>,
}

enum State {
    /// Made by one of two threads at once: only the winner's is started.
    New(Runtime),
    Running,
    Failed,
}

impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plane").finish_non_exhaustive()
    }
}

/// Has the control plane work on `task`. Starts it when it does not run yet.
///
/// # Errors
///
/// [`ControlError::Start`] when the system has no thread or no descriptor to give.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Result<(), ControlError> {
    let plane = PLANE
        .get_or_make(Plane::new)
        .map_err(|source| ControlError::Start { source })?;
    plane
        .start()
        .map_err(|source| ControlError::Start { source })?;
    plane.handle.spawn(task);
    Ok(())
}

/// Takes the lock, as a thread does that is caught by a fork.
#[cfg(test)]
pub(super) fn hold() -> Option<impl Drop> {
    let plane = PLANE.get()?;
    Some(plane.state.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Plane {
    fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // Looks names up; two are enough for a few servers.
            .max_blocking_threads(2)
            .thread_name("poolproof-names")
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            state: Mutex::new(State::New(runtime)),
        })
    }

    fn start(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Failed) {
            State::Running => *state = State::Running,
            State::Failed => {
                return Err(io::Error::other("its thread could not be started before"));
            }
            State::New(runtime) => {
                quiet::spawn("poolproof-control", move || {
                    runtime.block_on(pending::<()>());
                })?;
                *state = State::Running;
            }
        }
        Ok(())
    }
}
