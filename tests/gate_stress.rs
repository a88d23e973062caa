//! The gate under real threads: many takers on few slots, some of whom give up, with an invariant checker.
//!
//! Long, because it is one idea: each way to use the gate, under one checker.
#![cfg(not(loom))]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test reads the clock where it likes, and may fail"
)]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use _native::pool::{Admission, Caller, Gate, Grant, Limits, Released, WaitResult};

/// Knows which slots are held, and objects when one is held twice or too many are.
struct Checker {
    held: Vec<AtomicBool>,
    count: AtomicUsize,
    most: usize,
    served: AtomicU64,
    youngest: AtomicU64,
}

impl Checker {
    fn new(most: usize) -> Self {
        let held = (0..1_000_000).map(|_| AtomicBool::new(false)).collect();
        Self {
            held,
            count: AtomicUsize::new(0),
            most,
            served: AtomicU64::new(0),
            youngest: AtomicU64::new(0),
        }
    }

    fn taken(&self, grant: Grant) {
        let place = &self.held[usize::try_from(grant.slot).unwrap()];
        assert!(
            !place.swap(true, Ordering::SeqCst),
            "slot {} is held twice",
            grant.slot
        );
        assert!(
            self.count.fetch_add(1, Ordering::SeqCst) < self.most,
            "too many slots are held"
        );
        self.served.fetch_add(1, Ordering::SeqCst);
        self.youngest.fetch_max(grant.slot, Ordering::SeqCst);
    }

    fn given(&self, grant: Grant) {
        assert!(self.held[usize::try_from(grant.slot).unwrap()].swap(false, Ordering::SeqCst));
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}

fn take(gate: &Arc<Gate>, thread: u64, limit: Option<Duration>) -> Option<Grant> {
    if let Some(grant) = gate.acquire(thread).unwrap() {
        return Some(grant);
    }
    match gate.join(Caller::thread(thread), limit, true).unwrap() {
        Admission::Granted(grant) => Some(grant),
        Admission::Waiting(waiter) => loop {
            match waiter.sleep(limit).unwrap() {
                WaitResult::Granted(grant) => return Some(grant),
                WaitResult::TimedOut | WaitResult::Nested(_) => return None,
                WaitResult::Interrupted => {}
            }
        },
        Admission::Refused => panic!("refused without a bound"),
    }
}

fn put(gate: &Gate, grant: Grant) {
    match gate.release(grant.slot) {
        Released::Done => {}
        Released::Surplus => assert_eq!(gate.vacate(grant.slot), None),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_slot_is_held_twice_lost_or_given_to_one_who_gave_up() {
    const THREADS: usize = 16;
    const TURNS: usize = 3_000;
    let limits = Limits {
        kept: Some(2),
        total: Some(4),
        lifo: false,
        waiting: None,
        by_thread: false,
    };
    let gate = Arc::new(Gate::new(limits));
    let checker = Arc::new(Checker::new(4));
    let start = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|n| {
            let (gate, checker, start) =
                (Arc::clone(&gate), Arc::clone(&checker), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                for turn in 0..TURNS {
                    // Some wait for ever, some hardly at all.
                    let limit = match (n + turn) % 3 {
                        0 => None,
                        1 => Some(Duration::from_micros(20)),
                        _ => Some(Duration::ZERO),
                    };
                    let Some(grant) = take(&gate, n as u64, limit) else {
                        continue;
                    };
                    checker.taken(grant);
                    if turn % 5 == 0 {
                        thread::yield_now();
                    }
                    checker.given(grant);
                    if turn % 7 == 0 {
                        assert_eq!(gate.vacate(grant.slot), None);
                    } else {
                        put(&gate, grant);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let end = gate.snapshot().unwrap();
    assert_eq!((end.lent, end.upkeep, end.waiting), (0, 0, 0));
    assert!(
        !end.newest_first,
        "nobody waits, so there is no order to turn round"
    );
    assert!(end.idle <= 2);
    assert!(checker.served.load(Ordering::SeqCst) >= (THREADS * TURNS / 3) as u64);
}

#[test]
fn bounds_that_change_lose_nobody_and_leave_no_more_than_there_may_be() {
    const THREADS: usize = 16;
    const TURNS: usize = 2_000;
    let gate = Arc::new(Gate::new(Limits {
        kept: Some(4),
        total: Some(4),
        lifo: false,
        waiting: None,
        by_thread: false,
    }));
    let checker = Arc::new(Checker::new(4));
    let working = Arc::new(AtomicUsize::new(THREADS));
    let resizer = {
        let (gate, working) = (Arc::clone(&gate), Arc::clone(&working));
        thread::spawn(move || {
            let mut total = 4;
            while working.load(Ordering::SeqCst) > 0 {
                total = total % 4 + 1;
                assert_eq!(gate.resize(Some(total), Some(total)), Ok(vec![]));
                while let Some(grant) = gate.surplus(99).unwrap() {
                    assert_eq!(gate.vacate(grant.slot), None);
                }
                thread::yield_now();
            }
        })
    };
    let threads: Vec<_> = (0..THREADS)
        .map(|n| {
            let (gate, checker) = (Arc::clone(&gate), Arc::clone(&checker));
            let working = Arc::clone(&working);
            thread::spawn(move || {
                for _ in 0..TURNS {
                    // For ever: whoever is forgotten when there is more room ends the test.
                    let grant = take(&gate, n as u64, None).unwrap();
                    checker.taken(grant);
                    checker.given(grant);
                    put(&gate, grant);
                }
                working.fetch_sub(1, Ordering::SeqCst);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    resizer.join().unwrap();
    assert_eq!(gate.resize(Some(2), Some(2)), Ok(vec![]));
    while let Some(grant) = gate.surplus(99).unwrap() {
        assert_eq!(gate.vacate(grant.slot), None);
    }
    let end = gate.snapshot().unwrap();
    assert_eq!((end.lent, end.upkeep, end.waiting), (0, 0, 0));
    assert!(end.idle <= 2);
}

#[test]
fn a_keeper_that_prunes_and_opens_takes_nothing_from_those_who_work() {
    const THREADS: usize = 16;
    const TURNS: usize = 2_000;
    let gate = Arc::new(Gate::new(Limits {
        kept: Some(3),
        total: Some(4),
        lifo: false,
        waiting: None,
        by_thread: false,
    }));
    let checker = Arc::new(Checker::new(4));
    let working = Arc::new(AtomicUsize::new(THREADS));
    let claimed = Arc::new(AtomicU64::new(0));
    let spared = Arc::new(AtomicU64::new(0));
    let keeper = {
        let (gate, checker, working) = (
            Arc::clone(&gate),
            Arc::clone(&checker),
            Arc::clone(&working),
        );
        let (claimed, spared) = (Arc::clone(&claimed), Arc::clone(&spared));
        thread::spawn(move || {
            let mut turn = 0_u64;
            // On a busy machine it may have no turn before all is at rest.
            while working.load(Ordering::SeqCst) > 0
                || claimed.load(Ordering::SeqCst) == 0
                || spared.load(Ordering::SeqCst) == 0
            {
                turn += 1;
                // Slot numbers only grow: the youngest are the likely ones.
                let youngest = checker.youngest.load(Ordering::SeqCst);
                for slot in youngest.saturating_sub(4)..=youngest {
                    let Some(grant) = gate.claim(slot, 99).unwrap() else {
                        continue;
                    };
                    assert!(!grant.must_open);
                    checker.taken(grant);
                    claimed.fetch_add(1, Ordering::SeqCst);
                    checker.given(grant);
                    if turn % 3 == 0 {
                        assert_eq!(gate.give_back(grant), None);
                    } else {
                        assert_eq!(gate.vacate(grant.slot), None);
                    }
                }
                if let Some(grant) = gate.spare(2, 99).unwrap() {
                    assert!(grant.must_open);
                    checker.taken(grant);
                    spared.fetch_add(1, Ordering::SeqCst);
                    checker.given(grant);
                    put(&gate, grant);
                }
                thread::yield_now();
            }
        })
    };
    let threads: Vec<_> = (0..THREADS)
        .map(|n| {
            let (gate, checker, working) = (
                Arc::clone(&gate),
                Arc::clone(&checker),
                Arc::clone(&working),
            );
            thread::spawn(move || {
                for turn in 0..TURNS {
                    let grant = take(&gate, n as u64, None).expect("nobody starves");
                    checker.taken(grant);
                    if turn % 5 == 0 {
                        thread::yield_now();
                    }
                    checker.given(grant);
                    put(&gate, grant);
                    if turn % 64 == 0 {
                        // Now and then everything rests, and the keeper has its turn.
                        thread::sleep(Duration::from_micros(200));
                    }
                }
                working.fetch_sub(1, Ordering::SeqCst);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    keeper.join().unwrap();
    let end = gate.snapshot().unwrap();
    assert_eq!((end.lent, end.upkeep, end.waiting), (0, 0, 0));
    assert_eq!(end.lent_total, (THREADS * TURNS) as u64);
    assert!(claimed.load(Ordering::SeqCst) > 0 && spared.load(Ordering::SeqCst) > 0);
}

#[test]
fn the_queue_is_served_in_order_of_arrival() {
    const WAITERS: u64 = 20;
    let gate = Arc::new(Gate::new(Limits {
        kept: Some(1),
        total: Some(1),
        lifo: false,
        waiting: None,
        by_thread: false,
    }));
    let first = gate.acquire(0).unwrap().unwrap();
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut threads = Vec::new();
    for n in 1..=WAITERS {
        let (gate2, order) = (Arc::clone(&gate), Arc::clone(&order));
        threads.push(thread::spawn(move || {
            let grant = take(&gate2, n, None).unwrap();
            order.lock().unwrap().push(n);
            put(&gate2, grant);
        }));
        // The next may come only when this one is in the queue.
        let patience = Instant::now() + Duration::from_secs(30);
        while gate.snapshot().unwrap().waiting < usize::try_from(n).unwrap() {
            assert!(Instant::now() < patience);
            thread::yield_now();
        }
    }
    put(&gate, first);
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (1..=WAITERS).collect::<Vec<_>>());
}

#[test]
fn a_waiter_that_is_dropped_passes_its_offer_on() {
    let gate = Arc::new(Gate::new(Limits {
        kept: Some(1),
        total: Some(1),
        lifo: false,
        waiting: None,
        by_thread: false,
    }));
    let grant = gate.acquire(0).unwrap().unwrap();
    let Admission::Waiting(quitter) = gate.join(Caller::thread(1), None, true).unwrap() else {
        panic!()
    };
    let Admission::Waiting(next) = gate.join(Caller::thread(2), None, true).unwrap() else {
        panic!()
    };
    put(&gate, grant);
    drop(quitter);
    let opened = Grant {
        must_open: false,
        ..grant
    };
    assert_eq!(
        next.sleep(Some(Duration::ZERO)).unwrap(),
        WaitResult::Granted(opened)
    );
}

#[test]
fn an_offer_that_is_refused_beside_a_full_pool_keeps_its_connection_within_reach() {
    let gate = Arc::new(Gate::new(Limits {
        kept: Some(1),
        total: Some(2),
        lifo: false,
        waiting: None,
        by_thread: false,
    }));
    let first = gate.acquire(0).unwrap().unwrap();
    let second = gate.acquire(0).unwrap().unwrap();
    let Admission::Waiting(quitter) = gate.join(Caller::thread(1), None, true).unwrap() else {
        panic!()
    };
    put(&gate, first);
    put(&gate, second);
    drop(quitter);
    let (mut closing, _) = gate.expire_all().unwrap();
    closing.sort_unstable();
    assert_eq!(closing, [first.slot, second.slot]);
}

#[test]
fn a_cooperative_waiter_is_named_to_whoever_frees_a_slot() {
    let gate = Arc::new(Gate::new(Limits {
        kept: Some(1),
        total: Some(1),
        lifo: false,
        waiting: None,
        by_thread: false,
    }));
    let grant = gate.acquire(0).unwrap().unwrap();
    let Admission::Waiting(waiter) = gate.join(Caller::thread(1), None, false).unwrap() else {
        panic!()
    };
    assert_eq!(gate.release(grant.slot), Released::Wake(waiter.id()));
    assert_eq!(waiter.take().unwrap().unwrap().slot, grant.slot);
    let Admission::Waiting(second) = gate.join(Caller::thread(2), None, false).unwrap() else {
        panic!()
    };
    assert_eq!(gate.vacate(grant.slot), Some(second.id()));
    let (closing, waiters) = gate.expire_all().unwrap();
    assert_eq!((closing, waiters), (vec![], vec![]));
    assert!(second.take().unwrap().unwrap().must_open);
}

#[test]
fn under_overload_most_are_served_long_before_their_time_and_nobody_is_refused_before_it() {
    const THREADS: usize = 40;
    const LIMIT: Duration = Duration::from_millis(100);
    const HOLD: Duration = Duration::from_millis(10);
    let gate = Arc::new(Gate::new(Limits {
        kept: Some(2),
        total: Some(2),
        lifo: false,
        waiting: None,
        by_thread: false,
    }));
    let checker = Arc::new(Checker::new(2));
    let (early, late) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let end = Instant::now() + Duration::from_secs(1);
    let threads: Vec<_> = (0..THREADS as u64)
        .map(|n| {
            let (gate, checker) = (Arc::clone(&gate), Arc::clone(&checker));
            let (early, late) = (Arc::clone(&early), Arc::clone(&late));
            thread::spawn(move || {
                while Instant::now() < end {
                    let asked = Instant::now();
                    let Some(grant) = take(&gate, n, Some(LIMIT)) else {
                        assert!(asked.elapsed() >= LIMIT, "refused before its time");
                        continue;
                    };
                    checker.taken(grant);
                    let in_time = asked.elapsed() + HOLD <= LIMIT;
                    let count = if in_time { &early } else { &late };
                    count.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(HOLD);
                    checker.given(grant);
                    put(&gate, grant);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let (early, late) = (early.load(Ordering::SeqCst), late.load(Ordering::SeqCst));
    // In order of arrival all but the first few come too late.
    assert!(early > late, "{early} in time, {late} too late");
    let end = gate.snapshot().unwrap();
    assert_eq!((end.lent, end.waiting), (0, 0));
}
