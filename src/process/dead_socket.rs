//! A socket that reads an end of file, put over another descriptor: what makes an inherited one harmless.
#![allow(
    unsafe_code,
    reason = "the raw calls of the fork handler have no safe form"
)]

use std::os::fd::RawFd;

/// No descriptor.
const NONE: RawFd = -1;

/// Puts a dead socket over `fd`: reads end at once, writes fail, and the peer learns nothing.
///
/// Async-signal-safe. With no descriptor left for the dead socket, `fd` is closed instead.
pub fn sever(fd: RawFd) {
    Dead::default().put_over(fd);
}

/// A socket whose other end is closed, made when it is first needed. One serves any number of descriptors:
/// making it costs ten times as much as putting it over one.
pub(super) struct Dead(RawFd);

impl Default for Dead {
    fn default() -> Self {
        Self(NONE)
    }
}

impl Dead {
    pub(super) fn put_over(&mut self, fd: RawFd) {
        if self.0 == NONE {
            self.0 = dead_socket();
        }
        // SAFETY: plain integers; `fd` is a socket this crate was given, and closing it is what is wanted.
        unsafe {
            if self.0 == NONE || duplicate_over(self.0, fd) < 0 {
                libc::close(fd);
            }
        }
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        if self.0 != NONE {
            // SAFETY: our own descriptor, used nowhere else.
            unsafe { libc::close(self.0) };
        }
    }
}

/// A socket that reads an end of file; [`NONE`] where no descriptor is left.
fn dead_socket() -> RawFd {
    let mut pair: [RawFd; 2] = [NONE; 2];
    // SAFETY: `pair` is valid for writes of two descriptors, which are fresh and only used here.
    unsafe {
        if libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()) != 0 {
            return NONE;
        }
        libc::close(pair[1]);
    }
    pair[0]
}

#[cfg(target_os = "linux")]
pub(super) fn duplicate_over(source: RawFd, target: RawFd) -> RawFd {
    // SAFETY: plain integers; the worst outcome is an error code.
    unsafe { libc::dup3(source, target, libc::O_CLOEXEC) }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn duplicate_over(source: RawFd, target: RawFd) -> RawFd {
    // SAFETY: plain integers; the worst outcome is an error code.
    unsafe {
        let result = libc::dup2(source, target);
        if result >= 0 {
            libc::fcntl(target, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        result
    }
}
