//! A statement that is run again and again, so that others see that a process is alive.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::select;
use tokio::sync::Notify;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

use super::error::ControlError;
use super::pending::{Pending, pending};
use super::server::{Parameter, Server};
use super::term::Term;
use super::timer::sleep;
use super::{clock, events, plane};
use crate::process::generation;

/// How long one beat may take, at least and at most.
const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(10);

/// A value in the server's own words; the server works out its type.
#[derive(Clone)]
pub struct Text(pub Option<String>);

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Text(…)")
    }
}

impl ToSql for Text {
    fn to_sql(
        &self,
        _kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(text) = &self.0 else {
            return Ok(IsNull::Yes);
        };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_kind: &Type) -> bool {
        true
    }

    fn encode_format(&self, _kind: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// Whether no later beat can succeed either, for the statement or its values must change first.
///
/// A server says 08P01 when the number of the values is wrong, and its session lives on; a pooler says the same of
/// many things that pass, and ends the session.
pub fn is_hopeless(error: &ControlError) -> bool {
    let is_wrong_count = matches!(
        error,
        ControlError::Server { sqlstate, is_fatal: false, .. } if sqlstate == "08P01"
    );
    error.is_final() || is_wrong_count
}

/// What is run, and how often.
#[derive(Clone, Debug)]
pub struct Rhythm {
    /// One statement; `$1` and so on stand for the values.
    pub statement: String,
    /// Its values.
    pub values: Vec<Text>,
    /// Between two beats.
    pub every: Duration,
    /// How long the application may go without a sign of life; none is for ever.
    pub stale_after: Option<Duration>,
}

/// What a heartbeat has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beats {
    /// Statements that the server carried out.
    pub beats: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Why the last attempt failed; none when it did not.
    pub last_error: Option<String>,
    /// Whether it rests, because the application gave no sign of life.
    pub is_stale: bool,
}

#[derive(Debug)]
pub(super) struct State {
    touched: Duration,
    is_leaving: bool,
    beats: Beats,
}

/// A heartbeat that goes on until it is stopped, or its process ends. In a child of a fork its verbs do nothing; each
/// compares the generation before it takes the lock.
#[derive(Debug)]
pub struct Heartbeat {
    number: u64,
    generation: u64,
    rhythm: Rhythm,
    server: Arc<Server>,
    state: Mutex<State>,
    leave: Notify,
}

impl Heartbeat {
    /// Starts one. The first answer comes after its first attempt, the second when it is over.
    ///
    /// # Errors
    ///
    /// [`ControlError::Start`] when there is no control plane to be had.
    #[allow(
        clippy::type_complexity,
        reason = "three things that are born together"
    )]
    pub fn start(
        server: &Arc<Server>,
        rhythm: Rhythm,
    ) -> Result<(Arc<Self>, Pending<Result<(), ControlError>>, Pending<()>), ControlError> {
        server.check()?;
        let heartbeat = Arc::new(Self {
            number: events::number(),
            generation: generation(),
            rhythm,
            server: Arc::clone(server),
            state: Mutex::new(State {
                touched: clock::now(),
                is_leaving: false,
                beats: Beats::default(),
            }),
            leave: Notify::new(),
        });
        let (first, promise) = pending();
        let (over, end) = pending();
        let (task, user) = (Arc::clone(&heartbeat), server.join());
        let work = async move {
            let beaten = task.beat().await;
            let goes_on = !beaten.as_ref().is_err_and(is_hopeless);
            promise.answer(beaten);
            if goes_on {
                task.go_on().await;
            }
            drop(task);
            // The sessions may go, although somebody still has the object.
            drop(user);
            end.answer(());
        };
        let failing = Arc::downgrade(&heartbeat);
        plane::spawn(work, move |why| {
            if let Some(heartbeat) = failing.upgrade() {
                heartbeat.fail(why);
            }
        })?;
        Ok((heartbeat, first, over))
    }

    /// Its number in this process, by which [`events`] speak of it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// True in the process that started it.
    pub fn is_ours(&self) -> bool {
        self.generation == generation()
    }

    /// Notes a sign of life of the application.
    pub fn touch(&self) {
        if !self.is_ours() {
            return;
        }
        self.lock().touched = clock::now();
        // One that rests goes on at once.
        if self.lock().beats.is_stale {
            self.leave.notify_one();
            plane::wake();
        }
    }

    /// What it has done.
    pub fn beats(&self) -> Beats {
        if !self.is_ours() {
            return Beats::default();
        }
        self.lock().beats.clone()
    }

    /// Ends it. Returns at once.
    pub fn leave(&self) {
        if !self.is_ours() {
            return;
        }
        self.lock().is_leaving = true;
        self.leave.notify_one();
        plane::wake();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that nobody works for it any more.
    fn fail(&self, why: String) {
        let mut state = self.lock();
        state.beats.failures += 1;
        state.beats.last_error = Some(why);
        drop(state);
        events::tell(self.number);
    }

    async fn go_on(&self) {
        let mut failures = 0;
        let mut next = clock::now() + self.rhythm.every;
        loop {
            let now = clock::now();
            {
                let mut state = self.lock();
                if state.is_leaving {
                    return;
                }
                let silent = now.saturating_sub(state.touched);
                state.beats.is_stale = self.rhythm.stale_after.is_some_and(|most| silent > most);
                if state.beats.is_stale {
                    next = next.max(now + self.rhythm.every);
                } else if state.beats.beats > 0 && failures == 0 {
                    next = next.min(now + self.rhythm.every);
                }
            }
            let was_stale = self.lock().beats.is_stale;
            select! {
                biased;
                () = self.leave.notified() => {
                    if was_stale {
                        next = clock::now();
                    }
                    continue;
                }
                () = sleep(next.saturating_sub(now)) => {}
            }
            if was_stale {
                continue;
            }
            let beaten = select! {
                biased;
                () = self.leave.notified() => continue,
                beaten = self.beat() => beaten,
            };
            failures = if beaten.is_ok() { 0 } else { failures + 1 };
            let pause = match failures {
                0 => self.rhythm.every,
                failures => Term::pause(self.rhythm.every * 6, failures),
            };
            next = clock::now() + pause;
        }
    }

    async fn beat(&self) -> Result<(), ControlError> {
        let parameters: Vec<Parameter<'_>> = self
            .rhythm
            .values
            .iter()
            .map(|value| (value as &(dyn ToSql + Sync), Type::UNKNOWN))
            .collect();
        let within = self.rhythm.every.clamp(LEAST, MOST);
        let beaten = self
            .server
            .query(within, &self.rhythm.statement, &parameters)
            .await;
        let mut state = self.lock();
        match beaten {
            Ok(_rows) => {
                state.beats.beats += 1;
                if state.beats.last_error.take().is_some() {
                    events::tell(self.number);
                }
                Ok(())
            }
            Err(error) => {
                state.beats.failures += 1;
                if state.beats.last_error.replace(error.to_string()).is_none() {
                    events::tell(self.number);
                }
                Err(error)
            }
        }
    }
}
