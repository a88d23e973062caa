//! How many slots there may be, and which idle one is lent first.

/// The bounds of a pool. Plain values: whoever makes them has checked them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Idle connections kept; `None` keeps them all.
    pub kept: Option<usize>,
    /// Connections there may be at once, idle or lent; `None` for no bound.
    pub total: Option<usize>,
    /// Lend the connection that was returned last, instead of the one that has rested longest.
    pub lifo: bool,
}

impl Limits {
    /// True when one more connection may be opened beside `used`.
    pub fn has_room(&self, used: usize) -> bool {
        self.total.is_none_or(|total| used < total)
    }

    /// True when one more idle connection may be kept beside `idle`.
    pub fn keeps(&self, idle: usize) -> bool {
        self.kept.is_none_or(|kept| idle < kept)
    }
}
