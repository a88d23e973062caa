//! Opening one connection: which ways of a `sslmode` are tried in which order, and what ends the search.
//!
//! libpq's order. What is optional may fail: with `prefer` a server that refuses TLS, or whose TLS fails, is asked
//! again in clear; with `allow` the other way round. Whatever else a server that was reached says is the answer, and
//! the other candidates are not asked: they would be sent a password that the first has refused.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_openssl::SslStream;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
use tokio_postgres::{Client, Config, Connection};

use super::error::{ControlError, in_words};
use super::reader::Reader;
use super::stream::{Meter, Stream};
use super::wire::{AsItIs, Encrypted, Progress, Way, Wire};
use super::{peer, plane};
use crate::conninfo::auth::Binding;
use crate::conninfo::target::{Endpoint, Target, TlsMode};
use crate::process::hold::hold;
use crate::socket::owned::OwnedSocket;
use crate::tls::files::TlsFiles;
use crate::tls::handshake as tls;

/// An endpoint, and one of its addresses; none for a unix socket.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) address: Option<SocketAddr>,
}

/// A connection that its server has accepted.
pub(crate) struct Opened {
    pub(crate) client: Client,
    pub(crate) connection: Connection<Wire, Wire>,
    pub(crate) socket: Arc<OwnedSocket>,
    pub(crate) meter: Arc<Meter>,
    /// The path at which its server listens, where that is a unix socket.
    pub(crate) path: Option<PathBuf>,
}

/// Why there is none.
pub(crate) struct Failure {
    pub(crate) error: ControlError,
    /// Whether another candidate may be asked: nobody answered there, or the server is not ready.
    pub(crate) asks_on: bool,
    /// Whether another way to the same candidate may be tried: TLS instead of none, none instead of TLS.
    pub(crate) may_change: bool,
}

impl Failure {
    fn io(candidate: &Candidate<'_>, error: impl ToString) -> Self {
        Self {
            error: ControlError::unreachable(&candidate.endpoint.shown(), error),
            asks_on: true,
            may_change: false,
        }
    }

    /// libpq asks nobody else then.
    fn peer(candidate: &Candidate<'_>, refused: peer::Refused) -> Self {
        let place = candidate.endpoint.shown();
        let error = match refused {
            peer::Refused::Another(what) => ControlError::Connect {
                place,
                what,
                sqlstate: None,
                tls: true,
            },
            peer::Refused::Unknown(what) => ControlError::unreachable(&place, what),
        };
        Self {
            error,
            asks_on: false,
            may_change: false,
        }
    }

    fn tls(candidate: &Candidate<'_>, what: String) -> Self {
        Self {
            error: ControlError::Connect {
                place: candidate.endpoint.shown(),
                what: in_words(&format!("TLS: {what}")),
                sqlstate: None,
                tls: true,
            },
            asks_on: false,
            may_change: true,
        }
    }
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const NOT_YET: &str = "57P03";

/// Opens a connection to `candidate`.
pub(crate) async fn dial(
    target: &Target,
    candidate: &Candidate<'_>,
    reader: &Reader,
) -> Result<Opened, Failure> {
    let ways = target.tls.mode.ways(candidate.address.is_none());
    let mut first = None;
    for with_tls in ways {
        match Box::pin(attempt(target, candidate, *with_tls, reader)).await {
            Err(failure) if failure.may_change => first = first.or(Some(failure)),
            // What was wanted first is what its user asks about.
            Err(failure) => return Err(first.unwrap_or(failure)),
            opened => return opened,
        }
    }
    Err(first.unwrap_or_else(|| Failure::io(candidate, "there is no way to it")))
}

async fn attempt(
    target: &Target,
    candidate: &Candidate<'_>,
    with_tls: bool,
    reader: &Reader,
) -> Result<Opened, Failure> {
    let stream = connected(candidate).await?;
    if candidate.address.is_none() {
        let checked = peer::check(stream.socket(), &target.auth, reader).await;
        checked.map_err(|refused| Failure::peer(candidate, refused))?;
    }
    let (socket, meter) = (Arc::clone(stream.socket()), stream.meter());
    let way = if with_tls {
        encrypted(target, candidate, stream, reader).await?
    } else {
        Way::Clear(stream)
    };
    let is_tls = matches!(way, Way::Tls(..));
    let progress = Progress::default();
    let wire = Wire::new(way, &target.auth, progress.clone(), Arc::clone(&meter));
    let mut config = config(target, candidate.endpoint);
    if is_tls {
        // The driver finds it done.
        config.ssl_mode(SslMode::Require);
        config.ssl_negotiation(SslNegotiation::Direct);
    }
    let connected = config.connect_raw(wire, AsItIs).await;
    match connected {
        Ok((client, connection)) => Ok(Opened {
            client,
            connection,
            path: socket.peer_path(),
            socket,
            meter,
        }),
        Err(error) => {
            let mut failed = ControlError::connecting(&candidate.endpoint.shown(), &error);
            let state = failed.sqlstate().map(str::to_owned);
            if let ControlError::Connect { tls, .. } = &mut failed {
                *tls = progress.is_refused();
            }
            let answered = state.is_some() && !progress.is_inside();
            Err(Failure {
                asks_on: state.as_deref() == Some(NOT_YET),
                may_change: answered
                    && state.as_deref() != Some(NOT_YET)
                    && (is_tls == (target.tls.mode == TlsMode::Prefer)),
                error: failed,
            })
        }
    }
}

async fn connected(candidate: &Candidate<'_>) -> Result<Stream, Failure> {
    let reactor = plane::reactor().map_err(|error| Failure {
        error,
        asks_on: false,
        may_change: false,
    })?;
    let stream = match candidate.address {
        None => Stream::connect_unix(reactor, &candidate.endpoint.path()).await,
        Some(address) => Stream::connect(reactor, address).await,
    };
    stream.map_err(|error| Failure::io(candidate, error))
}

async fn encrypted(
    target: &Target,
    candidate: &Candidate<'_>,
    mut socket: Stream,
    reader: &Reader,
) -> Result<Way, Failure> {
    let io = |error: io::Error| Failure::io(candidate, error);
    if !target.tls.is_direct {
        socket.write_all(&SSL_REQUEST).await.map_err(io)?;
        let mut answer = [0];
        socket.read_exact(&mut answer).await.map_err(io)?;
        match answer {
            [b'S'] => {}
            [b'N'] if target.tls.mode < TlsMode::Require => return Ok(Way::Clear(socket)),
            [b'N'] => {
                let mut failure = Failure::tls(candidate, "the server does not support TLS".into());
                failure.may_change = false;
                return Err(failure);
            }
            _ => {
                // An error, perhaps; who sends it is not known, so it is not read. It is an answer: nobody else is asked.
                let why = "the server does not answer the question for TLS";
                let mut failure = Failure::io(candidate, why);
                failure.asks_on = false;
                return Err(failure);
            }
        }
    }
    let files = {
        let tls = target.tls.clone();
        reader
            .read(move || TlsFiles::read(&tls))
            .await
            .map_err(io)?
    };
    let mut stream = {
        let _hold = hold();
        let ssl = tls::session(&target.tls, &files, candidate.endpoint);
        let ssl = ssl.map_err(parameters)?;
        let stream = SslStream::new(ssl, socket)
            .map_err(|error| Failure::tls(candidate, tls::shown(error)))?;
        Encrypted::new(stream)
    };
    let shaken = stream.shake_hands().await;
    let _hold = hold();
    let Some(ssl) = stream.ssl() else {
        return Err(Failure::io(candidate, "there is no TLS"));
    };
    if let Err(error) = shaken {
        if let Some(why) = tls::mistrust(ssl) {
            return Err(Failure::tls(
                candidate,
                format!("its certificate is not trusted: {why}"),
            ));
        }
        let mut failure = Failure::tls(candidate, error.to_string());
        if error.io_error().is_some() || error.ssl_error().is_none() {
            // Cut off, which may happen to anybody.
            failure.error = ControlError::unreachable(&candidate.endpoint.shown(), error);
        }
        return Err(failure);
    }
    let met = tls::checked(ssl, &target.tls, candidate.endpoint);
    let met = met.map_err(|what| Failure::tls(candidate, what))?;
    Ok(Way::Tls(stream, met))
}

/// Files that cannot be used: no candidate is to blame, but where TLS is optional, it may be left.
fn parameters(what: String) -> Failure {
    Failure {
        error: ControlError::Parameters { what },
        asks_on: false,
        may_change: true,
    }
}

fn config(target: &Target, endpoint: &Endpoint) -> Config {
    let mut config = Config::new();
    config
        .user(&target.user)
        .dbname(&target.database)
        .application_name(&target.application)
        .ssl_mode(SslMode::Disable)
        .channel_binding(match target.auth.binding {
            Binding::Disable => ChannelBinding::Disable,
            Binding::Prefer => ChannelBinding::Prefer,
            Binding::Require => ChannelBinding::Require,
        });
    if let Some(options) = &target.options {
        config.options(options);
    }
    if let Some(password) = &endpoint.password {
        config.password(password.bytes());
    }
    config
}
