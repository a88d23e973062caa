//! The ledger against a naive model: random histories of every verb, compared after each step.
//!
//! The model is what one would write on a napkin: two lists and a queue, no offers table, no marks. The rules
//! that hold after every step are checked on the ledger itself. Model, histories and rules are one idea.
#![cfg(not(loom))]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test reads the clock where it likes, and may fail"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use _native::pool::Caller;
use _native::pool::grant::Grant;
use _native::pool::ledger::{Ledger, Nested, RanOut, Release};
use _native::pool::limits::Limits;
use _native::pool::overload::SHARE;
use proptest::prelude::*;

/// The pool's own thread, which as a caller's is one of the few that come.
const KEEPER: u64 = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// One of a few threads comes, and waits for so many ms (or for ever) if there is nothing.
    Come(u64, Option<u64>),
    /// The time of the n-th waiter, offered or not, is over.
    RunOut(usize),
    /// Nothing happens for so many ms.
    Pass(u64),
    /// The n-th holder returns its connection.
    Return(usize),
    /// The n-th holder's connection is gone: it vacates.
    Vacate(usize),
    /// The n-th of those who have been offered a slot takes it.
    Accept(usize),
    /// The n-th waiter, offered or not, gives up (and gives back what it was offered).
    GiveUp(usize),
    /// Everything expires.
    Expire,
    /// A ticket of an older generation, or used already, comes back.
    ReturnStale(usize),
    /// The keeper takes the n-th idle slot out of its rest.
    Claim(usize),
    /// The keeper asks for a slot of any number, which most do not rest.
    ClaimAny(u64),
    /// The keeper claims the n-th idle slot, and changes its mind.
    ClaimAndPutBack(usize),
    /// The keeper opens one ahead of need while fewer than so many are idle.
    Spare(usize),
    /// One is to be opened in another's place.
    Room,
    /// Other bounds, as `Limits` has them.
    Resize(Option<usize>, Option<usize>),
    /// What is too many since then is asked for.
    Surplus,
    /// So many of the next to come back are surplus.
    AskBack(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..6u64, prop::option::of(0..60u64)).prop_map(|(who, ms)| Step::Come(who, ms)),
        2 => any::<usize>().prop_map(Step::RunOut),
        1 => (0..60u64).prop_map(Step::Pass),
        4 => any::<usize>().prop_map(Step::Return),
        2 => any::<usize>().prop_map(Step::Vacate),
        4 => any::<usize>().prop_map(Step::Accept),
        2 => any::<usize>().prop_map(Step::GiveUp),
        1 => Just(Step::Expire),
        1 => any::<usize>().prop_map(Step::ReturnStale),
        2 => any::<usize>().prop_map(Step::Claim),
        1 => (0..40u64).prop_map(Step::ClaimAny),
        1 => any::<usize>().prop_map(Step::ClaimAndPutBack),
        2 => (0..4usize).prop_map(Step::Spare),
        1 => Just(Step::Room),
        1 => bounds().prop_map(|(kept, total)| Step::Resize(kept, total)),
        2 => Just(Step::Surplus),
        1 => (0..3usize).prop_map(Step::AskBack),
    ];
    prop::collection::vec(step, 1..200)
}

/// How many are kept, and how many there may be.
fn bounds() -> impl Strategy<Value = (Option<usize>, Option<usize>)> {
    (0..4usize, 0..4usize, any::<bool>(), any::<bool>()).prop_map(
        |(kept, beyond, unbounded, keep_all)| {
            (
                (!keep_all).then_some(kept),
                (!unbounded).then_some((kept + beyond).max(1)),
            )
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    (bounds(), any::<bool>(), prop::option::of(0..4usize)).prop_map(
        |((kept, total), lifo, waiting)| Limits {
            kept,
            total,
            lifo,
            waiting,
            by_thread: false,
        },
    )
}

/// What somebody on a napkin knows.
#[derive(Default)]
struct Model {
    /// Order of return.
    idle: VecDeque<u64>,
    lent: BTreeSet<u64>,
    /// Those of the lent that the pool itself has.
    upkeep: BTreeSet<u64>,
    queue: Vec<Queued>,
    offered: BTreeMap<u64, Grant>,
    stale: Vec<u64>,
    /// Which thread has the slot, offered ones included.
    owner: BTreeMap<u64, u64>,
    /// Newest first until then, and slots given so since the last to the longest wait.
    newest_until: Option<Instant>,
    given: u32,
    /// Slots given to waiting callers, ever.
    served: u64,
    /// How long newest first was to last, and when it was last over.
    lasts: Duration,
    over_at: Option<Instant>,
    /// How long callers whom order had served waited in vain, the shortest of them, and time-outs that weigh less.
    vain: Option<Duration>,
    ignored: u32,
    nested: bool,
    asked_back: usize,
}

#[derive(Clone, Copy)]
struct Queued {
    id: u64,
    thread: u64,
    since: Instant,
    limit: Option<Duration>,
    /// Callers before it, waiting or served, and slots given out, when it came.
    before: usize,
    served: u64,
}

impl Model {
    fn used(&self) -> usize {
        self.idle.len() + self.lent.len() + self.offered.len()
    }

    fn has_room(&self, limits: Limits) -> bool {
        limits.total.is_none_or(|total| self.used() < total)
    }

    fn is_over(&self, limits: Limits) -> bool {
        limits.total.is_some_and(|total| self.used() > total)
    }

    fn keeps(&self, limits: Limits) -> bool {
        limits.kept.is_none_or(|kept| self.idle.len() < kept)
    }

    fn newest_first(&self, now: Instant) -> bool {
        self.newest_until.is_some_and(|until| now < until)
    }

    /// The one whose turn it is, as the rule says it in words.
    fn take_next(&mut self, now: Instant) -> Option<Queued> {
        if self.queue.is_empty() {
            return None;
        }
        let mut at = 0;
        self.served += 1;
        self.end_newest_first(now);
        if self.newest_first(now) {
            at = self.queue.len() - 1;
            self.given += 1;
            if self.given == SHARE {
                self.given = 0;
                let has_time =
                    |one: &Queued| one.limit.is_none_or(|all| (now - one.since) * 2 <= all);
                at = self.queue.iter().position(has_time).unwrap_or(at);
            }
        }
        Some(self.take(at, now))
    }

    fn take(&mut self, at: usize, now: Instant) -> Queued {
        let taken = self.queue.remove(at);
        if self.queue.is_empty() {
            self.newest_until = self.newest_until.map(|until| until.min(now));
            self.end_newest_first(now);
            self.vain = None;
            self.ignored = 0;
        }
        taken
    }

    fn end_newest_first(&mut self, now: Instant) {
        if self.newest_until.is_some_and(|until| until <= now) {
            self.over_at = self.newest_until.take();
            self.given = 0;
        }
    }

    /// What a caller's time-out does to the order, as the rule says it in words.
    fn ran_out(&mut self, who: Queued, now: Instant) {
        self.end_newest_first(now);
        let waited = now - who.since;
        let order_had_served = (self.served - who.served) * 10 >= who.before as u64 * 11;
        if order_had_served {
            let shortest = self.vain.filter(|_| self.ignored > 0).unwrap_or(waited);
            self.vain = Some(shortest.min(waited));
            self.ignored = (self.ignored + 4).min(64);
        } else if self.ignored > 0 && waited < self.vain.unwrap() / 2 {
            self.ignored -= 1;
        } else {
            let mut lasts = waited;
            if self.newest_until.is_none() {
                let soon = self.over_at.is_some_and(|at| now - at < self.lasts * 4);
                if soon {
                    lasts = (self.lasts * 4).min(waited * 32).max(waited);
                }
                self.lasts = lasts;
            }
            self.newest_until = self.newest_until.max(Some(now + lasts));
        }
    }

    fn slots_of(&self, thread: u64) -> usize {
        let out = |slot: &&u64| !self.upkeep.contains(slot);
        let theirs = self.owner.iter().filter(|&(_, &owner)| owner == thread);
        theirs.map(|(slot, _)| slot).filter(out).count()
    }

    fn all_holders_wait(&self) -> bool {
        self.upkeep.is_empty()
            && self.offered.is_empty()
            && self.lent.iter().all(|slot| {
                let owner = self.owner[slot];
                self.queue.iter().any(|one| one.thread == owner)
            })
    }

    fn nested(&self, thread: u64) -> Option<Nested> {
        let held = self.slots_of(thread);
        if !self.nested || held == 0 {
            return None;
        }
        let mut threads: BTreeSet<_> = self.queue.iter().map(|one| one.thread).collect();
        threads.extend(self.lent.iter().map(|slot| self.owner[slot]));
        threads.extend(self.offered.values().map(|grant| self.owner[&grant.slot]));
        let most = threads.iter().map(|&one| self.slots_of(one)).max();
        Some(Nested {
            callers: threads.len(),
            most: most.unwrap(),
            held,
        })
    }
}

fn nth<T: Copy>(items: impl ExactSizeIterator<Item = T>, n: usize) -> Option<T> {
    let len = items.len();
    let mut items = items;
    if len == 0 { None } else { items.nth(n % len) }
}

/// Where the bound was lowered there may be as many as there were, and no more: `most`.
fn check(ledger: &Ledger, model: &Model, limits: Limits, most: usize, at: Instant) {
    let now = ledger.snapshot(at);
    assert_eq!(now.newest_first, model.newest_first(at), "which regime");
    assert_eq!(now.idle, model.idle.len(), "idle");
    let out = model.lent.len() + model.offered.len();
    assert_eq!(now.lent, out - model.upkeep.len(), "lent");
    assert_eq!(now.upkeep, model.upkeep.len(), "upkeep");
    assert_eq!(now.waiting, model.queue.len(), "waiting");
    let used = now.idle + now.lent + now.upkeep;
    assert!(used <= most, "more slots than there may be");
    if let Some(most) = limits.waiting {
        assert!(now.waiting <= most, "more wait than may");
    }
    if now.waiting > 0 {
        assert_eq!(now.idle, 0, "somebody waits beside an idle slot");
        assert!(
            !model.has_room(limits),
            "somebody waits although a slot could be opened"
        );
    }
    let held: BTreeSet<_> = ledger.holders().iter().map(|holder| holder.slot).collect();
    let expected: BTreeSet<_> = model
        .lent
        .iter()
        .copied()
        .chain(model.offered.values().map(|grant| grant.slot))
        .collect();
    assert_eq!(held, expected, "who holds what");
    assert!(
        model.idle.iter().all(|slot| !held.contains(slot)),
        "a slot both idle and lent"
    );
}

struct World {
    ledger: Ledger,
    model: Model,
    limits: Limits,
    now: Instant,
}

impl World {
    fn come(&mut self, thread: u64, limit: Option<Duration>) {
        if let Some(grant) = self.ledger.acquire(thread, self.now) {
            assert!(self.model.queue.is_empty(), "somebody was passed");
            let rested = if self.limits.lifo {
                self.model.idle.pop_back()
            } else {
                self.model.idle.pop_front()
            };
            match rested {
                Some(slot) => assert_eq!(
                    grant,
                    Grant {
                        slot,
                        must_open: false
                    }
                ),
                None => assert!(grant.must_open && self.model.has_room(self.limits)),
            }
            assert!(self.model.lent.insert(grant.slot), "a slot lent twice");
            self.model.owner.insert(grant.slot, thread);
        } else {
            assert!(self.model.idle.is_empty() && !self.model.has_room(self.limits));
            let most = self.limits.waiting.unwrap_or(usize::MAX);
            let full = self.model.queue.len() >= most;
            assert_eq!(self.ledger.is_queue_full(), full, "who may wait");
            if full {
                return;
            }
            let caller = Caller::thread(thread);
            let id = self.ledger.wait(caller, limit, self.now);
            let since = self.now;
            let before = self.model.queue.len() + self.model.lent.len() + self.model.offered.len();
            let served = self.model.served;
            self.model.queue.push(Queued {
                id,
                thread,
                since,
                limit,
                before,
                served,
            });
            if self.model.slots_of(thread) > 0 {
                self.model.nested = self.model.all_holders_wait();
            }
            assert_eq!(
                self.ledger.nested(caller),
                self.model.nested(thread),
                "who is told"
            );
        }
    }

    /// The one whose turn it is, served with `slot` when it is not empty.
    fn take_next(&mut self, slot: Option<u64>) -> Option<u64> {
        let next = self.model.take_next(self.now)?;
        self.model.nested = false;
        if let Some(slot) = slot {
            self.model.owner.insert(slot, next.thread);
            let must_open = false;
            self.model
                .offered
                .insert(next.id, Grant { slot, must_open });
        }
        Some(next.id)
    }

    fn served_empty(&mut self, next: Queued, slot: u64) {
        self.model.owner.insert(slot, next.thread);
        let must_open = true;
        self.model
            .offered
            .insert(next.id, Grant { slot, must_open });
    }

    /// The slot, with a connection, comes back from a holder.
    fn give(&mut self, slot: u64) {
        let asked_back = !self.model.is_over(self.limits) && self.model.asked_back > 0;
        self.model.asked_back -= usize::from(asked_back);
        match self.ledger.release(slot, self.now) {
            Release::Offered(waiter) => {
                assert!(
                    !self.model.is_over(self.limits) && !asked_back,
                    "one too many goes on"
                );
                assert_eq!(Some(waiter), self.take_next(Some(slot)), "not his turn");
            }
            Release::Kept => {
                assert!(
                    !self.model.is_over(self.limits) && !asked_back,
                    "one too many stays"
                );
                assert!(self.model.queue.is_empty() && self.model.keeps(self.limits));
                self.model.idle.push_back(slot);
                self.model.owner.remove(&slot);
            }
            Release::Surplus => {
                let too_many_rest = self.model.queue.is_empty() && !self.model.keeps(self.limits);
                assert!(too_many_rest || asked_back || self.model.is_over(self.limits));
                self.empty(slot);
                return;
            }
            Release::Stale => panic!("a live slot was called stale"),
        }
        self.model.lent.remove(&slot);
        self.model.upkeep.remove(&slot);
    }

    /// A slot that nobody made use of goes back where it was.
    fn put_back(&mut self, slot: u64) {
        self.model.lent.remove(&slot);
        self.model.upkeep.remove(&slot);
        self.model.owner.remove(&slot);
        let served = self.ledger.put_back(slot, self.now);
        assert_eq!(served, self.take_next(Some(slot)), "not his turn");
        if served.is_none() {
            self.model.idle.push_back(slot);
        }
    }

    /// The slot comes back empty from a holder.
    fn empty(&mut self, slot: u64) {
        self.model.lent.remove(&slot);
        self.model.upkeep.remove(&slot);
        self.model.owner.remove(&slot);
        self.model.stale.push(slot);
        let served = self.ledger.vacate(slot, self.now);
        self.offered_empty(served);
    }

    fn offered_empty(&mut self, served: Option<u64>) {
        let next = if self.model.has_room(self.limits) {
            self.model.take_next(self.now)
        } else {
            None
        };
        assert_eq!(
            served,
            next.map(|next| next.id),
            "an empty slot and the one whose turn it is did not meet"
        );
        if let Some(next) = next {
            self.model.nested = false;
            let known: BTreeSet<_> = self
                .model
                .lent
                .iter()
                .copied()
                .chain(self.model.offered.values().map(|grant| grant.slot))
                .collect();
            let fresh: Vec<_> = self
                .ledger
                .holders()
                .iter()
                .map(|holder| holder.slot)
                .filter(|slot| !known.contains(slot))
                .collect();
            assert_eq!(fresh.len(), 1);
            self.served_empty(next, fresh[0]);
        }
    }

    fn nth_waiter(&self, n: usize) -> Option<u64> {
        let queued = self.model.queue.iter().map(|one| one.id);
        let offered = self.model.offered.keys().copied();
        nth(queued.chain(offered).collect::<Vec<_>>().into_iter(), n)
    }

    /// The n-th waiter leaves the queue: its time is over, or it has changed its mind.
    fn give_up(&mut self, n: usize, runs_out: bool) {
        let Some(waiter) = self.nth_waiter(n) else {
            return;
        };
        let at = self.model.queue.iter().position(|one| one.id == waiter);
        let grant = if runs_out {
            let queued = at.map(|at| self.model.queue[at]);
            let thread = queued.map_or(0, |queued| queued.thread);
            let told = self.model.nested(thread);
            if let Some(queued) = queued {
                self.model.ran_out(queued, self.now);
            }
            match self
                .ledger
                .run_out(waiter, Caller::thread(thread), self.now)
            {
                RanOut::Granted(grant) => Some(grant),
                RanOut::Nothing => {
                    assert_eq!(told, None, "not told that nothing could come");
                    None
                }
                RanOut::Nested(nested) => {
                    assert_eq!(Some(nested), told, "told wrongly");
                    None
                }
            }
        } else {
            self.ledger.leave(waiter, self.now)
        };
        assert_eq!(
            grant,
            self.model.offered.remove(&waiter),
            "an offer lost or invented"
        );
        if let Some(at) = at {
            self.model.take(at, self.now);
        }
        if let Some(grant) = grant {
            self.model.lent.insert(grant.slot);
            if grant.must_open {
                self.empty(grant.slot);
            } else {
                self.put_back(grant.slot);
            }
        }
    }

    fn expire(&mut self) {
        let expired = self.ledger.expire_all(self.now);
        self.model.nested = false;
        let mut closing: BTreeSet<_> = self.model.idle.drain(..).collect();
        closing.extend(
            self.model
                .offered
                .values()
                .filter(|g| !g.must_open)
                .map(|g| g.slot),
        );
        assert_eq!(
            expired.closing.iter().copied().collect::<BTreeSet<_>>(),
            closing
        );
        assert_eq!(expired.closing.len(), closing.len(), "a slot closed twice");
        self.model.stale.extend(closing);
        self.model
            .stale
            .extend(std::mem::take(&mut self.model.lent));
        self.model.upkeep.clear();
        // Each pending offer became an empty slot; then the queue was served in order.
        let pending = std::mem::take(&mut self.model.offered);
        let mut slots: VecDeque<_> = {
            let mut all: Vec<_> = self.ledger.holders().iter().map(|h| h.slot).collect();
            all.sort_unstable();
            all.into()
        };
        let before = std::mem::take(&mut self.model.owner);
        for (waiter, old) in pending {
            let slot = slots.pop_front().expect("an offer vanished");
            self.model.owner.insert(slot, before[&old.slot]);
            self.model.offered.insert(
                waiter,
                Grant {
                    slot,
                    must_open: true,
                },
            );
        }
        for waiter in expired.offered {
            let next = self.model.take_next(self.now).expect("an offer to nobody");
            assert_eq!(waiter, next.id, "not his turn");
            let slot = slots.pop_front().expect("an offer without a slot");
            self.served_empty(next, slot);
        }
        assert!(slots.is_empty(), "slots lent to nobody");
    }

    /// Claims a slot; it was idle, or nothing happens.
    fn claim(&mut self, slot: u64) -> bool {
        let before = self.ledger.snapshot(self.now);
        let grant = self.ledger.claim(slot, KEEPER, self.now);
        let at = self.model.idle.iter().position(|&idle| idle == slot);
        let must_open = false;
        assert_eq!(
            grant,
            at.map(|_| Grant { slot, must_open }),
            "the keeper got what does not rest, or not what does"
        );
        if let Some(at) = at {
            assert!(self.model.queue.is_empty(), "the keeper passed somebody");
            self.model.idle.remove(at);
            assert!(self.model.lent.insert(slot), "a slot claimed twice");
            self.model.upkeep.insert(slot);
            self.model.owner.insert(slot, KEEPER);
        }
        let after = self.ledger.snapshot(self.now);
        assert_eq!(before.lent_total, after.lent_total, "counted as a checkout");
        grant.is_some()
    }

    fn spare(&mut self, least: usize) {
        let expected = self.model.idle.len() < least
            && self.model.queue.is_empty()
            && self.model.has_room(self.limits)
            && self.limits.kept.is_none_or(|kept| self.model.used() < kept);
        assert_eq!(self.ledger.lacks(least), expected);
        let before = self.ledger.snapshot(self.now);
        let grant = self.ledger.spare(least, KEEPER, self.now);
        assert_eq!(grant.is_some(), expected);
        if let Some(grant) = grant {
            assert!(grant.must_open, "an idle slot was taken for a new one");
            self.is_the_keepers(grant.slot);
        }
        let after = self.ledger.snapshot(self.now);
        assert_eq!(before.lent_total, after.lent_total, "counted as a checkout");
    }

    fn room(&mut self) {
        let expected = self.model.queue.is_empty() && self.model.has_room(self.limits);
        let grant = self.ledger.room(KEEPER, self.now);
        assert_eq!(grant.is_some(), expected);
        if let Some(grant) = grant {
            assert!(grant.must_open, "an idle slot was taken for a new one");
            self.is_the_keepers(grant.slot);
        }
    }

    fn is_the_keepers(&mut self, slot: u64) {
        assert!(self.model.lent.insert(slot), "a slot lent twice");
        self.model.upkeep.insert(slot);
        self.model.owner.insert(slot, KEEPER);
    }

    /// Other bounds: those who wait are served with what there is room for.
    fn resize(&mut self, kept: Option<usize>, total: Option<usize>) {
        self.limits.kept = kept;
        self.limits.total = total;
        let known: BTreeSet<_> = self.ledger.holders().iter().map(|h| h.slot).collect();
        let offered = self.ledger.resize(kept, total, self.now);
        let fresh = self.ledger.holders().into_iter().map(|holder| holder.slot);
        let mut fresh: Vec<_> = fresh.filter(|slot| !known.contains(slot)).collect();
        fresh.sort_unstable();
        assert_eq!(fresh.len(), offered.len(), "slots lent to nobody");
        for (waiter, slot) in offered.into_iter().zip(fresh) {
            let next = self.model.take_next(self.now).expect("an offer to nobody");
            assert_eq!(waiter, next.id, "not his turn");
            self.model.nested = false;
            self.served_empty(next, slot);
        }
    }

    fn surplus(&mut self) {
        let rests = self.model.idle.len();
        let too_many = self.limits.kept.is_some_and(|kept| rests > kept);
        let wanted = (too_many || self.model.is_over(self.limits)) && rests > 0;
        let grant = self.ledger.surplus(KEEPER, self.now);
        assert_eq!(grant.is_some(), wanted, "what is too many");
        if let Some(grant) = grant {
            assert_eq!(Some(grant.slot), self.model.idle.pop_front());
            self.is_the_keepers(grant.slot);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Come(who, ms) => self.come(who, ms.map(Duration::from_millis)),
            Step::RunOut(n) => self.give_up(n, true),
            Step::Pass(ms) => self.now += Duration::from_millis(ms),
            Step::Return(n) => {
                if let Some(slot) = nth(
                    self.model
                        .lent
                        .iter()
                        .copied()
                        .collect::<Vec<_>>()
                        .into_iter(),
                    n,
                ) {
                    self.give(slot);
                }
            }
            Step::Vacate(n) => {
                if let Some(slot) = nth(
                    self.model
                        .lent
                        .iter()
                        .copied()
                        .collect::<Vec<_>>()
                        .into_iter(),
                    n,
                ) {
                    self.empty(slot);
                }
            }
            Step::Accept(n) => {
                let offered: Vec<_> = self.model.offered.keys().copied().collect();
                if let Some(waiter) = nth(offered.into_iter(), n) {
                    let grant = self.ledger.accept(waiter, self.now);
                    assert_eq!(grant, self.model.offered.remove(&waiter));
                    assert_eq!(
                        self.ledger.accept(waiter, self.now),
                        None,
                        "an offer taken twice"
                    );
                    self.model.lent.extend(grant.map(|grant| grant.slot));
                }
            }
            Step::GiveUp(n) => self.give_up(n, false),
            Step::Expire => self.expire(),
            Step::ReturnStale(n) => {
                if let Some(slot) = nth(self.model.stale.iter().copied(), n) {
                    assert_eq!(self.ledger.claim(slot, KEEPER, self.now), None);
                    assert_eq!(self.ledger.release(slot, self.now), Release::Stale);
                    assert_eq!(self.ledger.vacate(slot, self.now), None);
                    assert_eq!(self.ledger.put_back(slot, self.now), None);
                }
            }
            Step::Claim(n) => {
                if let Some(slot) = nth(self.model.idle.iter().copied(), n) {
                    assert!(self.claim(slot));
                }
            }
            Step::ClaimAny(slot) => {
                self.claim(slot);
            }
            Step::ClaimAndPutBack(n) => {
                if let Some(slot) = nth(self.model.idle.iter().copied(), n) {
                    assert!(self.claim(slot));
                    self.put_back(slot);
                }
            }
            Step::Spare(least) => self.spare(least),
            Step::Room => self.room(),
            Step::Resize(kept, total) => self.resize(kept, total),
            Step::Surplus => self.surplus(),
            Step::AskBack(count) => {
                self.ledger.ask_back(count);
                self.model.asked_back = count;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_agrees_with_the_model(limits in limits(), steps in steps()) {
        let mut world = World {
            ledger: Ledger::new(limits),
            model: Model::default(),
            limits,
            now: Instant::now(),
        };
        for step in steps {
            world.now += Duration::from_millis(1);
            let used = world.model.used();
            world.step(step);
            let most = world.limits.total.map_or(usize::MAX, |total| total.max(used));
            check(&world.ledger, &world.model, world.limits, most, world.now);
        }
    }
}

#[test]
fn a_loan_that_was_waited_for_counts_from_its_acceptance() {
    let limits = Limits {
        kept: Some(1),
        total: Some(1),
        lifo: false,
        waiting: None,
        by_thread: false,
    };
    let mut ledger = Ledger::new(limits);
    let start = Instant::now();
    let grant = ledger.acquire(1, start).unwrap();
    let waiter = ledger.wait(Caller::thread(2), None, start);
    assert_eq!(ledger.release(grant.slot, start), Release::Offered(waiter));
    let later = start + Duration::from_secs(5);
    ledger.accept(waiter, later).unwrap();
    let holders = ledger.holders();
    assert_eq!((holders[0].thread, holders[0].since), (2, later));
}

#[test]
fn those_who_have_held_longest_are_named_first() {
    let limits = Limits {
        kept: None,
        total: None,
        lifo: false,
        waiting: None,
        by_thread: false,
    };
    let mut ledger = Ledger::new(limits);
    let start = Instant::now();
    for (thread, at) in [(1, 3), (2, 1), (3, 2)] {
        ledger
            .acquire(thread, start + Duration::from_secs(at))
            .unwrap();
    }
    let threads: Vec<_> = ledger
        .holders()
        .iter()
        .map(|holder| holder.thread)
        .collect();
    assert_eq!(threads, [2, 3, 1]);
}

const TWO: Limits = Limits {
    kept: Some(2),
    total: Some(2),
    lifo: false,
    waiting: None,
    by_thread: false,
};

/// A ledger whose two slots are lent to threads 1 and 2, and an instant.
fn full() -> (Ledger, [u64; 2], Instant) {
    let mut ledger = Ledger::new(TWO);
    let start = Instant::now();
    let slots = [1, 2].map(|thread| ledger.acquire(thread, start).unwrap().slot);
    (ledger, slots, start)
}

fn queue_up(ledger: &mut Ledger, limits: &[Option<u64>], now: Instant) -> Vec<u64> {
    let join = |(n, ms): (usize, &Option<u64>)| {
        let caller = Caller::thread(10 + n as u64);
        ledger.wait(caller, ms.map(Duration::from_millis), now)
    };
    limits.iter().enumerate().map(join).collect()
}

#[test]
fn the_newest_is_served_first_once_time_has_run_out() {
    let (mut ledger, slots, start) = full();
    let waiters = queue_up(&mut ledger, &[Some(400); 4], start);
    let later = start + Duration::from_millis(400);
    let ended = ledger.run_out(waiters[0], Caller::thread(10), later);
    assert_eq!(ended, RanOut::Nothing);
    assert!(ledger.snapshot(later).newest_first);
    assert_eq!(
        ledger.release(slots[0], later),
        Release::Offered(waiters[3])
    );
    assert_eq!(
        ledger.release(slots[1], later),
        Release::Offered(waiters[2])
    );
    let grant = ledger.accept(waiters[3], later).unwrap();
    assert_eq!(
        ledger.release(grant.slot, later),
        Release::Offered(waiters[1])
    );
    // The queue is empty: order of arrival again.
    assert!(!ledger.snapshot(later).newest_first);
    let behind = queue_up(&mut ledger, &[None, None], later);
    let grant = ledger.accept(waiters[2], later).unwrap();
    assert_eq!(
        ledger.release(grant.slot, later),
        Release::Offered(behind[0])
    );
}

#[test]
fn one_who_leaves_for_another_reason_changes_no_order() {
    let (mut ledger, slots, start) = full();
    let waiters = queue_up(&mut ledger, &[Some(400); 3], start);
    assert_eq!(ledger.leave(waiters[0], start), None);
    assert!(!ledger.snapshot(start).newest_first);
    assert_eq!(
        ledger.release(slots[0], start),
        Release::Offered(waiters[1])
    );
}

#[test]
fn one_caller_in_a_hurry_costs_a_patient_crowd_its_order_for_a_moment_only() {
    let (mut ledger, slots, start) = full();
    let patient = queue_up(&mut ledger, &[None; 4], start);
    let hurried = ledger.wait(Caller::thread(7), Some(Duration::from_millis(50)), start);
    let later = start + Duration::from_millis(50);
    let ended = ledger.run_out(hurried, Caller::thread(7), later);
    assert_eq!(ended, RanOut::Nothing);
    assert_eq!(
        ledger.release(slots[0], later),
        Release::Offered(patient[3])
    );
    // As long as it waited, nobody else's time has run out.
    let calm = later + Duration::from_millis(50);
    assert!(!ledger.snapshot(calm).newest_first);
    assert_eq!(ledger.release(slots[1], calm), Release::Offered(patient[0]));
}

#[test]
fn one_who_was_passed_over_and_runs_out_of_time_prolongs_nothing() {
    let (mut ledger, slots, start) = full();
    let waiters = queue_up(&mut ledger, &[Some(50), Some(100)], start);
    let at = |ms| start + Duration::from_millis(ms);
    let ended = ledger.run_out(waiters[0], Caller::thread(10), at(50));
    assert_eq!(ended, RanOut::Nothing);
    // Others come behind the second and are served; in order it would have been the first.
    let mut slot = slots[0];
    for _ in 1..SHARE {
        let newest = ledger.wait(Caller::thread(50), None, at(60));
        assert_eq!(ledger.release(slot, at(60)), Release::Offered(newest));
        slot = ledger.accept(newest, at(60)).unwrap().slot;
    }
    let patient = ledger.wait(Caller::thread(60), None, at(60));
    let behind = ledger.wait(Caller::thread(61), None, at(60));
    assert!(ledger.snapshot(at(99)).newest_first);
    let ended = ledger.run_out(waiters[1], Caller::thread(11), at(99));
    assert_eq!(ended, RanOut::Nothing);
    assert!(!ledger.snapshot(at(100)).newest_first);
    assert_eq!(ledger.release(slot, at(100)), Release::Offered(patient));
    assert_eq!(ledger.release(slots[1], at(100)), Release::Offered(behind));
}

#[test]
fn newest_first_lasts_longer_when_it_begins_again_soon() {
    let (mut ledger, _slots, start) = full();
    ledger.wait(Caller::thread(9), None, start);
    let mut now = start;
    let mut lasts_after = |pause| {
        now += Duration::from_millis(pause);
        let hurried = ledger.wait(Caller::thread(7), None, now);
        now += Duration::from_millis(50);
        let ended = ledger.run_out(hurried, Caller::thread(7), now);
        assert_eq!(ended, RanOut::Nothing);
        let began = now;
        while ledger.snapshot(now).newest_first {
            now += Duration::from_millis(1);
        }
        (now - began).as_millis()
    };
    assert_eq!(lasts_after(0), 50);
    assert_eq!(
        [149, 10, 10, 10].map(&mut lasts_after),
        [200, 800, 1_600, 1_600]
    );
    assert_eq!(lasts_after(4 * 1_600 - 50), 50);
}

#[test]
fn those_with_time_left_get_one_slot_in_so_many_and_nobody_starves() {
    let (mut ledger, slots, start) = full();
    let mut waiters = queue_up(&mut ledger, &[Some(90), Some(20_000), Some(100)], start);
    let later = start + Duration::from_millis(100);
    let ended = ledger.run_out(waiters.pop().unwrap(), Caller::thread(12), later);
    assert_eq!(ended, RanOut::Nothing);
    let mut slot = slots[0];
    for turn in 1..=SHARE {
        // Somebody comes who can be served at once, each time anew.
        let newest = ledger.wait(Caller::thread(50), Some(Duration::from_millis(90)), later);
        // The oldest has no half of its time left, the one behind it has.
        let next = if turn == SHARE { waiters[1] } else { newest };
        assert_eq!(
            ledger.release(slot, later),
            Release::Offered(next),
            "{turn}"
        );
        slot = ledger.accept(next, later).unwrap().slot;
    }
}

#[test]
fn when_every_holder_waits_the_last_is_told_at_once_and_each_at_the_end() {
    let (mut ledger, slots, start) = full();
    let first = ledger.wait(Caller::thread(1), None, start);
    assert_eq!(ledger.nested(Caller::thread(1)), None);
    let bystander = ledger.wait(Caller::thread(3), None, start);
    let last = ledger.wait(Caller::thread(2), None, start);
    let nested = Nested {
        callers: 3,
        most: 1,
        held: 1,
    };
    assert_eq!(ledger.nested(Caller::thread(2)), Some(nested));
    assert_eq!(ledger.nested(Caller::thread(3)), None);
    let later = start + Duration::from_secs(1);
    assert_eq!(
        ledger.run_out(bystander, Caller::thread(3), later),
        RanOut::Nothing
    );
    let nested = Nested {
        callers: 2,
        ..nested
    };
    assert_eq!(
        ledger.run_out(last, Caller::thread(2), later),
        RanOut::Nested(nested)
    );
    assert_eq!(ledger.release(slots[1], later), Release::Offered(first));
    assert_eq!(ledger.nested(Caller::thread(1)), None);
}

#[test]
fn a_slot_that_the_pool_or_a_thread_at_work_has_is_no_deadlock() {
    let start = Instant::now();
    for upkeep in [false, true] {
        let mut ledger = Ledger::new(TWO);
        let grant = ledger.acquire(1, start).unwrap();
        assert_eq!(ledger.release(grant.slot, start), Release::Kept);
        if upkeep {
            ledger.claim(grant.slot, 9, start).unwrap();
        } else {
            ledger.acquire(9, start).unwrap();
        }
        ledger.acquire(1, start).unwrap();
        let first = ledger.wait(Caller::thread(1), None, start);
        assert_eq!(ledger.nested(Caller::thread(1)), None);
        assert_eq!(ledger.leave(first, start), None);
        // Not even when a thread of the same number waits as the pool's own.
        ledger.wait(Caller::thread(9), None, start);
        ledger.wait(Caller::thread(1), None, start);
        assert_eq!(ledger.nested(Caller::thread(1)).is_some(), !upkeep);
    }
}

#[test]
fn callers_of_one_thread_are_told_apart_by_their_strands() {
    let (mut ledger, slots, start) = full();
    let strand = |strand| Caller { thread: 1, strand };
    ledger.name_strand(slots[0], 71);
    ledger.name_strand(slots[1], 72);
    ledger.wait(strand(73), None, start);
    ledger.wait(strand(71), None, start);
    assert_eq!(ledger.nested(strand(71)), None);
    ledger.wait(strand(72), None, start);
    assert_eq!(
        ledger.nested(strand(72)).map(|nested| nested.callers),
        Some(3)
    );
}
