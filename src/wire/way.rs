//! The way to one place: dialling, TLS, logging in, and whether the server is of the kind that is wanted.

use std::sync::Arc;
use std::time::Instant;

use super::aside;
use super::connected::{About, Connected};
use super::failure::{FailureKind, WireFailure};
use super::places::Place;
use super::session::WireSession;
use super::startup::{Credentials, LoginError, Startup};
use super::transport::{Shaken, Transport};
use super::waits::{Interrupted, Waits};
use crate::conninfo::target::{Secret, Sessions, Target, TlsMode};
use crate::socket::owned::OwnedSocket;
use crate::socket::words::in_words;
use crate::tls::files::TlsFiles;
use crate::tls::handshake::{self, Handshake};
use crate::tls::peer::{self, Refused};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const NOT_YET: &str = "57P03";

/// Why there is no connection to a place.
pub(super) struct Attempt {
    pub(super) failure: WireFailure,
    /// Whether another place may be asked: nobody answered there, or the server is not ready.
    pub(super) asks_on: bool,
    /// Whether another way to the same place may be tried: TLS instead of none, none instead of TLS.
    may_change: bool,
}

impl Attempt {
    fn at(place: &Place, what: &str) -> Self {
        // In libpq's words, by which its users' rules know them.
        let place = place.endpoint.shown();
        let what = format!("connection to server at {place} failed: {what}");
        Self {
            failure: WireFailure::unsent(FailureKind::Connect, what),
            asks_on: true,
            may_change: false,
        }
    }

    fn final_at(place: &Place, what: &str) -> Self {
        Self {
            asks_on: false,
            ..Self::at(place, what)
        }
    }

    fn tls(place: &Place, what: &str) -> Self {
        Self {
            asks_on: false,
            may_change: true,
            ..Self::at(place, &format!("TLS: {what}"))
        }
    }

    fn late(place: &Place) -> Self {
        let mut attempt = Self::at(place, "timeout expired, no answer in time");
        attempt.failure.kind = FailureKind::Timeout;
        attempt
    }
}

impl From<Interrupted> for Attempt {
    fn from(_: Interrupted) -> Self {
        Self {
            failure: WireFailure::interrupted(),
            asks_on: false,
            may_change: false,
        }
    }
}

/// The opening of one connection to one place.
pub(super) struct Opening<'a> {
    pub(super) target: &'a Arc<Target>,
    pub(super) files: &'a TlsFiles,
    pub(super) place: &'a Place,
    pub(super) until: Option<Instant>,
    pub(super) waits: &'a mut dyn Waits,
}

impl Opening<'_> {
    pub(super) fn any_way(&mut self) -> Result<Connected, Attempt> {
        let ways = self.target.tls.mode.ways(self.place.address.is_none());
        let mut first = None;
        for with_tls in ways {
            match self.log_in(*with_tls) {
                Err(attempt) if attempt.may_change => first = first.or(Some(attempt)),
                // What was wanted first is what its user asks about.
                Err(attempt) => return Err(first.unwrap_or(attempt)),
                opened => return opened,
            }
        }
        Err(first.unwrap_or_else(|| Attempt::at(self.place, "there is no way to it")))
    }

    fn log_in(&mut self, with_tls: bool) -> Result<Connected, Attempt> {
        let (mut transport, met) = self.reach(with_tls)?;
        let (target, endpoint) = (self.target, &self.place.endpoint);
        let mut said = vec![
            ("user", target.user.as_str()),
            ("database", target.database.as_str()),
            ("client_encoding", "UTF8"),
        ];
        if !target.application.is_empty() {
            said.push(("application_name", &target.application));
        }
        if let Some(options) = &target.options {
            said.push(("options", options));
        }
        let credentials = Credentials {
            user: &target.user,
            password: endpoint.password.as_ref().map(Secret::bytes),
            auth: &target.auth,
        };
        let mut startup = Startup::new(credentials, &said, met.as_ref());
        let logged_in = loop {
            let answer = startup.outgoing();
            self.send(&mut transport, &answer)?;
            let count = self.receive(&mut transport, startup.space())?;
            match startup.received(count) {
                Ok(None) => {}
                Ok(Some(logged_in)) => break logged_in,
                Err(error) => {
                    return Err(self.refused(error, met.is_some(), startup.is_inside()));
                }
            }
        };
        let session = WireSession::new(startup.into_incoming(), logged_in.parameters);
        let tls = transport.with_ssl(|ssl| ssl.version_str().to_owned());
        let about = About {
            target: Arc::clone(self.target),
            place: self.place.clone(),
            tls,
            backend: logged_in.backend,
        };
        Ok(Connected::new(transport, session, about))
    }

    fn refused(&self, error: LoginError, is_tls: bool, is_inside: bool) -> Attempt {
        let said = match error {
            LoginError::Mistrusted(what) => return Attempt::final_at(self.place, &what),
            LoginError::Refused(said) => said,
        };
        let is_early = said.sqlstate() == Some(NOT_YET);
        let mut attempt = Attempt::at(self.place, &format!("FATAL: {}", said.message()));
        attempt.failure.kind = FailureKind::Server;
        attempt.failure.said = Some(said);
        attempt.asks_on = is_early;
        attempt.may_change =
            !is_inside && !is_early && is_tls == (self.target.tls.mode == TlsMode::Prefer);
        attempt
    }

    /// Sees to what the driver rests on, and whether the server is of the kind that is wanted.
    pub(super) fn fit(
        &mut self,
        mut connected: Connected,
        sessions: Sessions,
    ) -> Result<Connected, Attempt> {
        let is_utf8 = connected.session.parameter("client_encoding") == Some("UTF8");
        if !is_utf8 {
            self.ask(&mut connected, "SET client_encoding TO 'UTF8'")?;
        }
        let style = connected.session.parameter("DateStyle");
        if style.is_some_and(|style| !style.starts_with("ISO")) {
            self.ask(&mut connected, "SET datestyle TO 'ISO'")?;
        }
        if sessions == Sessions::Any {
            return Ok(connected);
        }
        let mut is_on = |connected: &mut Connected, names: &[&str], question: &str| {
            let told: Vec<_> = names
                .iter()
                .map(|name| connected.session.parameter(name).map(|value| value == "on"))
                .collect();
            if told.contains(&None) {
                let answer = self.ask(connected, question)?;
                return Ok::<_, Attempt>(matches!(answer.as_deref(), Some("on" | "t")));
            }
            Ok(told.contains(&Some(true)))
        };
        let standby = is_on(
            &mut connected,
            &["in_hot_standby"],
            "SELECT pg_catalog.pg_is_in_recovery()",
        )?;
        let read_only = is_on(
            &mut connected,
            &["in_hot_standby", "default_transaction_read_only"],
            "SHOW transaction_read_only",
        )?;
        if sessions.take(standby, read_only) {
            return Ok(connected);
        }
        let found = if standby { "a standby" } else { "no standby" };
        let writes = if read_only {
            "takes no writes"
        } else {
            "takes writes"
        };
        connected.close();
        Err(Attempt::at(
            self.place,
            &format!(
                "target_session_attrs asks for another server: this one is {found} and {writes}"
            ),
        ))
    }

    fn ask(&mut self, connected: &mut Connected, sql: &str) -> Result<Option<String>, Attempt> {
        let answer = connected.ask(sql, self.waits, self.until);
        answer.map_err(|failure| Attempt {
            asks_on: !matches!(failure.kind, FailureKind::Interrupted | FailureKind::Forked),
            failure,
            may_change: false,
        })
    }

    /// A way to the server, TLS done.
    pub(super) fn reach(
        &mut self,
        with_tls: bool,
    ) -> Result<(Transport, Option<Handshake>), Attempt> {
        let mut transport = self.dial()?;
        if self.place.address.is_none() {
            self.check_peer(transport.socket())?;
        }
        if !with_tls || !self.ask_for_tls(&mut transport)? {
            return Ok((transport, None));
        }
        let (tls, place) = (&self.target.tls, self.place);
        transport
            .encrypt(|| handshake::session(tls, self.files, &place.endpoint))
            .map_err(|what| Attempt::tls(place, &what))?;
        loop {
            match transport.shake_hands() {
                Shaken::Done => break,
                Shaken::Waits { writing } => self.wait(&transport, writing)?,
                Shaken::Failed { what, is_cut } => {
                    let mut attempt = Attempt::tls(place, &what);
                    attempt.asks_on = is_cut;
                    return Err(attempt);
                }
            }
        }
        let met = transport.with_ssl(|ssl| handshake::checked(ssl, tls, &place.endpoint));
        match met {
            Some(Ok(met)) => Ok((transport, Some(met))),
            Some(Err(what)) => Err(Attempt::tls(place, &what)),
            None => Err(Attempt::at(place, "there is no TLS")),
        }
    }

    fn dial(&mut self) -> Result<Transport, Attempt> {
        let begun = match self.place.address {
            None => OwnedSocket::connect_unix(&self.place.endpoint.path()),
            Some(address) => OwnedSocket::connect(address),
        };
        let socket = begun.map_err(|error| self.unreachable(&error))?;
        let transport = Transport::new(socket);
        loop {
            match transport.socket().connected() {
                Ok(true) => return Ok(transport),
                Ok(false) => self.wait(&transport, true)?,
                Err(error) => return Err(self.unreachable(&error)),
            }
        }
    }

    fn check_peer(&mut self, socket: &OwnedSocket) -> Result<(), Attempt> {
        let Some(named) = self.target.auth.peer.clone() else {
            return Ok(());
        };
        let number = socket
            .peer_user()
            .map_err(|error| self.unreachable(&error))?;
        let found = aside::done(
            self.waits,
            self.until,
            "looking up as whom the server runs",
            move || peer::name_of(number),
        );
        let found = found.map_err(|failure| Attempt {
            failure,
            asks_on: false,
            may_change: false,
        })?;
        match peer::judge(&named, number, found) {
            Ok(()) => Ok(()),
            Err(Refused::Another(what) | Refused::Unknown(what)) => {
                Err(Attempt::final_at(self.place, &what))
            }
        }
    }

    /// Asks whether the server has TLS. False: it has none, and need not.
    fn ask_for_tls(&mut self, transport: &mut Transport) -> Result<bool, Attempt> {
        if self.target.tls.is_direct {
            return Ok(true);
        }
        self.send(transport, &SSL_REQUEST)?;
        let mut answer = [0];
        self.receive(transport, &mut answer)?;
        match answer {
            [b'S'] => Ok(true),
            [b'N'] if self.target.tls.mode < TlsMode::Require => Ok(false),
            [b'N'] => Err(Attempt::final_at(
                self.place,
                "TLS: the server does not support TLS",
            )),
            // An error, perhaps; who sends it is not known, so it is not read.
            _ => Err(Attempt::final_at(
                self.place,
                "the server does not answer the question for TLS",
            )),
        }
    }

    pub(super) fn send(
        &mut self,
        transport: &mut Transport,
        mut bytes: &[u8],
    ) -> Result<(), Attempt> {
        while !bytes.is_empty() {
            match transport.send(bytes, false) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.wait(transport, true)?;
                }
                Err(error) => return Err(self.unreachable(&error)),
            }
        }
        Ok(())
    }

    pub(super) fn receive(
        &mut self,
        transport: &mut Transport,
        into: &mut [u8],
    ) -> Result<usize, Attempt> {
        loop {
            // A server that talks all the time is not waited for, and late all the same.
            if self.until.is_some_and(|until| self.waits.now() >= until) {
                return Err(Attempt::late(self.place));
            }
            match transport.receive(into) {
                Ok(0) => {
                    return Err(Attempt::at(
                        self.place,
                        "server closed the connection unexpectedly",
                    ));
                }
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.wait(transport, false)?;
                }
                Err(error) => return Err(self.unreachable(&error)),
            }
        }
    }

    fn wait(&mut self, transport: &Transport, writing: bool) -> Result<(), Attempt> {
        let fd = transport.fd().map_err(|error| self.unreachable(&error))?;
        if !self.waits.wait(fd, writing, self.until)? {
            return Err(Attempt::late(self.place));
        }
        if !transport.is_ours() {
            let mut attempt = Attempt::final_at(self.place, "this process was forked meanwhile");
            attempt.failure.kind = FailureKind::Forked;
            return Err(attempt);
        }
        Ok(())
    }

    fn unreachable(&self, error: &std::io::Error) -> Attempt {
        Attempt::at(self.place, &in_words(&error.to_string()))
    }
}
