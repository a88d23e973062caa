//! What is known about an error, as plain values.

/// What was being done when the error came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Opening a connection.
    Connect,
    /// Asking an idle connection whether it lives.
    Ping,
    /// Beginning a transaction.
    Begin,
    /// A statement inside a transaction, which cannot commit by itself.
    Statement,
    /// A commit.
    Commit,
    /// A rollback.
    Rollback,
    /// Not known, or a statement that may commit by itself.
    #[default]
    Unknown,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::Ping,
        Self::Begin,
        Self::Statement,
        Self::Commit,
        Self::Rollback,
        Self::Unknown,
    ];

    /// The phase of this name; [`Phase::Unknown`] for any other word, which is the safe side.
    pub fn named(name: &str) -> Self {
        match name {
            "connect" => Self::Connect,
            "ping" => Self::Ping,
            "begin" => Self::Begin,
            "statement" => Self::Statement,
            "commit" => Self::Commit,
            "rollback" => Self::Rollback,
            _ => Self::Unknown,
        }
    }
}

/// Why a transaction is read-only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadOnly {
    /// The server makes every transaction read-only.
    Imposed,
    /// The application asked for it.
    Chosen,
    /// The session was so from its start, and so were all others of its pool.
    Always,
    /// The session was so from its start, a moment ago, and others of its pool were not.
    Lately,
    /// The driver or the server does not say.
    #[default]
    Unknown,
}

impl ReadOnly {
    /// The reason of this name; [`ReadOnly::Unknown`] for any other word.
    pub fn named(name: &str) -> Self {
        match name {
            "imposed" => Self::Imposed,
            "chosen" => Self::Chosen,
            "always" => Self::Always,
            "lately" => Self::Lately,
            _ => Self::Unknown,
        }
    }
}

/// An error as seen by one who has only its words.
#[derive(Clone, Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, none excludes another"
)]
pub struct ErrorInfo<'a> {
    /// The SQLSTATE, when the server or the driver gave one.
    pub sqlstate: Option<&'a str>,
    /// The driver's message, whole.
    pub message: &'a str,
    /// The exception's class and its bases, each with its module, such as
    /// `psycopg2.errors.UniqueViolation`.
    pub classes: Vec<&'a str>,
    /// The driver's package, such as `psycopg2`; empty when not known.
    pub driver: &'a str,
    /// Whether it is an error class of the driver (PEP 249), not just any exception.
    pub dbapi: bool,
    /// The same of the exceptions that the driver met while it was in a call and replaced
    /// by this one.
    pub masked: Vec<&'a str>,
    /// The driver's own functions that the exception went through, as `module:function`.
    pub frames: Vec<&'a str>,
    /// Whether the driver's own code raised it, not a callback of the application.
    pub by_driver: bool,
    /// The driver says that the connection is closed or broken.
    pub closed: bool,
    /// The driver says that it is in the middle of a command.
    pub busy: bool,
    /// `SQLAlchemy` has already decided that this is a disconnect.
    pub disconnect: bool,
    /// It is an interruption (`KeyboardInterrupt`, `GreenletExit`, …) or hides one; no error.
    pub interruption: bool,
    /// A deadline passed and shut the connection; what the driver says is what it made of that.
    pub deadline: bool,
    /// The server calls it an error that the session survives, not a fatal one.
    pub survived: bool,
    /// Why the transaction was read-only.
    pub read_only: ReadOnly,
    /// What was being done.
    pub phase: Phase,
}
