//! The watchdog: shuts a socket down when a deadline passes, from outside whatever blocks on it.
//!
//! A driver that waits for an answer cannot be asked to stop: it may hold the interpreter, it may not see
//! signals, its own `cancel` may wait as well. `shutdown` on the socket ends the wait at once, as an ordinary
//! disconnect. One thread in each process does it; it starts with the first deadline and knows no Python.
//!
//! A watch has one deadline for each [`DeadlineKind`]; the earliest of them stands in its *post*, which the thread walks
//! past when the earliest of all comes. All are atomics and nobody takes a lock, so there is none to be held at
//! a fork: a child finds the posts of its parent marked with an older generation and takes them over as free.
//!
//! The watch has a duplicate of the descriptor, so that a driver which closes behind our back cannot make the
//! watchdog shut what the number stands for afterwards. Whoever closes the duplicate itself (a daemoniser closes
//! every number) is found out by the inode. The duplicate is registered: a fork severs it too.
//!
//! Long, because it is one idea, with the tests that wait beside what they test.
#![allow(
    unsafe_code,
    reason = "duplicating and shutting down are raw system calls"
)]

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::process::per_process::PerProcess;
use crate::process::shelves::Shelves;
use crate::process::{self, RegisterError, Registration, threads};

/// Why a socket cannot be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The descriptor cannot be duplicated.
    #[error("descriptor {fd} cannot be duplicated: {source}")]
    Duplicate {
        /// The descriptor as given.
        fd: RawFd,
        /// What the system said.
        source: io::Error,
    },
    /// The duplicate cannot be registered for forks.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The watchdog's thread cannot be started.
    #[error("the watchdog cannot start: {source}")]
    Start {
        /// What the system said.
        source: io::Error,
    },
    /// Every post is taken.
    #[error("{posts} sockets are watched in this process, which is as many as there is room for")]
    Full {
        /// Posts in all.
        posts: usize,
    },
}

// --- the posts --------------------------------------------------------------------------------------

/// Where one watch and the watchdog meet.
#[derive(Debug)]
struct Post {
    /// 0 is free. Otherwise [`making`] or [`owned`] of a generation; those of an older one are free too.
    owner: AtomicU64,
    fd: AtomicI32,
    dev: AtomicU64,
    ino: AtomicU64,
    /// Nanoseconds since [`epoch`], or one of the three marks below.
    due: AtomicU64,
}

/// No deadline is set.
const IDLE: u64 = 0;
/// The watchdog is shutting the socket down at this moment.
const BUSY: u64 = u64::MAX - 1;
/// The deadline has passed and the socket is shut.
const EXPIRED: u64 = u64::MAX;
/// The last instant that can be told from the marks: 584 years.
const LAST: u64 = BUSY - 1;

static POSTS: Shelves<Post> = Shelves::new(Post::new);

impl Post {
    const fn new() -> Self {
        Self {
            owner: AtomicU64::new(0),
            fd: AtomicI32::new(-1),
            dev: AtomicU64::new(0),
            ino: AtomicU64::new(0),
            due: AtomicU64::new(IDLE),
        }
    }

    fn claim(&self, making: u64) -> bool {
        let found = self.owner.load(Ordering::Relaxed);
        let swap = |found| {
            self.owner
                .compare_exchange(found, making, Ordering::AcqRel, Ordering::Relaxed)
        };
        found < making && swap(found).is_ok()
    }
}

fn claim(generation: u64) -> Result<&'static Post, WatchError> {
    let making = making(generation);
    POSTS
        .find(|post| post.claim(making))
        .ok_or(WatchError::Full {
            posts: Shelves::<Post>::LIMIT,
        })
}

/// The owner of a post that is being filled.
fn making(generation: u64) -> u64 {
    2 * generation + 1
}

/// The owner of a post that the watchdog may look at.
fn owned(generation: u64) -> u64 {
    2 * generation + 2
}

// --- the watch --------------------------------------------------------------------------------------

/// What a deadline is for. One watch can have one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadlineKind {
    /// One call of the pool's own: a ping, a reset, the queries of a new connection.
    Call,
    /// Whatever the holder does until an instant of its choice.
    Block,
    /// How long one holder may keep the connection.
    Hold,
}

const NONE_EXPIRED: u8 = u8::MAX;
const KINDS: [DeadlineKind; 3] = [DeadlineKind::Call, DeadlineKind::Block, DeadlineKind::Hold];

/// A socket that deadlines can be set on, by one thread at a time.
pub struct Watch {
    post: &'static Post,
    duplicate: RawFd,
    generation: u64,
    ended: AtomicBool,
    /// What [`Watch::expired`] says after the end.
    expired_before: AtomicU8,
    /// When each step is due; [`IDLE`] where it is not bounded. The earliest stands in the post.
    due: [AtomicU64; KINDS.len()],
    /// Severs the duplicate in children, and knows it from another socket with its number.
    registration: Registration,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("duplicate", &self.duplicate)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Duplicates `fd` (close-on-exec) and starts the watchdog if it does not run yet.
    ///
    /// # Errors
    ///
    /// [`WatchError`], by the step that failed.
    pub fn new(fd: RawFd) -> Result<Self, WatchError> {
        start()?;
        let generation = process::generation();
        // SAFETY: plain integers; the worst outcome is an error code.
        let duplicate = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        if duplicate < 0 {
            return Err(WatchError::Duplicate {
                fd,
                source: io::Error::last_os_error(),
            });
        }
        let made = Registration::new(duplicate)
            .map_err(WatchError::from)
            .and_then(|registration| Ok((registration, claim(generation)?)));
        let (registration, post) = match made {
            Ok(made) => made,
            Err(error) => {
                close(duplicate);
                return Err(error);
            }
        };
        let (dev, ino) = registration.identity();
        post.due.store(IDLE, Ordering::Relaxed);
        post.dev.store(dev, Ordering::Relaxed);
        post.ino.store(ino, Ordering::Relaxed);
        post.fd.store(duplicate, Ordering::Relaxed);
        post.owner.store(owned(generation), Ordering::Release);
        Ok(Self {
            post,
            duplicate,
            generation,
            ended: AtomicBool::new(false),
            expired_before: AtomicU8::new(NONE_EXPIRED),
            due: [const { AtomicU64::new(IDLE) }; KINDS.len()],
            registration,
        })
    }

    /// Shuts the socket down in both directions now: the server learns that the connection has ended.
    pub fn shut(&self) {
        if !self.is_over() {
            shut(self.post);
        }
    }

    /// Ends the watch: the connection has been closed. Gives the duplicate up; nothing can be armed any more.
    pub fn end(&self) {
        // In a child a daemoniser may have closed the number, and it may be somebody else's by now.
        if self.generation != process::generation() || self.ended.load(Ordering::Acquire) {
            return;
        }
        if let Some(step) = self.expired() {
            self.expired_before.store(step as u8, Ordering::Relaxed);
        }
        self.ended.store(true, Ordering::Release);
        loop {
            let found = self.settled();
            let quiet =
                self.post
                    .due
                    .compare_exchange(found, IDLE, Ordering::AcqRel, Ordering::Relaxed);
            if quiet.is_ok() {
                break;
            }
        }
        self.post.fd.store(-1, Ordering::Release);
        self.post.owner.store(0, Ordering::Release);
        let is_ours = self.registration.is_intact();
        self.registration.end();
        if is_ours {
            close(self.duplicate);
        }
    }

    /// A descriptor of the socket that no driver closes or shares; none after the end and in a child.
    pub fn descriptor(&self) -> Option<RawFd> {
        (!self.is_over()).then_some(self.duplicate)
    }

    /// True while that descriptor is still the socket's: a daemoniser closes every number.
    pub fn is_intact(&self) -> bool {
        !self.is_over() && self.registration.is_intact()
    }

    /// True when the post is not this watch's any more.
    fn is_over(&self) -> bool {
        self.generation != process::generation() || self.ended.load(Ordering::Acquire)
    }

    /// Bounds `step` to `after` from `now`, in place of its earlier bound. Does nothing in a child.
    pub fn arm(&self, step: DeadlineKind, now: Instant, after: Duration) {
        let due = nanoseconds(now.checked_add(after)).min(LAST);
        self.set(step, due);
    }

    /// Takes the bound of `step` back. True when some deadline has passed, and the socket is shut.
    pub fn disarm(&self, step: DeadlineKind) -> bool {
        self.set(step, IDLE)
    }

    /// The step whose deadline has passed, also after the end; none while the socket is open, or in a child.
    pub fn expired(&self) -> Option<DeadlineKind> {
        if self.is_over() {
            let before = self.expired_before.load(Ordering::Relaxed);
            return KINDS.into_iter().find(|step| *step as u8 == before);
        }
        if self.settled() != EXPIRED {
            return None;
        }
        let set = |step: &DeadlineKind| self.due(*step).load(Ordering::Relaxed) != IDLE;
        KINDS
            .into_iter()
            .filter(set)
            .min_by_key(|step| self.due(*step).load(Ordering::Relaxed))
    }

    fn due(&self, step: DeadlineKind) -> &AtomicU64 {
        let [call, block, hold] = &self.due;
        match step {
            DeadlineKind::Call => call,
            DeadlineKind::Block => block,
            DeadlineKind::Hold => hold,
        }
    }

    /// What stands in the post, once the watchdog is done with it.
    fn settled(&self) -> u64 {
        loop {
            let due = self.post.due.load(Ordering::Acquire);
            if due != BUSY {
                return due;
            }
            // The watchdog is in one system call for us.
            thread::yield_now();
        }
    }

    /// Sets one deadline, and the earliest of all in the post. True when one has passed already: then they stay
    /// as they are, for [`Watch::expired`].
    fn set(&self, step: DeadlineKind, due: u64) -> bool {
        if self.is_over() {
            return false;
        }
        let before = self.due(step).load(Ordering::Relaxed);
        if due == before {
            return self.settled() == EXPIRED;
        }
        let others = KINDS.into_iter().filter(|other| *other != step);
        let earliest = others
            .map(|other| self.due(other).load(Ordering::Relaxed))
            .chain([due])
            .filter(|due| *due != IDLE)
            .min()
            .unwrap_or(IDLE);
        loop {
            let found = self.settled();
            if found == EXPIRED {
                return true;
            }
            // SeqCst, as in the watchdog: either it sees this deadline, or we see that it sleeps too long.
            let set = self.post.due.compare_exchange(
                found,
                earliest,
                Ordering::SeqCst,
                Ordering::Relaxed,
            );
            if set.is_ok() {
                break;
            }
        }
        self.due(step).store(due, Ordering::Relaxed);
        if earliest != IDLE && earliest < NEXT_LOOK.load(Ordering::SeqCst) {
            ring();
        }
        false
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

fn close(fd: RawFd) {
    // SAFETY: a descriptor that this module made and gives up here.
    unsafe { libc::close(fd) };
}

// --- the watchdog -----------------------------------------------------------------------------------

/// When the watchdog will look next; a deadline before that must ring.
static NEXT_LOOK: AtomicU64 = AtomicU64::new(u64::MAX);
/// Rung to make the watchdog look at once: a number that grows, which it sleeps on.
static BELL: AtomicU32 = AtomicU32::new(0);
/// [`owned`] of the generation whose watchdog runs; 0 where none does.
static RUNNING: AtomicU64 = AtomicU64::new(0);

/// Deadlines count from here: instants have no number of their own.
fn epoch() -> Instant {
    static EPOCH: PerProcess<Instant> = PerProcess::new();
    match EPOCH.get_or_make(|| Ok::<_, Infallible>(now())) {
        Ok(epoch) => *epoch,
        Err(never) => match never {},
    }
}

/// An instant as a number that can be compared; one that no clock can tell is the last.
fn nanoseconds(instant: Option<Instant>) -> u64 {
    let Some(instant) = instant else { return LAST };
    let since = instant.saturating_duration_since(epoch()).as_nanos();
    // 0 is a mark.
    u64::try_from(since).unwrap_or(LAST).clamp(1, LAST)
}

fn ring() {
    BELL.fetch_add(1, Ordering::SeqCst);
    sleep::wake(&BELL);
}

/// Starts this process's watchdog, once.
fn start() -> Result<(), WatchError> {
    let me = owned(process::generation());
    let found = RUNNING.load(Ordering::Acquire);
    if found == me
        || RUNNING
            .compare_exchange(found, me, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
    {
        return Ok(());
    }
    epoch();
    match threads::spawn("poolproof-watchdog", move || watch(me)) {
        Ok(()) => Ok(()),
        Err(source) => {
            RUNNING.store(0, Ordering::Release);
            Err(WatchError::Start { source })
        }
    }
}

/// Walks the posts whenever the earliest deadline comes, or the bell is rung. Never ends.
fn watch(owner: u64) {
    loop {
        let rung = BELL.load(Ordering::SeqCst);
        // While we walk, whoever sets a deadline rings; we then walk again.
        NEXT_LOOK.store(u64::MAX, Ordering::SeqCst);
        let next = walk(owner, nanoseconds(Some(now())));
        NEXT_LOOK.store(next, Ordering::SeqCst);
        let limit = (next != u64::MAX)
            .then(|| Duration::from_nanos(next.saturating_sub(nanoseconds(Some(now())))));
        sleep::until_changed(&BELL, rung, limit);
    }
}

/// Shuts what is due, and says when the next deadline is; `u64::MAX` when there is none.
fn walk(owner: u64, now: u64) -> u64 {
    let mut next = u64::MAX;
    for post in POSTS.made() {
        if post.owner.load(Ordering::Acquire) != owner {
            continue;
        }
        let due = post.due.load(Ordering::SeqCst);
        if due == IDLE || due >= BUSY {
            continue;
        }
        if due > now {
            next = next.min(due);
        } else if post
            .due
            .compare_exchange(due, BUSY, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
        {
            shut(post);
            post.due.store(EXPIRED, Ordering::Release);
        } else {
            // Set anew under our eyes: look again at once.
            next = next.min(now);
        }
    }
    next
}

/// Ends the connection in both directions, unless somebody has closed our duplicate and its number is another's.
fn shut(post: &Post) {
    let fd = post.fd.load(Ordering::Acquire);
    let identity = (
        post.dev.load(Ordering::Relaxed),
        post.ino.load(Ordering::Relaxed),
    );
    if process::socket_identity(fd) == Some(identity) {
        // SAFETY: plain integers. An error says that the peer was faster, which is as good.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
    }
}

#[allow(clippy::disallowed_methods, reason = "a deadline is about the clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(target_os = "linux")]
mod sleep {
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use rustix::thread::futex::{self, Flags, Timespec};

    pub(super) fn until_changed(bell: &AtomicU32, rung: u32, limit: Option<Duration>) {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        // However it ends, the caller looks again.
        let _ended = futex::wait(bell, Flags::PRIVATE, rung, limit.as_ref());
    }

    pub(super) fn wake(bell: &AtomicU32) {
        // The only errors are bad arguments.
        let _woken = futex::wake(bell, Flags::PRIVATE, 1);
    }
}

#[cfg(not(target_os = "linux"))]
mod sleep {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::Duration;

    /// Looks every few milliseconds: enough for development machines.
    pub(super) fn until_changed(bell: &AtomicU32, rung: u32, limit: Option<Duration>) {
        const SLICE: Duration = Duration::from_millis(5);
        let mut left = limit.unwrap_or(Duration::MAX);
        while bell.load(Ordering::SeqCst) == rung && !left.is_zero() {
            let slice = left.min(SLICE);
            thread::sleep(slice);
            left = left.saturating_sub(slice);
        }
    }

    pub(super) fn wake(_bell: &AtomicU32) {}
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test reads the clock where it likes"
)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::os::unix::net::UnixStream;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const FAR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_blocked_read_ends_when_the_deadline_passes() {
        let (mut here, _peer) = UnixStream::pair().unwrap();
        let watch = Watch::new(here.as_raw_fd()).unwrap();
        let started = Instant::now();
        watch.arm(DeadlineKind::Call, started, SOON);
        assert_eq!(here.read(&mut [0]).unwrap(), 0);
        assert!(started.elapsed() >= SOON);
        assert!(watch.disarm(DeadlineKind::Call));
        assert_eq!(watch.expired(), Some(DeadlineKind::Call));
    }

    #[test]
    fn a_deadline_that_was_taken_back_does_nothing() {
        let (mut here, mut peer) = UnixStream::pair().unwrap();
        let watch = Watch::new(here.as_raw_fd()).unwrap();
        watch.arm(DeadlineKind::Call, Instant::now(), SOON);
        assert!(!watch.disarm(DeadlineKind::Call));
        thread::sleep(SOON * 3);
        peer.write_all(b"x").unwrap();
        assert_eq!(here.read(&mut [0]).unwrap(), 1);
        assert!(!watch.disarm(DeadlineKind::Call));
    }

    #[test]
    fn a_near_deadline_is_seen_behind_a_far_one() {
        let (far, mut far_peer) = UnixStream::pair().unwrap();
        let far_watch = Watch::new(far.as_raw_fd()).unwrap();
        far_watch.arm(DeadlineKind::Call, Instant::now(), FAR);
        thread::sleep(SOON);
        let (mut near, _near_peer) = UnixStream::pair().unwrap();
        let near_watch = Watch::new(near.as_raw_fd()).unwrap();
        near_watch.arm(DeadlineKind::Call, Instant::now(), SOON);
        assert_eq!(near.read(&mut [0]).unwrap(), 0);
        assert!(near_watch.disarm(DeadlineKind::Call));
        far_peer.write_all(b"x").unwrap();
        assert!(!far_watch.disarm(DeadlineKind::Call));
    }

    #[test]
    fn an_endless_deadline_can_be_set() {
        let (here, _peer) = UnixStream::pair().unwrap();
        let watch = Watch::new(here.as_raw_fd()).unwrap();
        watch.arm(DeadlineKind::Call, Instant::now(), Duration::MAX);
        assert!(!watch.disarm(DeadlineKind::Call));
    }

    #[test]
    fn the_socket_is_shut_although_the_driver_has_closed_its_number() {
        let (here, mut peer) = UnixStream::pair().unwrap();
        let watch = Watch::new(here.as_raw_fd()).unwrap();
        drop(here);
        watch.arm(DeadlineKind::Call, Instant::now(), SOON);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        assert!(watch.disarm(DeadlineKind::Call));
    }

    #[test]
    fn a_dropped_watch_leaves_the_socket_alone() {
        let (mut here, mut peer) = UnixStream::pair().unwrap();
        let watch = Watch::new(here.as_raw_fd()).unwrap();
        watch.arm(DeadlineKind::Call, Instant::now(), SOON);
        drop(watch);
        thread::sleep(SOON * 3);
        peer.write_all(b"x").unwrap();
        assert_eq!(here.read(&mut [0]).unwrap(), 1);
    }

    #[test]
    fn a_thousand_deadlines_from_many_threads_all_pass_in_time() {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                thread::spawn(move || {
                    for turn in 0..125_u64 {
                        let (mut here, _peer) = UnixStream::pair().unwrap();
                        let watch = Watch::new(here.as_raw_fd()).unwrap();
                        let after = Duration::from_micros(100 + (turn * 37 + n * 101) % 3000);
                        watch.arm(DeadlineKind::Call, Instant::now(), after);
                        if turn % 3 == 0 {
                            watch.disarm(DeadlineKind::Call);
                        } else {
                            assert_eq!(here.read(&mut [0]).unwrap(), 0);
                            assert!(watch.disarm(DeadlineKind::Call));
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_child_has_a_watchdog_of_its_own_and_its_parents_deadlines_do_nothing() {
        let (mut here, mut peer) = UnixStream::pair().unwrap();
        let watch = Watch::new(here.as_raw_fd()).unwrap();
        watch.arm(DeadlineKind::Call, Instant::now(), SOON * 4);
        // SAFETY: the child makes system calls, starts one thread, and leaves by _exit.
        unsafe {
            let pid = libc::fork();
            assert!(pid >= 0);
            if pid == 0 {
                let Ok((mut own, _own_peer)) = UnixStream::pair() else {
                    libc::_exit(1)
                };
                let Ok(own_watch) = Watch::new(own.as_raw_fd()) else {
                    libc::_exit(2)
                };
                own_watch.arm(DeadlineKind::Call, Instant::now(), SOON);
                let ended = own.read(&mut [0]).is_ok_and(|length| length == 0);
                let expired = own_watch.disarm(DeadlineKind::Call);
                watch.disarm(DeadlineKind::Call);
                libc::_exit(if ended && expired { 0 } else { 3 });
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
            assert_eq!(status, 0);
        }
        assert!(!watch.disarm(DeadlineKind::Call) || here.read(&mut [0]).is_ok());
        drop(watch);
        peer.write_all(b"x").ok();
    }

    #[test]
    fn the_earliest_of_several_steps_decides_and_is_named() {
        let (mut here, _peer) = UnixStream::pair().unwrap();
        let watch = Watch::new(here.as_raw_fd()).unwrap();
        watch.arm(DeadlineKind::Hold, Instant::now(), FAR);
        watch.arm(DeadlineKind::Block, Instant::now(), SOON);
        watch.arm(DeadlineKind::Call, Instant::now(), FAR);
        assert_eq!(watch.expired(), None);
        watch.disarm(DeadlineKind::Call);
        assert_eq!(here.read(&mut [0]).unwrap(), 0);
        assert!(watch.disarm(DeadlineKind::Hold));
        assert_eq!(watch.expired(), Some(DeadlineKind::Block));
        watch.end();
        assert_eq!(watch.expired(), Some(DeadlineKind::Block));
    }

    #[test]
    fn taking_one_step_back_leaves_the_others_due() {
        let (mut here, _peer) = UnixStream::pair().unwrap();
        let watch = Watch::new(here.as_raw_fd()).unwrap();
        watch.arm(DeadlineKind::Hold, Instant::now(), SOON * 2);
        watch.arm(DeadlineKind::Call, Instant::now(), SOON);
        assert!(!watch.disarm(DeadlineKind::Call));
        assert_eq!(here.read(&mut [0]).unwrap(), 0);
        assert_eq!(watch.expired(), Some(DeadlineKind::Hold));
    }

    #[test]
    fn an_ended_watch_gives_its_duplicate_up_and_is_armed_no_more() {
        let (here, mut peer) = UnixStream::pair().unwrap();
        let watch = Watch::new(here.as_raw_fd()).unwrap();
        drop(here);
        watch.end();
        assert_eq!(watch.expired(), None);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        let (mut next, mut next_peer) = UnixStream::pair().unwrap();
        let next_watch = Watch::new(next.as_raw_fd()).unwrap();
        watch.arm(DeadlineKind::Call, Instant::now(), Duration::ZERO);
        thread::sleep(SOON);
        next_peer.write_all(b"x").unwrap();
        assert_eq!(next.read(&mut [0]).unwrap(), 1);
        assert_eq!(next_watch.expired(), None);
    }

    #[test]
    fn a_number_that_somebody_else_closed_and_reused_is_left_alone() {
        let (here, _peer) = UnixStream::pair().unwrap();
        let watch = Watch::new(here.as_raw_fd()).unwrap();
        let (foreign, mut foreign_peer) = UnixStream::pair().unwrap();
        // What a daemoniser that closes every number leaves behind.
        // SAFETY: plain integers; the duplicate is replaced on purpose.
        assert!(unsafe { libc::dup2(foreign.as_raw_fd(), watch.duplicate) } >= 0);
        watch.arm(DeadlineKind::Call, Instant::now(), Duration::ZERO);
        while watch.expired().is_none() {
            thread::yield_now();
        }
        let number = watch.duplicate;
        drop(watch);
        // SAFETY: the number is this test's own by now.
        let mut reused = unsafe { UnixStream::from_raw_fd(number) };
        foreign_peer.write_all(b"x").unwrap();
        assert_eq!(reused.read(&mut [0]).unwrap(), 1);
    }

    #[test]
    fn a_closed_number_is_refused_with_its_number() {
        let error = Watch::new(1_000_000).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("descriptor 1000000 cannot be duplicated")
        );
    }
}
