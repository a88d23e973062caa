//! The servers that a session may be with: which candidates there are, in which order they are asked, and which will do.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio_postgres::Client;

use super::dial::{Candidate, Failure, dial};
use super::error::ControlError;
use super::link::{Link, drive};
use super::names;
use super::questions::Questions;
use super::reader::Reader;
use super::stage::was_waiting_for;
use super::timer::timeout;
use crate::conninfo::Conninfo;
use crate::conninfo::target::{Endpoint, Sessions, Target};

/// Where the parameters of a session come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// They are known, but for what files hold.
    Known(Arc<Conninfo>),
    /// Python is asked for them.
    Asked(Arc<Questions>),
}

/// The servers that a session may be with. Their parameters are read anew for each: files and passwords change.
pub(crate) struct Servers {
    source: Source,
    reader: Reader,
    /// Which candidate to begin with: the one that worked last, and the next after one that did not.
    first: AtomicUsize,
}

/// The longest that one candidate may take, unless `connect_timeout` says.
const CONNECT: Duration = Duration::from_secs(10);

impl Servers {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            reader: Reader::default(),
            first: AtomicUsize::new(0),
        }
    }

    /// Opens a connection to the first that will do, and drives it.
    pub(crate) async fn open(&self) -> Result<(Client, Link), ControlError> {
        let target = self.target().await?;
        let candidates = self.candidates(&target).await?;
        let wanted: &[Sessions] = match target.sessions {
            Sessions::PreferStandby => &[Sessions::Standby, Sessions::Any],
            // What is leased is written: of several servers, only one that takes writes will do.
            Sessions::Any if target.endpoints.len() > 1 => &[Sessions::ReadWrite],
            ref sessions => std::slice::from_ref(sessions),
        };
        let within = target.connect_timeout.unwrap_or(CONNECT);
        let mut failure = None;
        for turn in 0..candidates.len() * wanted.len() {
            let sessions = wanted[turn / candidates.len()];
            // Moved on before the attempt: whoever runs out of time there begins elsewhere the next time.
            let turn = self.first.fetch_add(1, Ordering::Relaxed);
            let candidate = &candidates[turn % candidates.len()];
            let opening = open(&target, candidate, sessions, &self.reader);
            match timeout(within, Box::pin(opening)).await {
                Ok(Ok(session)) => {
                    self.first.store(turn, Ordering::Relaxed);
                    return Ok(session);
                }
                Ok(Err(failed)) if failed.asks_on => failure = Some(failed.error),
                Ok(Err(failed)) => return Err(failed.error),
                Err(_elapsed) => {
                    let seconds = within.as_secs_f64();
                    let what = match was_waiting_for() {
                        Some(what) => format!("{seconds:.2} s were not enough for {what}"),
                        None => format!("no answer within {seconds:.2} s"),
                    };
                    failure = Some(ControlError::unreachable(&candidate.endpoint.shown(), what));
                }
            }
        }
        Err(failure.unwrap_or_else(|| ControlError::Parameters {
            what: "there is no host to connect to".into(),
        }))
    }

    async fn target(&self) -> Result<Target, ControlError> {
        let conninfo = match &self.source {
            Source::Known(conninfo) => Arc::clone(conninfo),
            Source::Asked(questions) => questions.ask().await?,
        };
        let read = self.reader.read(move || conninfo.resolve()).await;
        let resolved = read.map_err(|error| ControlError::NotReady {
            what: error.to_string(),
        })?;
        let mut target = resolved.map_err(|error| ControlError::Parameters {
            what: error.to_string(),
        })?;
        target.application = named(&target.application);
        Ok(target)
    }

    async fn candidates<'a>(&self, target: &'a Target) -> Result<Vec<Candidate<'a>>, ControlError> {
        let mut candidates = Vec::new();
        let mut failure = None;
        for endpoint in &target.endpoints {
            if endpoint.is_local() {
                candidates.push(Candidate {
                    endpoint,
                    address: None,
                });
                continue;
            }
            match addresses(endpoint).await {
                Ok(found) => candidates.extend(found.into_iter().map(|address| Candidate {
                    endpoint,
                    address: Some(address),
                })),
                Err(error) => failure = Some(error),
            }
        }
        if target.is_shuffled {
            shuffle(&mut candidates);
        }
        match failure {
            Some(error) if candidates.is_empty() => Err(error),
            _ => Ok(candidates),
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
fn shuffle<T>(candidates: &mut [T]) {
    // Each of these is made with keys of its own.
    for n in (1..candidates.len()).rev() {
        let drawn = RandomState::new().hash_one(n);
        let below = u64::try_from(n + 1).unwrap_or(1);
        candidates.swap(n, usize::try_from(drawn % below).unwrap_or(0));
    }
}

async fn open(
    target: &Target,
    candidate: &Candidate<'_>,
    sessions: Sessions,
    reader: &Reader,
) -> Result<(Client, Link), Failure> {
    let opened = dial(target, candidate, reader).await?;
    let (cut, ended) = drive(opened.connection, opened.socket);
    let link = Link {
        path: opened.path,
        cut,
        ended,
        meter: opened.meter,
    };
    check(&opened.client, candidate, sessions)
        .await
        .map_err(|error| Failure {
            error,
            asks_on: true,
            may_change: false,
        })?;
    Ok((opened.client, link))
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
    let found = names::addresses(name)
        .await
        .map_err(|error| ControlError::unreachable(&endpoint.shown(), error))?;
    let candidate = |address| SocketAddr::new(address, endpoint.port);
    Ok(found.into_iter().map(candidate).collect())
}

/// Checks that a server will do.
async fn check(
    client: &Client,
    candidate: &Candidate<'_>,
    wanted: Sessions,
) -> Result<(), ControlError> {
    if wanted == Sessions::Any {
        return Ok(());
    }
    let shown = candidate.endpoint.shown();
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
