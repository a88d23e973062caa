//! How one thread sleeps until another wakes it, a deadline passes, or a signal arrives.
//!
//! A condition variable hides signals from its caller, and then Ctrl-C would wait as long as the pool does. On
//! Linux the wait is a futex, which a signal interrupts; elsewhere it is cut into short slices. So is the futex's,
//! into longer ones: a signal that comes after its caller has looked for signals and before the thread sleeps
//! interrupts nothing.

use std::time::Duration;

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// Somebody called [`Parker::unpark`].
    Woken,
    /// The time is over.
    TimedOut,
    /// A signal arrived, or it may have: look, then sleep on.
    Interrupted,
}

#[cfg(all(target_os = "linux", not(loom)))]
mod imp {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rustix::io::Errno;
    use rustix::thread::futex::{self, Flags, Timespec};

    use super::Parked;

    /// How long a signal is unheard that came in the last instant before the sleep.
    const SLICE: Duration = Duration::from_millis(200);

    /// A flag that is raised once, and that one thread sleeps on.
    #[derive(Debug, Default)]
    pub struct Parker {
        woken: AtomicU32,
    }

    impl Parker {
        /// Sleeps until woken, for at most `limit`; `None` is without bound.
        pub fn park(&self, limit: Option<Duration>) -> Parked {
            if self.woken.load(Ordering::Acquire) == 1 {
                return Parked::Woken;
            }
            let is_last = limit.is_some_and(|limit| limit <= SLICE);
            let slice = limit.map_or(SLICE, |limit| limit.min(SLICE));
            let slice = Timespec::try_from(slice).ok();
            match futex::wait(&self.woken, Flags::PRIVATE, 0, slice.as_ref()) {
                Err(Errno::TIMEDOUT) if is_last && self.woken.load(Ordering::Acquire) == 0 => {
                    Parked::TimedOut
                }
                Err(Errno::INTR) => Parked::Interrupted,
                _ if self.woken.load(Ordering::Acquire) == 1 => Parked::Woken,
                _ => Parked::Interrupted,
            }
        }

        /// Wakes the sleeper, or makes its next sleep end at once.
        pub fn unpark(&self) {
            self.woken.store(1, Ordering::Release);
            // The only errors are bad arguments; the flag is raised in any case.
            let _woken = futex::wake(&self.woken, Flags::PRIVATE, 1);
        }
    }
}

#[cfg(any(not(target_os = "linux"), loom))]
mod imp {
    use std::time::Duration;

    #[cfg(loom)]
    use loom::sync::{Condvar, Mutex};
    #[cfg(not(loom))]
    use std::sync::{Condvar, Mutex};

    use super::super::sync::lock;
    use super::Parked;

    /// A flag that is raised once, and that one thread sleeps on.
    #[derive(Debug, Default)]
    pub struct Parker {
        woken: Mutex<bool>,
        raised: Condvar,
    }

    impl Parker {
        /// Sleeps until woken, for at most `limit`; `None` is without bound.
        pub fn park(&self, limit: Option<Duration>) -> Parked {
            const SLICE: Duration = Duration::from_millis(20);
            let woken = lock(&self.woken);
            if *woken {
                return Parked::Woken;
            }
            let slice = limit.map_or(SLICE, |limit| limit.min(SLICE));
            let (woken, _) = self
                .raised
                .wait_timeout(woken, slice)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            match (*woken, limit) {
                (true, _) => Parked::Woken,
                (false, Some(limit)) if limit <= SLICE => Parked::TimedOut,
                (false, _) => Parked::Interrupted,
            }
        }

        /// Wakes the sleeper, or makes its next sleep end at once.
        pub fn unpark(&self) {
            *lock(&self.woken) = true;
            self.raised.notify_one();
        }
    }
}

pub use imp::Parker;

/// What is left of a limit after `spent`; `None` stays without bound.
pub fn remaining(limit: Option<Duration>, spent: Duration) -> Option<Duration> {
    limit.map(|limit| limit.saturating_sub(spent))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_wake_before_the_sleep_is_not_lost() {
        let parker = Parker::default();
        parker.unpark();
        assert_eq!(parker.park(None), Parked::Woken);
    }

    #[test]
    fn a_sleep_ends_when_its_time_is_over() {
        let parker = Parker::default();
        assert_eq!(
            parker.park(Some(Duration::from_millis(5))),
            Parked::TimedOut
        );
    }

    #[test]
    fn a_sleeper_is_woken_from_another_thread() {
        let parker = std::sync::Arc::new(Parker::default());
        let other = std::sync::Arc::clone(&parker);
        let waker = std::thread::spawn(move || other.unpark());
        while parker.park(Some(Duration::from_secs(30))) != Parked::Woken {}
        waker.join().unwrap();
    }

    #[test]
    fn an_enormous_limit_is_as_good_as_none() {
        let parker = Parker::default();
        parker.unpark();
        assert_eq!(parker.park(Some(Duration::MAX)), Parked::Woken);
    }
}
