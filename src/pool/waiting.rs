//! One who waits for a slot: who it is, since when, and how long at most.

use std::time::{Duration, Instant};

/// Where order of arrival would have a caller stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Callers that waited or held a slot when it came.
    pub(super) before: u64,
    /// Slots given out until then.
    pub(super) given: u64,
}

/// Names one wait. Never used twice by one ledger, and only grows.
pub type WaiterId = u64;

/// Who asks for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The thread, as `threading.get_native_id` numbers it.
    pub thread: u64,
    /// What runs and blocks as one: the thread's number again, or a greenlet's.
    pub strand: u64,
}

impl Caller {
    /// A caller whose thread runs nothing else meanwhile.
    pub fn thread(thread: u64) -> Self {
        Self {
            thread,
            strand: thread,
        }
    }
}

/// How one whose turn it was has been passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// When that was for the first time.
    pub(super) since: Instant,
    /// How often.
    pub(super) times: usize,
}

/// One who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The name of this wait.
    pub id: WaiterId,
    /// Who waits.
    pub caller: Caller,
    /// Since when.
    pub since: Instant,
    /// How long at most; `None` is without bound.
    pub limit: Option<Duration>,
    /// Where order of arrival would have it stand.
    pub position: Position,
    /// Since when and by how many it was passed over, of whose thread the connections were.
    pub passed: Option<Passed>,
}

impl Waiting {
    /// True while half of the time that the caller has is left.
    pub fn has_half_left(&self, now: Instant) -> bool {
        let waited = now.saturating_duration_since(self.since);
        self.limit.is_none_or(|limit| waited <= limit / 2)
    }
}
