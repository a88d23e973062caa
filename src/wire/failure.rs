//! Why a request has no answer.

use super::server_message::ServerMessage;

/// What is known of a request that failed, and of its transaction where that ended with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestFate {
    NotDone,
    Unknown,
}

/// Which kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The server refused; the session goes on.
    Server,
    /// The connection is lost.
    Closed,
    /// None was made.
    Connect,
    /// A deadline has passed.
    Timeout,
    /// What came belongs to no request.
    OutOfStep,
    /// It is of a parent process.
    Forked,
    /// Another request is under way.
    Busy,
    /// A value cannot be sent, or read.
    Data,
    /// Wrongly called.
    Usage,
    /// Not there.
    Unsupported,
    /// A transaction that was to be committed was rolled back.
    RolledBack,
    /// Whoever waits has been interrupted, and knows why.
    Interrupted,
}

/// One failure.
#[derive(Clone, Debug)]
pub(crate) struct WireFailure {
    pub(crate) kind: FailureKind,
    /// In words, without secrets.
    pub(crate) what: String,
    /// What the server said.
    pub(crate) said: Option<Box<ServerMessage>>,
    pub(crate) fate: RequestFate,
}

impl WireFailure {
    /// One of which nothing was sent.
    pub(crate) fn unsent(kind: FailureKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            said: None,
            fate: RequestFate::NotDone,
        }
    }

    /// The server's refusal.
    pub(crate) fn server(said: Box<ServerMessage>) -> Self {
        Self {
            kind: FailureKind::Server,
            what: said.message().to_owned(),
            said: Some(said),
            fate: RequestFate::NotDone,
        }
    }

    /// An interruption.
    pub(crate) fn interrupted() -> Self {
        Self::unsent(FailureKind::Interrupted, "interrupted")
    }
}
