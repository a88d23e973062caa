//! Whom a slot that has come free goes to: in order of arrival, or under overload newest first.
//!
//! In order of arrival all callers are served in time, or none is: while more come than can be served, each
//! slot goes to the caller that has waited longest and is about to give up. So when a caller's time runs out in
//! the queue, the newest are served first (adaptive LIFO): they can still make it. No caller is refused before
//! its own time, and those who have most of it left do not starve: one slot in [`SHARE`] goes to the caller that
//! has waited longest among those who have half of their time left.
//!
//! Newest first passes callers over, and their time runs out too. That is no sign of an overload, or a crowd that
//! order of arrival could just serve would never see order again. So a time-out counts only where order would not
//! have helped: a queue in order serves a caller once as many slots have been given out as there were callers
//! before it. A time-out of a caller that order had served is counted against newest first instead.
//!
//! Order of arrival comes back when the queue is empty, or when no time-out has counted for as long as the last
//! caller had waited. If that was too early, as it is for arrivals a little above capacity, of which newest first
//! keeps the queue short, the next time lasts longer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::waiting::{Position, Waiting};

/// One slot in so many goes to the longest wait that has time left, under overload.
pub const SHARE: u32 = 8;

/// Newest first lasts so many times longer when it begins again soon, up to [`LONGEST`] times the wait.
const LONGER: u32 = 4;
/// Soon is within so many times as long as it had to last.
const SOON: u32 = 4;
const LONGEST: u32 = 32;

/// So many time-outs of hurried callers count for nothing for each caller that newest first refused in vain.
const WEIGHT: u32 = 4;
/// And never more than these at once: an old harm says little.
const MOST_WEIGHT: u32 = 64;

/// Which order holds, and until when.
#[derive(Debug, Default)]
pub struct Overload {
    /// Slots given to waiting callers, ever.
    given: u64,
    until: Option<Instant>,
    turn: u32,
    /// How long newest first had to last at least, when it began last.
    lasts: Duration,
    left_at: Option<Instant>,
    vain: Vain,
}

impl Overload {
    /// True while the newest are served first.
    pub fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// The position of a caller that comes now, when so many wait or hold a slot.
    pub fn position(&self, before: usize) -> Position {
        Position {
            before: u64::try_from(before).unwrap_or(u64::MAX),
            given: self.given,
        }
    }

    /// The time of the caller at this position ran out after it had waited so long.
    pub fn ran_out(&mut self, position: Position, waited: Duration, now: Instant) {
        self.leave_if_over(now);
        if self.order_had_served(position) {
            self.vain.refused(waited);
            return;
        }
        if self.vain.absorbs(waited) {
            return;
        }
        let lasts = if self.until.is_some() {
            waited
        } else {
            self.lasts = self.next_length(waited, now);
            self.lasts
        };
        // Beyond the clock's range is as good as what holds already.
        self.until = self.until.max(now.checked_add(lasts));
    }

    /// No caller waits any more.
    pub fn drained(&mut self, now: Instant) {
        if let Some(until) = self.until {
            self.leave(until.min(now));
        }
        self.vain = Vain::default();
    }

    /// The place in the queue, which is not empty, of the caller to serve now.
    pub fn next(&mut self, queue: &VecDeque<Waiting>, now: Instant) -> usize {
        self.given += 1;
        self.leave_if_over(now);
        if self.until.is_none() {
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

    /// True when order of arrival would have served this caller, and had its slot back in time.
    ///
    /// One time and a tenth: where order only just suffices, the slightest delay makes it fail.
    fn order_had_served(&self, position: Position) -> bool {
        let since = self.given - position.given;
        since.saturating_mul(10) >= position.before.saturating_mul(11)
    }

    fn next_length(&self, waited: Duration, now: Instant) -> Duration {
        let order_held = self
            .left_at
            .map(|left_at| now.saturating_duration_since(left_at));
        if order_held.is_none_or(|held| held >= self.lasts.saturating_mul(SOON)) {
            return waited;
        }
        let longest = waited.saturating_mul(LONGEST);
        self.lasts.saturating_mul(LONGER).clamp(waited, longest)
    }

    fn leave_if_over(&mut self, now: Instant) {
        if let Some(until) = self.until.filter(|&until| now >= until) {
            self.leave(until);
        }
    }

    fn leave(&mut self, at: Instant) {
        self.until = None;
        self.left_at = Some(at);
        self.turn = 0;
    }
}

/// Callers that newest first refused in vain: order of arrival had served them.
///
/// Callers with much less time than these are in a hurry. Newest first for their sake refuses the others, so
/// their time-outs do not begin it, unless there are several of them for each that it refused.
#[derive(Debug, Default)]
struct Vain {
    shortest: Duration,
    weight: u32,
}

impl Vain {
    fn refused(&mut self, waited: Duration) {
        self.shortest = if self.weight == 0 {
            waited
        } else {
            self.shortest.min(waited)
        };
        self.weight = self.weight.saturating_add(WEIGHT).min(MOST_WEIGHT);
    }

    /// True when a time-out after this wait is a hurried caller's and counts for nothing, since others were refused.
    fn absorbs(&mut self, waited: Duration) -> bool {
        let absorbs = self.weight > 0 && waited < self.shortest / 2;
        if absorbs {
            self.weight -= 1;
        }
        absorbs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_refused_in_vain_the_one_with_least_time_says_who_is_in_a_hurry() {
        let mut vain = Vain::default();
        for wait in [400, 100, 400] {
            vain.refused(Duration::from_millis(wait));
        }
        assert!(!vain.absorbs(Duration::from_millis(150)));
        assert!(vain.absorbs(Duration::from_millis(49)));
    }

    #[test]
    fn what_was_refused_in_vain_is_soon_outweighed() {
        let mut vain = Vain::default();
        for _ in 0..1_000 {
            vain.refused(Duration::from_secs(1));
        }
        let absorbed = (0..1_000).filter(|_| vain.absorbs(Duration::ZERO)).count();
        assert_eq!(absorbed, usize::try_from(MOST_WEIGHT).unwrap());
    }
}
