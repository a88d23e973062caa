//! What a fault costs, and what may be done about it.

/// How much is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cost {
    /// The connection is as good as before.
    Nothing,
    /// Exactly the connection that the error came from.
    Connection,
    /// Every connection that was opened before now.
    Generation,
}

impl Cost {
    /// The name that Python and the documents use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Connection => "connection",
            Self::Generation => "generation",
        }
    }
}

/// What may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Repeating is wrong, useless, or not known to be safe.
    Never,
    /// Nothing was sent: ask for a connection again and go on.
    Reconnect,
    /// The whole transaction, from its beginning.
    WholeUnit,
}

impl Retry {
    /// The name that Python and the documents use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Reconnect => "reconnect",
            Self::WholeUnit => "whole_unit",
        }
    }
}

/// What became of the transaction that the error struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing of it is in the database, or will be.
    NotDone,
    /// All of it is in the database.
    Done,
    /// It cannot be known from here.
    Unknown,
}

impl Outcome {
    /// The name that Python and the documents use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotDone => "not_done",
            Self::Done => "done",
            Self::Unknown => "unknown",
        }
    }
}

/// What a fault costs, whether to repeat, and what is known about the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Verdict {
    /// How much is discarded.
    pub cost: Cost,
    /// What may be repeated.
    pub retry: Retry,
    /// What became of the transaction.
    pub outcome: Outcome,
}
