//! One session of the control plane: opened here, severed by a fork, replaced when it fails.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::{ClientWrapper, Connect, ManagerConfig, RecyclingMethod};
use tokio::task::JoinHandle;
use tokio::task_local;
use tokio_postgres::{Client, Config, Error};

use super::conveyed::{convey, taken_out};
use super::error::ControlError;
use super::link::Link;
use super::servers::{Servers, Source};
use super::stream::ANSWER;
use super::told_pid::told_pid;

/// A session; a task moves its bytes.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: ClientWrapper,
    /// The tables of leases that it has looked at, by the names that were asked for.
    pub(crate) tables: HashMap<String, String>,
    link: Link,
    is_broken: AtomicBool,
}

impl Session {
    /// Cuts the session off, now: to close it would wait for an answer that never comes. What the server has not
    /// received of the statement it never will, although the network comes back.
    pub(crate) fn give_up(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
        self.link.cut.notify_one();
    }

    /// The path at which its server listens, where that is a unix socket.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.link.path.as_deref()
    }

    /// Why it has ended.
    pub(crate) fn ended(&self) -> Option<&str> {
        self.link.ended.get().map(String::as_str)
    }

    /// Begins with a statement: the driver may ask on for it so and so often.
    pub(crate) fn begin(&self) {
        self.link.meter.begin();
    }

    /// Lets so many bytes come in the answer to the next question.
    pub(crate) fn allow(&self, bytes: usize) {
        self.link.meter.allow(bytes);
    }

    /// The notices that have come since the last call.
    pub(crate) fn take_notices(&self) -> u64 {
        self.link.meter.take_notices()
    }

    /// The process id that this session was told at its beginning, which a pooler makes up.
    pub(crate) async fn told_pid(&self) -> Option<i32> {
        told_pid(&self.client).await
    }
}

/// Keeps sessions to one server, for the pool: `deadpool-postgres`, with a way to connect of our own. Its caches of
/// prepared statements stay empty, for a pooler's sake.
pub(crate) struct Opener {
    manager: deadpool_postgres::Manager,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

task_local! {
    /// Where [`Dialer`] leaves what is known of the session that it opens, for whoever asked for it.
    static OPENED: RefCell<Option<Link>>;
}

impl managed::Manager for Opener {
    type Type = Session;
    type Error = ControlError;

    async fn create(&self) -> Result<Session, ControlError> {
        let opening = async {
            let client = managed::Manager::create(&self.manager).await?;
            Ok((client, OPENED.with(RefCell::take)))
        };
        let opened = OPENED.scope(RefCell::new(None), opening).await;
        match opened.map_err(taken_out)? {
            (client, Some(link)) => Ok(Session {
                client,
                tables: HashMap::new(),
                link,
                is_broken: AtomicBool::new(false),
            }),
            (_client, None) => Err(ControlError::Gone {
                what: "a session was opened by somebody else".into(),
            }),
        }
    }

    async fn recycle(
        &self,
        session: &mut Session,
        metrics: &Metrics,
    ) -> RecycleResult<ControlError> {
        if session.is_broken.load(Ordering::Relaxed) {
            return Err(RecycleError::message("cut off"));
        }
        if session.link.meter.is_worn() {
            // What the driver keeps of it ends with it alone.
            return Err(RecycleError::message("worn"));
        }
        session.allow(ANSWER);
        let recycled = self.manager.recycle(&mut session.client, metrics).await;
        recycled.map_err(|_closed| RecycleError::message("closed"))
    }

    fn detach(&self, session: &mut Session) {
        self.manager.detach(&mut session.client);
    }
}

impl Opener {
    pub(crate) fn new(source: Source) -> Self {
        let dialer = Dialer(Servers::new(source));
        // Recycling asks nothing: a session that rests and is not closed will do, and one that is not answered is not
        // given back.
        let recycling_method = RecyclingMethod::Fast;
        let config = ManagerConfig { recycling_method };
        Self {
            manager: deadpool_postgres::Manager::from_connect(Config::new(), dialer, config),
        }
    }
}

/// Opens sessions, for `deadpool-postgres`, whose `Config` is not used.
struct Dialer(Servers);

type Connected = Result<(Client, JoinHandle<()>), Error>;

impl Connect for Dialer {
    fn connect(&self, _config: &Config) -> Pin<Box<dyn Future<Output = Connected> + Send + '_>> {
        Box::pin(async move {
            match self.0.open().await {
                Ok((client, link)) => {
                    OPENED.with(|place| place.replace(Some(link)));
                    // It would be aborted with the client. Ours ends by itself, and says goodbye to the server.
                    Ok((client, tokio::spawn(async {})))
                }
                Err(error) => convey(error).await,
            }
        })
    }
}
