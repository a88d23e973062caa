//! What runs in a child inside `fork()`, before any Python: another generation, and each registered socket severed.
#![allow(
    unsafe_code,
    reason = "pthread_atfork and the raw calls of its handler have no safe form"
)]

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use super::dead_socket::Dead;
use super::generation;
use super::registry::{FREE, REGISTRY, RegisterError, Registration};

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
    generation::raise();
    let mut dead = Dead::default();
    let mut severed = 0;
    for record in REGISTRY.made() {
        let fd = record.fd.load(Ordering::Acquire);
        if fd != FREE {
            // The driver may have closed the descriptor, and the number may be a file's by now.
            let is_ours = record.holds(fd);
            if is_ours {
                dead.put_over(fd);
                severed += 1;
            }
        }
        // Also a record that a thread of the parent was about to fill: that thread is not here.
        record.vacate();
    }
    generation::note_severed(severed);
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

pub(super) fn errno() -> libc::c_int {
    // SAFETY: the pointer is this thread's errno, valid for the life of the thread.
    unsafe { *errno_place() }
}

pub(super) fn set_errno(value: libc::c_int) {
    // SAFETY: as above.
    unsafe { *errno_place() = value }
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
        Self::of(fd)
    }
}
