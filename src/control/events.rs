//! What the control plane has to tell: leases that were lost, answers that were given, backends that were ended.
//!
//! Nobody is called back. A thread that wants to know waits here, for one process at a time. Everything that can be
//! told of has a number, which no other thing of the process has.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::process::per_process::PerProcess;

#[derive(Debug, Default)]
struct Events {
    untold: Mutex<VecDeque<u64>>,
    arrived: Condvar,
}

static EVENTS: PerProcess<Events> = PerProcess::new();
static NUMBERS: AtomicU64 = AtomicU64::new(1);

fn events() -> &'static Events {
    match EVENTS.get_or_make(|| Ok::<_, Infallible>(Events::default())) {
        Ok(events) => events,
        Err(never) => match never {},
    }
}

/// Takes the lock, as a thread does that is caught by a fork.
#[cfg(test)]
pub(super) fn hold() -> impl Drop {
    events()
        .untold
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// A number that nothing else has, 1 or more.
pub fn number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Tells of the thing with this number; 0 is none, and only wakes who waits.
pub fn tell(number: u64) {
    let events = events();
    let mut untold = events.untold.lock().unwrap_or_else(PoisonError::into_inner);
    untold.push_back(number);
    events.arrived.notify_all();
}

/// Waits for events, for so long at most, and takes them: the numbers that were told.
pub fn wait(at_most: Duration) -> Vec<u64> {
    let events = events();
    let untold = events.untold.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = events
        .arrived
        .wait_timeout_while(untold, at_most, |untold| untold.is_empty());
    let (mut untold, _) = waited.unwrap_or_else(PoisonError::into_inner);
    untold.drain(..).collect()
}
