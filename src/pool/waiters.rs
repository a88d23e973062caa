//! The queue of those who wait for a slot, and the offers made to them.
//!
//! A slot is *offered* to one waiter, the first in the queue unless [`Overload`] says otherwise, and never to
//! someone who comes later. An offer is a slot that nobody else can take; the waiter accepts it, or gives up and
//! gets it all the same, to pass on.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::grant::Grant;
use super::home::Home;
use super::overload::Overload;
use super::waiting::{Caller, WaiterId, Waiting};

/// A slot set aside for one who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What is offered.
    pub grant: Grant,
    /// Who waits.
    pub caller: Caller,
}

/// Who waits, in order of arrival, and who has been offered what.
#[derive(Debug, Default)]
pub struct Waiters {
    next: WaiterId,
    /// By growing `id`.
    queue: VecDeque<Waiting>,
    offers: BTreeMap<WaiterId, Offer>,
    overload: Overload,
}

impl Waiters {
    /// True when nobody waits. Those who have been offered a slot no longer wait.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True while the newest are served first.
    pub fn are_overloaded(&self, now: Instant) -> bool {
        self.overload.holds(now)
    }

    /// Who waits, in order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.queue.iter()
    }

    /// Puts one more at the end of the queue, while so many slots are `lent`.
    pub fn join(
        &mut self,
        caller: Caller,
        limit: Option<Duration>,
        lent: usize,
        now: Instant,
    ) -> WaiterId {
        let id = self.next;
        self.next += 1;
        let position = self.overload.position(self.queue.len() + lent);
        self.queue.push_back(Waiting {
            id,
            caller,
            since: now,
            limit,
            position,
            passed: None,
        });
        id
    }

    /// Takes the one whose turn it is out of the queue.
    pub fn take_next(&mut self, now: Instant) -> Option<Waiting> {
        if self.queue.is_empty() {
            return None;
        }
        let at = self.overload.next(&self.queue, now);
        self.remove(at, now)
    }

    /// The same, of a connection that is of use to those in one thread; see [`Home`].
    pub fn take_next_at(&mut self, home: &Home, now: Instant) -> Option<Waiting> {
        if self.queue.is_empty() {
            return None;
        }
        let at = self.overload.next(&self.queue, now);
        let newest_first = self.overload.holds(now);
        let at = home
            .instead(&mut self.queue, at, newest_first, now)
            .unwrap_or(at);
        self.remove(at, now)
    }

    /// Records what `waiting`, who has left the queue, is offered.
    pub fn offer(&mut self, waiting: Waiting, grant: Grant) {
        self.offers.insert(
            waiting.id,
            Offer {
                grant,
                caller: waiting.caller,
            },
        );
    }

    /// Takes the offer made to `id`, if there is one.
    pub fn accept(&mut self, id: WaiterId) -> Option<Grant> {
        self.offers.remove(&id).map(|offer| offer.grant)
    }

    /// Ends the wait of `id`: out of the queue, or with the offer that came in the last instant.
    pub fn leave(&mut self, id: WaiterId, now: Instant) -> Option<Grant> {
        match self.position(id) {
            Some(at) => {
                self.remove(at, now);
                None
            }
            None => self.accept(id),
        }
    }

    /// Ends the wait of `id` because its time is over: as [`Waiters::leave`], and it may be a sign of overload when
    /// there is no offer.
    pub fn run_out(&mut self, id: WaiterId, now: Instant) -> Option<Grant> {
        if let Some(waiting) = self.position(id).and_then(|at| self.queue.get(at)) {
            let waited = now.saturating_duration_since(waiting.since);
            self.overload.ran_out(waiting.position, waited, now);
        }
        self.leave(id, now)
    }

    /// The offers that have not been accepted yet.
    pub fn offers_mut(&mut self) -> impl Iterator<Item = &mut Offer> {
        self.offers.values_mut()
    }

    /// True when somebody has been offered a slot and has not taken it yet.
    pub fn have_offers(&self) -> bool {
        !self.offers.is_empty()
    }

    fn position(&self, id: WaiterId) -> Option<usize> {
        self.queue
            .binary_search_by_key(&id, |waiting| waiting.id)
            .ok()
    }

    fn remove(&mut self, at: usize, now: Instant) -> Option<Waiting> {
        let waiting = self.queue.remove(at);
        if self.queue.is_empty() {
            self.overload.drained(now);
        }
        waiting
    }
}
