//! Backends of the application's connections: recognised while they are new, ended when they are stranded.
//!
//! A connection that is given up, because its server is silent or because it is out of step, leaves a backend behind:
//! it goes on with its statement, and keeps its locks, until it next writes or the network tells it. It is cancelled
//! and, if it lives on, terminated, but only when it is known beyond doubt: a row of `pg_stat_activity` with its
//! process id has been seen while the connection was open, as the same role's in the same database, reached from the
//! very address and port of the connection (over a unix socket: at the same path, where process ids are true); and its
//! `backend_start` is still the one that was seen. Through a pooler, or what changes addresses, nothing matches, and
//! nothing is ended.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio_postgres::types::Type;

use super::error::ControlError;
use super::server::{Parameter, Server, User};
use super::timer::sleep;
use super::{clock, events, plane};
use crate::process::generation;
use crate::socket::address::SocketAddress;

/// Connections that are opened within this time are asked about in one query.
const GATHER: Duration = Duration::from_millis(50);
/// How long one query may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How often newcomers are asked about when the query fails, and after which pause.
const ATTEMPTS: usize = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Most backends see by themselves that their client has gone.
const GRACE: Duration = Duration::from_millis(250);
/// How long a backend has to end after each signal, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(50);
/// How long a server that cannot be reached is tried again: its backends are stranded as long.
const TRY_FOR: Duration = Duration::from_secs(300);

const START: &str = "(extract(epoch FROM backend_start) * 1000000)::bigint";
const OURS: &str = "usename = session_user AND datname = current_database()";

/// The backends behind the connections of one pool.
#[derive(Debug)]
pub struct Backends {
    server: Arc<Server>,
    new: Mutex<Vec<Weak<Backend>>>,
}

/// One of them.
#[derive(Debug)]
pub struct Backend {
    server: Arc<Server>,
    pid: i32,
    place: SocketAddress,
    /// When its connection was open already: whoever began later is another.
    met: Duration,
    generation: u64,
    /// When it began, in microseconds by the server's clock.
    /// The fate of one that is not known beyond doubt was settled when it was asked about.
    start: OnceLock<Result<i64, Fate>>,
    fate: Mutex<Option<Fate>>,
}

/// What became of a stranded backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It ended by itself.
    Gone,
    /// It ended when its statement was cancelled.
    Cancelled,
    /// It ended when it was terminated.
    Terminated,
    /// It was terminated and is still there.
    LivesOn,
    /// It could not be ended, or the server not be asked.
    Failed(String),
    /// It was left alone: the server shows none that fits.
    Unrecognised,
}

impl Backends {
    /// Knows none yet.
    pub fn new(server: Arc<Server>) -> Arc<Self> {
        Arc::new(Self {
            server,
            new: Mutex::new(Vec::new()),
        })
    }

    /// Notes the backend of a connection that was just opened; it is asked about soon.
    ///
    /// # Errors
    ///
    /// [`ControlError::Start`] when there is no control plane to be had, [`ControlError::Forked`] in a child.
    pub fn meet(
        self: &Arc<Self>,
        pid: i32,
        place: SocketAddress,
    ) -> Result<Arc<Backend>, ControlError> {
        self.server.check()?;
        let backend = Arc::new(Backend {
            server: Arc::clone(&self.server),
            pid,
            place,
            met: clock::now(),
            generation: generation(),
            start: OnceLock::new(),
            fate: Mutex::new(None),
        });
        let is_first = {
            let mut new = lock(&self.new);
            new.push(Arc::downgrade(&backend));
            new.len() == 1
        };
        if is_first {
            let (backends, user) = (Arc::clone(self), self.server.join());
            let work = async move {
                sleep(GATHER).await;
                backends.recognise(&user).await;
            };
            // Those that were to be asked about are not recognised, and left alone.
            let started = plane::spawn(work, |_why| {});
            if started.is_err() {
                lock(&self.new).clear();
            }
            started?;
        }
        Ok(backend)
    }

    async fn recognise(&self, server: &User) {
        let gathered = std::mem::take(&mut *lock(&self.new));
        let new: Vec<_> = gathered.iter().filter_map(Weak::upgrade).collect();
        for attempt in 1.. {
            match recognise(server, &new).await {
                Ok(()) => return,
                Err(error) if attempt == ATTEMPTS || error.is_final() => {
                    for backend in new {
                        // Asked once: it was not set before.
                        let _set = backend.start.set(Err(Fate::Failed(error.to_string())));
                    }
                    return;
                }
                Err(_blip) => sleep(PAUSE).await,
            }
        }
    }
}

/// A row of `pg_stat_activity`.
struct Seen {
    start: i64,
    address: Option<IpAddr>,
    port: Option<i32>,
    age: f64,
}

impl Seen {
    fn read(row: &tokio_postgres::Row) -> Result<(i32, Self), tokio_postgres::Error> {
        let address: Option<String> = row.try_get(2)?;
        let one = Self {
            start: row.try_get(1)?,
            address: address.and_then(|address| address.parse().ok()),
            port: row.try_get(3)?,
            age: row.try_get(4)?,
        };
        Ok((row.try_get(0)?, one))
    }
}

/// Asks which of the backends are what they seem, and since when.
async fn recognise(server: &Server, new: &[Arc<Backend>]) -> Result<(), ControlError> {
    let pids: Vec<i32> = new.iter().map(|backend| backend.pid).collect();
    let sql = format!(
        "SELECT pid, {START}, host(client_addr), client_port, \
         extract(epoch FROM clock_timestamp() - backend_start)::float8 FROM pg_catalog.pg_stat_activity \
         WHERE pid = ANY($1) AND {OURS}"
    );
    let parameters: [Parameter<'_>; 1] = [(&pids, Type::INT4_ARRAY)];
    let sent = clock::now();
    let rows = server.query(ANSWER, &sql, &parameters).await?;
    let mut seen = HashMap::new();
    for row in rows {
        let (pid, one) = Seen::read(&row).map_err(|error| ControlError::from_driver(&error))?;
        seen.insert(pid, one);
    }
    for backend in new {
        let least = sent.saturating_sub(backend.met).as_secs_f64();
        let found = match (seen.get(&backend.pid), &backend.place) {
            // Younger than the connection: the process id was given away again.
            (Some(one), _) if one.age < least => Err(Fate::Unrecognised),
            (Some(one), SocketAddress::Tcp(local))
                if one.address == Some(local.ip()) && one.port == Some(i32::from(local.port())) =>
            {
                Ok(one.start)
            }
            // The server says of a unix socket no more than that it is one.
            (Some(one), SocketAddress::Unix(path))
                if (one.address, one.port) == (None, Some(-1))
                    && server.tells_pids_at(ANSWER, path).await? =>
            {
                Ok(one.start)
            }
            _ => Err(Fate::Unrecognised),
        };
        // Asked once: it was not set before.
        let _set = backend.start.set(found);
    }
    Ok(())
}

impl Backend {
    /// True in the process that opened its connection.
    pub fn is_ours(&self) -> bool {
        self.generation == generation()
    }

    /// Its process id on the server.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it is known beyond doubt; none while the server was not heard.
    pub fn is_recognised(&self) -> Option<bool> {
        self.start.get().map(Result::is_ok)
    }

    /// Ends it, for its connection was given up; one that is not known beyond doubt is left alone. Returns at once,
    /// with the number by which [`events`] tell of its [`fate`](Self::fate).
    ///
    /// # Errors
    ///
    /// [`ControlError::Start`] when there is no control plane to be had, [`ControlError::Forked`] in a child.
    pub fn end(self: &Arc<Self>) -> Result<u64, ControlError> {
        self.server.check()?;
        let number = events::number();
        let (backend, user) = (Arc::clone(self), self.server.join());
        let work = async move {
            let fate = match backend.known_start().await {
                Ok(start) => backend.end_it(start).await,
                Err(fate) => fate,
            };
            drop(user);
            backend.meet_fate(fate, number);
        };
        let failing = Arc::clone(self);
        plane::spawn(work, move |why| {
            failing.meet_fate(Fate::Failed(why), number);
        })?;
        Ok(number)
    }

    fn meet_fate(&self, fate: Fate, number: u64) {
        *lock(&self.fate) = Some(fate);
        events::tell(number);
    }

    /// What became of it; none while that is open, and in a child of a fork.
    pub fn fate(&self) -> Option<Fate> {
        if !self.is_ours() {
            return None;
        }
        lock(&self.fate).clone()
    }

    /// When it began, also when its connection was given up before the server was asked.
    async fn known_start(&self) -> Result<i64, Fate> {
        let until = clock::now() + ANSWER * 2;
        loop {
            match (self.start.get(), &self.place) {
                (Some(known), _) => return known.clone(),
                // Over a unix socket the connection must be open when its row is seen.
                (None, SocketAddress::Tcp(_)) if clock::now() < until => sleep(LOOK).await,
                (None, _) => return Err(Fate::Unrecognised),
            }
        }
    }

    async fn end_it(&self, start: i64) -> Fate {
        let until = clock::now() + TRY_FOR;
        let mut done = Fate::Gone;
        sleep(GRACE).await;
        loop {
            match self.try_to_end(start, &mut done).await {
                Ok(()) => return done,
                Err(error) if error.is_final() || clock::now() > until => {
                    return Fate::Failed(error.to_string());
                }
                Err(_blip) => sleep(PAUSE).await,
            }
        }
    }

    /// Signals it, harder each time, until it is gone; `done` says what was done last.
    async fn try_to_end(&self, start: i64, done: &mut Fate) -> Result<(), ControlError> {
        for (signal, fate) in [
            ("pg_catalog.pg_cancel_backend(pid)", Fate::Cancelled),
            ("pg_catalog.pg_terminate_backend(pid)", Fate::Terminated),
        ] {
            if !self.is_there(start, signal).await? {
                return Ok(());
            }
            *done = fate;
            let until = clock::now() + PATIENCE;
            while clock::now() < until {
                sleep(LOOK).await;
                if !self.is_there(start, "true").await? {
                    return Ok(());
                }
            }
        }
        *done = Fate::LivesOn;
        Ok(())
    }

    /// Whether it is still the one that was recognised, and what is to be done to it.
    async fn is_there(&self, start: i64, what: &str) -> Result<bool, ControlError> {
        let sql = format!(
            "SELECT {what} FROM pg_catalog.pg_stat_activity WHERE pid = $1 AND {START} = $2 AND {OURS}"
        );
        let parameters: [Parameter<'_>; 2] = [(&self.pid, Type::INT4), (&start, Type::INT8)];
        let rows = self.server.query(ANSWER, &sql, &parameters).await?;
        Ok(!rows.is_empty())
    }
}

#[cfg(test)]
impl Backends {
    /// Takes its lock, as a thread does that is caught by a fork.
    pub(super) fn hold(&self) -> impl Drop + '_ {
        lock(&self.new)
    }
}

#[cfg(test)]
impl Backend {
    /// Takes its lock, as a thread does that is caught by a fork.
    pub(super) fn hold(&self) -> impl Drop + '_ {
        lock(&self.fate)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
