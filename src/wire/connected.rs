//! A session over its socket: sends what is asked, waits, receives what comes.
//!
//! Long, because it is one idea: every way in which bytes pass between the two.

use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::failure::{FailureKind, RequestFate, WireFailure};
use super::outgoing;
use super::places::Place;
use super::server_message::ServerMessage;
use super::session::{Event, Misfit, Standing, WireSession};
use super::transport::Transport;
use super::verb::Tags;
use super::waits::Waits;
use crate::conninfo::target::Target;
use crate::socket::owned::OwnedSocket;
use crate::socket::words::in_words;

/// What is known of a connection as long as it lives, and after.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) target: Arc<Target>,
    pub(crate) place: Place,
    /// The version of TLS.
    pub(crate) tls: Option<String>,
    /// Process id and key of the backend.
    pub(crate) backend: Option<(u32, u32)>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connected {
    transport: Transport,
    pub(crate) session: WireSession,
    pub(crate) about: Arc<About>,
    /// Why nothing can be sent any more.
    cut: Option<String>,
    /// Whether anything of the present request was sent.
    is_sent: bool,
    /// Whether the present request may have lasting effects once it was sent.
    commits: bool,
    /// Whether what was done last with the socket was to look at it, for a request that begins.
    is_looked_at: bool,
    /// When a ROLLBACK was sent whose answer was not waited for.
    owed_since: Option<Instant>,
}

/// What a look at a connection without a request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Everything that was asked has been answered, and nothing else has come.
    Rests,
    /// It is lost.
    Lost,
    /// Something has come that nobody has asked for.
    OutOfStep,
    /// An answer is late: only a question tells.
    Late,
}

/// How long the answer to a ROLLBACK may be on its way without being doubted.
const LATE: Duration = Duration::from_millis(250);

impl Connected {
    pub(crate) fn new(mut transport: Transport, session: WireSession, about: About) -> Self {
        transport.be_patient();
        Self {
            transport,
            session,
            about: Arc::new(about),
            cut: None,
            is_sent: false,
            commits: false,
            is_looked_at: false,
            owed_since: None,
        }
    }

    /// Its socket alone: there are no more requests.
    pub(crate) fn into_socket(self) -> Arc<OwnedSocket> {
        self.transport.shared()
    }

    /// Its socket, for whoever is to shut it.
    pub(crate) fn socket(&self) -> Weak<OwnedSocket> {
        self.transport.weak()
    }

    /// Its descriptor.
    pub(crate) fn fd(&self) -> Option<RawFd> {
        self.transport.fd().ok()
    }

    /// Whether it is of this process.
    pub(crate) fn is_ours(&self) -> bool {
        self.transport.is_ours()
    }

    /// Begins a request, which may have lasting effects or not. What has come since the last one must be nobody's
    /// answer.
    ///
    /// # Errors
    ///
    /// The connection is of a parent process, is lost, or out of step: nothing was sent.
    pub(crate) fn begin(&mut self, commits: bool) -> Result<(), WireFailure> {
        if !self.is_ours() {
            return Err(forked());
        }
        self.is_sent = false;
        self.commits = commits;
        for _ in 0..LOOKS {
            // With nothing under way there is no event that would not be an error. What is owed is none.
            if self.look()?.is_none() && !self.receive()? {
                self.is_looked_at = true;
                break;
            }
        }
        Ok(())
    }

    /// Sends the ROLLBACK that was asked, and has its answer read ahead of the next one's; false where the system does
    /// not take all of it now.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub(crate) fn owe(&mut self, now: Instant) -> Result<bool, WireFailure> {
        let is_full = self.send();
        if let Some(why) = self.cut.take() {
            return Err(self.failed(FailureKind::Closed, &why));
        }
        self.owed_since = Some(now);
        Ok(!is_full && self.session.owe())
    }

    /// Looks at it without a request: reads what has come, and waits for nothing.
    pub(crate) fn look_at_rest(&mut self, now: Instant) -> Rest {
        match self.begin(false) {
            Ok(()) if !self.session.is_owed() => Rest::Rests,
            Ok(()) => match self.owed_since {
                Some(since) if now.saturating_duration_since(since) < LATE => Rest::Rests,
                _ => Rest::Late,
            },
            Err(failure) if failure.kind == FailureKind::OutOfStep => Rest::OutOfStep,
            Err(_) => Rest::Lost,
        }
    }

    /// Ends a request: behind its end nothing may stand that is somebody's answer, for then it is not known whose is
    /// whose.
    ///
    /// # Errors
    ///
    /// The connection is out of step.
    pub(crate) fn end(&mut self) -> Result<(), WireFailure> {
        if !self.session.is_read() && self.session.is_at_rest() {
            self.look()?;
        }
        Ok(())
    }

    /// What becomes of the present request if the connection is lost now.
    pub(crate) fn fate(&self) -> RequestFate {
        if self.is_sent && self.commits {
            RequestFate::Unknown
        } else {
            RequestFate::NotDone
        }
    }

    /// Sends what is asked, as far as the system takes it, and waits until something has come.
    ///
    /// # Errors
    ///
    /// The connection is lost, the time has come, or whoever waits was interrupted: it is of no use any more.
    pub(crate) fn fill(
        &mut self,
        waits: &mut dyn Waits,
        until: Option<Instant>,
    ) -> Result<(), WireFailure> {
        loop {
            // A server that talks all the time is late all the same.
            if until.is_some_and(|until| waits.now() >= until) {
                return Err(self.failed(FailureKind::Timeout, "no answer in time"));
            }
            let is_asked = !self.session.pending().is_empty();
            let is_full = self.send();
            if (self.transport.is_encrypted() || self.cut.is_some()) && self.receive()? {
                return Ok(());
            }
            let is_alone = !is_full && until.is_none() && self.cut.is_none();
            if is_alone && self.transport.is_patient() && waits.may_receive_waiting() {
                if !is_asked {
                    self.transport.fd().map_err(|error| self.lost(&error))?;
                }
                let received = self.transport.wait_and_receive(self.session.space());
                if self.took(received)? {
                    return Ok(());
                }
                if waits.pause().is_err() {
                    return Err(WireFailure::interrupted());
                }
                if !self.is_ours() {
                    return Err(forked());
                }
            }
            // Of a socket that others have had not wait, nothing is to be asked over and over.
            let fd = self.transport.fd().map_err(|error| self.lost(&error))?;
            match waits.wait(fd, is_full, until) {
                Ok(true) => {}
                Ok(false) => return Err(self.failed(FailureKind::Timeout, "no answer in time")),
                Err(_interrupted) => return Err(WireFailure::interrupted()),
            }
            if !self.is_ours() {
                return Err(forked());
            }
            if self.receive()? {
                return Ok(());
            }
        }
    }

    /// Sends what is asked, and says whether it is all gone: if not, something has come meanwhile that is to be read
    /// first, or the system may take more by now. Waits for no answer.
    ///
    /// # Errors
    ///
    /// As [`Connected::fill`].
    pub(crate) fn push(
        &mut self,
        waits: &mut dyn Waits,
        until: Option<Instant>,
    ) -> Result<bool, WireFailure> {
        if !self.send() {
            self.receive()?;
            return Ok(true);
        }
        let fd = self.transport.fd().map_err(|error| self.lost(&error))?;
        match waits.wait(fd, true, until) {
            Ok(true) => {}
            Ok(false) => return Err(self.failed(FailureKind::Timeout, "no answer in time")),
            Err(_interrupted) => return Err(WireFailure::interrupted()),
        }
        if !self.is_ours() {
            return Err(forked());
        }
        self.receive()?;
        Ok(false)
    }

    /// Goes on with a request that has waited for its caller, which may have lasting effects from here on or not.
    ///
    /// # Errors
    ///
    /// The connection is of a parent process: nothing was sent.
    pub(crate) fn go_on(&mut self, commits: bool) -> Result<(), WireFailure> {
        if !self.is_ours() {
            return Err(forked());
        }
        self.commits = commits;
        Ok(())
    }

    /// Waits until something has come that nobody has asked for; false when the time has come.
    ///
    /// # Errors
    ///
    /// As [`Connected::fill`].
    pub(crate) fn listen(
        &mut self,
        waits: &mut dyn Waits,
        until: Option<Instant>,
    ) -> Result<bool, WireFailure> {
        if self.receive()? {
            return Ok(true);
        }
        let fd = self.transport.fd().map_err(|error| self.lost(&error))?;
        match waits.wait(fd, false, until) {
            Ok(is_ready) if self.is_ours() => Ok(is_ready && self.receive()?),
            Ok(_) => Err(forked()),
            Err(_interrupted) => Err(WireFailure::interrupted()),
        }
    }

    /// Receives what is there, without waiting; says whether anything was.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub(crate) fn receive(&mut self) -> Result<bool, WireFailure> {
        let received = self.transport.receive(self.session.space());
        self.took(received)
    }

    /// Takes what was received; says whether anything was.
    fn took(&mut self, received: io::Result<usize>) -> Result<bool, WireFailure> {
        match received {
            Ok(0) => {
                let why = self.cut.take();
                let why = why.unwrap_or_else(|| "the server has closed it".to_owned());
                Err(self.failed(FailureKind::Closed, &why))
            }
            Ok(count) => {
                self.session.received(count);
                Ok(true)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                match &self.cut {
                    None => Ok(false),
                    Some(why) => Err(self.failed(FailureKind::Closed, why)),
                }
            }
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// Sends as much as the system takes; says whether there is more.
    fn send(&mut self) -> bool {
        while !self.session.pending().is_empty() {
            let is_behind = mem::take(&mut self.is_looked_at);
            match self.transport.send(self.session.pending(), is_behind) {
                Ok(count) => {
                    self.is_sent = true;
                    self.session.sent(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => {
                    // The server's last words may lie there.
                    self.cut = Some(in_words(&error.to_string()));
                    self.session.sent(usize::MAX / 2);
                }
            }
        }
        false
    }

    fn lost(&self, error: &io::Error) -> WireFailure {
        self.failed(FailureKind::Closed, &in_words(&error.to_string()))
    }

    fn failed(&self, kind: FailureKind, why: &str) -> WireFailure {
        WireFailure {
            kind,
            what: format!(
                "the connection to {} is lost: {why}",
                self.about.place.endpoint.shown()
            ),
            said: None,
            fate: self.fate(),
        }
    }

    /// What the server's last words mean.
    pub(crate) fn ended(&self, said: Box<ServerMessage>) -> WireFailure {
        WireFailure {
            kind: FailureKind::Closed,
            what: said.message().to_owned(),
            said: Some(said),
            fate: self.fate(),
        }
    }

    /// The next event; waits for it.
    ///
    /// # Errors
    ///
    /// As [`Connected::fill`]; or what has come belongs to no request.
    pub(crate) fn next(
        &mut self,
        waits: &mut dyn Waits,
        until: Option<Instant>,
    ) -> Result<Event, WireFailure> {
        loop {
            if let Some(event) = self.look()? {
                return Ok(event);
            }
            self.fill(waits, until)?;
        }
    }

    /// The next event of what has come.
    ///
    /// # Errors
    ///
    /// What has come belongs to no request.
    pub(crate) fn look(&mut self) -> Result<Option<Event>, WireFailure> {
        match self.session.next() {
            Ok(Some(Event::Ended(said))) => Err(self.ended(said)),
            Ok(event) => Ok(event),
            Err(misfit) => Err(self.out_of_step(misfit)),
        }
    }

    /// Tells the rows that have come, as far as they stand one behind the other.
    ///
    /// # Errors
    ///
    /// As [`Connected::look`].
    pub(crate) fn rows(&mut self, mut tell: impl FnMut(&[u8])) -> Result<(), WireFailure> {
        loop {
            match self.session.next_row() {
                Ok(Some(row)) => tell(self.session.at(row)),
                Ok(None) => return Ok(()),
                Err(misfit) => return Err(self.out_of_step(misfit)),
            }
        }
    }

    fn out_of_step(&self, misfit: Misfit) -> WireFailure {
        match self.session.last_words() {
            // Who looks once more hears them again.
            Some(said) => self.ended(Box::new(said.clone())),
            None => WireFailure {
                kind: FailureKind::OutOfStep,
                what: misfit.0,
                said: None,
                fate: self.fate(),
            },
        }
    }

    /// Asks a question of ours; gives the first value of its last row.
    ///
    /// # Errors
    ///
    /// As [`Connected::next`]; the server refuses.
    pub(crate) fn ask(
        &mut self,
        sql: &str,
        waits: &mut dyn Waits,
        until: Option<Instant>,
    ) -> Result<Option<String>, WireFailure> {
        self.begin(false)?;
        self.session.query(sql, Tags::of(sql));
        let mut answer = None;
        let mut refusal = None;
        loop {
            match self.next(waits, until)? {
                Event::Row(row) => {
                    let value = super::column::fields(self.session.at(row)).next().flatten();
                    answer = value.map(|value| String::from_utf8_lossy(value).into_owned());
                }
                Event::Refused(said) => refusal = Some(WireFailure::server(said)),
                Event::Ready => {
                    self.end()?;
                    break;
                }
                _ => {}
            }
        }
        refusal.map_or(Ok(answer), Err)
    }

    /// Ends it: says so to the server where nothing is under way, and waits for nothing. In a child of a fork nothing
    /// is sent.
    pub(crate) fn close(mut self) {
        if self.is_ours() && (self.session.is_at_rest() || self.session.is_owed()) {
            let mut end = Vec::new();
            outgoing::terminate(&mut end);
            let _sent_or_not = self.transport.send(&end, false);
        }
    }

    /// Where it stands.
    pub(crate) fn standing(&self) -> Standing {
        self.session.standing()
    }
}

/// How often is looked for what has come: a server that says something all the time is let have its say.
const LOOKS: usize = 100;

fn forked() -> WireFailure {
    WireFailure::unsent(
        FailureKind::Forked,
        "this connection belongs to the process that this one was forked from, and a child cannot use it: open \
         another",
    )
}
