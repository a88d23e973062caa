//! The locks in use: the standard ones, or loom's when it explores every interleaving.

#[cfg(loom)]
pub(super) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub(super) use std::sync::{Mutex, MutexGuard};

use std::sync::PoisonError;

/// Locks. A poisoned lock is taken as it is: no code of this crate panics while it holds one, and a pool that
/// refused all further work would be worse than one whose counters are off.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
