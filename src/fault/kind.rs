//! The named kinds of fault.

use std::fmt;

/// What an error means for the connection that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// An ordinary error of the application or the database: no fault at all.
    None,
    /// What is read is not the answer to what was asked.
    Corruption,
    /// It may be the answer to another statement; the error alone cannot tell.
    Suspect,
    /// The caller was interrupted in the middle of a call.
    Interrupted,
    /// A connection of the parent process was used in a child process.
    Forked,
    /// The server ended this session.
    Terminated,
    /// The server ends all sessions.
    Shutdown,
    /// The connection broke.
    ConnectionLost,
    /// The server became read-only under us: a failover left us on a standby.
    ReadOnly,
    /// No server answered at the address.
    Unreachable,
    /// The server has no room for another connection.
    TooManyConnections,
    /// The server is starting, stopping or recovering.
    StartingUp,
    /// A pooler between us and the server gave up.
    Pooler,
    /// The transaction could not be serialized with others.
    Serialization,
    /// The transaction was the victim of a deadlock.
    Deadlock,
    /// A lock was not to be had in time.
    LockTimeout,
    /// The statement was cancelled, by a timeout or by somebody.
    Cancelled,
    /// No connection of the pool became free in time.
    PoolTimeout,
}

impl Fault {
    /// Every kind, in the order of the documents.
    pub const ALL: [Self; 18] = [
        Self::None,
        Self::Corruption,
        Self::Suspect,
        Self::Interrupted,
        Self::Forked,
        Self::Terminated,
        Self::Shutdown,
        Self::ConnectionLost,
        Self::ReadOnly,
        Self::Unreachable,
        Self::TooManyConnections,
        Self::StartingUp,
        Self::Pooler,
        Self::Serialization,
        Self::Deadlock,
        Self::LockTimeout,
        Self::Cancelled,
        Self::PoolTimeout,
    ];

    /// The kind of this name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// The name that Python and the documents use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Corruption => "corruption",
            Self::Suspect => "suspect",
            Self::Interrupted => "interrupted",
            Self::Forked => "forked",
            Self::Terminated => "terminated",
            Self::Shutdown => "shutdown",
            Self::ConnectionLost => "connection_lost",
            Self::ReadOnly => "read_only",
            Self::Unreachable => "unreachable",
            Self::TooManyConnections => "too_many_connections",
            Self::StartingUp => "starting_up",
            Self::Pooler => "pooler",
            Self::Serialization => "serialization",
            Self::Deadlock => "deadlock",
            Self::LockTimeout => "lock_timeout",
            Self::Cancelled => "cancelled",
            Self::PoolTimeout => "pool_timeout",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
