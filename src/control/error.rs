//! What can go wrong between the control plane and a server.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio_postgres::error::Severity;

use crate::process::RegisterError;
pub(crate) use crate::socket::words::in_words;

/// A write was asked of a server that takes none, or takes none any more.
const READ_ONLY: &str = "25006";

/// Why an operation has no answer. No text holds a secret: neither passwords nor parameters are quoted.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The thread of the control plane cannot be started, or has gone.
    #[error("the control plane cannot start: {}", in_words(&source.to_string()))]
    Start {
        /// What the system said.
        source: io::Error,
    },
    /// Nobody works on it any more.
    #[error("{what}")]
    Gone {
        /// Why.
        what: String,
    },
    /// What was asked is of a parent process.
    #[error("it belongs to the process that this one was forked from")]
    Forked,
    /// The parameters cannot be used.
    #[error("{what}")]
    Parameters {
        /// What is wrong, and what to do.
        what: String,
    },
    /// A session could not be begun with, for want of what it needs on this side. Nothing was sent.
    #[error("{what}")]
    NotReady {
        /// What it needs.
        what: String,
    },
    /// No connection could be opened.
    #[error("cannot connect to {place}: {what}")]
    Connect {
        /// Host and port, or the path of the socket.
        place: String,
        /// What the system, TLS or the server said.
        what: String,
        /// The server's SQLSTATE, where the server answered.
        sqlstate: Option<String>,
        /// Whether the handshake of TLS failed.
        tls: bool,
    },
    /// The server refused the statement.
    #[error("the server says: {what} (SQLSTATE {sqlstate})")]
    Server {
        /// Its message.
        what: String,
        /// Its SQLSTATE.
        sqlstate: String,
        /// Whether it ended the session as well, or may have.
        is_fatal: bool,
    },
    /// The connection was lost with the statement under way; it may have been carried out.
    #[error("the connection was lost: {what}")]
    Lost {
        /// What the system said.
        what: String,
    },
    /// No answer in time; the statement may have been carried out.
    #[error("no answer within {:.2} s", .within.as_secs_f64())]
    Timeout {
        /// The deadline of the operation.
        within: Duration,
    },
    /// The table is not as it must be.
    #[error("{what}")]
    Table {
        /// What is different, and what to do.
        what: String,
    },
}

impl ControlError {
    /// Sorts an error of the driver.
    pub(crate) fn from_driver(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(answer) => Self::Server {
                what: answer.message().to_owned(),
                sqlstate: answer.code().code().to_owned(),
                is_fatal: answer.parsed_severity() != Some(Severity::Error),
            },
            None => Self::Lost { what: chain(error) },
        }
    }

    /// Says that connecting to `place` failed.
    pub(crate) fn connecting(place: &str, error: &tokio_postgres::Error) -> Self {
        let answer = error.as_db_error();
        Self::Connect {
            place: place.to_owned(),
            what: answer.map_or_else(|| chain(error), |answer| answer.message().to_owned()),
            sqlstate: answer.map(|answer| answer.code().code().to_owned()),
            tls: error.to_string().contains("TLS"),
        }
    }

    /// Says that the system would not connect to `place`.
    pub(crate) fn unreachable(place: &str, what: impl ToString) -> Self {
        Self::Connect {
            place: place.to_owned(),
            what: in_words(&what.to_string()),
            sqlstate: None,
            tls: false,
        }
    }

    /// The server's SQLSTATE, where it gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server { sqlstate, .. } => Some(sqlstate),
            Self::Connect { sqlstate, .. } => sqlstate.as_deref(),
            _ => None,
        }
    }

    /// Whether trying again cannot help: who asks, or what is asked, must change first.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Gone { .. }
            | Self::Forked
            | Self::Parameters { .. }
            | Self::Table { .. }
            | Self::Connect { tls: true, .. } => true,
            // A thread, a descriptor: there may be one the next time.
            Self::Start { .. }
            | Self::NotReady { .. }
            | Self::Lost { .. }
            | Self::Timeout { .. } => false,
            Self::Connect { .. } | Self::Server { .. } => self.sqlstate().is_some_and(|state| {
                let class = state.get(..2).unwrap_or_default();
                ["0A", "22", "28", "3D", "3F", "42"].contains(&class)
            }),
        }
    }

    /// Whether no other statement is to be asked of the session that gave it: it is out of step, or its server takes no
    /// writes any more, and another may.
    pub fn ends_session(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Timeout { .. })
            || self.sqlstate() == Some(READ_ONLY)
    }

    /// Whether the statement may have been carried out nevertheless.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Timeout { .. })
    }
}

impl From<RegisterError> for ControlError {
    fn from(error: RegisterError) -> Self {
        Self::Start {
            source: io::Error::other(error),
        }
    }
}

/// An error with what it came from, in one line.
pub(crate) fn chain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        text = format!("{text}: {cause}");
        inner = cause.source();
    }
    in_words(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_of_the_system_is_told_with_its_number() {
        let source = || io::Error::from_raw_os_error(11);
        for error in [
            ControlError::unreachable("db:5432", source()),
            ControlError::Start { source: source() },
        ] {
            assert!(!error.to_string().contains("os error"), "{error}");
        }
    }
}
