//! Threads of our own, which no signal disturbs: signals are for the threads that can act on them.

use std::io;
use std::mem::MaybeUninit;
use std::thread;

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
