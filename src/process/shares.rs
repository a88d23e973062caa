//! The shares of a budget that all processes of this host have together: bytes of a file, each locked by who has it.
//!
//! A share is one of the first bytes. Who waits for one locks a byte further on, at the microsecond of its arrival: so
//! the kernel keeps a line of all who wait, of every process, and whoever ends leaves it. The first in the line may
//! take what is free; a newcomer may while nobody waits. What is written into a share's byte says whether its
//! last holder gave it back in order: where not, something of it may still be alive at the server.
//!
//! Long, because it is one idea: what stands where in that file.
//!
//! Locking: `held` is this process's own count, for the kernel lets a process lock what it has. Nobody waits under
//! it. Forks: a child has no locks, and begins with an empty count; what it inherits of the parent's is not looked at.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, FromRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::generation::generation;
use super::range_lock::{Locked, Range, Whose, locked, try_lock, unlock};

/// The largest budget there may be.
pub const MOST: u32 = 1 << 20;
/// Where processes say, each by a lock that others may share, which number they go by.
const NUMBERS: i64 = 1 << 32;
/// Where those who wait have their places.
const LINE: i64 = 1 << 40;
/// What stands in the byte of a share that is held.
const HELD: u8 = b'h';
const GIVEN_BACK: u8 = b'-';

/// How many of something a process has; 0 is one that cannot be seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The process.
    pub pid: i32,
    /// How many.
    pub count: i64,
}

/// One budget, as this process uses it.
#[derive(Debug)]
pub struct Shares {
    /// Never closed: with it all locks of the process would go, those of a budget that it has begun anew as well.
    file: ManuallyDrop<File>,
    /// Which file it is: somebody may close it beside us, and its number be another's.
    identity: (u64, u64),
    is_lost: AtomicBool,
    generation: u64,
    held: Mutex<BTreeSet<i64>>,
}

impl Shares {
    /// Nothing held yet, of the budget whose file this process has open there, and will not close.
    ///
    /// # Errors
    ///
    /// It is no descriptor.
    pub fn new(descriptor: RawFd) -> io::Result<Self> {
        // SAFETY: the descriptor is used by number, as any other call would; it is never closed here.
        let file = ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) });
        let found = file.metadata()?;
        Ok(Self {
            file,
            identity: (found.dev(), found.ino()),
            is_lost: AtomicBool::new(false),
            generation: generation(),
            held: Mutex::default(),
        })
    }

    /// False in a child of the process that made it, and where the descriptor was closed beside it: then nothing is
    /// held any more, and the number may be another's.
    pub fn is_usable(&self) -> bool {
        if self.is_stale() || self.is_lost.load(Ordering::Acquire) {
            return false;
        }
        let found = self.file.metadata();
        let intact = found.is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        self.is_lost.fetch_or(!intact, Ordering::AcqRel);
        intact
    }

    /// Says that this process goes by `total`; returns the process that goes by another number, and the number.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn declare(&self, total: u32) -> io::Result<Option<(i32, i64)>> {
        let own = NUMBERS + i64::from(total);
        let before = Range {
            start: NUMBERS,
            len: i64::from(total),
        };
        let behind = Range {
            start: own + 1,
            len: i64::from(MOST),
        };
        try_lock(self.file.as_fd(), Range { start: own, len: 1 }, true)?;
        for range in [before, behind] {
            if range.len > 0
                && let Some(other) = locked(self.file.as_fd(), range, Whose::Others)?
            {
                return Ok(Some((other.pid, other.range.start - NUMBERS)));
            }
        }
        Ok(None)
    }

    /// One of `total` shares, while nobody waits for one; or none.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn take(self: &Arc<Self>, total: u32) -> io::Result<Option<Share>> {
        if !self.is_usable() || locked(self.file.as_fd(), whole_line(), Whose::All)?.is_some() {
            return Ok(None);
        }
        self.take_free(total)
    }

    /// A place at the end of the line.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn queue(self: &Arc<Self>) -> io::Result<Turn> {
        let mut held = self.lock();
        let mut at = LINE + micros();
        let mine = |at| Range { start: at, len: 1 };
        while held.contains(&at) || !try_lock(self.file.as_fd(), mine(at), false)? {
            at += 1;
        }
        held.insert(at);
        drop(held);
        Ok(Turn {
            shares: Arc::clone(self),
            at,
        })
    }

    /// True when a caller, of this process or another, has waited for longer than `age`.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn is_wanted(&self, age: Duration) -> io::Result<bool> {
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let len = micros().saturating_sub(age).max(1);
        let range = Range { start: LINE, len };
        Ok(locked(self.file.as_fd(), range, Whose::All)?.is_some())
    }

    /// True when one of `total` shares is free, whoever waits for one.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn has_free(&self, total: u32) -> io::Result<bool> {
        let (start, len) = (0, i64::from(total.min(MOST)));
        let taken: i64 = self
            .parts(Range { start, len })?
            .iter()
            .map(|one| one.count)
            .sum();
        Ok(taken < len)
    }

    /// Which processes hold how many shares.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn holders(&self) -> io::Result<Vec<Part>> {
        let all = Range {
            start: 0,
            len: i64::from(MOST),
        };
        self.parts(all)
    }

    /// Callers of which processes wait, and how many.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn waiting(&self) -> io::Result<Vec<Part>> {
        self.parts(whole_line())
    }

    fn take_free(self: &Arc<Self>, total: u32) -> io::Result<Option<Share>> {
        let mut held = self.lock();
        let total = i64::from(total.min(MOST));
        let mut at = 0;
        while at < total {
            let range = Range { start: at, len: 1 };
            if let Some(other) = locked(self.file.as_fd(), range, Whose::All)? {
                at = end_of(other.range);
            } else if held.contains(&at) || !try_lock(self.file.as_fd(), range, false)? {
                at += 1;
            } else {
                held.insert(at);
                drop(held);
                return Ok(Some(self.own(at)));
            }
        }
        Ok(None)
    }

    fn own(self: &Arc<Self>, at: i64) -> Share {
        let place = at.unsigned_abs();
        let mut before = [GIVEN_BACK];
        // A file that cannot be read or written any more still locks.
        let _read = self.file.read_at(&mut before, place);
        let _written = self.file.write_at(&[HELD], place);
        Share {
            shares: Arc::clone(self),
            at,
            was_left: before == [HELD],
        }
    }

    /// Who has how many bytes of a range: each answer of the kernel splits what is left in two.
    fn parts(&self, range: Range) -> io::Result<Vec<Part>> {
        let mut found: Vec<Part> = Vec::new();
        let mut left = vec![range];
        while let Some(range) = left.pop() {
            let end = end_of(range);
            let Some(Locked { range: other, pid }) = locked(self.file.as_fd(), range, Whose::All)?
            else {
                continue;
            };
            let (from, to) = (other.start.max(range.start), end_of(other).min(end));
            match found.iter_mut().find(|part| part.pid == pid) {
                Some(part) => part.count += to - from,
                None => found.push(Part {
                    pid,
                    count: to - from,
                }),
            }
            for (start, end) in [(range.start, from), (to, end)] {
                if start < end {
                    let len = end - start;
                    left.push(Range { start, len });
                }
            }
        }
        found.sort_by_key(|part| (-part.count, part.pid));
        Ok(found)
    }

    /// Ends what this process has at a byte. In a child nothing is the process's, nor can the lock be waited for.
    fn end(&self, at: i64) {
        if !self.is_usable() {
            return;
        }
        let mut held = self.lock();
        let _gone = unlock(self.file.as_fd(), Range { start: at, len: 1 });
        held.remove(&at);
    }

    fn is_stale(&self) -> bool {
        self.generation != generation()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One share. Dropped, it is free, and its last holder has left something behind.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    at: i64,
    was_left: bool,
}

impl Share {
    /// True when its last holder ended without giving it back: something of it may still be alive.
    pub fn was_left(&self) -> bool {
        self.was_left
    }

    /// Says that nothing of this holder is left, before it is dropped.
    pub fn is_clear(&self) {
        if self.shares.is_usable() {
            let place = self.at.unsigned_abs();
            let _written = self.shares.file.write_at(&[GIVEN_BACK], place);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.end(self.at);
    }
}

/// A place in the line. Dropping it leaves the line.
#[derive(Debug)]
pub struct Turn {
    shares: Arc<Shares>,
    at: i64,
}

impl Turn {
    /// One of `total` shares, if there is one and nobody came before; with `passes`, whoever came before.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn take(&self, total: u32, passes: bool) -> io::Result<Option<Share>> {
        let before = Range {
            start: LINE,
            len: self.at - LINE,
        };
        let file = self.shares.file.as_fd();
        if !self.shares.is_usable()
            || (!passes && before.len > 0 && locked(file, before, Whose::All)?.is_some())
        {
            return Ok(None);
        }
        self.shares.take_free(total)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shares.end(self.at);
    }
}

fn whole_line() -> Range {
    let (start, len) = (LINE, LINE * (1 << 20));
    Range { start, len }
}

fn end_of(range: Range) -> i64 {
    if range.len == 0 {
        i64::MAX
    } else {
        range.start.saturating_add(range.len)
    }
}

/// Microseconds of the clock that all processes of the host share.
fn micros() -> i64 {
    // SAFETY: a struct of numbers, of which all zeros is a value.
    let mut now: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the struct outlives the call; the clock is one that every system has.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    (now.tv_sec * 1_000_000 + now.tv_nsec / 1_000).max(1)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::super::in_child;
    use super::*;

    fn budget(name: &str) -> (Arc<Shares>, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("shares-{name}-{}", std::process::id()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).unwrap();
        (Arc::new(Shares::new(file.into_raw_fd()).unwrap()), path)
    }

    /// What a child makes of what it has inherited: the same descriptor.
    fn renewed(shares: &Shares) -> Arc<Shares> {
        Arc::new(Shares::new(shares.file.as_raw_fd()).unwrap())
    }

    fn own() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[test]
    fn there_are_as_many_as_there_may_be_and_each_comes_back() {
        let (shares, _) = budget("count");
        let taken: Vec<_> = (0..3).map(|_| shares.take(3).unwrap().unwrap()).collect();
        assert!(shares.take(3).unwrap().is_none());
        let mine = Part {
            pid: own(),
            count: 3,
        };
        assert_eq!(shares.holders().unwrap(), [mine]);
        assert!(!shares.has_free(3).unwrap());
        taken[1].is_clear();
        drop(taken);
        assert!(shares.holders().unwrap().is_empty());
        let again: Vec<_> = (0..3).map(|_| shares.take(3).unwrap().unwrap()).collect();
        let left: Vec<_> = again.iter().map(Share::was_left).collect();
        assert_eq!(left, [true, false, true]);
    }

    #[test]
    fn who_came_first_is_served_first_and_a_newcomer_passes_nobody() {
        let (shares, _) = budget("line");
        let only = shares.take(1).unwrap().unwrap();
        let (first, second) = (shares.queue().unwrap(), shares.queue().unwrap());
        assert!(first.take(1, false).unwrap().is_none());
        assert!(second.take(1, true).unwrap().is_none());
        drop(only);
        assert!(shares.take(1).unwrap().is_none());
        assert!(second.take(1, false).unwrap().is_none());
        assert!(shares.has_free(1).unwrap());
        drop(second.take(1, true).unwrap().unwrap());
        let share = first.take(1, false).unwrap().unwrap();
        drop((first, share));
        assert!(second.take(1, false).unwrap().is_some());
    }

    #[test]
    fn a_child_holds_none_sees_its_parents_and_is_seen() {
        let (shares, path) = budget("child");
        let _held = shares.take(2).unwrap().unwrap();
        let inherited = Arc::clone(&shares);
        assert!(in_child(move || {
            let own_shares = renewed(&inherited);
            let one = own_shares.take(2).unwrap();
            let none = own_shares.take(2).unwrap();
            inherited.take(2).unwrap().is_none()
                && one.as_ref().is_some_and(|one| one.at == 1)
                && none.is_none()
                && own_shares.holders().unwrap().len() == 2
        }));
        // The child has ended, and gave nothing back itself.
        assert_eq!(shares.holders().unwrap().len(), 1);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_descriptor_that_was_closed_beside_us_is_used_no_more() {
        let (shares, path) = budget("closed");
        let share = shares.take(2).unwrap().unwrap();
        // SAFETY: a descriptor of this test alone, which uses it no more.
        unsafe { libc::close(shares.file.as_raw_fd()) };
        assert!(!shares.is_usable());
        assert!(shares.take(2).unwrap().is_none());
        drop(share);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn who_waits_and_who_goes_by_another_number_is_seen() {
        let (shares, _) = budget("wanted");
        assert!(!shares.is_wanted(Duration::ZERO).unwrap());
        let _place = shares.queue().unwrap();
        let mine = Part {
            pid: own(),
            count: 1,
        };
        assert_eq!(shares.waiting().unwrap(), [mine]);
        let inherited = Arc::clone(&shares);
        assert!(in_child(move || {
            let own_shares = renewed(&inherited);
            own_shares.is_wanted(Duration::ZERO).unwrap()
                && !own_shares.is_wanted(Duration::from_secs(3600)).unwrap()
                && own_shares.declare(5).unwrap().is_none()
        }));
        assert_eq!(shares.declare(4).unwrap(), None);
        let inherited = Arc::clone(&shares);
        let pid = own();
        assert!(in_child(move || {
            let own_shares = renewed(&inherited);
            own_shares.declare(4).unwrap().is_none()
                && own_shares.declare(5).unwrap() == Some((pid, 4))
                && own_shares.declare(3).unwrap() == Some((pid, 4))
        }));
    }
}
