//! Waiting for several sockets at once: poll(2).
//!
//! Not epoll: its descriptor could not be told from another of its kind by device and inode, and it is asked by number.
#![allow(unsafe_code, reason = "poll is a raw system call")]

use std::io;
use std::os::fd::RawFd;
use std::thread;
use std::time::Duration;

const FAILED: i16 = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
/// How long is rested where the system does not wait.
const PAUSE: Duration = Duration::from_millis(20);

/// A descriptor, and what is waited for there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The descriptor.
    pub fd: RawFd,
    /// Until something can be received.
    pub reading: bool,
    /// Until something can be sent.
    pub writing: bool,
}

/// Waits until something has come to one of them, for so long at most. Says of each whether it can be read and whether
/// it can be written; one that has failed, or was closed, can be both.
///
/// poll(2) refuses more descriptors than `RLIMIT_NOFILE` lets a process open, and the limit may have been lowered since
/// they were. Then each is told to be ready after a short rest: what is asked of one that is not says so.
///
/// # Errors
///
/// What the system says; an interruption by a signal is one.
pub fn wait(wanted: &[Wanted], at_most: Duration) -> io::Result<Vec<(bool, bool)>> {
    let mut polled: Vec<libc::pollfd> = wanted.iter().map(|one| one.polled()).collect();
    if poll(&mut polled, at_most)? {
        Ok(polled.into_iter().map(found).collect())
    } else {
        Ok(wanted
            .iter()
            .map(|one| (one.reading, one.writing))
            .collect())
    }
}

/// The same for one descriptor, without any memory of its own.
///
/// # Errors
///
/// As before.
pub fn wait_for(wanted: Wanted, at_most: Duration) -> io::Result<(bool, bool)> {
    let mut polled = [wanted.polled()];
    if poll(&mut polled, at_most)? {
        let [polled] = polled;
        Ok(found(polled))
    } else {
        Ok((wanted.reading, wanted.writing))
    }
}

impl Wanted {
    fn polled(self) -> libc::pollfd {
        libc::pollfd {
            fd: self.fd,
            events: if self.reading { libc::POLLIN } else { 0 }
                | if self.writing { libc::POLLOUT } else { 0 },
            revents: 0,
        }
    }
}

fn found(one: libc::pollfd) -> (bool, bool) {
    (
        one.revents & (libc::POLLIN | FAILED) != 0,
        one.revents & (libc::POLLOUT | FAILED) != 0,
    )
}

/// False where the system does not wait, and nothing was found out.
fn poll(polled: &mut [libc::pollfd], at_most: Duration) -> io::Result<bool> {
    let count = libc::nfds_t::try_from(polled.len()).map_err(io::Error::other)?;
    let milliseconds = libc::c_int::try_from(at_most.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `polled` is valid for reads and writes of `count` of them while poll runs.
    if unsafe { libc::poll(polled.as_mut_ptr(), count, milliseconds) } >= 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EINVAL) {
        thread::sleep(at_most.min(PAUSE));
        return Ok(false);
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn it_says_which_is_ready_and_that_a_closed_one_is() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let both = |fd| Wanted {
            fd,
            reading: true,
            writing: true,
        };
        let asked = [both(here.as_raw_fd()), both(1_000_000)];
        let none = Duration::ZERO;
        assert_eq!(wait(&asked, none).unwrap(), [(false, true), (true, true)]);
        there.write_all(b"x").unwrap();
        assert_eq!(wait(&asked, none).unwrap(), [(true, true), (true, true)]);
    }

    #[test]
    fn under_a_limit_that_was_lowered_each_is_ready_for_what_is_wanted() {
        use crate::process::in_child;
        // In a process of its own: the limit is the whole process's.
        assert!(in_child(|| {
            let (here, there) = UnixStream::pair().unwrap();
            let lowered = libc::rlimit {
                rlim_cur: 1,
                rlim_max: 1,
            };
            // SAFETY: `lowered` is valid for reads.
            let status = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const lowered) };
            let asked = [(&here, true), (&there, false)].map(|(socket, reading)| Wanted {
                fd: socket.as_raw_fd(),
                reading,
                writing: !reading,
            });
            let long = Duration::from_secs(60);
            status == 0
                && wait(&asked, long).is_ok_and(|ready| ready == [(true, false), (false, true)])
        }));
    }
}
