//! Which process this is: how many forks lie before it, and what the last one has severed.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many forks lie between the start of the program and this process, since the crate was loaded.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Sockets that the handler severed when this process was forked.
static SEVERED: AtomicU64 = AtomicU64::new(0);

/// The generation of this process. Whatever remembers a smaller one was made in a parent.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// How many inherited sockets were severed when this process was forked; 0 where it was not.
pub fn severed() -> u64 {
    SEVERED.load(Ordering::Acquire)
}

/// Makes this process another one than its parent. Async-signal-safe.
pub(super) fn raise() {
    GENERATION.fetch_add(1, Ordering::AcqRel);
}

/// Notes how many sockets were severed by that. Async-signal-safe.
pub(super) fn note_severed(sockets: u64) {
    SEVERED.store(sockets, Ordering::Release);
}
