//! Ending what a backend does, out of band: from any thread, over a connection of its own.

use std::time::Duration;

use super::connected::About;
use super::failure::{FailureKind, WireFailure};
use super::opening;
use super::outgoing;
use super::waits::Waits;

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
