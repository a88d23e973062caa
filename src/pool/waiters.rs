//! The queue of those who wait for a slot, and the offers made to them.
//!
//! A slot is *offered* to the first waiter, never to someone who comes later. An offer is a slot that nobody
//! else can take; the waiter accepts it, or gives up and gets it all the same, to pass on.

use std::collections::{BTreeMap, VecDeque};

use super::ledger::Grant;

/// Names one wait. Never used twice by one ledger.
pub type WaiterId = u64;

/// One who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The name of this wait.
    pub id: WaiterId,
    /// The thread that waits, as `threading.get_native_id` numbers it.
    pub thread: u64,
}

/// A slot set aside for one who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What is offered.
    pub grant: Grant,
    /// The thread that waits.
    pub thread: u64,
}

/// Who waits, in order of arrival, and who has been offered what.
#[derive(Debug, Default)]
pub struct Waiters {
    next: WaiterId,
    queue: VecDeque<Waiting>,
    offers: BTreeMap<WaiterId, Offer>,
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

    /// Puts one more at the end of the queue.
    pub fn join(&mut self, thread: u64) -> WaiterId {
        let id = self.next;
        self.next += 1;
        self.queue.push_back(Waiting { id, thread });
        id
    }

    /// Takes the one who has waited longest out of the queue.
    pub fn first(&mut self) -> Option<Waiting> {
        self.queue.pop_front()
    }

    /// Records what `waiting`, who has left the queue, is offered.
    pub fn offer(&mut self, waiting: Waiting, grant: Grant) {
        self.offers.insert(
            waiting.id,
            Offer {
                grant,
                thread: waiting.thread,
            },
        );
    }

    /// Takes the offer made to `id`, if there is one.
    pub fn accept(&mut self, id: WaiterId) -> Option<Grant> {
        self.offers.remove(&id).map(|offer| offer.grant)
    }

    /// Ends the wait of `id`: out of the queue, or with the offer that came in the last instant.
    pub fn leave(&mut self, id: WaiterId) -> Option<Grant> {
        if let Some(at) = self.queue.iter().position(|waiting| waiting.id == id) {
            self.queue.remove(at);
            return None;
        }
        self.accept(id)
    }

    /// The offers that have not been accepted yet.
    pub fn offers_mut(&mut self) -> impl Iterator<Item = &mut Offer> {
        self.offers.values_mut()
    }
}
