//! A value that each process has of its own: made at first use, and again after a fork.

use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::generation::generation;

/// One value a process. What a parent made is forgotten in a child, never dropped: a destructor may wait for a
/// thread that is not there.
pub struct PerProcess<T: 'static> {
    current: AtomicPtr<Made<T>>,
}

struct Made<T> {
    generation: u64,
    value: T,
}

impl<T> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerProcess").finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Send + Sync + 'static> PerProcess<T> {
    /// No value yet.
    pub const fn new() -> Self {
        Self {
            current: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The value of this process, if it was made.
    pub fn get(&self) -> Option<&'static T> {
        let made = Self::seen(self.current.load(Ordering::Acquire))?;
        (made.generation == generation()).then_some(&made.value)
    }

    /// The value of this process. Of two threads that make it at once one wins, and the other's is dropped.
    ///
    /// # Errors
    ///
    /// What `make` says.
    pub fn get_or_make<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&'static T, E> {
        self.get_or_remake(|_| true, |_| make())
    }

    /// The same, but one that will not do any more is replaced, and forgotten as a parent's is. `make` is given it.
    ///
    /// # Errors
    ///
    /// What `make` says.
    pub fn get_or_remake<E>(
        &self,
        will_do: impl Fn(&T) -> bool,
        make: impl FnOnce(Option<&'static T>) -> Result<T, E>,
    ) -> Result<&'static T, E> {
        let found = self.current.load(Ordering::Acquire);
        let ours = Self::seen(found)
            .filter(|made| made.generation == generation())
            .map(|made| &made.value);
        if let Some(value) = ours.filter(|value| will_do(value)) {
            return Ok(value);
        }
        let new = Box::into_raw(Box::new(Made {
            generation: generation(),
            value: make(ours)?,
        }));
        let swapped =
            self.current
                .compare_exchange(found, new, Ordering::AcqRel, Ordering::Acquire);
        let current = match swapped {
            Ok(_older) => new,
            Err(winner) => {
                // SAFETY: made above by Box, and seen by nobody else.
                drop(unsafe { Box::from_raw(new) });
                winner
            }
        };
        // SAFETY: not null here; what was published is never freed.
        Ok(unsafe { &(*current).value })
    }

    fn seen(found: *mut Made<T>) -> Option<&'static Made<T>> {
        // SAFETY: null, or published by `get_or_make` and never freed.
        unsafe { found.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once() {
        static OWN: PerProcess<u32> = PerProcess::new();
        assert_eq!(OWN.get(), None);
        assert_eq!(OWN.get_or_make(|| Ok::<_, ()>(1)), Ok(&1));
        assert_eq!(OWN.get_or_make(|| Ok::<_, ()>(2)), Ok(&1));
        assert_eq!(OWN.get(), Some(&1));
    }

    #[test]
    fn a_value_that_will_not_do_is_made_anew() {
        static OWN: PerProcess<u32> = PerProcess::new();
        let make = |older: Option<&u32>| Ok::<_, ()>(older.map_or(1, |older| older + 1));
        assert_eq!(OWN.get_or_remake(|_| false, make), Ok(&1));
        assert_eq!(OWN.get_or_remake(|_| false, make), Ok(&2));
        assert_eq!(OWN.get_or_remake(|_| true, make), Ok(&2));
        assert_eq!(OWN.get(), Some(&2));
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        static OWN: PerProcess<u32> = PerProcess::new();
        assert_eq!(OWN.get_or_make(|| Err("no")), Err("no"));
        assert_eq!(OWN.get(), None);
    }
}
