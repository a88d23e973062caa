//! The system's user as whom a server runs, for `requirepeer`: looked at before anything is sent.
//!
//! Source: `PQconnectPoll` in `fe-connect.c` of `PostgreSQL` 18.

use nix::unistd::{Uid, User};

use crate::socket::words::in_words;

/// Why a server is sent nothing.
pub(crate) enum Refused {
    /// It runs as another user.
    Another(String),
    /// As whom it runs cannot be found out, at this moment.
    Unknown(String),
}

/// The name of a user. The system may ask another machine for it.
pub(crate) fn name_of(number: u32) -> Result<Option<String>, String> {
    let found = User::from_uid(Uid::from_raw(number));
    found
        .map(|user| user.map(|user| user.name))
        .map_err(|error| error.to_string())
}

/// Whether the server that runs as user `number` is whom `requirepeer` names.
pub(crate) fn judge(
    named: &str,
    number: u32,
    found: Result<Option<String>, String>,
) -> Result<(), Refused> {
    match found.map_err(unknown)? {
        Some(name) if name == named => Ok(()),
        Some(name) => Err(Refused::Another(format!(
            "the server runs as {name}, who is not whom requirepeer names; nothing was sent to it"
        ))),
        None => Err(Refused::Another(format!(
            "the server runs as a user without a name (number {number}), and requirepeer names one; nothing was sent \
             to it"
        ))),
    }
}

/// That it cannot be found out.
pub(crate) fn unknown(error: impl ToString) -> Refused {
    Refused::Unknown(format!(
        "as whom the server runs cannot be found out, which requirepeer asks for: {}",
        in_words(&error.to_string())
    ))
}
