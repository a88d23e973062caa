//! Requests to cancel that are on their way. What is asked next waits for them, for they would end that.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::socket::owned::OwnedSocket;

/// Those of one connection.
#[derive(Debug, Default)]
pub(crate) struct Cancels {
    /// How many there are: looked at before each request, without the lock.
    count: AtomicUsize,
    /// One socket for each, whose other side is closed when it is over: so it can be waited for like anything else.
    ends: Mutex<Vec<Arc<OwnedSocket>>>,
}

/// One that is on its way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Cancelling<'a> {
    cancels: &'a Cancels,
    here: Arc<OwnedSocket>,
    /// Closed behind all else.
    _there: OwnedSocket,
}

impl Cancels {
    /// Begins one.
    ///
    /// # Errors
    ///
    /// The system has no descriptors to give.
    pub(crate) fn begin(&self) -> io::Result<Cancelling<'_>> {
        let (here, there) = OwnedSocket::pair()?;
        let here = Arc::new(here);
        self.lock().push(Arc::clone(&here));
        self.count.fetch_add(1, Ordering::SeqCst);
        Ok(Cancelling {
            cancels: self,
            here,
            _there: there,
        })
    }

    /// What to wait for until one of them is over; none where there is none.
    pub(crate) fn first(&self) -> Option<Arc<OwnedSocket>> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        self.lock().first().cloned()
    }

    /// Held for a few instructions, in which no code of Python's runs.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<OwnedSocket>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cancelling<'_> {
    fn drop(&mut self) {
        self.cancels.count.fetch_sub(1, Ordering::SeqCst);
        self.cancels
            .lock()
            .retain(|end| !Arc::ptr_eq(end, &self.here));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::waits;
    use std::time::Duration;

    fn is_over(end: &OwnedSocket) -> bool {
        let fd = end.fd().unwrap();
        waits::is_ready(fd, false, Duration::from_millis(1)) == Some(true)
    }

    #[test]
    fn what_is_asked_next_waits_for_each_of_them() {
        let cancels = Cancels::default();
        assert!(cancels.first().is_none());
        let one = cancels.begin().unwrap();
        let end = cancels.first().unwrap();
        let other = cancels.begin().unwrap();
        assert!(!is_over(&end));
        drop(one);
        assert!(is_over(&end));
        assert!(!is_over(&cancels.first().unwrap()));
        drop(other);
        assert!(cancels.first().is_none());
    }
}
