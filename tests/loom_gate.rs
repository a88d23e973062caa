//! Every interleaving of two or three threads at the gate, explored by loom.
//!
//! Run with `RUSTFLAGS="--cfg loom"`. Loom does not model the passing of time, so a wait that times out is
//! played by a waiter that leaves the queue, which is what a time-out does.
#![cfg(loom)]

use std::sync::Arc;

use _native::pool::{Admission, Caller, Gate, Grant, Limits, Released, WaitResult};
use loom::thread;

const ONE: Limits = Limits {
    kept: Some(1),
    total: Some(1),
    lifo: false,
    waiting: None,
    by_thread: false,
};

fn put(gate: &Gate, grant: Grant) {
    match gate.release(grant.slot) {
        Released::Done => {}
        other => panic!("{other:?}"),
    }
}

fn take(gate: &Arc<Gate>, thread: u64) -> Grant {
    match gate.join(Caller::thread(thread), None, true).unwrap() {
        Admission::Granted(grant) => grant,
        Admission::Waiting(waiter) => loop {
            match waiter.sleep(None).unwrap() {
                WaitResult::Granted(grant) => return grant,
                WaitResult::TimedOut | WaitResult::Nested(_) => {
                    panic!("a wait without bound timed out")
                }
                WaitResult::Interrupted => thread::yield_now(),
            }
        },
        Admission::Refused => panic!("refused without a bound"),
    }
}

#[test]
fn a_sleeper_is_woken_by_a_release() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(ONE));
        let grant = gate.acquire(0).unwrap().unwrap();
        let other = Arc::clone(&gate);
        let taker = thread::spawn(move || {
            let grant = take(&other, 1);
            put(&other, grant);
        });
        put(&gate, grant);
        taker.join().unwrap();
        let end = gate.snapshot().unwrap();
        assert_eq!((end.idle, end.lent, end.waiting), (1, 0, 0));
    });
}

#[test]
fn one_who_gives_up_while_being_served_loses_no_slot() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(ONE));
        let grant = gate.acquire(0).unwrap().unwrap();
        let other = Arc::clone(&gate);
        let quitter =
            thread::spawn(
                move || match other.join(Caller::thread(1), None, true).unwrap() {
                    Admission::Granted(grant) => put(&other, grant),
                    Admission::Waiting(waiter) => drop(waiter),
                    Admission::Refused => panic!("refused without a bound"),
                },
            );
        put(&gate, grant);
        quitter.join().unwrap();
        let end = gate.snapshot().unwrap();
        assert_eq!((end.idle, end.lent, end.waiting), (1, 0, 0));
    });
}

#[test]
fn one_who_gives_up_passes_the_slot_to_the_one_behind() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(ONE));
        let grant = gate.acquire(0).unwrap().unwrap();
        let Admission::Waiting(quitter) = gate.join(Caller::thread(1), None, true).unwrap() else {
            panic!()
        };
        let Admission::Waiting(patient) = gate.join(Caller::thread(2), None, true).unwrap() else {
            panic!()
        };
        let other = Arc::clone(&gate);
        let leaving = thread::spawn(move || {
            drop(quitter);
            drop(other);
        });
        put(&gate, grant);
        leaving.join().unwrap();
        assert_eq!(patient.take().unwrap().unwrap().slot, grant.slot);
    });
}

#[test]
fn a_failed_opening_wakes_the_next() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(ONE));
        let grant = gate.acquire(0).unwrap().unwrap();
        let other = Arc::clone(&gate);
        let taker = thread::spawn(move || {
            let grant = take(&other, 1);
            assert!(grant.must_open);
            put(&other, grant);
        });
        assert_eq!(gate.vacate(grant.slot), None);
        taker.join().unwrap();
        assert_eq!(gate.snapshot().unwrap().idle, 1);
    });
}

#[test]
fn a_slot_is_never_granted_to_two() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(Limits {
            kept: Some(1),
            total: Some(2),
            lifo: false,
            waiting: None,
            by_thread: false,
        }));
        let takers: Vec<_> = (0..2)
            .map(|n| {
                let gate = Arc::clone(&gate);
                thread::spawn(move || gate.acquire(n).unwrap().unwrap().slot)
            })
            .collect();
        let mut slots: Vec<_> = takers
            .into_iter()
            .map(|taker| taker.join().unwrap())
            .collect();
        slots.sort_unstable();
        assert_eq!(slots, [0, 1]);
    });
}

#[test]
fn expiring_beside_a_release_keeps_the_count() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(ONE));
        let grant = gate.acquire(0).unwrap().unwrap();
        let other = Arc::clone(&gate);
        let disposer = thread::spawn(move || other.expire_all().unwrap());
        let released = gate.release(grant.slot);
        let (closing, _) = disposer.join().unwrap();
        // Either it was idle when everything expired, or it came back stale: closed once in any case.
        match released {
            Released::Done => assert_eq!(closing, [grant.slot]),
            Released::Stale => assert!(closing.is_empty()),
            other => panic!("{other:?}"),
        }
        let end = gate.snapshot().unwrap();
        assert_eq!((end.idle, end.lent), (0, 0));
    });
}

#[test]
fn the_keeper_and_a_caller_never_have_the_same_slot() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(ONE));
        let first = gate.acquire(0).unwrap().unwrap();
        put(&gate, first);
        let other = Arc::clone(&gate);
        let keeper = thread::spawn(move || {
            let claimed = other.claim(first.slot, 9).unwrap();
            if let Some(grant) = claimed {
                assert_eq!(other.vacate(grant.slot), None);
            }
            claimed.is_some()
        });
        let grant = take(&gate, 1);
        let claimed = keeper.join().unwrap();
        // What the keeper had is gone; the caller got it before, or an empty slot after.
        assert!(!claimed || grant.must_open);
        assert_eq!(gate.snapshot().unwrap().lent, 1);
        put(&gate, grant);
        assert_eq!(gate.snapshot().unwrap().idle, 1);
    });
}

#[test]
fn one_who_waits_beside_the_keeper_is_woken() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(ONE));
        let other = Arc::clone(&gate);
        let keeper = thread::spawn(move || {
            if let Some(grant) = other.spare(1, 9).unwrap() {
                put(&other, grant);
            }
        });
        let grant = take(&gate, 1);
        put(&gate, grant);
        keeper.join().unwrap();
        let end = gate.snapshot().unwrap();
        assert_eq!((end.idle, end.lent, end.waiting), (1, 0, 0));
    });
}

#[test]
fn one_whose_time_runs_out_while_being_served_loses_no_slot() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(ONE));
        let grant = gate.acquire(0).unwrap().unwrap();
        let Admission::Waiting(patient) = gate.join(Caller::thread(2), None, true).unwrap() else {
            panic!()
        };
        let other = Arc::clone(&gate);
        let quitter = thread::spawn(move || {
            let waiter = match other.join(Caller::thread(1), None, true).unwrap() {
                Admission::Granted(grant) => return put(&other, grant),
                Admission::Waiting(waiter) => waiter,
                Admission::Refused => panic!("refused without a bound"),
            };
            match waiter.run_out().unwrap() {
                WaitResult::Granted(grant) => put(&other, grant),
                WaitResult::TimedOut => {}
                ended => panic!("{ended:?}"),
            }
        });
        put(&gate, grant);
        let grant = loop {
            match patient.sleep(None).unwrap() {
                WaitResult::Granted(grant) => break grant,
                WaitResult::Interrupted => thread::yield_now(),
                ended => panic!("{ended:?}"),
            }
        };
        put(&gate, grant);
        quitter.join().unwrap();
        let end = gate.snapshot().unwrap();
        assert_eq!((end.idle, end.lent, end.waiting), (1, 0, 0));
    });
}

#[test]
fn the_order_is_back_when_the_queue_is_empty_whoever_is_served_and_whoever_runs_out_of_time() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(ONE));
        let grant = gate.acquire(0).unwrap().unwrap();
        let waiters =
            [1, 2].map(
                |thread| match gate.join(Caller::thread(thread), None, true).unwrap() {
                    Admission::Waiting(waiter) => waiter,
                    other => panic!("{other:?}"),
                },
            );
        let quitters = waiters.map(|waiter| {
            let gate = Arc::clone(&gate);
            thread::spawn(move || match waiter.run_out().unwrap() {
                WaitResult::Granted(grant) => put(&gate, grant),
                WaitResult::TimedOut => {}
                ended => panic!("{ended:?}"),
            })
        });
        put(&gate, grant);
        for quitter in quitters {
            quitter.join().unwrap();
        }
        let end = gate.snapshot().unwrap();
        assert_eq!((end.idle, end.lent, end.waiting), (1, 0, 0));
        assert!(!end.newest_first);
    });
}

#[test]
fn of_two_holders_that_wait_for_each_other_the_last_is_told() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(Limits {
            kept: Some(2),
            total: Some(2),
            lifo: false,
            waiting: None,
            by_thread: false,
        }));
        let grants = [0, 1].map(|thread| gate.acquire(thread).unwrap().unwrap());
        let other = Arc::clone(&gate);
        let join =
            |gate: &Arc<Gate>, thread| match gate.join(Caller::thread(thread), None, true).unwrap()
            {
                Admission::Waiting(waiter) => waiter,
                other => panic!("{other:?}"),
            };
        let second = thread::spawn(move || join(&other, 1));
        let waiters = [join(&gate, 0), second.join().unwrap()];
        let told = waiters.iter().filter(|one| one.nested().is_some()).count();
        assert_eq!(told, 1);
        drop(waiters);
        for grant in grants {
            put(&gate, grant);
        }
    });
}
