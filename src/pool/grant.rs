//! The right to one slot.

/// A numbered place in the pool.
pub type Slot = u64;

/// The right to one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which slot.
    pub slot: Slot,
    /// The slot is empty: a connection must be opened first.
    pub must_open: bool,
}
