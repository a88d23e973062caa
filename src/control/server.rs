//! One server, as the control plane talks to it: a pool of few sessions, and operations with deadlines.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use deadpool::managed::{Object, Pool, PoolConfig, PoolError};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};

use super::error::ControlError;
use super::plane;
use super::servers::Source;
use super::session::{Opener, Session};
use super::stage::{noted, was_waiting_for};
use super::timer::{sleep, timeout};
use crate::process::generation;

/// A value of a statement, and its type there.
pub type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// How long sessions that nobody needs any more stay open: the next lease may come at once.
const LINGER: Duration = Duration::from_secs(1);

/// A server and the sessions to it. Belongs to one process.
#[derive(Debug)]
pub struct Server {
    pool: Pool<Opener>,
    generation: u64,
    users: AtomicUsize,
    /// Grows with each operation: whoever wants to close what rests sees whether it rested.
    operations: AtomicU64,
    notices: Arc<AtomicU64>,
}

/// Makes what every server needs, while there is one thread: deadpool counts the processors at its first pool, and a
/// child of a fork in the middle of that would wait for ever for the count.
pub fn make_ready() {
    let _counted = PoolConfig::default();
}

impl Server {
    /// Prepares to reach a server, by `size` sessions at most. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// [`ControlError::Parameters`] when there can be no such pool.
    pub fn new(source: Source, size: usize) -> Result<Self, ControlError> {
        let pool = Pool::builder(Opener::new(source)).max_size(size).build();
        let pool = pool.map_err(|error| ControlError::Parameters {
            what: error.to_string(),
        })?;
        Ok(Self {
            pool,
            generation: generation(),
            users: AtomicUsize::new(0),
            operations: AtomicU64::new(0),
            notices: Arc::default(),
        })
    }

    /// True when this process made it: in a child of a fork, nothing of it may be used.
    pub fn is_ours(&self) -> bool {
        self.generation == generation()
    }

    /// Refuses to work for a child of the process that made it.
    ///
    /// # Errors
    ///
    /// [`ControlError::Forked`].
    pub fn check(&self) -> Result<(), ControlError> {
        if self.is_ours() {
            Ok(())
        } else {
            Err(ControlError::Forked)
        }
    }

    /// Sessions that are open, at rest or at work; none in a child.
    pub fn sessions(&self) -> usize {
        if self.is_ours() {
            self.pool.status().size
        } else {
            0
        }
    }

    /// Notices that its sessions were sent, which say nothing to the control plane.
    pub fn notices(&self) -> u64 {
        self.notices.load(Ordering::Relaxed)
    }

    /// Runs one statement with parameters, in one round trip, and returns its rows.
    ///
    /// # Errors
    ///
    /// [`ControlError`]; after `within` at the latest.
    pub async fn query(
        &self,
        within: Duration,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, ControlError> {
        self.lent(within, async |guard| guard.query(sql, parameters).await)
            .await
    }

    /// Runs statements without parameters, as one transaction.
    ///
    /// # Errors
    ///
    /// [`ControlError`]; after `within` at the latest.
    pub async fn batch(
        &self,
        within: Duration,
        sql: &str,
    ) -> Result<Vec<SimpleQueryMessage>, ControlError> {
        self.lent(within, async |guard| {
            guard.is_settled = false;
            guard.begin();
            let answer = guard.client.simple_query(sql).await;
            guard.settle(answer)
        })
        .await
    }

    /// Whether the server is reached by the unix socket at `path`, and the process ids that it tells are true.
    ///
    /// # Errors
    ///
    /// [`ControlError`]; after `within` at the latest.
    pub async fn tells_pids_at(&self, within: Duration, path: &Path) -> Result<bool, ControlError> {
        self.lent(within, async |guard| {
            if guard.path() != Some(path) {
                return guard.settle(Ok(false));
            }
            let told = guard.told_pid().await;
            let rows = guard
                .query("SELECT pg_catalog.pg_backend_pid()", &[])
                .await?;
            let is = rows.first().and_then(|row| row.try_get::<_, i32>(0).ok());
            Ok(told.is_some() && told == is)
        })
        .await
    }

    /// Has `work` done on one session, whose questions and answers are told to its guard.
    ///
    /// # Errors
    ///
    /// [`ControlError`]; after `within` at the latest.
    pub(crate) async fn lent<T>(
        &self,
        within: Duration,
        work: impl AsyncFnOnce(&mut SessionGuard) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        let work = async {
            let mut guard = self.lend().await?;
            work(&mut guard).await
        };
        noted(self.bound(within, work)).await
    }

    async fn bound<T>(
        &self,
        within: Duration,
        work: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<T, ControlError> {
        self.operations.fetch_add(1, Ordering::Relaxed);
        let answer = timeout(within, work).await.unwrap_or_else(|_elapsed| {
            Err(match was_waiting_for() {
                // No session is to blame, and nothing was sent.
                Some(what) => ControlError::NotReady {
                    what: format!(
                        "{:.2} s were not enough for {what}: no session could be begun with",
                        within.as_secs_f64()
                    ),
                },
                None => ControlError::Timeout { within },
            })
        });
        if answer.as_ref().is_err_and(ControlError::ends_session) {
            // The other sessions went the same way, most likely, or are with the same server that takes no writes any
            // more: the next operation is to begin with a new one.
            self.close_resting();
        }
        answer
    }

    async fn lend(&self) -> Result<SessionGuard, ControlError> {
        match self.pool.get().await {
            Ok(session) => Ok(SessionGuard {
                session,
                is_settled: true,
                notices: Arc::clone(&self.notices),
            }),
            Err(PoolError::Backend(error)) => Err(error),
            Err(error) => Err(ControlError::Parameters {
                what: error.to_string(),
            }),
        }
    }

    fn close_resting(&self) {
        self.pool.retain(|session, _metrics| {
            session.give_up();
            false
        });
    }

    /// Counts a user, for whom sessions are kept open.
    pub fn join(self: &Arc<Self>) -> User {
        self.users.fetch_add(1, Ordering::Relaxed);
        User(Arc::clone(self))
    }
}

/// Somebody for whom the sessions are kept open between operations.
#[derive(Debug)]
pub struct User(Arc<Server>);

impl Deref for User {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if !self.0.is_ours() || self.0.users.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        let server = Arc::clone(&self.0);
        let work = async move {
            let seen = server.operations.load(Ordering::Relaxed);
            sleep(LINGER).await;
            let is_needed = server.users.load(Ordering::Relaxed) > 0
                || server.operations.load(Ordering::Relaxed) != seen;
            if !is_needed {
                server.pool.retain(|_session, _metrics| false);
            }
        };
        // Without a control plane there are no sessions to close either.
        let _started = plane::spawn(work, |_why| {});
    }
}

/// A session that is lent. Unless all that was asked on it was answered, it is cut off as it goes back, and the pool
/// lends it to nobody.
pub(crate) struct SessionGuard {
    session: Object<Opener>,
    is_settled: bool,
    notices: Arc<AtomicU64>,
}

impl Deref for SessionGuard {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl SessionGuard {
    /// Asks one question, and notes whether it was answered.
    pub(crate) async fn query(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, ControlError> {
        self.is_settled = false;
        self.session.begin();
        let answer = self.session.client.query_typed(sql, parameters).await;
        self.settle(answer)
    }

    /// The tables of leases that this session has looked at: their quoted names with the schema, by those that were
    /// asked for.
    pub(crate) fn tables(&mut self) -> &mut HashMap<String, String> {
        &mut self.session.tables
    }

    fn settle<T>(&mut self, answer: Result<T, tokio_postgres::Error>) -> Result<T, ControlError> {
        let answer = answer.map_err(|error| match self.session.ended() {
            Some(why) if error.is_closed() => ControlError::Lost { what: why.into() },
            _ => ControlError::from_driver(&error),
        });
        self.is_settled = !answer.as_ref().is_err_and(ControlError::ends_session);
        answer
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let notices = self.session.take_notices();
        self.notices.fetch_add(notices, Ordering::Relaxed);
        if !self.is_settled {
            self.session.give_up();
        }
    }
}
