//! An answer that a thread waits for, or an event loop, while the control plane works on it.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::events;
use crate::process::generation;

#[derive(Debug)]
struct Shared<T> {
    answer: Mutex<Answer<T>>,
    /// Whom the events have to tell of its end.
    announced: Mutex<Vec<u64>>,
    given: Condvar,
}

#[derive(Debug)]
enum Answer<T> {
    Awaited,
    Given(T),
    /// Taken, or never to come: its task has ended without one.
    Gone,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Answer<T>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announced(&self) -> MutexGuard<'_, Vec<u64>> {
        self.announced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side that waits.
#[derive(Debug)]
pub struct Pending<T> {
    shared: Arc<Shared<T>>,
    generation: u64,
}

/// The side that answers, once.
#[derive(Debug)]
pub struct Promise<T>(Arc<Shared<T>>);

/// A shared for one answer: who waits, and who answers.
pub fn pending<T>() -> (Pending<T>, Promise<T>) {
    let shared = Arc::new(Shared {
        answer: Mutex::new(Answer::Awaited),
        announced: Mutex::new(Vec::new()),
        given: Condvar::new(),
    });
    let pending = Pending {
        shared: Arc::clone(&shared),
        generation: generation(),
    };
    (pending, Promise(shared))
}

impl<T> Promise<T> {
    /// Gives the answer.
    pub fn answer(self, answer: T) {
        *self.0.lock() = Answer::Given(answer);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let mut answer = self.0.lock();
        if matches!(*answer, Answer::Awaited) {
            *answer = Answer::Gone;
        }
        self.0.given.notify_all();
        drop(answer);
        for number in self.0.announced().drain(..) {
            events::tell(number);
        }
    }
}

#[cfg(test)]
impl<T> Pending<T> {
    /// Takes both locks, as a thread does that is caught by a fork.
    pub(super) fn hold(&self) -> (impl Drop + '_, impl Drop + '_) {
        (self.shared.lock(), self.shared.announced())
    }
}

impl<T> Pending<T> {
    /// Waits for so long at most. True when there is nothing to wait for any more; in a child of a fork, false.
    pub fn wait(&self, at_most: Duration) -> bool {
        if self.generation != generation() {
            return false;
        }
        let answer = self.shared.lock();
        let waited = self
            .shared
            .given
            .wait_timeout_while(answer, at_most, |answer| matches!(answer, Answer::Awaited));
        let (answer, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !matches!(*answer, Answer::Awaited)
    }

    /// Has the [`events`] tell when there is nothing to wait for any more, under the number that this returns. Whoever
    /// asks for it looks once more afterwards: an answer that is there already is not told.
    pub fn announce(&self) -> u64 {
        let number = events::number();
        if self.generation == generation() {
            self.shared.announced().push(number);
        }
        number
    }

    /// Takes the answer; none when it is not there, was taken before, or will never come.
    pub fn take(&self) -> Option<T> {
        if self.generation != generation() {
            return None;
        }
        let mut answer = self.shared.lock();
        if matches!(*answer, Answer::Awaited) {
            return None;
        }
        match mem::replace(&mut *answer, Answer::Gone) {
            Answer::Given(answer) => Some(answer),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_once() {
        let (waiting, promise) = pending();
        assert!(!waiting.wait(Duration::ZERO));
        assert_eq!(waiting.take(), None);
        promise.answer(1);
        assert!(waiting.wait(Duration::ZERO));
        assert_eq!(waiting.take(), Some(1));
        assert_eq!(waiting.take(), None);
    }

    #[test]
    fn news_tell_of_an_answer_and_of_its_failing_to_come() {
        let (waiting, promise) = pending();
        let (first, second) = (waiting.announce(), waiting.announce());
        promise.answer(1);
        let (waiting, promise) = pending::<u8>();
        let third = waiting.announce();
        drop(promise);
        let mut told = Vec::new();
        while !told.contains(&third) {
            told.extend(events::wait(Duration::from_secs(10)));
        }
        let ours = told
            .into_iter()
            .filter(|number| [first, second, third].contains(number));
        assert_eq!(ours.collect::<Vec<_>>(), [first, second, third]);
    }

    #[test]
    fn nobody_waits_for_a_task_that_has_gone() {
        let (waiting, promise) = pending::<u8>();
        drop(promise);
        assert!(waiting.wait(Duration::MAX));
        assert_eq!(waiting.take(), None);
    }
}
