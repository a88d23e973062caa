//! Of several threads that wait, whom a connection goes to that is of use in one of them alone.
#![cfg(not(loom))]
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test reads the clock where it likes, and may fail"
)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use _native::pool::grant::Grant;
use _native::pool::home::LONGEST;
use _native::pool::ledger::{Ledger, Release};
use _native::pool::{Caller, Limits};

const HERE: u64 = 1;
const THERE: u64 = 2;

/// A pool of `total` slots, all of them lent in this thread.
fn lent(total: usize, now: Instant) -> (Ledger, VecDeque<Grant>) {
    let mut ledger = Ledger::new(Limits {
        kept: None,
        total: Some(total),
        lifo: true,
        waiting: None,
        by_thread: true,
    });
    let grants = (0..total).map(|_| ledger.acquire(HERE, now).unwrap());
    let grants = grants.collect();
    (ledger, grants)
}

fn task(thread: u64, number: u64) -> Caller {
    Caller {
        thread,
        strand: 100 * thread + number,
    }
}

/// Gives a connection back, and returns the thread of whoever has it next.
fn next(ledger: &mut Ledger, grant: Grant, now: Instant) -> u64 {
    let Release::Offered(waiter) = ledger.release(grant.slot, now) else {
        panic!("nobody waits");
    };
    let accepted = ledger.accept(waiter, now);
    assert_eq!(accepted.map(|accepted| accepted.slot), Some(grant.slot));
    let holders = ledger.holders();
    let holder = holders.iter().find(|holder| holder.slot == grant.slot);
    holder.unwrap().thread
}

#[test]
fn slots_change_sides_until_each_has_its_share_and_no_longer() {
    let now = Instant::now();
    let (mut ledger, mut grants) = lent(4, now);
    for number in 0..4 {
        ledger.wait(task(THERE, number), None, now);
    }
    let mut changes = 0;
    // Whoever gives one back asks for another at once.
    let mut givers: VecDeque<_> = grants.iter().map(|_| HERE).collect();
    for number in 4..1_000 {
        let (grant, giver) = (grants.pop_front().unwrap(), givers.pop_front().unwrap());
        ledger.wait(task(giver, number), None, now);
        let taker = next(&mut ledger, grant, now);
        changes += usize::from(taker != giver);
        grants.push_back(grant);
        givers.push_back(taker);
    }
    assert_eq!(changes, 2);
    assert_eq!(givers.iter().filter(|&&thread| thread == THERE).count(), 2);
}

#[test]
fn one_is_passed_over_for_a_while_and_not_for_longer() {
    let mut now = Instant::now();
    let (mut ledger, grants) = lent(1, now);
    ledger.wait(task(THERE, 0), None, now);
    for number in 1..10 {
        ledger.wait(task(HERE, number), None, now);
    }
    assert_eq!(next(&mut ledger, grants[0], now), HERE);
    now += LONGEST / 2;
    assert_eq!(next(&mut ledger, grants[0], now), HERE);
    now += LONGEST / 2;
    assert_eq!(next(&mut ledger, grants[0], now), THERE);
}

#[test]
fn a_slow_machine_is_not_taken_for_a_long_time() {
    let mut now = Instant::now();
    let (mut ledger, grants) = lent(3, now);
    ledger.wait(task(THERE, 0), None, now);
    ledger.wait(task(THERE, 1), None, now);
    for number in 2..10 {
        ledger.wait(task(HERE, number), None, now);
    }
    assert_eq!(next(&mut ledger, grants[0], now), THERE);
    // With one of three it has its share, which comes back when each of the others has done so.
    for grant in [grants[1], grants[2], grants[1]] {
        now += Duration::from_secs(1);
        assert_eq!(next(&mut ledger, grant, now), HERE);
    }
    now += Duration::from_secs(1);
    assert_eq!(next(&mut ledger, grants[2], now), THERE);
}

#[test]
fn where_nobody_waits_at_home_it_goes_to_whose_turn_it_is() {
    let now = Instant::now();
    let (mut ledger, grants) = lent(1, now);
    ledger.wait(task(THERE, 0), None, now);
    assert_eq!(next(&mut ledger, grants[0], now), THERE);
}
