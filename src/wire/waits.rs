//! Waiting for a descriptor, which is somebody else's business: with the interpreter's lock released, or by a hub.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::socket::readiness::{self, Wanted};

/// Whoever waits was interrupted; why is known where that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interrupted;

/// How is waited.
pub(crate) trait Waits {
    /// The time.
    fn now(&self) -> Instant;

    /// Waits until something can be received, or until something can be sent, where that is asked for; or until a time
    /// has come. Says whether the descriptor is ready.
    ///
    /// # Errors
    ///
    /// [`Interrupted`].
    fn wait(
        &mut self,
        fd: RawFd,
        writing: bool,
        until: Option<Instant>,
    ) -> Result<bool, Interrupted>;

    /// Whether whoever waits may do so in the midst of receiving, for a little while at a time.
    fn may_receive_waiting(&self) -> bool {
        false
    }

    /// Lets whoever may interrupt do so, between two waits.
    ///
    /// # Errors
    ///
    /// [`Interrupted`].
    fn pause(&mut self) -> Result<(), Interrupted> {
        Ok(())
    }
}

/// Waits without anybody who could interrupt.
#[derive(Debug)]
pub(crate) struct Unattended;

impl Waits for Unattended {
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
        loop {
            let slice = slice(until, self.now(), LONG);
            if is_ready(fd, writing, slice) == Some(true) {
                return Ok(true);
            }
            if until.is_some_and(|until| self.now() >= until) {
                return Ok(false);
            }
        }
    }
}

const LONG: Duration = Duration::from_secs(1);

/// How long is waited at once.
pub(crate) fn slice(until: Option<Instant>, now: Instant, most: Duration) -> Duration {
    let left = until.map_or(most, |until| until.saturating_duration_since(now));
    // poll counts in milliseconds, and what is left of one would be waited for with the processor.
    left.min(most).max(Duration::from_millis(1))
}

/// Waits once, for so long. None: a signal has come.
pub(crate) fn is_ready(fd: RawFd, writing: bool, at_most: Duration) -> Option<bool> {
    let wanted = Wanted {
        fd,
        reading: true,
        writing,
    };
    let (reads, writes) = readiness::wait_for(wanted, at_most).ok()?;
    Some(reads || writes)
}
