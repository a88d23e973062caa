//! The system's user as whom a server runs, for `requirepeer`, looked up on the reader's thread.

use super::reader::Reader;
use crate::conninfo::auth::Auth;
use crate::socket::owned::OwnedSocket;
pub(crate) use crate::tls::peer::Refused;
use crate::tls::peer::{judge, name_of, unknown};

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
    let found = reader
        .read(move || name_of(number))
        .await
        .map_err(unknown)?;
    judge(&named, number, found)
}
