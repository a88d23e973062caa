//! Whom a connection goes to that is of use in one thread alone, where several threads' callers wait.
//!
//! A loop of asyncio's has connections that no other loop can use. In order of arrival alone a connection that comes
//! back in one loop would go to whoever has waited longest, in another as often as not, and be closed there for one
//! that is opened: each request would connect. So who waits in the thread of the connection comes first, unless that
//! thread has two slots more than the other: then the slot changes sides, until they have their shares. Whoever's turn
//! it was gets one of his own thread's before long. Where none comes back there he is passed over for [`LONGEST`], and
//! by as many as there are slots, at most.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::waiting::{Passed, Waiting};

/// For so long one whose turn it is may be passed over; to connect takes a tenth of it.
pub const LONGEST: Duration = Duration::from_millis(100);

/// The thread where a connection is of use, beside what all threads have.
#[derive(Debug)]
pub struct Home {
    /// The thread.
    pub thread: u64,
    /// By slot, the threads that hold one; the connection's own is among them.
    pub holders: Vec<u64>,
}

impl Home {
    /// Who in the queue is served in place of the one whose turn it is; `None` for nobody.
    pub fn instead(
        &self,
        queue: &mut VecDeque<Waiting>,
        at: usize,
        newest_first: bool,
        now: Instant,
    ) -> Option<usize> {
        let other = queue.get(at)?.caller.thread;
        if other == self.thread || self.held(other) + 1 < self.held(self.thread) {
            return None;
        }
        let is_here = |waiting: &Waiting| waiting.caller.thread == self.thread;
        let found = if newest_first {
            queue.iter().rposition(is_here)
        } else {
            queue.iter().position(is_here)
        }?;
        let first = queue.get_mut(at)?;
        let passed = first.passed.get_or_insert(Passed {
            since: now,
            times: 0,
        });
        let is_long = now.saturating_duration_since(passed.since) >= LONGEST;
        if is_long && passed.times >= self.holders.len() {
            return None;
        }
        passed.times += 1;
        Some(found)
    }

    fn held(&self, thread: u64) -> usize {
        self.holders.iter().filter(|&&held| held == thread).count()
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test needs an instant to begin with"
)]
mod tests {
    use super::*;
    use crate::pool::grant::Grant;
    use crate::pool::ledger::{Ledger, Release};
    use crate::pool::{Caller, Limits};

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
}
