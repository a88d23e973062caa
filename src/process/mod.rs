//! This process: its fork generation, the sockets that a child must not touch, and its shares of what all processes of
//! the host have together.
//!
//! A fork copies every descriptor, so parent and child would drive the same `PostgreSQL` session. The
//! `pthread_atfork` child handler here runs inside `fork()`, before any Python of the child: it raises the
//! generation (all that was made before is stale) and *severs* each registered socket, that is, puts a
//! dead socket over the descriptor. The parent's socket is untouched; whatever the child then does with its
//! copy ends in an end of file.
//!
//! The registry is made for that handler: fixed places, each written with atomics, the descriptor last.
//! There is no lock that another thread may hold at the fork, and no allocation in the handler.
#![allow(
    unsafe_code,
    reason = "pthread_atfork and the raw calls of its handler have no safe form"
)]

mod at_fork;
mod dead_socket;
mod generation;
pub mod hold;
pub mod per_process;
mod range_lock;
mod registry;
pub mod shares;
pub(crate) mod shelves;
pub mod sigterm;
pub mod threads;

pub use at_fork::{forked, install};
pub use dead_socket::sever;
pub use generation::{generation, severed};
pub use registry::{RegisterError, Registration, socket_identity};
pub use threads::thread_id;

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
