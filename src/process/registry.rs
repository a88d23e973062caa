//! The sockets of this process that a child must not touch: fixed records, each written with atomics, the descriptor
//! last, so that the fork handler finds each whole or not at all.
//!
//! Long, because it is one idea, with the tests that fork beside what they test.
#![allow(unsafe_code, reason = "fstat has no safe form")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use thiserror::Error;

use super::dead_socket::sever;
use super::generation::generation;
use super::shelves::Shelves;

/// Why a descriptor cannot be registered.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// The descriptor is not open, or the system refuses to describe it.
    #[error("descriptor {fd} cannot be examined: {source}")]
    Examine {
        /// The descriptor as given.
        fd: RawFd,
        /// What the system said.
        source: io::Error,
    },
    /// The descriptor is a file, a pipe, a terminal: nothing that a database session runs over.
    #[error("descriptor {fd} is not a socket")]
    NotASocket {
        /// The descriptor as given.
        fd: RawFd,
    },
    /// Every place of the registry is taken.
    #[error(
        "{places} sockets are registered in this process, which is as many as there is room for"
    )]
    Full {
        /// Places in all.
        places: usize,
    },
    /// The system refused to install the fork handler.
    #[error("the fork handler cannot be installed: {source}")]
    Install {
        /// What the system said.
        source: io::Error,
    },
}

/// One registered socket. A record is claimed first, described next, and counts once `fd` is set.
#[derive(Debug)]
pub(super) struct SocketRecord {
    claimed: AtomicBool,
    pub(super) fd: AtomicI32,
    dev: AtomicU64,
    ino: AtomicU64,
}

/// No descriptor.
pub(super) const FREE: RawFd = -1;

pub(super) static REGISTRY: Shelves<SocketRecord> = Shelves::new(SocketRecord::new);

impl SocketRecord {
    const fn new() -> Self {
        Self {
            claimed: AtomicBool::new(false),
            fd: AtomicI32::new(FREE),
            dev: AtomicU64::new(0),
            ino: AtomicU64::new(0),
        }
    }

    fn claim(&self) -> bool {
        !self.claimed.load(Ordering::Relaxed) && !self.claimed.swap(true, Ordering::Acquire)
    }

    /// True while `fd` is the very socket that was registered here.
    pub(super) fn holds(&self, fd: RawFd) -> bool {
        identify(fd).is_some_and(|identity| {
            identity.is_socket
                && identity.dev == self.dev.load(Ordering::Relaxed)
                && identity.ino == self.ino.load(Ordering::Relaxed)
        })
    }

    fn is(&self, identity: (u64, u64)) -> bool {
        let dev = self.dev.load(Ordering::Relaxed);
        (dev, self.ino.load(Ordering::Relaxed)) == identity
    }

    pub(super) fn vacate(&self) {
        self.fd.store(FREE, Ordering::Release);
        self.claimed.store(false, Ordering::Release);
    }
}

/// A socket that a child of this process will not be able to use. Dropping it ends the registration.
#[derive(Debug)]
pub struct Registration {
    record: &'static SocketRecord,
    generation: u64,
}

impl Registration {
    /// Registers the socket behind `fd`, without looking whether the fork handler is installed.
    pub(super) fn of(fd: RawFd) -> Result<Self, RegisterError> {
        let identity = identify(fd).ok_or_else(|| RegisterError::Examine {
            fd,
            source: io::Error::last_os_error(),
        })?;
        if !identity.is_socket {
            return Err(RegisterError::NotASocket { fd });
        }
        let generation = generation();
        let record = claim()?;
        record.dev.store(identity.dev, Ordering::Relaxed);
        record.ino.store(identity.ino, Ordering::Relaxed);
        record.fd.store(fd, Ordering::Release);
        Ok(Self { record, generation })
    }
}

impl Registration {
    /// The descriptor; none when it was severed or the registration is of a parent process.
    pub fn fd(&self) -> Option<RawFd> {
        if self.generation != generation() {
            return None;
        }
        let fd = self.record.fd.load(Ordering::Acquire);
        (fd != FREE).then_some(fd)
    }
}

impl Registration {
    /// Device and inode of the registered socket, which no other open socket has.
    pub fn identity(&self) -> (u64, u64) {
        let dev = self.record.dev.load(Ordering::Relaxed);
        (dev, self.record.ino.load(Ordering::Relaxed))
    }

    /// True while the descriptor is still the socket that was registered.
    pub fn is_intact(&self) -> bool {
        self.fd().is_some_and(|fd| self.record.holds(fd))
    }

    /// Ends the registration: the connection has been closed.
    pub fn end(&self) {
        if self.generation == generation() {
            self.record.fd.store(FREE, Ordering::Release);
        }
    }

    /// Severs the socket in this process too, and ends the registration. False when it was not there: then the
    /// registration stays, for whoever wants to know that the number is somebody else's.
    ///
    /// Nothing is sent; the server learns that the connection has ended.
    pub fn sever(&self) -> bool {
        let Some(fd) = self.fd() else { return false };
        let is_ours = self.record.holds(fd);
        if is_ours {
            self.record.fd.store(FREE, Ordering::Release);
            sever(fd);
            // Whoever has registered it as well has the number still, and is to close it.
            if let Some(dead) = identify(fd) {
                for other in REGISTRY.made() {
                    if other.fd.load(Ordering::Acquire) == fd && other.is(self.identity()) {
                        other.dev.store(dead.dev, Ordering::Relaxed);
                        other.ino.store(dead.ino, Ordering::Relaxed);
                    }
                }
            }
        }
        is_ours
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // In a child the handler has emptied every place; this one may belong to a socket of the child.
        if self.generation == generation() {
            self.record.vacate();
        }
    }
}

fn claim() -> Result<&'static SocketRecord, RegisterError> {
    REGISTRY
        .find(SocketRecord::claim)
        .ok_or(RegisterError::Full {
            places: Shelves::<SocketRecord>::LIMIT,
        })
}

/// What a descriptor stands for. Two sockets never share device and inode while both are open.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    dev: u64,
    ino: u64,
    is_socket: bool,
}

/// Device and inode of the socket behind `fd`; none when it is closed or no socket.
pub fn socket_identity(fd: RawFd) -> Option<(u64, u64)> {
    let identity = identify(fd)?;
    identity.is_socket.then_some((identity.dev, identity.ino))
}

fn identify(fd: RawFd) -> Option<Identity> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` is valid for writes of one `libc::stat`; fstat takes any integer as descriptor.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: fstat returned 0, so it has filled the whole struct.
    let stat = unsafe { stat.assume_init() };
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_cast,
        clippy::cast_sign_loss,
        reason = "the widths differ between platforms"
    )]
    Some(Identity {
        dev: stat.st_dev as u64,
        ino: stat.st_ino as u64,
        is_socket: stat.st_mode & libc::S_IFMT == libc::S_IFSOCK,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::process::dead_socket::duplicate_over;
    use crate::process::{in_child, severed};

    fn reads_end_of_file(fd: RawFd) -> bool {
        let mut byte = 0u8;
        // SAFETY: `byte` is valid for one byte.
        unsafe { libc::read(fd, (&raw mut byte).cast(), 1) == 0 }
    }

    #[test]
    fn a_registered_socket_is_dead_in_the_child_and_alive_in_the_parent() {
        let (mut here, mut peer) = UnixStream::pair().unwrap();
        let registration = Registration::new(here.as_raw_fd()).unwrap();
        let before = generation();
        let fd = here.as_raw_fd();
        assert!(in_child(|| generation() == before + 1
            && severed() >= 1
            && reads_end_of_file(fd)));
        assert_eq!(generation(), before);
        peer.write_all(b"x").unwrap();
        let mut byte = [0];
        here.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        drop(registration);
    }

    #[test]
    fn an_unregistered_socket_stays_shared() {
        let (here, mut peer) = UnixStream::pair().unwrap();
        drop(Registration::new(here.as_raw_fd()).unwrap());
        peer.write_all(b"x").unwrap();
        let fd = here.as_raw_fd();
        assert!(in_child(|| !reads_end_of_file(fd)));
    }

    #[test]
    fn a_file_that_took_over_the_number_is_left_alone() {
        let (here, _peer) = UnixStream::pair().unwrap();
        let fd = here.as_raw_fd();
        let _registration = Registration::new(fd).unwrap();
        // The driver closes behind our back, and the number now belongs to a file.
        let file = File::open("/dev/zero").unwrap();
        assert!(duplicate_over(file.as_raw_fd(), fd) >= 0);
        assert!(in_child(|| !reads_end_of_file(fd)));
    }

    #[test]
    fn a_number_taken_over_by_another_socket_is_left_alone() {
        let (here, _peer) = UnixStream::pair().unwrap();
        let fd = here.as_raw_fd();
        let _registration = Registration::new(fd).unwrap();
        let (other, mut other_peer) = UnixStream::pair().unwrap();
        assert!(duplicate_over(other.as_raw_fd(), fd) >= 0);
        other_peer.write_all(b"x").unwrap();
        assert!(in_child(|| !reads_end_of_file(fd)));
    }

    #[test]
    fn without_a_spare_descriptor_the_child_closes_its_copy() {
        assert!(in_child(|| {
            let Ok((here, _peer)) = UnixStream::pair() else {
                return false;
            };
            let fd = here.as_raw_fd();
            let Ok(_registration) = Registration::new(fd) else {
                return false;
            };
            let limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: `limit` is valid; it binds this child alone.
            let limited = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0;
            limited && in_child(|| identify(fd).is_none()) && identify(fd).is_some()
        }));
    }

    #[test]
    fn a_registration_inherited_by_the_child_does_not_end_one_of_the_child() {
        let (here, _peer) = UnixStream::pair().unwrap();
        let registration = Registration::new(here.as_raw_fd()).unwrap();
        assert!(in_child(move || {
            let Ok((mine, _theirs)) = UnixStream::pair() else {
                return false;
            };
            let Ok(own) = Registration::new(mine.as_raw_fd()) else {
                return false;
            };
            drop(registration);
            let kept = own.record.fd.load(Ordering::Acquire) == mine.as_raw_fd();
            std::mem::forget(own);
            kept
        }));
    }

    #[test]
    fn severing_by_hand_spares_a_file_that_took_over_the_number() {
        let (here, mut peer) = UnixStream::pair().unwrap();
        let fd = here.as_raw_fd();
        let registration = Registration::new(fd).unwrap();
        assert!(registration.sever());
        assert!(!registration.sever());
        assert!(reads_end_of_file(fd));
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);

        let (here, _peer) = UnixStream::pair().unwrap();
        let fd = here.as_raw_fd();
        let registration = Registration::new(fd).unwrap();
        let file = File::open("/dev/zero").unwrap();
        assert!(duplicate_over(file.as_raw_fd(), fd) >= 0);
        assert!(!registration.sever());
        assert!(!reads_end_of_file(fd));
        assert_eq!(registration.fd(), Some(fd));
        assert!(!registration.is_intact());
    }

    #[test]
    fn a_file_is_no_socket_and_a_closed_number_is_named() {
        let file = File::open("/dev/null").unwrap();
        assert!(matches!(
            Registration::new(file.as_raw_fd()),
            Err(RegisterError::NotASocket { .. })
        ));
        let error = Registration::new(1_000_000).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("descriptor 1000000 cannot be examined")
        );
    }

    #[test]
    fn the_registry_grows_past_its_first_shelf() {
        let (here, _peer) = UnixStream::pair().unwrap();
        let many: Vec<_> = (0..512)
            .map(|_| Registration::new(here.as_raw_fd()).unwrap())
            .collect();
        assert_eq!(many.len(), 512);
        // SAFETY: a fresh descriptor that nothing else owns.
        let copy = unsafe { UnixStream::from_raw_fd(libc::dup(here.as_raw_fd())) };
        drop(copy);
    }
}
