//! One session of the control plane: opened here, severed by a fork, replaced when it fails.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use tokio::io::{AsyncReadExt, duplex};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::select;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::ControlError;
use super::params::{Endpoint, Params, TlsMode};
use super::table::Table;
use super::tls;
use crate::process::Registration;
use crate::socket::options;

/// A session; a task moves its bytes.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    /// The path at which its server listens, where that is a unix socket.
    pub(crate) path: Option<PathBuf>,
    /// The tables of leases that it has looked at, by the names that were asked for.
    pub(crate) tables: HashMap<String, Table>,
    cut: Arc<Notify>,
    is_broken: AtomicBool,
}

impl Session {
    /// Cuts the session off, now: to close it would wait for an answer that never comes. What the server has not
    /// received of the statement it never will, although the network comes back.
    pub(crate) fn give_up(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
        self.cut.notify_one();
    }

    /// The process id that this session was told at its beginning, which a pooler makes up.
    ///
    /// The driver shows it in one place: in what it would send to cancel a statement.
    pub(crate) async fn told_pid(&self) -> Option<i32> {
        const LENGTH_AND_CODE: usize = 8;
        let (near, mut far) = duplex(64);
        let cancel = self.client.cancel_token();
        cancel.cancel_query_raw(near, NoTls).await.ok()?;
        let mut request = [0; LENGTH_AND_CODE + 4];
        far.read_exact(&mut request).await.ok()?;
        let (_, pid) = request.split_last_chunk()?;
        Some(i32::from_be_bytes(*pid))
    }
}

/// Opens sessions to one server, for the pool.
pub(crate) struct Opener {
    params: Params,
    tls: Option<MakeRustlsConnect>,
    /// Which place to begin with: the one that worked last, and the next after one that did not.
    first: AtomicUsize,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

impl Manager for Opener {
    type Type = Session;
    type Error = ControlError;

    async fn create(&self) -> Result<Session, ControlError> {
        let places = self.places().await?;
        let mut failure = None;
        for _ in 0..places.len() {
            // Moved on before the attempt: whoever runs out of time there begins elsewhere the next time.
            let turn = self.first.fetch_add(1, Ordering::Relaxed);
            let place = &places[turn % places.len()];
            match timeout(self.params.connect_within, Box::pin(self.open(place))).await {
                Ok(Ok(session)) => {
                    self.first.store(turn, Ordering::Relaxed);
                    return Ok(session);
                }
                Ok(Err(error)) => failure = Some(error),
                Err(_elapsed) => {
                    let seconds = self.params.connect_within.as_secs_f64();
                    let what = format!("no answer within {seconds:.2} s");
                    failure = Some(ControlError::unreachable(&place.shown(), what));
                }
            }
        }
        Err(failure.unwrap_or_else(|| ControlError::Parameters {
            what: "there is no host to connect to".into(),
        }))
    }

    async fn recycle(
        &self,
        session: &mut Session,
        _metrics: &Metrics,
    ) -> RecycleResult<ControlError> {
        if session.client.is_closed() || session.is_broken.load(Ordering::Relaxed) {
            return Err(RecycleError::message("closed"));
        }
        Ok(())
    }
}

/// An endpoint, and one of its addresses; none for a unix socket.
struct Place<'a> {
    endpoint: &'a Endpoint,
    address: Option<SocketAddr>,
}

impl Place<'_> {
    fn shown(&self) -> String {
        self.endpoint.shown()
    }
}

impl Opener {
    pub(crate) fn new(params: Params) -> Result<Self, ControlError> {
        let tls = tls::config(&params.tls)?.map(MakeRustlsConnect::new);
        Ok(Self {
            params,
            tls,
            first: AtomicUsize::new(0),
        })
    }

    async fn places(&self) -> Result<Vec<Place<'_>>, ControlError> {
        let mut places = Vec::new();
        let mut failure = None;
        for endpoint in &self.params.endpoints {
            if endpoint.is_local() {
                places.push(Place {
                    endpoint,
                    address: None,
                });
                continue;
            }
            match addresses(endpoint).await {
                Ok(found) => places.extend(found.into_iter().map(|address| Place {
                    endpoint,
                    address: Some(address),
                })),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if places.is_empty() => Err(error),
            _ => Ok(places),
        }
    }

    async fn open(&self, place: &Place<'_>) -> Result<Session, ControlError> {
        let is_optional = self.params.tls.mode == TlsMode::Prefer;
        match self.open_with(place, self.tls.clone()).await {
            // As libpq does: what is optional may fail.
            Err(ControlError::Connect { tls: true, .. }) if is_optional => {
                self.open_with(place, None).await
            }
            opened => opened,
        }
    }

    async fn open_with(
        &self,
        place: &Place<'_>,
        tls: Option<MakeRustlsConnect>,
    ) -> Result<Session, ControlError> {
        let shown = place.shown();
        let io = |error: std::io::Error| ControlError::unreachable(&shown, error);
        let failed = |error: tokio_postgres::Error| ControlError::connecting(&shown, &error);
        let mut config = self.config(place.endpoint);
        config.ssl_mode(SslMode::Disable);
        let mut path = None;
        let (client, cut) = match place.address {
            // TLS is not for unix sockets.
            None => {
                let stream = UnixStream::connect(place.endpoint.path())
                    .await
                    .map_err(io)?;
                let peer = stream.peer_addr().map_err(io)?;
                path = peer.as_pathname().map(PathBuf::from);
                let registration = Registration::new(stream.as_raw_fd())?;
                let connected = config.connect_raw(stream, NoTls).await;
                let (client, connection) = connected.map_err(failed)?;
                (client, drive(connection, registration))
            }
            Some(address) => {
                let socket = match address {
                    SocketAddr::V4(_) => TcpSocket::new_v4(),
                    SocketAddr::V6(_) => TcpSocket::new_v6(),
                }
                .map_err(io)?;
                let registration = Registration::new(socket.as_raw_fd())?;
                socket.set_nodelay(true).map_err(io)?;
                let stream = socket.connect(address).await.map_err(io)?;
                if let Some(mut tls) = tls {
                    config.ssl_mode(match self.params.tls.mode {
                        TlsMode::Prefer => SslMode::Prefer,
                        _ => SslMode::Require,
                    });
                    let name = self.tls_name(place.endpoint);
                    let connector: Result<_, Infallible> =
                        MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, &name);
                    let connector = connector.unwrap_or_else(|never| match never {});
                    let connected = config.connect_raw(stream, connector).await;
                    let (client, connection) = connected.map_err(failed)?;
                    (client, drive(connection, registration))
                } else {
                    let connected = config.connect_raw(stream, NoTls).await;
                    let (client, connection) = connected.map_err(failed)?;
                    (client, drive(connection, registration))
                }
            }
        };
        let session = Session {
            client,
            path,
            tables: HashMap::new(),
            cut,
            is_broken: AtomicBool::new(false),
        };
        if self.params.writable_only {
            refuse_read_only(&session.client, &shown).await?;
        }
        Ok(session)
    }

    /// The name to ask for and to check. One that TLS cannot say is left out where it is not checked.
    fn tls_name(&self, endpoint: &Endpoint) -> String {
        let name = rustls::pki_types::ServerName::try_from(endpoint.host.as_str());
        if name.is_err() && self.params.tls.mode != TlsMode::VerifyFull {
            return "localhost".into();
        }
        endpoint.host.clone()
    }

    fn config(&self, endpoint: &Endpoint) -> Config {
        let mut config = Config::new();
        config
            .user(&self.params.user)
            .dbname(&self.params.database)
            .application_name(&self.params.application);
        if let Some(options) = &self.params.options {
            config.options(options);
        }
        if let Some(password) = &endpoint.password {
            config.password(password);
        }
        config
    }
}

async fn addresses(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, ControlError> {
    let name = endpoint.hostaddr.as_deref().unwrap_or(&endpoint.host);
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, endpoint.port)]);
    }
    let found = lookup_host((name, endpoint.port))
        .await
        .map_err(|error| ControlError::unreachable(&endpoint.shown(), error))?;
    Ok(found.collect())
}

/// Moves the bytes of a session in a task of its own, until it ends or is cut off by what is returned. The socket stays
/// registered while it is open.
fn drive<C>(connection: C, registration: Registration) -> Arc<Notify>
where
    C: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    let cut = Arc::new(Notify::new());
    let told = Arc::clone(&cut);
    tokio::spawn(async move {
        {
            let mut connection = pin!(connection);
            select! {
                biased;
                () = told.notified() => {
                    if let Some(fd) = registration.fd() {
                        options::forget_unsent(fd);
                    }
                }
                // Whoever asks something next is told: the client knows that it is closed.
                _ended = &mut connection => {}
            }
        }
        drop(registration);
    });
    cut
}

async fn refuse_read_only(client: &Client, place: &str) -> Result<(), ControlError> {
    let query = "SELECT current_setting('transaction_read_only') = 'on' OR pg_is_in_recovery()";
    let row = client.query_typed_one(query, &[]).await;
    let row = row.map_err(|error| ControlError::connecting(place, &error))?;
    let is_read_only = row.try_get(0);
    if is_read_only.map_err(|error| ControlError::connecting(place, &error))? {
        return Err(ControlError::unreachable(place, "this server is read-only"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn of_a_session_that_was_cut_off_nothing_more_arrives() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let registration = Registration::new(stream.as_raw_fd()).unwrap();
        // More than the kernel takes in: the server reads nothing.
        let cut = drive(
            async move {
                let _unsent = stream.write_all(&vec![0; 1 << 25]).await;
                Ok(())
            },
            registration,
        );
        server.readable().await.unwrap();
        cut.notify_one();
        let read = server.read_to_end(&mut Vec::new()).await;
        assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
