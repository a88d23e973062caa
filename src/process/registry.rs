//! This process: its fork generation, and the sockets that a child must not touch.
//!
//! A fork copies every descriptor, so parent and child would drive the same `PostgreSQL` session. The
//! `pthread_atfork` child handler here runs inside `fork()`, before any Python of the child: it raises the
//! generation (all that was made before is stale) and *severs* each registered socket, that is, puts a
//! dead socket over the descriptor. The parent's socket is untouched; whatever the child then does with its
//! copy ends in an end of file.
//!
//! The registry is made for that handler: fixed places, each written with atomics, the descriptor last.
//! There is no lock that another thread may hold at the fork, and no allocation in the handler.
//!
//! Long, because it is one idea, with the tests that fork beside what they test.
#![allow(
    unsafe_code,
    reason = "pthread_atfork and the raw calls of its handler have no safe form"
)]

pub mod hold;
pub mod own;
pub mod quiet;
pub(crate) mod shelves;
pub mod terminate;

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread;

use thiserror::Error;

use self::shelves::Shelves;

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

/// How many forks lie between the start of the program and this process, since the crate was loaded.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Sockets that the handler severed when this process was forked.
static SEVERED: AtomicU64 = AtomicU64::new(0);

/// The generation of this process. Whatever remembers a smaller one was made in a parent.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// How many inherited sockets were severed when this process was forked; 0 where it was not.
pub fn severed() -> u64 {
    SEVERED.load(Ordering::Acquire)
}

/// The calling thread, as Python's `threading.get_native_id` numbers it.
///
/// Not by its `get_ident`: that is an address, which the next thread gets when this one has ended.
pub fn thread_id() -> u64 {
    thread_local! {
        static KNOWN: Cell<(u64, u64)> = const { Cell::new((u64::MAX, 0)) };
    }
    let generation = generation();
    let (known_in, known) = KNOWN.get();
    if known_in == generation {
        return known;
    }
    let id = ask_thread_id();
    KNOWN.set((generation, id));
    id
}

#[cfg(target_os = "linux")]
fn ask_thread_id() -> u64 {
    // SAFETY: gettid has no preconditions and cannot fail.
    let id = unsafe { libc::gettid() };
    u64::try_from(id).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn ask_thread_id() -> u64 {
    let mut id = 0;
    // SAFETY: 0 is the calling thread; `id` is valid for writes of one integer.
    unsafe { libc::pthread_threadid_np(0, &raw mut id) };
    id
}

// --- the registry ---------------------------------------------------------------------------------

/// One registered socket. A place is claimed first, described next, and counts once `fd` is set.
#[derive(Debug)]
struct Place {
    claimed: AtomicBool,
    fd: AtomicI32,
    dev: AtomicU64,
    ino: AtomicU64,
}

const FREE: RawFd = -1;

static REGISTRY: Shelves<Place> = Shelves::new(Place::new);

impl Place {
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
    fn holds(&self, fd: RawFd) -> bool {
        identify(fd).is_some_and(|identity| {
            identity.is_socket
                && identity.dev == self.dev.load(Ordering::Relaxed)
                && identity.ino == self.ino.load(Ordering::Relaxed)
        })
    }

    fn vacate(&self) {
        self.fd.store(FREE, Ordering::Release);
        self.claimed.store(false, Ordering::Release);
    }
}

/// A socket that a child of this process will not be able to use. Dropping it ends the registration.
#[derive(Debug)]
pub struct Registration {
    place: &'static Place,
    generation: u64,
}

impl Registration {
    /// Registers the socket behind `fd`, so that a fork severs the child's copy of it.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Examine`] when `fd` is not open, [`RegisterError::NotASocket`] when it is no socket,
    /// [`RegisterError::Full`] after about a million registrations, [`RegisterError::Install`] when the
    /// fork handler cannot be installed.
    pub fn new(fd: RawFd) -> Result<Self, RegisterError> {
        install()?;
        let identity = identify(fd).ok_or_else(|| RegisterError::Examine {
            fd,
            source: io::Error::last_os_error(),
        })?;
        if !identity.is_socket {
            return Err(RegisterError::NotASocket { fd });
        }
        let generation = generation();
        let place = claim()?;
        place.dev.store(identity.dev, Ordering::Relaxed);
        place.ino.store(identity.ino, Ordering::Relaxed);
        place.fd.store(fd, Ordering::Release);
        Ok(Self { place, generation })
    }
}

impl Registration {
    /// The descriptor; none when it was severed or the registration is of a parent process.
    pub fn fd(&self) -> Option<RawFd> {
        if self.generation != generation() {
            return None;
        }
        let fd = self.place.fd.load(Ordering::Acquire);
        (fd != FREE).then_some(fd)
    }
}

impl Registration {
    /// Device and inode of the registered socket, which no other open socket has.
    pub fn identity(&self) -> (u64, u64) {
        let dev = self.place.dev.load(Ordering::Relaxed);
        (dev, self.place.ino.load(Ordering::Relaxed))
    }

    /// True while the descriptor is still the socket that was registered.
    pub fn is_intact(&self) -> bool {
        self.fd().is_some_and(|fd| self.place.holds(fd))
    }

    /// Ends the registration: the connection has been closed.
    pub fn end(&self) {
        if self.generation == generation() {
            self.place.fd.store(FREE, Ordering::Release);
        }
    }

    /// Severs the socket in this process too, and ends the registration. False when it was not there: then the
    /// registration stays, for whoever wants to know that the number is somebody else's.
    ///
    /// Nothing is sent; the server learns that the connection has ended.
    pub fn sever(&self) -> bool {
        let Some(fd) = self.fd() else { return false };
        let is_ours = self.place.holds(fd);
        if is_ours {
            self.place.fd.store(FREE, Ordering::Release);
            sever(fd);
        }
        is_ours
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // In a child the handler has emptied every place; this one may belong to a socket of the child.
        if self.generation == generation() {
            self.place.vacate();
        }
    }
}

fn claim() -> Result<&'static Place, RegisterError> {
    REGISTRY.find(Place::claim).ok_or(RegisterError::Full {
        places: Shelves::<Place>::LIMIT,
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

// --- at fork --------------------------------------------------------------------------------------

/// The process that installs the handler at this moment, or one of the two marks.
static INSTALLER: AtomicI32 = AtomicI32::new(NOT_INSTALLED);
const NOT_INSTALLED: i32 = 0;
const INSTALLED: i32 = -1;

/// Makes what a child will need, and installs the fork handler, once in the life of the program: as the module is
/// loaded, before there is a thread of ours.
///
/// # Errors
///
/// [`RegisterError::Install`] when the system has no memory for one more handler.
pub fn install() -> Result<(), RegisterError> {
    // Not a `OnceLock`: a child that was forked meanwhile would wait for a thread that is not there.
    loop {
        let found = INSTALLER.load(Ordering::Acquire);
        if found == INSTALLED {
            return Ok(());
        }
        // SAFETY: no preconditions.
        let me = unsafe { libc::getpid() };
        if found == me {
            thread::yield_now();
        } else if INSTALLER
            .compare_exchange(found, me, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
        {
            break;
        }
    }
    REGISTRY.prepare();
    // SAFETY: `child_after_fork` has the required signature, is never unloaded (extension modules are not),
    // and makes only async-signal-safe calls.
    let status = unsafe { libc::pthread_atfork(None, None, Some(child_after_fork)) };
    let mark = if status == 0 {
        INSTALLED
    } else {
        NOT_INSTALLED
    };
    INSTALLER.store(mark, Ordering::Release);
    match status {
        0 => Ok(()),
        code => Err(RegisterError::Install {
            source: io::Error::from_raw_os_error(code),
        }),
    }
}

/// Runs in the child, inside `fork()`, as its only thread. Allocates nothing and takes no lock.
extern "C" fn child_after_fork() {
    let errno = errno();
    forked();
    set_errno(errno);
}

/// Raises the generation and severs every registered socket, as the fork handler does.
///
/// To be called by hand only in a child whose fork bypassed the C library (a raw `clone`, `_Fork`).
pub fn forked() {
    GENERATION.fetch_add(1, Ordering::AcqRel);
    let mut dead = Dead::default();
    let mut severed = 0;
    for place in REGISTRY.made() {
        let fd = place.fd.load(Ordering::Acquire);
        if fd != FREE {
            // The driver may have closed the descriptor, and the number may be a file's by now.
            let is_ours = place.holds(fd);
            if is_ours {
                dead.put_over(fd);
                severed += 1;
            }
        }
        // Also a place that a thread of the parent was about to fill: that thread is not here.
        place.vacate();
    }
    SEVERED.store(severed, Ordering::Release);
}

/// Puts a dead socket over `fd`: reads end at once, writes fail, and the peer learns nothing.
///
/// Async-signal-safe. With no descriptor left for the dead socket, `fd` is closed instead.
pub fn sever(fd: RawFd) {
    Dead::default().put_over(fd);
}

/// A socket whose other end is closed, made when it is first needed. One serves any number of descriptors:
/// making it costs ten times as much as putting it over one.
struct Dead(RawFd);

impl Default for Dead {
    fn default() -> Self {
        Self(FREE)
    }
}

impl Dead {
    fn put_over(&mut self, fd: RawFd) {
        if self.0 == FREE {
            self.0 = dead_socket();
        }
        // SAFETY: plain integers; `fd` is a socket this crate was given, and closing it is what is wanted.
        unsafe {
            if self.0 == FREE || duplicate_over(self.0, fd) < 0 {
                libc::close(fd);
            }
        }
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        if self.0 != FREE {
            // SAFETY: our own descriptor, used nowhere else.
            unsafe { libc::close(self.0) };
        }
    }
}

/// A socket that reads an end of file; [`FREE`] where no descriptor is left.
fn dead_socket() -> RawFd {
    let mut pair: [RawFd; 2] = [FREE; 2];
    // SAFETY: `pair` is valid for writes of two descriptors, which are fresh and only used here.
    unsafe {
        if libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()) != 0 {
            return FREE;
        }
        libc::close(pair[1]);
    }
    pair[0]
}

#[cfg(target_os = "linux")]
fn duplicate_over(source: RawFd, target: RawFd) -> RawFd {
    // SAFETY: plain integers; the worst outcome is an error code.
    unsafe { libc::dup3(source, target, libc::O_CLOEXEC) }
}

#[cfg(not(target_os = "linux"))]
fn duplicate_over(source: RawFd, target: RawFd) -> RawFd {
    // SAFETY: plain integers; the worst outcome is an error code.
    unsafe {
        let result = libc::dup2(source, target);
        if result >= 0 {
            libc::fcntl(target, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        result
    }
}

#[cfg(target_os = "linux")]
fn errno_place() -> *mut libc::c_int {
    // SAFETY: no preconditions; returns this thread's errno.
    unsafe { libc::__errno_location() }
}

#[cfg(not(target_os = "linux"))]
fn errno_place() -> *mut libc::c_int {
    // SAFETY: no preconditions; returns this thread's errno.
    unsafe { libc::__error() }
}

fn errno() -> libc::c_int {
    // SAFETY: the pointer is this thread's errno, valid for the life of the thread.
    unsafe { *errno_place() }
}

fn set_errno(value: libc::c_int) {
    // SAFETY: as above.
    unsafe { *errno_place() = value }
}

/// Forks, runs `child` for 20 s at most, and says whether it came to its end and found all as it must be. The child
/// must not return into the test harness.
#[cfg(test)]
pub(crate) fn in_child(child: impl FnOnce() -> bool) -> bool {
    install().unwrap();
    // SAFETY: the child leaves by _exit; what it takes of the C library is fit for a fork beside threads.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0);
        if pid == 0 {
            libc::alarm(20);
            libc::_exit(i32::from(!child()));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::os::unix::net::UnixStream;

    use super::*;

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
            let kept = own.place.fd.load(Ordering::Acquire) == mine.as_raw_fd();
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
