//! How many slots there may be, how many callers may wait, and which idle one is lent first.

/// The bounds of a pool. Plain values: whoever makes them has checked them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Idle connections kept; `None` keeps them all.
    pub kept: Option<usize>,
    /// Connections there may be at once, idle or lent; `None` for no bound.
    pub total: Option<usize>,
    /// Lend the connection that was returned last, instead of the one that has rested longest.
    pub lifo: bool,
    /// Callers who may wait at once; `None` for no bound.
    pub waiting: Option<usize>,
    /// A connection is of use in the thread alone that opened it, as one of a loop of asyncio's.
    pub by_thread: bool,
}

impl Limits {
    /// True when one more connection may be opened beside `used`.
    pub fn has_room(&self, used: usize) -> bool {
        self.total.is_none_or(|total| used < total)
    }

    /// True when there are more than there may be, since the bound was lowered.
    pub fn is_over(&self, used: usize) -> bool {
        self.total.is_some_and(|total| used > total)
    }

    /// True when one more caller may wait beside `waiting`.
    pub fn lets_wait(&self, waiting: usize) -> bool {
        self.waiting.is_none_or(|most| waiting < most)
    }

    /// True when one more idle connection may be kept beside `idle`.
    pub fn keeps(&self, idle: usize) -> bool {
        self.kept.is_none_or(|kept| idle < kept)
    }
}
