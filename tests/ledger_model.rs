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

use _native::pool::ledger::{Grant, Ledger, Release};
use _native::pool::limits::Limits;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Somebody comes, and waits if there is nothing.
    Come,
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
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Come),
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
    ];
    prop::collection::vec(step, 1..200)
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        0..4usize,
        0..4usize,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(kept, beyond, unbounded, keep_all, lifo)| Limits {
            kept: if keep_all { None } else { Some(kept) },
            total: if unbounded {
                None
            } else {
                Some((kept + beyond).max(1))
            },
            lifo,
        })
}

/// What somebody on a napkin knows.
#[derive(Default)]
struct Model {
    /// Order of return.
    idle: VecDeque<u64>,
    lent: BTreeSet<u64>,
    /// Those of the lent that the pool itself has.
    upkeep: BTreeSet<u64>,
    queue: VecDeque<u64>,
    offered: BTreeMap<u64, Grant>,
    stale: Vec<u64>,
}

impl Model {
    fn used(&self) -> usize {
        self.idle.len() + self.lent.len() + self.offered.len()
    }

    fn has_room(&self, limits: Limits) -> bool {
        limits.total.is_none_or(|total| self.used() < total)
    }

    fn keeps(&self, limits: Limits) -> bool {
        limits.kept.is_none_or(|kept| self.idle.len() < kept)
    }
}

fn nth<T: Copy>(items: impl ExactSizeIterator<Item = T>, n: usize) -> Option<T> {
    let len = items.len();
    let mut items = items;
    if len == 0 { None } else { items.nth(n % len) }
}

fn check(ledger: &Ledger, model: &Model, limits: Limits) {
    let now = ledger.snapshot();
    assert_eq!(now.idle, model.idle.len(), "idle");
    let out = model.lent.len() + model.offered.len();
    assert_eq!(now.lent, out - model.upkeep.len(), "lent");
    assert_eq!(now.upkeep, model.upkeep.len(), "upkeep");
    assert_eq!(now.waiting, model.queue.len(), "waiting");
    if let Some(total) = limits.total {
        let used = now.idle + now.lent + now.upkeep;
        assert!(used <= total, "more slots than there may be");
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
    fn come(&mut self) {
        if let Some(grant) = self.ledger.acquire(7, self.now) {
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
        } else {
            assert!(self.model.idle.is_empty() && !self.model.has_room(self.limits));
            let waiter = self.ledger.wait(7);
            self.model.queue.push_back(waiter);
        }
    }

    /// The slot, with a connection, comes back from a holder.
    fn give(&mut self, slot: u64) {
        match self.ledger.release(slot, self.now) {
            Release::Offered(waiter) => {
                assert_eq!(
                    Some(waiter),
                    self.model.queue.pop_front(),
                    "not the first in the queue"
                );
                self.model.offered.insert(
                    waiter,
                    Grant {
                        slot,
                        must_open: false,
                    },
                );
            }
            Release::Kept => {
                assert!(self.model.queue.is_empty() && self.model.keeps(self.limits));
                self.model.idle.push_back(slot);
            }
            Release::Surplus => {
                assert!(self.model.queue.is_empty() && !self.model.keeps(self.limits));
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
        let served = self.ledger.put_back(slot, self.now);
        assert_eq!(served, self.model.queue.pop_front());
        if let Some(waiter) = served {
            let must_open = false;
            self.model.offered.insert(waiter, Grant { slot, must_open });
        } else {
            self.model.idle.push_back(slot);
        }
    }

    /// The slot comes back empty from a holder.
    fn empty(&mut self, slot: u64) {
        self.model.lent.remove(&slot);
        self.model.upkeep.remove(&slot);
        self.model.stale.push(slot);
        let served = self.ledger.vacate(slot, self.now);
        self.offered_empty(served);
    }

    fn offered_empty(&mut self, served: Option<u64>) {
        let first = if self.model.has_room(self.limits) {
            self.model.queue.pop_front()
        } else {
            None
        };
        assert_eq!(
            served, first,
            "an empty slot and the first in the queue did not meet"
        );
        if let Some(waiter) = served {
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
            self.model.offered.insert(
                waiter,
                Grant {
                    slot: fresh[0],
                    must_open: true,
                },
            );
        }
    }

    fn give_up(&mut self, n: usize) {
        let everybody: Vec<_> = self
            .model
            .queue
            .iter()
            .copied()
            .chain(self.model.offered.keys().copied())
            .collect();
        let Some(waiter) = nth(everybody.into_iter(), n) else {
            return;
        };
        let grant = self.ledger.leave(waiter, self.now);
        assert_eq!(
            grant,
            self.model.offered.remove(&waiter),
            "an offer lost or invented"
        );
        self.model.queue.retain(|&queued| queued != waiter);
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
        let pending: Vec<_> = self.model.offered.keys().copied().collect();
        self.model.offered.clear();
        let mut slots: VecDeque<_> = {
            let mut all: Vec<_> = self.ledger.holders().iter().map(|h| h.slot).collect();
            all.sort_unstable();
            all.into()
        };
        for waiter in pending {
            let slot = slots.pop_front().expect("an offer vanished");
            self.model.offered.insert(
                waiter,
                Grant {
                    slot,
                    must_open: true,
                },
            );
        }
        for waiter in expired.offered {
            assert_eq!(Some(waiter), self.model.queue.pop_front());
            let slot = slots.pop_front().expect("an offer without a slot");
            self.model.offered.insert(
                waiter,
                Grant {
                    slot,
                    must_open: true,
                },
            );
        }
        assert!(slots.is_empty(), "slots lent to nobody");
    }

    /// Claims a slot; it was idle, or nothing happens.
    fn claim(&mut self, slot: u64) -> bool {
        let before = self.ledger.snapshot();
        let grant = self.ledger.claim(slot, 9, self.now);
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
        }
        let after = self.ledger.snapshot();
        assert_eq!(before.lent_total, after.lent_total, "counted as a checkout");
        grant.is_some()
    }

    fn spare(&mut self, least: usize) {
        let expected = self.model.idle.len() < least
            && self.model.queue.is_empty()
            && self.model.has_room(self.limits)
            && self.limits.kept.is_none_or(|kept| self.model.used() < kept);
        assert_eq!(self.ledger.lacks(least), expected);
        let before = self.ledger.snapshot();
        let grant = self.ledger.spare(least, 9, self.now);
        assert_eq!(grant.is_some(), expected);
        if let Some(grant) = grant {
            assert!(grant.must_open, "an idle slot was taken for a new one");
            assert!(self.model.lent.insert(grant.slot), "a slot lent twice");
            self.model.upkeep.insert(grant.slot);
        }
        let after = self.ledger.snapshot();
        assert_eq!(before.lent_total, after.lent_total, "counted as a checkout");
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Come => self.come(),
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
            Step::GiveUp(n) => self.give_up(n),
            Step::Expire => self.expire(),
            Step::ReturnStale(n) => {
                if let Some(slot) = nth(self.model.stale.iter().copied(), n) {
                    assert_eq!(self.ledger.claim(slot, 9, self.now), None);
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
            world.step(step);
            check(&world.ledger, &world.model, limits);
        }
    }
}

#[test]
fn a_loan_that_was_waited_for_counts_from_its_acceptance() {
    let limits = Limits {
        kept: Some(1),
        total: Some(1),
        lifo: false,
    };
    let mut ledger = Ledger::new(limits);
    let start = Instant::now();
    let grant = ledger.acquire(1, start).unwrap();
    let waiter = ledger.wait(2);
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
