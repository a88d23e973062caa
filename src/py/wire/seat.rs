//! Where a connection is: at rest, with a request, or closed; and what is known of it wherever that is.

use std::sync::atomic::AtomicI32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Instant;

use crate::process::generation;
use crate::socket::owned::OwnedSocket;
use crate::socket::probe::ProbeResult;
use crate::wire::cancels::Cancels;
use crate::wire::connected::{About, Connected, Rest};

/// Where the connection is.
#[derive(Debug)]
pub(super) enum Whereabouts {
    Here(Box<Connected>),
    /// In the middle of a COPY, which waits for its caller.
    Copying(Box<Connected>),
    /// With a request.
    Out,
    Closed,
    /// Closed, because nobody had its COPY any more: as one that a COPY was left open in, for whoever gives it back.
    Left,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Seat {
    place: Mutex<Whereabouts>,
    pub(super) about: Arc<About>,
    /// For whoever is to shut it while a request has the connection.
    pub(super) socket: Weak<OwnedSocket>,
    /// Its descriptor; -1 when it is closed.
    pub(super) fd: AtomicI32,
    pub(super) generation: u64,
    pub(super) cancels: Cancels,
}

impl Whereabouts {
    /// The connection, while no request has it.
    pub(super) fn connected(&mut self) -> Option<&mut Connected> {
        match self {
            Self::Here(connected) | Self::Copying(connected) => Some(connected),
            Self::Out | Self::Closed | Self::Left => None,
        }
    }
}

impl Seat {
    pub(super) fn new(connected: Connected) -> Self {
        Self {
            about: Arc::clone(&connected.about),
            socket: connected.socket(),
            fd: AtomicI32::new(connected.fd().unwrap_or(-1)),
            place: Mutex::new(Whereabouts::Here(Box::new(connected))),
            generation: generation(),
            cancels: Cancels::default(),
        }
    }

    /// Looks at the connection, which must be without a request.
    pub(crate) fn look(&self, now: Instant) -> ProbeResult {
        match self.lock().as_deref_mut() {
            Some(Whereabouts::Here(connected)) => match connected.look_at_rest(now) {
                Rest::Rests => ProbeResult::AtRest,
                Rest::Late => ProbeResult::Unknown,
                Rest::Lost => ProbeResult::Dead,
                Rest::OutOfStep => ProbeResult::Desynchronised,
            },
            Some(Whereabouts::Closed | Whereabouts::Left) => ProbeResult::Dead,
            Some(Whereabouts::Out | Whereabouts::Copying(_)) | None => ProbeResult::Unknown,
        }
    }

    /// Whether nothing is under way that somebody could want the end of.
    pub(super) fn rests(&self) -> bool {
        match self.lock().as_deref() {
            Some(Whereabouts::Here(connected)) => {
                connected.session.is_at_rest() || connected.session.is_owed()
            }
            Some(
                Whereabouts::Copying(_)
                | Whereabouts::Out
                | Whereabouts::Closed
                | Whereabouts::Left,
            )
            | None => false,
        }
    }

    /// Never waits: a signal's handler may come while the lock is held, and a fork.
    pub(super) fn lock(&self) -> Option<MutexGuard<'_, Whereabouts>> {
        match self.place.try_lock() {
            Ok(place) => Some(place),
            Err(TryLockError::Poisoned(place)) => Some(PoisonError::into_inner(place)),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
