//! What an operation waits for before it has a session, so that one that runs out of time can say it.
//!
//! Nothing was sent by then: the operation was not carried out, and no session is to blame.

use std::cell::Cell;

use tokio::task_local;

task_local! {
    static WAITS_FOR: Cell<Option<&'static str>>;
}

/// Works on an operation, in which [`waiting_for`] notes what is waited for.
pub(crate) async fn noted<T>(work: impl Future<Output = T>) -> T {
    WAITS_FOR.scope(Cell::new(None), work).await
}

/// Waits for something. Given up, it stays noted.
pub(crate) async fn waiting_for<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    note(Some(what));
    let done = work.await;
    note(None);
    done
}

/// What was waited for when the time was over, if it was noted.
pub(crate) fn was_waiting_for() -> Option<&'static str> {
    WAITS_FOR.try_with(Cell::take).ok().flatten()
}

fn note(what: Option<&'static str>) {
    // Outside of an operation nobody asks.
    let _outside = WAITS_FOR.try_with(|place| place.set(what));
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use super::*;
    use crate::control::plane;
    use crate::control::timer::timeout;

    #[test]
    fn what_was_given_up_is_known_and_what_was_done_is_not() {
        let told = plane::run(noted(async {
            waiting_for("what comes", ready(())).await;
            let nothing = was_waiting_for();
            let late = timeout(
                Duration::ZERO,
                waiting_for("what never comes", pending::<()>()),
            );
            let is_late = late.await.is_err();
            (nothing, is_late, was_waiting_for(), was_waiting_for())
        }));
        assert_eq!(told, (None, true, Some("what never comes"), None));
        assert_eq!(was_waiting_for(), None);
    }
}
