//! Whom a slot that has come free goes to: in order of arrival, or under overload newest first.
//!
//! In order of arrival everybody is served in time, or nobody is: while more come than can be served, each
//! slot goes to the one who has waited longest and is about to give up. So when somebody's time runs out in the
//! queue, the newest are served first (adaptive LIFO): they can still make it. Nobody is refused before his
//! own time, and those who have most of it left do not starve: one slot in [`SHARE`] goes to whoever has
//! waited longest among those who have half of their time left.
//!
//! Order of arrival comes back when the queue is empty, or when nobody's time has run out for twice as long as
//! the last one's was: one caller in a hurry must not cost a patient crowd its order, and a crowd in which each
//! comes back at once never empties the queue.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::waiters::Waiting;

/// One slot in so many goes to the longest wait that has time left, under overload.
pub const SHARE: u32 = 8;

/// Which regime holds, and until when.
#[derive(Debug, Default)]
pub struct Overload {
    until: Option<Instant>,
    turn: u32,
}

impl Overload {
    /// True while the newest are served first.
    pub fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Somebody's time ran out after he had waited so long.
    pub fn ran_out(&mut self, waited: Duration, now: Instant) {
        let until = now.checked_add(waited.saturating_mul(2));
        // Beyond the clock's range is as good as what holds already.
        self.until = self.until.max(until);
    }

    /// Nobody waits any more.
    pub fn drained(&mut self) {
        *self = Self::default();
    }

    /// The place in the queue, which is not empty, of the one to serve now.
    pub fn next(&mut self, queue: &VecDeque<Waiting>, now: Instant) -> usize {
        if !self.holds(now) {
            self.until = None;
            return 0;
        }
        let newest = queue.len().saturating_sub(1);
        self.turn += 1;
        if self.turn < SHARE {
            return newest;
        }
        self.turn = 0;
        queue
            .iter()
            .position(|waiting| waiting.has_half_left(now))
            .unwrap_or(newest)
    }
}
