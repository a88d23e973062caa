//! The socket under a driver's connection: registered for forks, looked at, bounded, tuned.

use std::os::fd::RawFd;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::errors::{from_register, from_watch};
use super::seconds::limit;
use super::wire::{Seat, Wire};
use crate::process::Registration;
use crate::socket::address::{self, SocketAddress};
use crate::socket::deadline::{DeadlineKind, Watch};
use crate::socket::options::{self, Family, KeepAlive};
use crate::socket::probe::{self, ProbeResult};

/// The socket of one connection. A child of this process cannot use it. Ends with the object.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Socket {
    registration: Registration,
    watch: Watch,
    /// Set `TCP_USER_TIMEOUT` while a call of the pool's own is under way.
    brief_user_timeout: bool,
    /// Whether it is set at this moment.
    user_timeout_set: AtomicBool,
    /// The connection of our own driver that it is of, which knows by itself whether it is at rest.
    seat: Option<Weak<Seat>>,
}

#[pymethods]
impl Socket {
    /// Registers the socket behind `fd` and makes it ready for deadlines.
    ///
    /// `user_timeout_s` sets `TCP_USER_TIMEOUT` for good; None sets it for the pool's own calls alone. Neither
    /// changes what was set before, unless that was lent for the connecting (`user_timeout_lent`): then it is
    /// taken back first.
    #[new]
    #[pyo3(signature = (fd, user_timeout_s=None, user_timeout_lent=false, wire=None))]
    fn new(
        fd: RawFd,
        user_timeout_s: Option<f64>,
        user_timeout_lent: bool,
        wire: Option<&Bound<'_, Wire>>,
    ) -> PyResult<Self> {
        let registration = Registration::new(fd).map_err(from_register)?;
        let watch = Watch::new(fd).map_err(from_watch)?;
        if user_timeout_lent && options::family(fd) == Family::Tcp {
            options::user_timeout(fd, None);
        }
        let chosen = options::family(fd) == Family::Other || options::has_user_timeout(fd);
        if let (false, Some(timeout_s)) = (chosen, user_timeout_s) {
            options::user_timeout(fd, Some(limit(timeout_s)?));
        }
        Ok(Self {
            registration,
            watch,
            brief_user_timeout: !chosen && user_timeout_s.is_none(),
            user_timeout_set: AtomicBool::new(false),
            seat: wire.map(|wire| wire.get().seat()),
        })
    }

    /// True when the socket was severed, here or by a fork.
    #[getter]
    fn severed(&self) -> bool {
        self.registration.fd().is_none()
    }

    /// True while the descriptor is still this socket; false once it was severed, or closed by whomever.
    #[getter]
    fn intact(&self) -> bool {
        self.registration.is_intact()
    }

    /// Ends the registration, once the connection is closed.
    fn end(&self) {
        self.registration.end();
        self.watch.end();
    }

    /// Severs the socket in this process: nothing is sent, and the server learns that it has ended.
    fn sever(&self) -> bool {
        self.watch.shut();
        self.registration.sever()
    }

    /// Peeks at the socket, which must be idle: None at rest, else `"dead"`, `"desynchronised"`, `"unknown"`.
    #[pyo3(name = "probe")]
    fn probe_in_words(&self) -> Option<&'static str> {
        in_words(self.probe())
    }

    /// Bounds a step (`CALL`, `BLOCK`, `HOLD`) to so many seconds from now, in place of its earlier bound.
    fn arm(&self, step: u8, seconds: f64) -> PyResult<()> {
        let (step, after) = (named(step)?, limit(seconds)?);
        self.watch.arm(step, now(), after);
        if step == DeadlineKind::Call && self.brief_user_timeout && self.watch.is_intact() {
            self.user_timeout_set.store(true, Ordering::Relaxed);
            self.user_timeout(Some(after));
        }
        Ok(())
    }

    /// Takes the bound of a step back. True when a deadline has passed, and the socket is shut.
    fn disarm(&self, step: u8) -> PyResult<bool> {
        let step = named(step)?;
        let expired = self.watch.disarm(step);
        if step == DeadlineKind::Call && self.user_timeout_set.swap(false, Ordering::Relaxed) {
            self.user_timeout(None);
        }
        Ok(expired)
    }

    /// The step whose deadline has passed, or None.
    #[getter]
    fn expired(&self) -> Option<u8> {
        self.watch.expired().map(|step| step as u8)
    }

    /// The keep-alives that are on, also after the driver has closed its number: seconds, seconds, questions.
    #[getter]
    fn kept_alive(&self) -> Option<(u64, u64, u32)> {
        let found = options::kept_alive(self.watch.descriptor()?)?;
        Some((found.idle.as_secs(), found.interval.as_secs(), found.count))
    }

    /// Turns keep-alives on: seconds, seconds, questions. Does nothing unless it is a TCP connection.
    fn keep_alive(
        &self,
        idle_s: u64,
        interval_s: u64,
        count: u32,
        off_is_chosen: bool,
    ) -> PyResult<()> {
        let wanted = KeepAlive {
            idle: Duration::from_secs(idle_s),
            interval: Duration::from_secs(interval_s),
            count,
        };
        match self.registration.fd() {
            Some(fd) if options::family(fd) == Family::Tcp => {
                Ok(options::keep_alive(fd, wanted, off_is_chosen)?)
            }
            _ => Ok(()),
        }
    }
}

impl Socket {
    /// Peeks at the socket, which must be idle.
    pub(super) fn probe(&self) -> ProbeResult {
        if self.watch.expired().is_some() {
            // What has arrived before could still be read, and would look like rest.
            return ProbeResult::Dead;
        }
        if let Some(seat) = &self.seat {
            return seat
                .upgrade()
                .map_or(ProbeResult::Dead, |seat| seat.look(now()));
        }
        self.registration
            .fd()
            .map_or(ProbeResult::Dead, probe::probe)
    }

    /// Where it stands, as long as it was not severed.
    pub(super) fn address(&self) -> Option<SocketAddress> {
        self.registration.fd().and_then(address::of)
    }

    /// Sets the option through the watch's own descriptor: a driver may close its number within a call, and it may
    /// be another socket's by the end.
    fn user_timeout(&self, timeout: Option<Duration>) {
        if let Some(fd) = self.watch.descriptor() {
            options::user_timeout(fd, timeout);
        }
    }
}

/// What a peek has found, as Python names it; None at rest.
pub(super) fn in_words(found: ProbeResult) -> Option<&'static str> {
    match found {
        ProbeResult::AtRest => None,
        ProbeResult::Dead => Some("dead"),
        ProbeResult::Desynchronised => Some("desynchronised"),
        ProbeResult::Unknown => Some("unknown"),
    }
}

pub(crate) const CALL: u8 = DeadlineKind::Call as u8;
pub(crate) const BLOCK: u8 = DeadlineKind::Block as u8;
pub(crate) const HOLD: u8 = DeadlineKind::Hold as u8;

fn named(step: u8) -> PyResult<DeadlineKind> {
    match step {
        CALL => Ok(DeadlineKind::Call),
        BLOCK => Ok(DeadlineKind::Block),
        HOLD => Ok(DeadlineKind::Hold),
        _ => Err(PyValueError::new_err(format!("there is no step {step}"))),
    }
}

#[allow(clippy::disallowed_methods, reason = "a deadline counts from now")]
fn now() -> Instant {
    Instant::now()
}
