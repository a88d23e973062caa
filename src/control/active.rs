//! The active leases of this process, so that they can be given back before it ends.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::plane;
use super::stream::Stream;
use super::timer::{sleep, timeout};
use crate::process::per_process::PerProcess;
use crate::process::sigterm::{self, Held};
use crate::socket::owned::OwnedSocket;

/// How long a process that is told to end goes on for the sake of those who wait for its leases.
const FAREWELL: Duration = Duration::from_secs(1);

/// Something that is given back before the process ends.
pub(crate) trait GivenBack: Send + Sync {
    /// Gives it back, or gives up the wait for it. Returns at once.
    fn leave(&self);
    /// The same, because the process was told to end.
    fn surrender(&self);
}

#[derive(Default)]
struct Active {
    leases: Mutex<HashMap<u64, Weak<dyn GivenBack>>>,
    emptied: Condvar,
}

static ACTIVE: PerProcess<Active> = PerProcess::new();

fn active() -> &'static Active {
    match ACTIVE.get_or_make(|| Ok::<_, Infallible>(Active::default())) {
        Ok(active) => active,
        Err(never) => match never {},
    }
}

impl Active {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Weak<dyn GivenBack>>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that are there.
    fn leases(&self) -> Vec<Arc<dyn GivenBack>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }
}

/// Takes the lock, as a thread does that is caught by a fork.
#[cfg(test)]
pub(super) fn hold() -> impl Drop {
    active().lock()
}

/// Among the active until it is dropped.
#[derive(Debug)]
pub(crate) struct Enrolled {
    number: u64,
    held: Option<Held>,
}

/// Counts a lease among the active.
pub(crate) fn enroll(number: u64, lease: Weak<dyn GivenBack>) -> Enrolled {
    active().lock().insert(number, lease);
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
        let active = active();
        let mut leases = active.lock();
        leases.remove(&self.number);
        if leases.is_empty() {
            active.emptied.notify_all();
        }
    }
}

/// Gives every lease of this process back, and every wait for one up. Returns at once.
pub fn leave_all() {
    for lease in active().leases() {
        lease.leave();
    }
}

/// Waits for so long at most until nothing is left to give back. True when that is so.
pub fn wait_over(at_most: Duration) -> bool {
    let active = active();
    let waited = active
        .emptied
        .wait_timeout_while(active.lock(), at_most, |leases| !leases.is_empty());
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
    for lease in active().leases() {
        lease.surrender();
    }
    let all_back = async {
        while !active().lock().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    // Those that the server did not hear of in time expire.
    let _in_time = timeout(FAREWELL, all_back).await;
    sigterm::finish();
}
