//! The ledger: which slots are idle, which are lent, who is served next. A pure state machine.
//!
//! Time and threads are arguments, nothing blocks, nothing here can fail. Two rules hold after every step:
//!
//! - `idle + lent ≤ total`, but where the bound was lowered, and then it does not grow; and a slot is either idle or lent, never both, never twice;
//! - when somebody waits, no slot is idle and none could be opened (else the waiter would have been served).
//!
//! Whose turn it is among those who wait is said in [`super::overload`].
//!
//! Long, because it is one idea: every way in which a slot can change hands.
//!
//! Slot numbers only grow. Expiring moves the mark below which every slot is stale, so a ticket from before can
//! do no harm however late it comes back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::grant::{Grant, Slot};
use super::home::Home;
use super::limits::Limits;
use super::waiters::Waiters;
use super::waiting::{Caller, WaiterId};

/// What became of a slot that came back.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The connection rests in its slot.
    Kept,
    /// The connection belongs to this waiter now.
    Offered(WaiterId),
    /// There are enough idle ones, or too many in all: close the connection, then vacate the slot.
    Surplus,
    /// The slot is of an older generation, or not lent: the connection is nobody's.
    Stale,
}

/// Who holds a slot, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Which slot.
    pub slot: Slot,
    /// The thread, as `threading.get_native_id` numbers it.
    pub thread: u64,
    /// When it was lent.
    pub since: Instant,
}

/// Every slot is held by a caller who waits here for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nested {
    /// Callers who hold a slot, wait for one, or both.
    pub callers: usize,
    /// Slots of the caller who holds most.
    pub most: usize,
    /// Slots of the caller who asks.
    pub held: usize,
}

/// How a wait ended whose time was over.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RanOut {
    /// A slot had been offered in the last instant: it is to be used, or given back.
    Granted(Grant),
    /// Nothing came.
    Nothing,
    /// Nothing could come from any other caller who holds a slot.
    Nested(Nested),
}

#[derive(Clone, Copy, Debug)]
struct Loan {
    caller: Caller,
    since: Instant,
    /// Taken by the pool itself, to open or to close a connection: no caller has it.
    upkeep: bool,
}

impl Loan {
    fn to_caller(caller: Caller, since: Instant) -> Self {
        Self {
            caller,
            since,
            upkeep: false,
        }
    }

    fn for_upkeep(thread: u64, since: Instant) -> Self {
        Self {
            caller: Caller::thread(thread),
            since,
            upkeep: true,
        }
    }
}

/// What expiring left to do.
#[must_use]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Slots whose connections must be closed.
    pub closing: Vec<Slot>,
    /// Waiters who have been offered an empty slot.
    pub offered: Vec<WaiterId>,
}

/// The numbers of a pool at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Slots with a connection at rest.
    pub idle: usize,
    /// Slots that callers have, those that they are opening or closing included.
    pub lent: usize,
    /// Slots that the pool itself has, to open or to close a connection.
    pub upkeep: usize,
    /// Callers waiting for a slot.
    pub waiting: usize,
    /// The newest of them are served first, because somebody's time ran out.
    pub newest_first: bool,
    /// For how long the one that came first has waited; `None` where nobody waits.
    pub oldest_wait: Option<Duration>,
    /// Times a slot was lent, ever.
    pub lent_total: u64,
    /// Times a slot was lent to somebody who had to wait for it, ever.
    pub waited_total: u64,
}

/// The state machine over the slots of one pool.
#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    /// Slots below this one have expired.
    oldest: Slot,
    next: Slot,
    idle: VecDeque<Slot>,
    lent: BTreeMap<Slot, Loan>,
    waiters: Waiters,
    /// So many of those that come back are surplus, whatever the bounds say.
    asked_back: usize,
    /// Every slot was held by callers who wait, when the last of them joined, and none has moved since.
    nested: bool,
    lent_total: u64,
    waited_total: u64,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            oldest: 0,
            next: 0,
            idle: VecDeque::new(),
            lent: BTreeMap::new(),
            waiters: Waiters::default(),
            asked_back: 0,
            nested: false,
            lent_total: 0,
            waited_total: 0,
        }
    }

    /// Lends a slot at once, or says that there is none. Never passes somebody who waits.
    pub fn acquire(&mut self, thread: u64, now: Instant) -> Option<Grant> {
        if !self.waiters.is_empty() {
            return None;
        }
        let rested = if self.limits.lifo {
            self.idle.pop_back()
        } else {
            self.idle.pop_front()
        };
        let grant = match rested {
            Some(slot) => Grant {
                slot,
                must_open: false,
            },
            None => Grant {
                slot: self.open()?,
                must_open: true,
            },
        };
        self.lend(grant.slot, Caller::thread(thread), now);
        Some(grant)
    }

    /// Takes one idle slot out of its rest, by number: its connection is to be closed, or put back.
    ///
    /// Passes nobody: where somebody waits, nothing is idle. Not counted among the loans that were asked for.
    pub fn claim(&mut self, slot: Slot, thread: u64, now: Instant) -> Option<Grant> {
        let at = self.idle.iter().position(|&idle| idle == slot)?;
        self.idle.remove(at);
        self.lent.insert(slot, Loan::for_upkeep(thread, now));
        Some(Grant {
            slot,
            must_open: false,
        })
    }

    /// An empty slot to open a connection in ahead of need, while fewer than `least` are idle.
    ///
    /// Never beyond `limits.kept`: such a connection would be closed as soon as the others came back. Passes
    /// nobody, and is not counted among the loans that were asked for.
    pub fn spare(&mut self, least: usize, thread: u64, now: Instant) -> Option<Grant> {
        if self.lacks(least) {
            self.room(thread, now)
        } else {
            None
        }
    }

    /// An empty slot to open a connection in that is to take another's place, so beyond `limits.kept` as well.
    ///
    /// Passes nobody, and is not counted among the loans that were asked for.
    pub fn room(&mut self, thread: u64, now: Instant) -> Option<Grant> {
        if !self.waiters.is_empty() {
            return None;
        }
        let slot = self.open()?;
        self.lent.insert(slot, Loan::for_upkeep(thread, now));
        Some(Grant {
            slot,
            must_open: true,
        })
    }

    /// Takes the idle slot that has rested longest out of its rest, if there are more than may be kept, or be there.
    pub fn surplus(&mut self, thread: u64, now: Instant) -> Option<Grant> {
        let too_many = self.limits.kept.is_some_and(|kept| self.idle.len() > kept);
        if !too_many && !self.limits.is_over(self.used()) {
            return None;
        }
        let slot = *self.idle.front()?;
        self.claim(slot, thread, now)
    }

    /// Has other bounds from now on. Returns the waiters who have been offered an empty slot.
    ///
    /// Takes nothing from anybody: what is too many is closed when it comes back, or by who asks for the surplus.
    pub fn resize(
        &mut self,
        kept: Option<usize>,
        total: Option<usize>,
        now: Instant,
    ) -> Vec<WaiterId> {
        self.limits.kept = kept;
        self.limits.total = total;
        let mut offered = Vec::new();
        while let Some(waiter) = self.serve(now) {
            offered.push(waiter);
        }
        offered
    }

    /// True when as many wait as may: one more is to be refused.
    pub fn is_queue_full(&self) -> bool {
        !self.limits.lets_wait(self.waiters.len())
    }

    /// Has the next so many that come back be surplus, in place of what was asked before.
    pub fn ask_back(&mut self, count: usize) {
        self.asked_back = count;
    }

    fn used(&self) -> usize {
        self.idle.len() + self.lent.len()
    }

    /// True when fewer than `least` are idle, nobody waits, and one more may be opened and kept.
    pub fn lacks(&self, least: usize) -> bool {
        let used = self.used();
        self.idle.len() < least
            && self.waiters.is_empty()
            && self.limits.keeps(used)
            && self.limits.has_room(used)
    }

    /// Joins the queue, after `acquire` found nothing, for at most `limit`; `None` is without bound.
    pub fn wait(&mut self, caller: Caller, limit: Option<Duration>, now: Instant) -> WaiterId {
        let waiter = self.waiters.join(caller, limit, self.lent.len(), now);
        // Only the wait of a holder can be the last that was wanting.
        if self.held_by(caller) > 0 {
            self.nested = self.every_holder_waits();
        }
        waiter
    }

    /// What a caller who waits for what it holds itself is told; `None` where a slot may come back.
    ///
    /// "May" is meant of callers: a slot can also be returned by another thread than the one it was lent to.
    pub fn nested(&self, caller: Caller) -> Option<Nested> {
        let held = self.held_by(caller);
        (self.nested && held > 0).then(|| {
            let mut by_strand = BTreeMap::new();
            for loan in self.lent.values() {
                *by_strand.entry(loan.caller.strand).or_insert(0) += 1;
            }
            let most = by_strand.values().copied().max().unwrap_or(held);
            for waiting in self.waiters.iter() {
                by_strand.entry(waiting.caller.strand).or_insert(0);
            }
            Nested {
                callers: by_strand.len(),
                most,
                held,
            }
        })
    }

    /// Names who holds a slot, where its thread runs more than one caller.
    pub fn name_strand(&mut self, slot: Slot, strand: u64) {
        if let Some(loan) = self.lent.get_mut(&slot) {
            loan.caller.strand = strand;
        }
    }

    fn held_by(&self, caller: Caller) -> usize {
        let held = |loan: &&Loan| loan.caller.strand == caller.strand && !loan.upkeep;
        self.lent.values().filter(held).count()
    }

    fn every_holder_waits(&self) -> bool {
        let waiting: BTreeSet<_> = self.waiters.iter().map(|one| one.caller.strand).collect();
        let waits = |loan: &Loan| !loan.upkeep && waiting.contains(&loan.caller.strand);
        !self.waiters.have_offers() && self.lent.values().all(waits)
    }

    /// Takes what the waiter has been offered, if anything; the loan counts from `now`.
    pub fn accept(&mut self, waiter: WaiterId, now: Instant) -> Option<Grant> {
        let grant = self.waiters.accept(waiter)?;
        self.restart(grant, now);
        Some(grant)
    }

    /// Ends a wait. An offer that was made already is returned, so that it is used or given back, never lost.
    pub fn leave(&mut self, waiter: WaiterId, now: Instant) -> Option<Grant> {
        let grant = self.waiters.leave(waiter, now)?;
        self.restart(grant, now);
        Some(grant)
    }

    /// Ends a wait whose time is over: it may be a sign of overload, unless an offer was made already.
    pub fn run_out(&mut self, waiter: WaiterId, caller: Caller, now: Instant) -> RanOut {
        let nested = self.nested(caller);
        match (self.waiters.run_out(waiter, now), nested) {
            (Some(grant), _) => {
                self.restart(grant, now);
                RanOut::Granted(grant)
            }
            (None, Some(nested)) => RanOut::Nested(nested),
            (None, None) => RanOut::Nothing,
        }
    }

    /// True when somebody waits: only then is a slot that comes back offered on.
    pub fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Takes a slot back, with its connection.
    pub fn release(&mut self, slot: Slot, now: Instant) -> Release {
        if slot < self.oldest || !self.lent.contains_key(&slot) {
            return Release::Stale;
        }
        if self.limits.is_over(self.used()) {
            return Release::Surplus;
        }
        if self.asked_back > 0 {
            self.asked_back -= 1;
            return Release::Surplus;
        }
        if let Some(waiter) = self.hand_over(
            Grant {
                slot,
                must_open: false,
            },
            now,
        ) {
            return Release::Offered(waiter);
        }
        if !self.limits.keeps(self.idle.len()) {
            return Release::Surplus;
        }
        self.lent.remove(&slot);
        self.idle.push_back(slot);
        Release::Kept
    }

    /// Takes back a slot that was granted and not made use of: its connection rests where it rested.
    ///
    /// Kept even beyond `limits.kept`: nobody here could close what nobody has looked at. Returns the waiter
    /// whose it is now.
    pub fn put_back(&mut self, slot: Slot, now: Instant) -> Option<WaiterId> {
        if slot < self.oldest || !self.lent.contains_key(&slot) {
            return None;
        }
        let grant = Grant {
            slot,
            must_open: false,
        };
        let waiter = self.hand_over(grant, now);
        if waiter.is_none() {
            self.lent.remove(&slot);
            self.idle.push_back(slot);
        }
        waiter
    }

    /// Takes a slot back without a connection: opening failed, or it has been closed.
    ///
    /// Returns the waiter who may open one instead.
    pub fn vacate(&mut self, slot: Slot, now: Instant) -> Option<WaiterId> {
        if slot < self.oldest || self.lent.remove(&slot).is_none() {
            return None;
        }
        self.serve(now)
    }

    /// Makes every slot stale. Loans that are out no longer count, idle connections are to be closed, those
    /// who wait are offered empty slots.
    pub fn expire_all(&mut self, now: Instant) -> Expired {
        self.nested = false;
        self.oldest = self.next;
        self.lent.clear();
        let mut expired = Expired {
            closing: self.idle.drain(..).collect(),
            offered: Vec::new(),
        };
        // Offers on their way are of the old generation too: each is replaced by an empty slot.
        for offer in self.waiters.offers_mut() {
            if !offer.grant.must_open {
                expired.closing.push(offer.grant.slot);
            }
            offer.grant = Grant {
                slot: self.next,
                must_open: true,
            };
            self.next += 1;
            self.lent
                .insert(offer.grant.slot, Loan::to_caller(offer.caller, now));
        }
        while let Some(waiter) = self.serve(now) {
            expired.offered.push(waiter);
        }
        expired
    }

    /// The numbers now.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let upkeep = self.lent.values().filter(|loan| loan.upkeep).count();
        Snapshot {
            idle: self.idle.len(),
            lent: self.lent.len() - upkeep,
            upkeep,
            waiting: self.waiters.len(),
            newest_first: self.waiters.are_overloaded(now),
            oldest_wait: self
                .waiters
                .iter()
                .next()
                .map(|first| now.saturating_duration_since(first.since)),
            lent_total: self.lent_total,
            waited_total: self.waited_total,
        }
    }

    /// Who holds which slot, longest first.
    pub fn holders(&self) -> Vec<Holder> {
        let mut holders: Vec<_> = self
            .lent
            .iter()
            .map(|(&slot, loan)| Holder {
                slot,
                thread: loan.caller.thread,
                since: loan.since,
            })
            .collect();
        holders.sort_by_key(|holder| holder.since);
        holders
    }

    fn open(&mut self) -> Option<Slot> {
        if !self.limits.has_room(self.used()) {
            return None;
        }
        let slot = self.next;
        self.next += 1;
        Some(slot)
    }

    fn lend(&mut self, slot: Slot, caller: Caller, now: Instant) {
        self.lent_total += 1;
        self.lent.insert(slot, Loan::to_caller(caller, now));
    }

    /// Offers an empty slot to the waiter whose turn it is, if there is one and there is room.
    fn serve(&mut self, now: Instant) -> Option<WaiterId> {
        if self.waiters.is_empty() {
            return None;
        }
        let slot = self.open()?;
        self.hand_over(
            Grant {
                slot,
                must_open: true,
            },
            now,
        )
    }

    fn hand_over(&mut self, grant: Grant, now: Instant) -> Option<WaiterId> {
        let next = match self.home(grant) {
            Some(home) => self.waiters.take_next_at(&home, now)?,
            None => self.waiters.take_next(now)?,
        };
        self.nested = false;
        self.waited_total += 1;
        self.lend(grant.slot, next.caller, now);
        self.waiters.offer(next, grant);
        Some(next.id)
    }

    /// Where the connection of a slot that comes back is of use, if that is in one thread.
    fn home(&self, grant: Grant) -> Option<Home> {
        if !self.limits.by_thread || grant.must_open || self.waiters.is_empty() {
            return None;
        }
        let thread = self.lent.get(&grant.slot)?.caller.thread;
        let holders = self.lent.values().map(|loan| loan.caller.thread).collect();
        Some(Home { thread, holders })
    }

    /// The loan of an offer counts from the moment that it is taken.
    fn restart(&mut self, grant: Grant, now: Instant) {
        if let Some(loan) = self.lent.get_mut(&grant.slot) {
            loan.since = now;
        }
    }
}
