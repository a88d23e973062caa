//! The gate: the ledger behind a lock, and the only code of the pool that sleeps and reads the clock.
//!
//! Locking: the one lock guards the ledger and the table of sleepers. Held for a few hundred nanoseconds at a
//! time; nobody sleeps, calls out or touches a Python object while holding it. Sleepers are woken after it
//! has been let go.
//!
//! Long, because it is one idea: each verb of the ledger, behind the one lock.
//!
//! Forks: every verb compares the gate's generation with the process's *before* it takes the lock, which a thread
//! of the parent may have held at the fork. A gate of an older generation answers [`Stale`] for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::grant::{Grant, Slot};
use super::ledger::{Holder, Ledger, Nested, RanOut, Release, Snapshot};
use super::limits::Limits;
use super::parker::{Parked, Parker, remaining};
use super::sync::{Mutex, lock};
use super::waiting::{Caller, WaiterId};
use crate::metrics::Timings;
use crate::process;

/// The gate was made in a parent process: it is of no use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pool was made before a fork")]
pub struct Stale;

/// What became of a slot that came back, as the holder needs to know it.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// At rest, or handed to a thread that has been woken.
    Done,
    /// Handed to this waiter, whom the caller must wake.
    Wake(WaiterId),
    /// Too many idle: close the connection, then vacate.
    Surplus,
    /// The connection is nobody's any more: close it, or forget it if it came over a fork.
    Stale,
}

/// What a caller finds at the gate.
#[derive(Debug)]
pub enum Admission {
    /// A slot was free.
    Granted(Grant),
    /// It has joined the queue.
    Waiting(Waiter),
    /// As many wait as may.
    Refused,
}

/// How a wait ended, or why it paused.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitResult {
    /// The slot is the caller's.
    Granted(Grant),
    /// The time is over and the queue has been left.
    TimedOut,
    /// The same, while every slot was held by a caller who waited here too.
    Nested(Nested),
    /// A signal may have arrived; the caller is still in the queue.
    Interrupted,
}

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    /// Those who sleep in Rust. Waiters who are not here are woken by the caller.
    sleepers: BTreeMap<WaiterId, Arc<Parker>>,
}

impl Inner {
    /// The sleeper to wake for an offer, or the waiter whom the caller must wake.
    fn rouse(&mut self, waiter: WaiterId) -> Rouse {
        match self.sleepers.remove(&waiter) {
            Some(parker) => Rouse::Sleeper(parker),
            None => Rouse::Caller(waiter),
        }
    }
}

enum Rouse {
    Sleeper(Arc<Parker>),
    Caller(WaiterId),
}

impl Rouse {
    fn wake(self) -> Option<WaiterId> {
        match self {
            Self::Sleeper(parker) => {
                parker.unpark();
                None
            }
            Self::Caller(waiter) => Some(waiter),
        }
    }
}

/// The ledger behind a lock.
#[derive(Debug)]
pub struct Gate {
    generation: u64,
    made: Instant,
    /// Of the pool; none for what only counts who may go on.
    timings: Option<Arc<Timings>>,
    inner: Mutex<Inner>,
}

impl Gate {
    /// An empty gate of this process.
    pub fn new(limits: Limits) -> Self {
        Self::counted(limits, None)
    }

    /// An empty gate of this process, whose callers' times are counted in `timings`.
    pub fn counted(limits: Limits, timings: Option<Arc<Timings>>) -> Self {
        let inner = Inner {
            ledger: Ledger::new(limits),
            sleepers: BTreeMap::new(),
        };
        Self {
            generation: process::generation(),
            made: now(),
            timings,
            inner: Mutex::new(inner),
        }
    }

    /// Where the times of its callers are counted.
    pub fn timings(&self) -> Option<&Timings> {
        self.timings.as_deref()
    }

    /// True when the process has been forked since the gate was made.
    pub fn is_stale(&self) -> bool {
        self.generation != process::generation()
    }

    fn check(&self) -> Result<(), Stale> {
        if self.is_stale() { Err(Stale) } else { Ok(()) }
    }

    /// Lends a slot at once, or says that there is none.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn acquire(&self, thread: u64) -> Result<Option<Grant>, Stale> {
        Ok(self.acquire_dated(thread)?.map(|(grant, _)| grant))
    }

    /// The same, with the instant at which it was lent.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn acquire_dated(&self, thread: u64) -> Result<Option<(Grant, Instant)>, Stale> {
        self.check()?;
        let now = now();
        let grant = lock(&self.inner).ledger.acquire(thread, now);
        Ok(grant.map(|grant| (grant, now)))
    }

    /// Takes one idle slot out of its rest, by number, or says that it does not rest.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn claim(&self, slot: Slot, thread: u64) -> Result<Option<Grant>, Stale> {
        self.check()?;
        let now = now();
        Ok(lock(&self.inner).ledger.claim(slot, thread, now))
    }

    /// An empty slot to open a connection in ahead of need, while fewer than `least` are idle.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn spare(&self, least: usize, thread: u64) -> Result<Option<Grant>, Stale> {
        self.check()?;
        let now = now();
        Ok(lock(&self.inner).ledger.spare(least, thread, now))
    }

    /// An empty slot to open a connection in that is to take another's place.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn room(&self, thread: u64) -> Result<Option<Grant>, Stale> {
        self.check()?;
        let now = now();
        Ok(lock(&self.inner).ledger.room(thread, now))
    }

    /// Takes an idle slot out of its rest, if there are more than there may be.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn surplus(&self, thread: u64) -> Result<Option<Grant>, Stale> {
        self.check()?;
        let now = now();
        Ok(lock(&self.inner).ledger.surplus(thread, now))
    }

    /// Has other bounds from now on. Returns the waiters whom the caller must wake.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn resize(
        &self,
        kept: Option<usize>,
        total: Option<usize>,
    ) -> Result<Vec<WaiterId>, Stale> {
        self.check()?;
        let now = now();
        let rouse: Vec<_> = {
            let mut inner = lock(&self.inner);
            let offered = inner.ledger.resize(kept, total, now);
            let rouse = offered.into_iter().map(|waiter| inner.rouse(waiter));
            rouse.collect()
        };
        Ok(rouse.into_iter().filter_map(Rouse::wake).collect())
    }

    /// Has the next `count` connections that come back be surplus, in place of what was asked before.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn ask_back(&self, count: usize) -> Result<(), Stale> {
        self.check()?;
        lock(&self.inner).ledger.ask_back(count);
        Ok(())
    }

    /// True when [`Gate::spare`] would give a slot.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn lacks(&self, least: usize) -> Result<bool, Stale> {
        self.check()?;
        Ok(lock(&self.inner).ledger.lacks(least))
    }

    /// Lends a slot at once, or joins the queue for at most `limit`; `None` is without bound. With `sleeps` the
    /// caller sleeps in [`Waiter::sleep`]; without, it has its own way to wait, is named by what
    /// [`Gate::release`] and others return, and says [`Waiter::run_out`] when its time is over.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn join(
        self: &Arc<Self>,
        caller: Caller,
        limit: Option<Duration>,
        sleeps: bool,
    ) -> Result<Admission, Stale> {
        self.check()?;
        let now = now();
        let mut inner = lock(&self.inner);
        if let Some(grant) = inner.ledger.acquire(caller.thread, now) {
            inner.ledger.name_strand(grant.slot, caller.strand);
            return Ok(Admission::Granted(grant));
        }
        if inner.ledger.is_queue_full() {
            return Ok(Admission::Refused);
        }
        let id = inner.ledger.wait(caller, limit, now);
        let nested = inner.ledger.nested(caller);
        let parker = Arc::new(Parker::default());
        if sleeps {
            inner.sleepers.insert(id, Arc::clone(&parker));
        }
        drop(inner);
        Ok(Admission::Waiting(Waiter {
            gate: Arc::clone(self),
            id,
            caller,
            joined: now,
            nested,
            parker,
        }))
    }

    /// Names who holds a slot, where its thread runs more than one caller.
    pub fn name_strand(&self, slot: Slot, strand: u64) {
        if !self.is_stale() {
            lock(&self.inner).ledger.name_strand(slot, strand);
        }
    }

    /// Takes a slot back, with its connection.
    pub fn release(&self, slot: Slot) -> Released {
        if self.is_stale() {
            return Released::Stale;
        }
        let rouse = {
            let mut inner = lock(&self.inner);
            // Only an offer is dated, and reading the clock would be a tenth of the whole.
            let now = inner.ledger.has_waiters().then(now).unwrap_or(self.made);
            match inner.ledger.release(slot, now) {
                Release::Kept => return Released::Done,
                Release::Surplus => return Released::Surplus,
                Release::Stale => return Released::Stale,
                Release::Offered(waiter) => inner.rouse(waiter),
            }
        };
        rouse.wake().map_or(Released::Done, Released::Wake)
    }

    /// Takes a slot back without a connection. Returns the waiter whom the caller must wake.
    #[must_use]
    pub fn vacate(&self, slot: Slot) -> Option<WaiterId> {
        if self.is_stale() {
            return None;
        }
        let now = now();
        let rouse = {
            let mut inner = lock(&self.inner);
            let waiter = inner.ledger.vacate(slot, now)?;
            inner.rouse(waiter)
        };
        rouse.wake()
    }

    /// Makes every slot stale. Returns the slots to close, and the waiters whom the caller must wake.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn expire_all(&self) -> Result<(Vec<Slot>, Vec<WaiterId>), Stale> {
        self.check()?;
        let now = now();
        let (closing, rouse) = {
            let mut inner = lock(&self.inner);
            let expired = inner.ledger.expire_all(now);
            let rouse: Vec<_> = expired
                .offered
                .iter()
                .map(|&waiter| inner.rouse(waiter))
                .collect();
            (expired.closing, rouse)
        };
        Ok((closing, rouse.into_iter().filter_map(Rouse::wake).collect()))
    }

    /// The numbers now.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn snapshot(&self) -> Result<Snapshot, Stale> {
        self.check()?;
        let now = now();
        Ok(lock(&self.inner).ledger.snapshot(now))
    }

    /// Who holds which slot and for how long, longest first.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn holders(&self) -> Result<Vec<(Holder, Duration)>, Stale> {
        self.check()?;
        let holders = lock(&self.inner).ledger.holders();
        let now = now();
        Ok(holders
            .into_iter()
            .map(|holder| (holder, now.saturating_duration_since(holder.since)))
            .collect())
    }

    /// Gives back a grant that nobody made use of: an idle connection stays idle, an empty slot stays empty.
    #[must_use]
    pub fn give_back(&self, grant: Grant) -> Option<WaiterId> {
        if grant.must_open {
            return self.vacate(grant.slot);
        }
        if self.is_stale() {
            return None;
        }
        let now = now();
        let rouse = {
            let mut inner = lock(&self.inner);
            let waiter = inner.ledger.put_back(grant.slot, now)?;
            inner.rouse(waiter)
        };
        rouse.wake()
    }
}

/// A place in the queue. Dropping it leaves the queue; a slot that was offered meanwhile goes to the next.
#[derive(Debug)]
pub struct Waiter {
    gate: Arc<Gate>,
    id: WaiterId,
    caller: Caller,
    joined: Instant,
    nested: Option<Nested>,
    parker: Arc<Parker>,
}

impl Waiter {
    /// The name of this wait.
    pub fn id(&self) -> WaiterId {
        self.id
    }

    /// Since when it has waited.
    pub fn joined(&self) -> Instant {
        self.joined
    }

    /// What this wait completed: every slot is held by a caller who waits here.
    pub fn nested(&self) -> Option<Nested> {
        self.nested
    }

    /// Sleeps until a slot is offered, for at most `limit`; `None` is without bound.
    ///
    /// On [`WaitResult::Interrupted`] the place in the queue is kept: look at what came, then sleep on.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn sleep(&self, limit: Option<Duration>) -> Result<WaitResult, Stale> {
        let started = now();
        loop {
            self.gate.check()?;
            let left = remaining(limit, started.elapsed());
            match self.parker.park(left) {
                Parked::Interrupted => return Ok(WaitResult::Interrupted),
                Parked::TimedOut => return self.run_out(),
                Parked::Woken => {
                    if let Some(grant) = self.take()? {
                        return Ok(WaitResult::Granted(grant));
                    }
                }
            }
        }
    }

    /// The slot that has been offered, if one has.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn take(&self) -> Result<Option<Grant>, Stale> {
        self.gate.check()?;
        let now = now();
        Ok(lock(&self.gate.inner).ledger.accept(self.id, now))
    }

    /// Leaves the queue because the time is over, which may be a sign of overload unless a slot was offered in the
    /// last instant.
    ///
    /// # Errors
    ///
    /// [`Stale`] after a fork.
    pub fn run_out(&self) -> Result<WaitResult, Stale> {
        self.gate.check()?;
        let now = now();
        let mut inner = lock(&self.gate.inner);
        inner.sleepers.remove(&self.id);
        Ok(match inner.ledger.run_out(self.id, self.caller, now) {
            RanOut::Granted(grant) => WaitResult::Granted(grant),
            RanOut::Nothing => WaitResult::TimedOut,
            RanOut::Nested(nested) => WaitResult::Nested(nested),
        })
    }

    /// Leaves the queue for another reason. A slot that was offered in the last instant is the caller's to use or give back.
    #[must_use]
    pub fn leave(&self) -> Option<Grant> {
        if self.gate.is_stale() {
            return None;
        }
        let now = now();
        let mut inner = lock(&self.gate.inner);
        inner.sleepers.remove(&self.id);
        inner.ledger.leave(self.id, now)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(grant) = self.leave() {
            // A waiter who is woken by its caller looks again by itself before long.
            let _next = self.gate.give_back(grant);
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the gate is where the pool reads the clock"
)]
fn now() -> Instant {
    Instant::now()
}
