//! One request on a connection: it has the connection, and gives it back unless that is of no use any more.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pyo3::prelude::*;

use super::answer::Gathering;
use super::attended::Attended;
use super::error::{raised, unsent};
use super::seat::{Seat, Whereabouts};
use crate::process::{generation, threads};
use crate::wire::cancel;
use crate::wire::connected::Connected;
use crate::wire::failure::{FailureKind, WireFailure};
use crate::wire::session::{Event, Standing, WireSession};
use crate::wire::verb;
use crate::wire::waits::{Unattended, Waits};

/// How long a request to cancel is waited for before it is looked what has become of the connection.
const AT_ONCE: Duration = Duration::from_millis(100);

/// How many messages may be due while more is sent.
const MOST_DUE: usize = 16_384;

/// One request: it has the connection, and gives it back, unless that is of no use any more.
pub(super) struct Request<'a> {
    seat: &'a Seat,
    connected: Option<Box<Connected>>,
    waits: Attended,
}

impl<'a> Request<'a> {
    pub(super) fn new(seat: &'a Seat, connected: Box<Connected>, waits: Attended) -> Self {
        Self {
            seat,
            connected: Some(connected),
            waits,
        }
    }

    pub(super) fn connected(&mut self, py: Python<'_>) -> PyResult<&mut Connected> {
        let found = self.connected.as_deref_mut();
        found.ok_or_else(|| unsent(py, FailureKind::Closed, "the connection is closed"))
    }

    pub(super) fn session(&mut self, py: Python<'_>) -> PyResult<&mut WireSession> {
        Ok(&mut self.connected(py)?.session)
    }

    pub(super) fn standing(&self) -> Option<Standing> {
        self.connected
            .as_ref()
            .map(|connected| connected.standing())
    }

    /// Waits for requests to cancel that are on their way: they were for what was asked before.
    pub(super) fn wait_for_cancels(&mut self, py: Python<'_>) -> PyResult<()> {
        while let Some(end) = self.seat.cancels.first() {
            // A deadline may shut the connection meanwhile.
            self.begin_behind(py, false)?;
            let until = self.waits.now() + AT_ONCE;
            let Some(fd) = end.fd() else {
                return Ok(());
            };
            let waited = self
                .waits
                .released(py, |waits| waits.wait(fd, false, Some(until)));
            if waited.is_err() {
                return Err(why(py, &WireFailure::interrupted(), &mut self.waits));
            }
        }
        Ok(())
    }

    /// Begins it: whether it may have lasting effects by itself. What is owed is waited for.
    pub(super) fn begin(&mut self, py: Python<'_>, commits: bool) -> PyResult<()> {
        self.begin_behind(py, commits)?;
        while self.session(py)?.is_owed() {
            self.more(py, true)?;
            if let Err(failure) = self.connected(py)?.look() {
                return Err(self.lose(py, &failure));
            }
        }
        Ok(())
    }

    /// Begins it, behind what is owed.
    pub(super) fn begin_behind(&mut self, py: Python<'_>, commits: bool) -> PyResult<()> {
        match self.connected(py)?.begin(commits) {
            Ok(()) => Ok(()),
            Err(failure) if failure.kind == FailureKind::Forked => Err(raised(py, &failure)),
            Err(failure) => Err(self.lose(py, &failure)),
        }
    }

    /// Sends a ROLLBACK, and leaves its answer to the next request; says whether that can be.
    pub(super) fn owe(&mut self, py: Python<'_>) -> PyResult<bool> {
        let now = self.waits.now();
        match self.connected(py)?.owe(now) {
            Ok(is_owed) => Ok(is_owed),
            Err(failure) => Err(self.lose(py, &failure)),
        }
    }

    /// Sends what was asked and takes the answer. The first `ahead` statements went ahead of the caller's. Returns
    /// the rows that the others' tags name.
    pub(super) fn answered(
        &mut self,
        py: Python<'_>,
        incoming: &mut Gathering<'_, '_>,
        ahead: &mut usize,
    ) -> PyResult<i64> {
        let mut sum = 0;
        let mut is_fresh = true;
        while !self.told(py, incoming, ahead, &mut sum)? {
            self.more(py, mem::take(&mut is_fresh))?;
        }
        match self.connected(py)?.end() {
            Ok(()) => Ok(sum),
            Err(failure) => Err(self.lose(py, &failure)),
        }
    }

    /// Sends what was asked, and takes what is answered meanwhile; waits for an answer only where very many are due.
    pub(super) fn pushed(
        &mut self,
        py: Python<'_>,
        incoming: &mut Gathering<'_, '_>,
        ahead: &mut usize,
    ) -> PyResult<i64> {
        let mut sum = 0;
        loop {
            let Some(connected) = self.connected.as_deref_mut() else {
                return Err(unsent(py, FailureKind::Closed, "the connection is closed"));
            };
            let pushed = self.waits.released(py, |waits| connected.push(waits, None));
            let is_gone = pushed.map_err(|failure| self.lose(py, &failure))?;
            let is_ended = self.told(py, incoming, ahead, &mut sum)?;
            if is_ended {
                return Ok(sum);
            }
            if is_gone {
                break;
            }
        }
        // A server that is behind has room for megabytes of questions, each of which is remembered here. It sends what
        // it has gathered of answers, long before it has so many.
        while self.session(py)?.due() > MOST_DUE {
            self.more(py, false)?;
            if self.told(py, incoming, ahead, &mut sum)? {
                break;
            }
        }
        Ok(sum)
    }

    /// Takes what has come; says whether that was the end of the request.
    fn told(
        &mut self,
        py: Python<'_>,
        incoming: &mut Gathering<'_, '_>,
        ahead: &mut usize,
        sum: &mut i64,
    ) -> PyResult<bool> {
        loop {
            let found = match self.connected(py)?.look() {
                Ok(found) => found,
                Err(failure) => return Err(self.lose(py, &failure)),
            };
            match found {
                None => return Ok(false),
                Some(Event::Ready) => return Ok(true),
                Some(Event::Columns(columns)) => incoming.begin(columns),
                Some(Event::Row(row)) => {
                    let connected = self.connected(py)?;
                    incoming.row(connected.session.at(row));
                    if let Err(failure) = connected.rows(|row| incoming.row(row)) {
                        return Err(self.lose(py, &failure));
                    }
                }
                Some(Event::Complete { .. } | Event::Empty) if *ahead > 0 => {
                    *ahead -= 1;
                    incoming.forget();
                }
                Some(Event::Complete { tag, is_refused }) => {
                    *sum += verb::rows(&tag).unwrap_or(0);
                    incoming.complete(tag, is_refused);
                }
                Some(Event::Empty) => incoming.complete(String::new(), false),
                Some(Event::Refused(said)) => incoming.refuse(&WireFailure::server(said)),
                Some(Event::Copies) => incoming.fail_for_certain(copying(py)),
                // Of a COPY that was asked for, which is answered elsewhere.
                Some(Event::Copying(_) | Event::CopyData(_)) => {}
                Some(Event::Ended(said)) => {
                    let failure = self.connected(py)?.ended(said);
                    return Err(self.lose(py, &failure));
                }
            }
        }
    }

    /// The process id of the backend, as it was told.
    pub(super) fn told_pid(&self) -> Option<u32> {
        self.seat.about.backend.map(|(pid, _)| pid)
    }

    /// Asks a question of the driver's own; gives the first value of the answer's last row.
    pub(super) fn asked(&mut self, py: Python<'_>, sql: &'static str) -> PyResult<Option<String>> {
        let Some(connected) = self.connected.as_deref_mut() else {
            return Err(unsent(py, FailureKind::Closed, "the connection is closed"));
        };
        let asked = self
            .waits
            .released(py, |waits| connected.ask(sql, waits, None));
        asked.map_err(|failure| match failure.kind {
            FailureKind::Server | FailureKind::Forked => raised(py, &failure),
            _ => self.lose(py, &failure),
        })
    }

    /// Receives more: with the interpreter's lock what is there already, else without.
    pub(super) fn more(&mut self, py: Python<'_>, is_fresh: bool) -> PyResult<()> {
        let Some(connected) = self.connected.as_deref_mut() else {
            return Err(unsent(py, FailureKind::Closed, "the connection is closed"));
        };
        let mut received = if is_fresh {
            Ok(false)
        } else {
            connected.receive()
        };
        if matches!(received, Ok(false)) {
            received = self
                .waits
                .released(py, |waits| connected.fill(waits, None).map(|()| true));
        } else if received.is_ok() && self.waits.breathe(py, connected.fd()).is_err() {
            received = Err(WireFailure::interrupted());
        }
        received
            .map(drop)
            .map_err(|failure| self.lose(py, &failure))
    }

    /// The next event of what has come.
    pub(super) fn look(&mut self, py: Python<'_>) -> PyResult<Option<Event>> {
        match self.connected(py)?.look() {
            Ok(found) => Ok(found),
            Err(failure) => Err(self.lose(py, &failure)),
        }
    }

    /// The next event; waits for it.
    pub(super) fn next(&mut self, py: Python<'_>) -> PyResult<Event> {
        loop {
            if let Some(event) = self.look(py)? {
                return Ok(event);
            }
            self.more(py, false)?;
        }
    }

    /// Sends what is to be sent, as far as that goes, and receives what has come meanwhile.
    pub(super) fn push(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(connected) = self.connected.as_deref_mut() else {
            return Err(unsent(py, FailureKind::Closed, "the connection is closed"));
        };
        let pushed = self.waits.released(py, |waits| connected.push(waits, None));
        pushed.map(drop).map_err(|failure| self.lose(py, &failure))
    }

    /// Waits for a notification.
    pub(super) fn notified(&mut self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<bool> {
        let until = timeout.and_then(|timeout| self.waits.now().checked_add(timeout));
        loop {
            match self.connected(py)?.look() {
                Ok(_) => {}
                Err(failure) => return Err(self.lose(py, &failure)),
            }
            let connected = self.connected(py)?;
            if connected.session.is_notified() {
                return Ok(true);
            }
            // A server that says other things all the time is late all the same.
            if until.is_some_and(|until| self.waits.now() > until) {
                return Ok(false);
            }
            let fd = self.connected(py)?.fd();
            if self.waits.breathe(py, fd).is_err() {
                return Err(self.lose(py, &WireFailure::interrupted()));
            }
            let Some(connected) = self.connected.as_deref_mut() else {
                return Ok(false);
            };
            let came = self
                .waits
                .released(py, |waits| connected.listen(waits, until));
            match came {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(failure) => return Err(self.lose(py, &failure)),
            }
        }
    }

    /// Goes on with what has waited for its caller.
    pub(super) fn go_on(&mut self, py: Python<'_>, commits: bool) -> PyResult<()> {
        let gone_on = self.connected(py)?.go_on(commits);
        gone_on.map_err(|failure| raised(py, &failure))
    }

    /// Ends it, behind its end.
    pub(super) fn end(&mut self, py: Python<'_>) -> PyResult<()> {
        match self.connected(py)?.end() {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.lose(py, &failure)),
        }
    }

    /// The connection is of no use any more: its socket is closed. What an interruption has left under way on the
    /// server is cancelled first, aside; there is no next statement that this could hit.
    pub(super) fn lose(&mut self, py: Python<'_>, failure: &WireFailure) -> PyErr {
        if let Some(connected) = self.connected.take() {
            let socket = connected.into_socket();
            self.seat.fd.store(-1, Ordering::Release);
            if let Some(mut place) = self.seat.lock() {
                *place = Whereabouts::Closed;
            }
            // In a child the statement is the parent's.
            let is_ours = self.seat.generation == generation();
            // Under a number of its own: the caller's is free at once, for whoever severs or closes what it has under
            // that number must not meet this.
            if failure.kind == FailureKind::Interrupted
                && is_ours
                && let Ok(socket) = socket.duplicate()
            {
                let about = Arc::clone(&self.seat.about);
                let asked = threads::spawn("poolproof-cancel", move || {
                    cancel::end(&about, &socket, &mut Unattended);
                });
                // Without a thread the backend finds out by itself that nobody listens.
                drop(asked);
            }
        }
        why(py, failure, &mut self.waits)
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let Some(connected) = self.connected.take() else {
            return;
        };
        let is_of_use = connected.session.is_at_rest() || connected.session.is_owed();
        match self.seat.lock() {
            Some(mut place) if is_of_use && matches!(*place, Whereabouts::Out) => {
                *place = Whereabouts::Here(connected);
            }
            Some(mut place)
                if connected.session.is_copying() && matches!(*place, Whereabouts::Out) =>
            {
                *place = Whereabouts::Copying(connected);
            }
            Some(mut place) => {
                // Closed meanwhile, or left in the middle of a request.
                *place = Whereabouts::Closed;
                self.seat.fd.store(-1, Ordering::Release);
            }
            None => self.seat.fd.store(-1, Ordering::Release),
        }
    }
}

/// The exception for a failure: what has interrupted whoever waited, or the failure itself.
pub(super) fn why(py: Python<'_>, failure: &WireFailure, waits: &mut Attended) -> PyErr {
    waits.take_error().unwrap_or_else(|| raised(py, failure))
}

/// That COPY has a way of its own.
pub(super) fn copying(py: Python<'_>) -> PyErr {
    let what = "COPY from or to the client goes by cursor.copy(), not by execute(): with cursor.copy(statement) as copy";
    unsent(py, FailureKind::Unsupported, what)
}
