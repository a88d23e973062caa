//! Logging in, as a state machine: what the server asks, what it is answered, and what it tells before the first
//! request. Knows no socket, no clock. What may be answered at all, [`Gatekeeper`] says.

use std::collections::HashMap;
use std::fmt;

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use super::incoming::Incoming;
use super::outgoing;
use super::server_message::ServerMessage;
use super::settings;
use crate::conninfo::auth::{Auth, Binding};
use crate::socket::certificate::CertificateRequest;
use crate::tls::gatekeeper::{Gatekeeper, Security};
use crate::tls::handshake::Handshake;

/// Who logs in, and how.
#[derive(Clone, Copy)]
pub(crate) struct Credentials<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: Option<&'a [u8]>,
    pub(crate) auth: &'a Auth,
}

/// How it went wrong.
#[derive(Clone, Debug)]
pub(crate) enum LoginError {
    /// The server refuses.
    Refused(Box<ServerMessage>),
    /// The server is refused: it asks what it must not, or cannot be understood. It says why.
    Mistrusted(String),
}

/// What a session begins with.
#[derive(Debug)]
pub(crate) struct LoggedIn {
    pub(crate) parameters: HashMap<String, String>,
    /// Process id and key, by which it can be cancelled.
    pub(crate) backend: Option<(u32, u32)>,
}

/// One login.
pub(crate) struct Startup<'a> {
    credentials: Credentials<'a>,
    gatekeeper: Option<Gatekeeper>,
    /// To what a password can be bound.
    binding: Option<Vec<u8>>,
    incoming: Incoming,
    outgoing: Vec<u8>,
    scram: Option<ScramSha256>,
    is_proven: bool,
    parameters: HashMap<String, String>,
    backend: Option<(u32, u32)>,
    messages: usize,
    bytes: usize,
}

impl fmt::Debug for Startup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Startup").finish_non_exhaustive()
    }
}

/// A server that talks on and on is none.
const MOST_MESSAGES: usize = 10_000;
const MOST_BYTES: usize = 16 << 20;
const PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";
const PLAIN: &[u8] = b"SCRAM-SHA-256";

impl<'a> Startup<'a> {
    /// Begins, over TLS where a handshake was made.
    pub(crate) fn new(
        credentials: Credentials<'a>,
        said: &[(&str, &str)],
        handshake: Option<&Handshake>,
    ) -> Self {
        let (security, request) = match handshake {
            None => (Security::Clear, CertificateRequest::Absent),
            Some(met) if met.binding.is_some() => (Security::Bound, met.request),
            Some(met) => (Security::Unbound, met.request),
        };
        let mut outgoing = Vec::new();
        outgoing::startup(&mut outgoing, said);
        let binding = handshake.and_then(|met| met.binding.clone());
        Self {
            gatekeeper: Some(Gatekeeper::new(credentials.auth.clone(), security, request)),
            binding: binding.filter(|_| credentials.auth.binding != Binding::Disable),
            credentials,
            incoming: Incoming::new(),
            outgoing,
            scram: None,
            is_proven: false,
            parameters: HashMap::new(),
            backend: None,
            messages: 0,
            bytes: 0,
        }
    }

    /// Takes what is to be sent.
    pub(crate) fn outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// Whether the server is content with who we are.
    pub(crate) fn is_inside(&self) -> bool {
        self.gatekeeper.is_none()
    }

    /// Room for what comes.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.incoming.space()
    }

    /// Looks at so many new bytes; says what the session begins with once the server is ready.
    ///
    /// # Errors
    ///
    /// [`LoginError`].
    pub(crate) fn received(&mut self, count: usize) -> Result<Option<LoggedIn>, LoginError> {
        if let Some(gatekeeper) = &mut self.gatekeeper {
            let new = self.incoming.space().get(..count).unwrap_or_default();
            match gatekeeper.look(new) {
                Ok(false) => {}
                Ok(true) => self.gatekeeper = None,
                Err(refused) => return Err(LoginError::Mistrusted(refused.to_string())),
            }
        }
        self.incoming.received(count);
        self.bytes = self.bytes.saturating_add(count);
        if self.bytes > MOST_BYTES {
            return Err(mistrusted(&format!(
                "the server has sent {MOST_BYTES} bytes without being ready"
            )));
        }
        while let Some(frame) = self.incoming.next().map_err(LoginError::Mistrusted)? {
            self.messages += 1;
            if self.messages > MOST_MESSAGES {
                return Err(mistrusted(&format!(
                    "the server has sent {MOST_MESSAGES} messages without being ready"
                )));
            }
            let body = self.incoming.at(frame.body).to_vec();
            match frame.kind {
                b'R' => self.authenticate(&body)?,
                b'S' => {
                    let (name, value) = settings::setting(&body).ok_or_else(garbled)?;
                    self.parameters.insert(name, value);
                }
                b'K' => self.backend = key(&body),
                b'N' | b'v' => {}
                b'E' => {
                    let said = ServerMessage::read(&body).ok_or_else(garbled)?;
                    return Err(LoginError::Refused(Box::new(said)));
                }
                b'Z' if self.is_inside() && body == b"I" => {
                    return Ok(Some(LoggedIn {
                        parameters: std::mem::take(&mut self.parameters),
                        backend: self.backend,
                    }));
                }
                _ => return Err(garbled()),
            }
        }
        Ok(None)
    }

    /// Takes what has come behind the login.
    pub(crate) fn into_incoming(self) -> Incoming {
        self.incoming
    }

    fn authenticate(&mut self, body: &[u8]) -> Result<(), LoginError> {
        let (code, rest) = body.split_first_chunk().ok_or_else(garbled)?;
        match u32::from_be_bytes(*code) {
            0 if self.scram.is_some() && !self.is_proven => Err(mistrusted(
                "the server lets us in without having proven that it knows the password",
            )),
            0 => Ok(()),
            3 => {
                let password = self.password()?;
                self.answer(|out| outgoing::text(out, password));
                Ok(())
            }
            5 => {
                let salt = rest.try_into().map_err(|_| garbled())?;
                let hash = md5_hash(self.credentials.user.as_bytes(), self.password()?, salt);
                self.answer(|out| outgoing::text(out, hash.as_bytes()));
                Ok(())
            }
            10 => self.begin_scram(rest),
            11 => {
                let scram = self.scram.as_mut().ok_or_else(garbled)?;
                let updated = scram.update(rest);
                updated.map_err(|error| mistrusted(&format!("SCRAM: {error}")))?;
                let message = scram.message().to_vec();
                self.answer(|out| out.extend_from_slice(&message));
                Ok(())
            }
            12 => {
                let scram = self.scram.as_mut().ok_or_else(garbled)?;
                let finished = scram.finish(rest);
                finished.map_err(|error| mistrusted(&format!("SCRAM: {error}")))?;
                self.is_proven = true;
                Ok(())
            }
            7..=9 => Err(mistrusted(
                "the server asks for GSSAPI or SSPI, which poolproof does not have",
            )),
            _ => Err(garbled()),
        }
    }

    fn begin_scram(&mut self, mechanisms: &[u8]) -> Result<(), LoginError> {
        if self.scram.is_some() {
            return Err(mistrusted("the server begins SCRAM twice"));
        }
        let offers = |name: &[u8]| mechanisms.split(|byte| *byte == 0).any(|one| one == name);
        let (binding, mechanism) = match self.binding.take() {
            Some(hash) if offers(PLUS) => (ChannelBinding::tls_server_end_point(hash), PLUS),
            Some(_) if offers(PLAIN) => (ChannelBinding::unrequested(), PLAIN),
            None if offers(PLAIN) => (ChannelBinding::unsupported(), PLAIN),
            _ => {
                return Err(mistrusted(
                    "the server offers no way of SASL but ones that poolproof does not have",
                ));
            }
        };
        let scram = ScramSha256::new(self.password()?, binding);
        let first = scram.message().to_vec();
        self.answer(|out| {
            outgoing::text(out, mechanism);
            let length = u32::try_from(first.len()).unwrap_or_default();
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&first);
        });
        self.scram = Some(scram);
        Ok(())
    }

    fn answer(&mut self, body: impl FnOnce(&mut Vec<u8>)) {
        outgoing::message(&mut self.outgoing, b'p', body);
    }

    fn password(&self) -> Result<&'a [u8], LoginError> {
        let given = self
            .credentials
            .password
            .filter(|password| !password.is_empty());
        given.ok_or_else(|| mistrusted("the server asks for a password, and none was given"))
    }
}

fn key(body: &[u8]) -> Option<(u32, u32)> {
    let (pid, rest) = body.split_first_chunk()?;
    let key = rest.try_into().ok()?;
    Some((u32::from_be_bytes(*pid), u32::from_be_bytes(key)))
}

fn mistrusted(why: &str) -> LoginError {
    LoginError::Mistrusted(why.to_owned())
}

fn garbled() -> LoginError {
    mistrusted("what answers there does not speak PostgreSQL's protocol")
}
