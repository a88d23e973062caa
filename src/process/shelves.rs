//! Places that never move and are never freed: an array that grows by whole shelves, without a lock.
//!
//! A lock, also the one inside a `OnceLock`, may be held by another thread at a fork, and the child would wait for a
//! thread that is not there. Here a thread publishes a shelf that it has filled, or finds that another was faster; a
//! child sees a shelf that is whole, or none.

use std::iter;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicPtr, Ordering};

const FIRST: usize = 256;
const COUNT: usize = 12;

/// Shelf *n* has `256 << n` places and is made when the ones before are full: 1,048,320 in all.
pub(crate) struct Shelves<T: 'static> {
    /// The first place of each; null while it is not made.
    shelves: [AtomicPtr<T>; COUNT],
    make: fn() -> T,
}

impl<T: Send + Sync + 'static> Shelves<T> {
    /// Places in all.
    pub(crate) const LIMIT: usize = FIRST * ((1 << COUNT) - 1);

    /// None yet; each is made by `make`.
    pub(crate) const fn new(make: fn() -> T) -> Self {
        Self {
            shelves: [const { AtomicPtr::new(ptr::null_mut()) }; COUNT],
            make,
        }
    }

    /// Makes the first shelf, so that a child finds it.
    pub(crate) fn prepare(&'static self) {
        self.shelf(0);
    }

    /// The places that were made. Allocates nothing, and may be asked inside a fork.
    pub(crate) fn made(&'static self) -> impl Iterator<Item = &'static T> {
        (0..COUNT).map_while(|n| self.look(n)).flatten()
    }

    /// The first place that will do. More are made as long as none does, and there is room.
    pub(crate) fn find(&'static self, will_do: impl Fn(&T) -> bool) -> Option<&'static T> {
        (0..COUNT).find_map(|n| self.shelf(n).iter().find(|place| will_do(place)))
    }

    fn look(&'static self, n: usize) -> Option<&'static [T]> {
        let first = self.shelves.get(n)?.load(Ordering::Acquire);
        // SAFETY: what was published is the first of so many places that live for ever.
        (!first.is_null()).then(|| unsafe { slice::from_raw_parts(first, FIRST << n) })
    }

    fn shelf(&'static self, n: usize) -> &'static [T] {
        if let Some(shelf) = self.look(n) {
            return shelf;
        }
        let made: Box<[T]> = iter::repeat_with(self.make).take(FIRST << n).collect();
        let made = Box::into_raw(made);
        let published = self.shelves[n].compare_exchange(
            ptr::null_mut(),
            made.cast(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        match published {
            // SAFETY: made above, and never freed from here on.
            Ok(_) => unsafe { &*made },
            Err(first) => {
                // SAFETY: made above by Box, and seen by nobody else.
                drop(unsafe { Box::from_raw(made) });
                // SAFETY: as in `look`.
                unsafe { slice::from_raw_parts(first, FIRST << n) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn of_threads_that_make_a_shelf_at_once_all_get_the_same() {
        static PLACES: Shelves<AtomicBool> = Shelves::new(|| AtomicBool::new(false));
        assert_eq!(PLACES.made().count(), 0);
        let take = || PLACES.find(|place| !place.swap(true, Ordering::AcqRel));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..64 {
                        assert!(take().is_some());
                    }
                });
            }
        });
        assert_eq!(
            PLACES
                .made()
                .filter(|place| place.load(Ordering::Acquire))
                .count(),
            512
        );
        assert_eq!(PLACES.made().count(), FIRST * 3);
    }
}
