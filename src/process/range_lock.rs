//! Byte ranges of a file, locked for this process: POSIX record locks.
//!
//! The kernel gives them back when the process ends, however it ends, and a child of a fork has none of them. Locks of
//! an open file description would be the child's as well, and outlive the parent that was killed. Two things are to be
//! known of them: all of a process's locks on a file go when it closes *any* descriptor of that file, so there is one,
//! which stays open; and a process never stands in its own way, so who uses them keeps count of what is its own.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes from `start` on; `len` 0 is all there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: i64,
    pub(super) len: i64,
}

/// A lock that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Locked {
    pub(super) range: Range,
    /// Who has it; 0 where its process cannot be seen from here (another container).
    pub(super) pid: i32,
}

/// Whose locks are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those of other processes.
    Others,
    /// Those of every process, this one included.
    All,
}

/// Locks a range, for this process alone or beside others who share it; says whether it could.
pub(super) fn try_lock(file: BorrowedFd<'_>, range: Range, shared: bool) -> io::Result<bool> {
    let kind = if shared { kind::SHARED } else { kind::ALONE };
    match call(file, libc::F_SETLK, &mut record(kind, range)) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Unlocks a range.
pub(super) fn unlock(file: BorrowedFd<'_>, range: Range) -> io::Result<()> {
    call(file, libc::F_SETLK, &mut record(kind::NONE, range))
}

/// A lock that overlaps the range; where there are several, any of them.
pub(super) fn locked(
    file: BorrowedFd<'_>,
    range: Range,
    whose: Whose,
) -> io::Result<Option<Locked>> {
    let command = match whose {
        Whose::Others => libc::F_GETLK,
        // Whoever asks as an open file description is nobody who has a lock.
        Whose::All => ALL,
    };
    let mut record = record(kind::ALONE, range);
    call(file, command, &mut record)?;
    if record.l_type == kind::NONE {
        return Ok(None);
    }
    Ok(Some(Locked {
        range: Range {
            start: record.l_start,
            len: record.l_len,
        },
        pid: record.l_pid.max(0),
    }))
}

#[cfg(target_os = "linux")]
const ALL: i32 = libc::F_OFD_GETLK;
/// Where nobody can ask so, a process does not see its own.
#[cfg(not(target_os = "linux"))]
const ALL: i32 = libc::F_GETLK;

/// What the constants are called where they stand: their types differ between systems.
mod kind {
    #![allow(
        clippy::cast_possible_truncation,
        clippy::unnecessary_cast,
        reason = "small numbers, whose types differ between systems"
    )]
    use libc::c_short;

    pub(super) const SHARED: c_short = libc::F_RDLCK as c_short;
    pub(super) const ALONE: c_short = libc::F_WRLCK as c_short;
    pub(super) const NONE: c_short = libc::F_UNLCK as c_short;
    pub(super) const FROM_THE_START: c_short = libc::SEEK_SET as c_short;
}

fn record(kind: libc::c_short, range: Range) -> libc::flock {
    // SAFETY: a struct of numbers, of which all zeros is a value.
    let mut record: libc::flock = unsafe { std::mem::zeroed() };
    record.l_type = kind;
    record.l_whence = kind::FROM_THE_START;
    record.l_start = range.start;
    record.l_len = range.len;
    record
}

fn call(file: BorrowedFd<'_>, command: i32, record: &mut libc::flock) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is open, and the record outlives the call, which does not wait.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut *record) };
        if done != -1 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
