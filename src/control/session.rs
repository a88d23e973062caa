//! One session of the control plane: opened here, severed by a fork, replaced when it fails.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use tokio::io::{AsyncReadExt, duplex};
use tokio::net::lookup_host;
use tokio::select;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use super::dial::{Failure, Place, dial};
use super::error::ControlError;
use super::table::Table;
use crate::conninfo::Conninfo;
use crate::conninfo::target::{Endpoint, Sessions, Target};
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

/// Opens sessions to one server, for the pool. Its parameters are read anew for each: files and passwords change.
pub(crate) struct Opener {
    conninfo: Conninfo,
    /// Which place to begin with: the one that worked last, and the next after one that did not.
    first: AtomicUsize,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("conninfo", &self.conninfo)
            .finish_non_exhaustive()
    }
}

/// The longest that one place may take, unless `connect_timeout` says.
const CONNECT: Duration = Duration::from_secs(10);

impl Manager for Opener {
    type Type = Session;
    type Error = ControlError;

    async fn create(&self) -> Result<Session, ControlError> {
        let target = self.target()?;
        let places = self.places(&target).await?;
        let wanted: &[Sessions] = match target.sessions {
            Sessions::PreferStandby => &[Sessions::Standby, Sessions::Any],
            // What is leased is written: of several servers, only one that takes writes will do.
            Sessions::Any if target.endpoints.len() > 1 => &[Sessions::ReadWrite],
            ref sessions => std::slice::from_ref(sessions),
        };
        let within = target.connect_timeout.unwrap_or(CONNECT);
        let mut failure = None;
        for turn in 0..places.len() * wanted.len() {
            let sessions = wanted[turn / places.len()];
            // Moved on before the attempt: whoever runs out of time there begins elsewhere the next time.
            let turn = self.first.fetch_add(1, Ordering::Relaxed);
            let place = &places[turn % places.len()];
            match timeout(within, Box::pin(open(&target, place, sessions))).await {
                Ok(Ok(session)) => {
                    self.first.store(turn, Ordering::Relaxed);
                    return Ok(session);
                }
                Ok(Err(failed)) if failed.asks_on => failure = Some(failed.error),
                Ok(Err(failed)) => return Err(failed.error),
                Err(_elapsed) => {
                    let seconds = within.as_secs_f64();
                    let what = format!("no answer within {seconds:.2} s");
                    failure = Some(ControlError::unreachable(&place.endpoint.shown(), what));
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

impl Opener {
    pub(crate) fn new(conninfo: Conninfo) -> Self {
        Self {
            conninfo,
            first: AtomicUsize::new(0),
        }
    }

    fn target(&self) -> Result<Target, ControlError> {
        let mut target = self
            .conninfo
            .resolve()
            .map_err(|error| ControlError::Parameters {
                what: error.to_string(),
            })?;
        target.application = named(&target.application);
        Ok(target)
    }

    async fn places<'a>(&self, target: &'a Target) -> Result<Vec<Place<'a>>, ControlError> {
        let mut places = Vec::new();
        let mut failure = None;
        for endpoint in &target.endpoints {
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
        if target.is_shuffled {
            shuffle(&mut places);
        }
        match failure {
            Some(error) if places.is_empty() => Err(error),
            _ => Ok(places),
        }
    }
}

/// What `pg_stat_activity` shows of us: the application's name, and that it is not the application.
fn named(application: &str) -> String {
    const SUFFIX: &str = "poolproof-control";
    const MOST: usize = 63;
    let mut end = application.len().min(MOST - SUFFIX.len() - 1);
    while !application.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} {SUFFIX}", &application[..end])
        .trim_start()
        .to_owned()
}

/// Draws an order by lot.
fn shuffle<T>(places: &mut [T]) {
    // Each of these is made with keys of its own.
    for n in (1..places.len()).rev() {
        let drawn = RandomState::new().hash_one(n);
        let below = u64::try_from(n + 1).unwrap_or(1);
        places.swap(n, usize::try_from(drawn % below).unwrap_or(0));
    }
}

async fn open(target: &Target, place: &Place<'_>, sessions: Sessions) -> Result<Session, Failure> {
    let opened = dial(target, place).await?;
    let session = Session {
        client: opened.client,
        path: opened.path,
        tables: HashMap::new(),
        cut: drive(opened.connection, opened.registration),
        is_broken: AtomicBool::new(false),
    };
    check(&session.client, place, sessions)
        .await
        .map_err(|error| Failure {
            error,
            asks_on: true,
            may_change: false,
        })?;
    Ok(session)
}

async fn addresses(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, ControlError> {
    let name = endpoint.hostaddr.as_deref().unwrap_or(&endpoint.host);
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, endpoint.port)]);
    }
    if endpoint.hostaddr.is_some() {
        return Err(ControlError::Parameters {
            what: "hostaddr is no address".into(),
        });
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

/// Checks that a server will do.
async fn check(client: &Client, place: &Place<'_>, wanted: Sessions) -> Result<(), ControlError> {
    if wanted == Sessions::Any {
        return Ok(());
    }
    let shown = place.endpoint.shown();
    let query = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only') = 'on'";
    let row = client.query_typed_one(query, &[]).await;
    let row = row.map_err(|error| ControlError::connecting(&shown, &error))?;
    let told = row
        .try_get(0)
        .and_then(|standby| Ok((standby, row.try_get(1)?)));
    let (is_standby, is_read_only) =
        told.map_err(|error| ControlError::connecting(&shown, &error))?;
    if wanted.take(is_standby, is_read_only) {
        return Ok(());
    }
    let what = match (is_standby, is_read_only) {
        (true, _) => {
            "this server is a standby, which target_session_attrs, or a lease, does not take"
        }
        (false, true) => "this server is read-only",
        (false, false) => "this server takes writes, which target_session_attrs does not take",
    };
    Err(ControlError::unreachable(&shown, what))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::fd::AsRawFd;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

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
