//! Sections in which this process does not fork: work inside a library whose locks a child would find held for ever.
//!
//! The control thread works with OpenSSL, and Python may use the same copy of it. A fork waits until the thread is
//! out (a step of a handshake, some milliseconds at most), and the thread waits until the fork is done. Likewise at
//! the end of the process: the library's own clean-up must not run under the thread's feet.
#![allow(unsafe_code, reason = "pthread_atfork and atexit have no safe form")]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// How many are inside, and, in units of `FORK`, how many forks wait or run.
static STATE: AtomicU32 = AtomicU32::new(0);
const FORK: u32 = 1 << 16;
const INSIDE: u32 = FORK - 1;
/// A fork is held up for a second at most, whatever happens inside.
const LOOKS: u32 = 10_000;
const PAUSE: Duration = Duration::from_micros(100);

/// A section without forks; it ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Hold(());

/// Enters a section without forks, after those that are under way. Not to be nested.
pub fn hold() -> Hold {
    loop {
        let state = STATE.load(Ordering::Acquire);
        let is_free = state < FORK;
        if is_free
            && STATE
                .compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        {
            return Hold(());
        }
        if !is_free {
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        STATE.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Installs the handlers, as the module is loaded.
///
/// # Errors
///
/// The system has no memory for them.
pub fn install() -> io::Result<()> {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    // SAFETY: the handlers have the required signature, are never unloaded, and use atomics and a sleep alone.
    match unsafe { libc::pthread_atfork(Some(wait), Some(go_on), Some(begin_anew)) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Has the end of the process wait for whoever is inside, before what was registered earlier for it. To be called
/// when the library is set up.
pub fn until_exit() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.swap(true, Ordering::AcqRel) {
        // SAFETY: as above. Without memory for it there is no more than the library's own clean-up.
        unsafe { libc::atexit(wait) };
    }
}

extern "C" fn wait() {
    STATE.fetch_add(FORK, Ordering::AcqRel);
    for _ in 0..LOOKS {
        if STATE.load(Ordering::Acquire) & INSIDE == 0 {
            return;
        }
        thread::sleep(PAUSE);
    }
}

extern "C" fn go_on() {
    STATE.fetch_sub(FORK, Ordering::AcqRel);
}

/// In the child nobody is inside.
extern "C" fn begin_anew() {
    STATE.store(0, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    static IS_INSIDE: AtomicBool = AtomicBool::new(false);

    #[test]
    fn a_fork_waits_for_the_end_of_a_section() {
        install().unwrap();
        for _ in 0..50 {
            let inside = hold();
            IS_INSIDE.store(true, Ordering::Release);
            let ends = thread::spawn(move || {
                thread::sleep(Duration::from_millis(2));
                IS_INSIDE.store(false, Ordering::Release);
                drop(inside);
            });
            let child = || !IS_INSIDE.load(Ordering::Acquire) && STATE.load(Ordering::Acquire) == 0;
            assert!(super::super::in_child(child));
            ends.join().unwrap();
        }
    }

    #[test]
    fn a_section_waits_for_the_end_of_a_fork() {
        STATE.fetch_add(FORK, Ordering::AcqRel);
        let enters = thread::spawn(|| drop(hold()));
        thread::sleep(Duration::from_millis(20));
        let is_waiting = !enters.is_finished();
        go_on();
        enters.join().unwrap();
        assert!(is_waiting);
    }

    #[test]
    fn a_fork_waits_for_every_one_who_is_inside() {
        // In a process of its own: there is one state.
        assert!(super::super::in_child(|| {
            let (one, other) = (hold(), hold());
            IS_INSIDE.store(true, Ordering::Release);
            let leaves = thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                drop(one);
                thread::sleep(Duration::from_millis(20));
                IS_INSIDE.store(false, Ordering::Release);
                drop(other);
            });
            wait();
            let has_waited = !IS_INSIDE.load(Ordering::Acquire);
            go_on();
            has_waited && leaves.join().is_ok() && STATE.load(Ordering::Acquire) == 0
        }));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "that is what is measured")]
    fn a_fork_waits_for_nobody_where_nobody_is_and_for_a_second_where_one_stays() {
        use std::time::Instant;
        assert!(super::super::in_child(|| {
            let length_of_wait = || {
                let began = Instant::now();
                wait();
                go_on();
                began.elapsed()
            };
            let prompt = (0..5).map(|_| length_of_wait()).min();
            let stays = hold();
            let patient = length_of_wait();
            drop(stays);
            prompt.is_some_and(|prompt| prompt < patient / 2)
                && patient >= PAUSE * LOOKS
                && STATE.load(Ordering::Acquire) == 0
        }));
    }

    #[test]
    fn of_two_forks_at_once_a_section_waits_for_both() {
        assert!(super::super::in_child(|| {
            wait();
            wait();
            let enters = thread::spawn(|| drop(hold()));
            thread::sleep(Duration::from_millis(20));
            go_on();
            thread::sleep(Duration::from_millis(20));
            let is_waiting = !enters.is_finished();
            go_on();
            is_waiting && enters.join().is_ok() && STATE.load(Ordering::Acquire) == 0
        }));
    }

    #[test]
    fn the_end_of_the_process_waits_for_who_is_inside() {
        use std::io::{Read, Write};
        use std::os::unix::net::UnixStream;
        let (mut here, mut there) = UnixStream::pair().unwrap();
        // It ends by exit, not by _exit as `in_child`'s would.
        assert!(super::super::in_child(move || {
            until_exit();
            let inside = hold();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(50));
                let _told = there.write_all(b"out");
                drop(inside);
            });
            // SAFETY: no preconditions; what is registered for the end runs in this thread.
            unsafe { libc::exit(0) }
        }));
        let mut said = String::new();
        here.read_to_string(&mut said).unwrap();
        assert_eq!(said, "out");
    }
}
