//! The roll of the leases of this process, so that they can be given back before it ends.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::lease::Lease;
use super::plane;
use super::stream::Stream;
use super::timer::{sleep, timeout};
use crate::process::per_process::PerProcess;
use crate::process::sigterm::{self, Held};
use crate::socket::owned::OwnedSocket;

/// How long a process that is told to end goes on for the sake of those who wait for its leases.
const FAREWELL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Roll {
    leases: Mutex<HashMap<u64, Weak<Lease>>>,
    emptied: Condvar,
}

static ROLL: PerProcess<Roll> = PerProcess::new();

fn roll() -> &'static Roll {
    match ROLL.get_or_make(|| Ok::<_, Infallible>(Roll::default())) {
        Ok(roll) => roll,
        Err(never) => match never {},
    }
}

impl Roll {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Weak<Lease>>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those on it.
    fn leases(&self) -> Vec<Arc<Lease>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }
}

/// Takes the lock, as a thread does that is caught by a fork.
#[cfg(test)]
pub(super) fn hold() -> impl Drop {
    roll().lock()
}

/// On the roll until it is dropped.
#[derive(Debug)]
pub(crate) struct Enrolled {
    number: u64,
    held: Option<Held>,
}

/// Puts a lease on the roll.
pub(crate) fn enroll(lease: &Arc<Lease>) -> Enrolled {
    let number = lease.number();
    roll().lock().insert(number, Arc::downgrade(lease));
    Enrolled { number, held: None }
}

impl Enrolled {
    /// Has it given back on SIGTERM as well; where that cannot be listened for it expires by itself. Called in the
    /// control plane alone, by one thread.
    pub(crate) fn listen(&mut self) {
        self.held = sigterm::hold(listen).ok();
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        let roll = roll();
        let mut leases = roll.lock();
        leases.remove(&self.number);
        if leases.is_empty() {
            roll.emptied.notify_all();
        }
    }
}

/// Gives every lease of this process back, and every wait for one up. Returns at once.
pub fn leave_all() {
    for lease in roll().leases() {
        lease.leave();
    }
}

/// Waits for so long at most until nothing is left to give back. True when that is so.
pub fn wait_over(at_most: Duration) -> bool {
    let roll = roll();
    let waited = roll
        .emptied
        .wait_timeout_while(roll.lock(), at_most, |leases| !leases.is_empty());
    let (leases, _) = waited.unwrap_or_else(PoisonError::into_inner);
    leases.is_empty()
}

fn listen(bell: UnixStream) -> io::Result<()> {
    let reactor = plane::reactor().map_err(io::Error::other)?;
    let bell = Stream::new(reactor, OwnedSocket::new(bell)?);
    let heard = async move {
        match bell.receive(&mut [0]).await {
            Ok(1) => surrender_all().await,
            // Its descriptors were closed. Without a new bell the leases of a process that is ended expire.
            _gone => drop(sigterm::renew(listen)),
        }
    };
    // As without a bell.
    plane::spawn(heard, |_why| {}).map_err(io::Error::other)
}

async fn surrender_all() {
    for lease in roll().leases() {
        lease.surrender();
    }
    let all_back = async {
        while !roll().lock().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    // Those that the server did not hear of in time expire.
    let _in_time = timeout(FAREWELL, all_back).await;
    sigterm::finish();
}
