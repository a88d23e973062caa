//! Where a connection is: at rest, with a request, or closed; and what is known of it wherever that is.

use std::sync::atomic::AtomicI32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use crate::process::generation;
use crate::socket::owned::OwnedSocket;
use crate::wire::connected::{About, Connected};

/// Where the connection is.
#[derive(Debug)]
pub(super) enum Whereabouts {
    Here(Box<Connected>),
    /// In the middle of a COPY, which waits for its caller.
    Copying(Box<Connected>),
    /// With a request.
    Out,
    Closed,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Seat {
    place: Mutex<Whereabouts>,
    pub(super) about: Arc<About>,
    /// For whoever is to shut it while a request has the connection.
    pub(super) socket: Weak<OwnedSocket>,
    /// Its descriptor; -1 when it is closed.
    pub(super) fd: AtomicI32,
    pub(super) generation: u64,
}

impl Whereabouts {
    /// The connection, while no request has it.
    pub(super) fn connected(&mut self) -> Option<&mut Connected> {
        match self {
            Self::Here(connected) | Self::Copying(connected) => Some(connected),
            Self::Out | Self::Closed => None,
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
