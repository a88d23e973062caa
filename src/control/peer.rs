//! The system's user as whom a server runs, for `requirepeer`: looked at before anything is sent.
//!
//! Source: `PQconnectPoll` in `fe-connect.c` of `PostgreSQL` 18.

use nix::unistd::{Uid, User};

use super::error::in_words;
use super::reader::Reader;
use crate::conninfo::auth::Auth;
use crate::socket::owned::OwnedSocket;

/// Why a server is sent nothing.
pub(crate) enum Refused {
    /// It runs as another user.
    Another(String),
    /// As whom it runs cannot be found out, at this moment.
    Unknown(String),
}

/// Checks that who listens at a unix socket is whom `requirepeer` names, if it names somebody.
pub(crate) async fn check(
    socket: &OwnedSocket,
    auth: &Auth,
    reader: &Reader,
) -> Result<(), Refused> {
    let Some(named) = auth.peer.clone() else {
        return Ok(());
    };
    let number = socket.peer_user().map_err(unknown)?;
    // The system may ask another machine for the name.
    let found = reader
        .read(move || User::from_uid(Uid::from_raw(number)))
        .await
        .map_err(unknown)?;
    match found.map_err(unknown)? {
        Some(user) if user.name == named => Ok(()),
        Some(user) => Err(Refused::Another(format!(
            "the server runs as {}, who is not whom requirepeer names; nothing was sent to it",
            user.name
        ))),
        None => Err(Refused::Another(format!(
            "the server runs as a user without a name (number {number}), and requirepeer names one; nothing was sent \
             to it"
        ))),
    }
}

fn unknown(error: impl ToString) -> Refused {
    Refused::Unknown(format!(
        "as whom the server runs cannot be found out, which requirepeer asks for: {}",
        in_words(&error.to_string())
    ))
}
