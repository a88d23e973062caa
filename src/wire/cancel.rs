//! Ending what a backend does, out of band: from any thread, over a connection of its own.

use std::io;
use std::time::{Duration, Instant};

use super::connected::About;
use super::failure::{FailureKind, WireFailure};
use super::opening;
use super::outgoing;
use super::waits::Waits;
use crate::socket::owned::OwnedSocket;

/// Asks the server for it, within a time.
///
/// # Errors
///
/// The server cannot be reached, or gave no key.
pub(crate) fn cancel(
    about: &About,
    timeout: Duration,
    waits: &mut dyn Waits,
) -> Result<(), WireFailure> {
    let Some((pid, key)) = about.backend else {
        let what = "the server has given no key by which its backend could be cancelled";
        return Err(WireFailure::unsent(FailureKind::Unsupported, what));
    };
    opening::cancel(about, &outgoing::cancel_request(pid, key), timeout, waits)
}

/// How long what was left under way is cancelled at most.
const AT_MOST: Duration = Duration::from_secs(5);
/// How long the first request may take to have an effect; each next one twice as long.
const FIRST: Duration = Duration::from_millis(100);

/// Ends what is under way on a connection that nobody uses any more.
///
/// A request to cancel may be quicker than the statement that it is for, and is nothing then. So another one is sent
/// until the server has ended the session. None of them hits anything else, for nothing more is sent on the connection;
/// and it stands until the first has gone out, for a pooler forgets whom it was for otherwise.
pub(crate) fn end(about: &About, socket: &OwnedSocket, waits: &mut dyn Waits) {
    if about.backend.is_none() {
        return;
    }
    let until = waits.now() + AT_MOST;
    let mut pause = FIRST;
    while waits.now() < until {
        let left = until.saturating_duration_since(waits.now());
        let _asked_or_not = cancel(about, left, waits);
        let _ended_or_gone = socket.end_sending();
        let soon = waits.now() + pause;
        if is_ended(socket, soon.min(until), waits) {
            return;
        }
        pause *= 2;
    }
}

/// Whether the server ends a session until then. What it still says is nobody's.
fn is_ended(socket: &OwnedSocket, until: Instant, waits: &mut dyn Waits) -> bool {
    let mut said = [0; 8 << 10];
    while waits.now() < until {
        match socket.receive(&mut said) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let waited = socket
                    .fd()
                    .map(|fd| waits.wait(fd, false, Some(until)).is_ok());
                if waited != Some(true) {
                    return true;
                }
            }
            Err(_) => return true,
        }
    }
    false
}
