//! SIGTERM, where the program leaves it to the system: what is held is given back first, then the process ends by it.
//!
//! A handler in C, because a Python one runs only when the main thread gets to it, and a program that was stuck in a
//! query would not end any more. It is installed only over the system's default, never over a handler of the
//! application, which may install one at any time. In a child of a fork, and when nothing is held, it does what the
//! default would have done; so it does the second time.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::at_fork::{errno, set_errno};
use super::per_process::PerProcess;
use super::registry::Registration;

struct Bell {
    /// A child may be signalled inside `fork()`, before it is counted as another generation.
    pid: libc::pid_t,
    rope: UnixStream,
    /// Knows the rope from another descriptor with its number: a daemoniser closes every one.
    registration: Registration,
    /// One and the same for every bell of a process.
    held: &'static AtomicUsize,
    rang: AtomicBool,
}

static BELL: PerProcess<Bell> = PerProcess::new();

/// Something that is to be given back before the process ends. Dropping it says that it was.
#[derive(Debug)]
pub struct Held(());

/// Counts something that is to be given back when the process is told to end.
///
/// The first time in a process, `hear` is given the other end of the bell: it reads a byte when SIGTERM has come, gives
/// back what there is, and calls [`finish`].
///
/// # Errors
///
/// What the system says when it has no descriptors to give.
pub fn hold(hear: impl FnOnce(UnixStream) -> io::Result<()>) -> io::Result<Held> {
    let bell = hang(hear)?;
    bell.held.fetch_add(1, Ordering::AcqRel);
    // The first process of a container ignores what it has no handler for: it is not ours to end it.
    if pid() != 1 && disposition() == Some(libc::SIG_DFL) {
        dispose(on_terminate as *const () as libc::sighandler_t);
    }
    Ok(Held(()))
}

/// Makes the bell anew, should its descriptors have been closed: a daemoniser closes every number.
///
/// # Errors
///
/// What the system says when it has no descriptors to give.
pub fn renew(hear: impl FnOnce(UnixStream) -> io::Result<()>) -> io::Result<()> {
    hang(hear).map(drop)
}

fn hang(hear: impl FnOnce(UnixStream) -> io::Result<()>) -> io::Result<&'static Bell> {
    let mut other_end = None;
    let is_intact = |bell: &Bell| bell.registration.is_intact();
    let bell = BELL.get_or_remake(is_intact, |older| {
        let (rope, other) = UnixStream::pair()?;
        rope.set_nonblocking(true)?;
        let registration = Registration::new(rope.as_raw_fd()).map_err(io::Error::other)?;
        other_end = Some(other);
        Ok::<_, io::Error>(Bell {
            pid: pid(),
            rope,
            registration,
            held: older.map_or_else(|| &*Box::leak(Box::default()), |older| older.held),
            rang: AtomicBool::new(false),
        })
    })?;
    if let Some(other) = other_end {
        hear(other)?;
    }
    Ok(bell)
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(bell) = BELL.get() {
            bell.held.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Ends the process as SIGTERM would have, or by the handler that the application has installed meanwhile.
pub fn finish() {
    if disposition() == Some(on_terminate as *const () as libc::sighandler_t) {
        dispose(libc::SIG_DFL);
    }
    // SAFETY: plain integers; a signal to ourselves is what is wanted.
    unsafe { libc::kill(pid(), libc::SIGTERM) };
}

fn pid() -> libc::pid_t {
    // SAFETY: no preconditions; async-signal-safe.
    unsafe { libc::getpid() }
}

/// Runs in a signal handler: atomics, getpid, fstat, write, sigaction and raise, and nothing else.
extern "C" fn on_terminate(signal: libc::c_int) {
    let before = errno();
    let heard = BELL.get().is_some_and(|bell| {
        bell.pid == pid()
            && bell.held.load(Ordering::Acquire) > 0
            && !bell.rang.swap(true, Ordering::AcqRel)
            && bell.registration.is_intact()
            && (&bell.rope).write(&[1]).is_ok()
    });
    if !heard {
        dispose(libc::SIG_DFL);
        // SAFETY: async-signal-safe; the signal is blocked until this handler returns, and ends the process then.
        unsafe { libc::raise(signal) };
    }
    set_errno(before);
}

/// What SIGTERM does now; none when the system does not say.
fn disposition() -> Option<libc::sighandler_t> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `action` is valid for writes; nothing is changed.
    let asked = unsafe { libc::sigaction(libc::SIGTERM, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: sigaction has filled it when it returned 0, and it was zeroed before.
    (asked == 0).then(|| unsafe { action.assume_init() }.sa_sigaction)
}

fn dispose(handler: libc::sighandler_t) {
    // SAFETY: all zeros is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is valid for reads; a handler given here makes async-signal-safe calls only.
    unsafe { libc::sigaction(libc::SIGTERM, &raw const action, ptr::null_mut()) };
}
