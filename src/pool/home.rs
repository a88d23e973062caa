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
