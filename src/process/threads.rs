//! Threads: which one this is, and those of our own, which no signal disturbs: signals are for the threads that can act
//! on them.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::thread;

use super::generation::generation;

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

/// Starts a thread that is born with every signal blocked, as are the threads that it starts. Nobody joins it.
///
/// # Errors
///
/// What the system says when it has no thread to give.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let before = block_signals();
    let started = thread::Builder::new().name(name.into()).spawn(run);
    restore_signals(&before);
    started.map(drop)
}

fn block_signals() -> libc::sigset_t {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are valid for writes; sigfillset and pthread_sigmask fill them and cannot fail with
    // these arguments.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}

fn restore_signals(before: &libc::sigset_t) {
    // SAFETY: `before` was filled by pthread_sigmask; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}
