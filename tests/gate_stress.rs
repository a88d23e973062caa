//! The gate under real threads: many takers on few slots, some of whom give up, with an invariant checker.
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

use _native::pool::{Admission, Gate, Grant, Limits, Outcome, Released};

/// Knows which slots are held, and objects when one is held twice or too many are.
struct Checker {
    held: Vec<AtomicBool>,
    count: AtomicUsize,
    most: usize,
    served: AtomicU64,
}

impl Checker {
    fn new(most: usize) -> Self {
        let held = (0..1_000_000).map(|_| AtomicBool::new(false)).collect();
        Self {
            held,
            count: AtomicUsize::new(0),
            most,
            served: AtomicU64::new(0),
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
    match gate.join(thread, true).unwrap() {
        Admission::Granted(grant) => Some(grant),
        Admission::Waiting(waiter) => loop {
            match waiter.sleep(limit).unwrap() {
                Outcome::Granted(grant) => return Some(grant),
                Outcome::TimedOut => return None,
                Outcome::Interrupted => {}
            }
        },
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
    assert_eq!((end.lent, end.waiting), (0, 0));
    assert!(end.idle <= 2);
    assert!(checker.served.load(Ordering::SeqCst) >= (THREADS * TURNS / 3) as u64);
}

#[test]
fn the_queue_is_served_in_order_of_arrival() {
    const WAITERS: u64 = 20;
    let gate = Arc::new(Gate::new(Limits {
        kept: Some(1),
        total: Some(1),
        lifo: false,
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
    }));
    let grant = gate.acquire(0).unwrap().unwrap();
    let Admission::Waiting(quitter) = gate.join(1, true).unwrap() else {
        panic!()
    };
    let Admission::Waiting(next) = gate.join(2, true).unwrap() else {
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
        Outcome::Granted(opened)
    );
}

#[test]
fn an_offer_that_is_refused_beside_a_full_pool_keeps_its_connection_within_reach() {
    let gate = Arc::new(Gate::new(Limits {
        kept: Some(1),
        total: Some(2),
        lifo: false,
    }));
    let first = gate.acquire(0).unwrap().unwrap();
    let second = gate.acquire(0).unwrap().unwrap();
    let Admission::Waiting(quitter) = gate.join(1, true).unwrap() else {
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
    }));
    let grant = gate.acquire(0).unwrap().unwrap();
    let Admission::Waiting(waiter) = gate.join(1, false).unwrap() else {
        panic!()
    };
    assert_eq!(gate.release(grant.slot), Released::Wake(waiter.id()));
    assert_eq!(waiter.take().unwrap().unwrap().slot, grant.slot);
    let Admission::Waiting(second) = gate.join(2, false).unwrap() else {
        panic!()
    };
    assert_eq!(gate.vacate(grant.slot), Some(second.id()));
    let (closing, waiters) = gate.expire_all().unwrap();
    assert_eq!((closing, waiters), (vec![], vec![]));
    assert!(second.take().unwrap().unwrap().must_open);
}
