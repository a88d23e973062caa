//! One lease, from asking for it until it is released or lost.
//!
//! A task of the control plane acquires it (`acquire`), renews it every sixth of its ttl (`keep`), and releases it. A
//! renewal that fails is a blip: it is repeated on a new connection. The lease is *lost* only when the server says that
//! it is not ours, or when the time up to which it is certain has passed (see [`super::term`]).

mod acquire;
mod keep;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_postgres::types::Type;

use super::active::{self, GivenBack};
use super::error::ControlError;
use super::lease_row::LeaseRow;
use super::pending::{Pending, Promise, pending};
use super::server::{Parameter, Server};
use super::table::{RELEASE, Table};
use super::term::Term;
use super::timer::sleep;
use super::{clock, events, plane};
use crate::process::generation;

/// How long one look or one attempt of somebody who waits may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// What is asked for, and by whom.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The lease's name.
    pub name: String,
    /// Where it is kept.
    pub table: Table,
    /// How long it lasts after each renewal.
    pub ttl: Duration,
    /// How long to wait for it; none is without bound.
    pub timeout: Option<Duration>,
    /// How long after its expiry another's lease is taken over.
    pub steal_grace: Duration,
    /// How long the holder may go without a sign of life; none is for ever.
    pub max_silence: Option<Duration>,
    /// The holder's machine.
    pub host: String,
    /// The holder's process.
    pub pid: i64,
    /// The holder's thread.
    pub thread: String,
    /// The holder's application.
    pub application: String,
    /// Nobody else's: attempts are told apart by a number behind it.
    pub token: String,
}

/// Why a lease was not acquired.
#[derive(Debug)]
pub enum Refusal {
    /// Another holder had it all the time.
    Held(Option<LeaseRow>),
    /// It could not be asked for.
    Failed(ControlError),
    /// The caller has gone.
    Left,
}

/// What became of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// It is being asked for.
    Waiting,
    /// It is held.
    Held,
    /// It was lost, for the reason given.
    Lost(String),
    /// It was given back, or never had; or it is of a parent process.
    Over,
}

#[derive(Debug)]
pub(in crate::control) struct State {
    phase: LeaseState,
    /// With its schema, once it was found.
    table: Table,
    fence: i64,
    token: String,
    term: Term,
    touched: Duration,
    renewals: u64,
    is_leaving: bool,
    is_surrendered: bool,
    is_ending: bool,
    last_error: Option<String>,
    trouble: Trouble,
}

/// What the renewals of a lease met with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Attempts that failed.
    pub blips: u64,
    /// Those since the last renewal that was granted.
    pub in_a_row: u32,
    /// Why the last of them failed.
    pub last: String,
}

/// A lease that is asked for, held, or over.
///
/// In a child of a fork its verbs do nothing and know nothing. Each compares the generation before it takes the lock,
/// which a thread of the parent may have held.
#[derive(Debug)]
pub struct Lease {
    number: u64,
    generation: u64,
    terms: Terms,
    server: Arc<Server>,
    state: Mutex<State>,
    leave: Notify,
}

impl GivenBack for Lease {
    fn leave(&self) {
        Self::leave(self);
    }

    // Although its holder is at work, who learns that it is lost.
    fn surrender(&self) {
        let mut state = self.lock();
        state.is_ending = state.phase == LeaseState::Held;
        self.lose(&mut state, "this process was told to end (SIGTERM)".into());
        state.is_surrendered = true;
        drop(state);
        Self::leave(self);
    }
}

impl Lease {
    /// Asks for a lease. The first answer is its fence, the second comes when it is over.
    ///
    /// # Errors
    ///
    /// [`ControlError::Start`] when there is no control plane to be had.
    #[allow(
        clippy::type_complexity,
        reason = "three things that are born together"
    )]
    pub fn ask(
        server: &Arc<Server>,
        terms: Terms,
    ) -> Result<(Arc<Self>, Pending<Result<i64, Refusal>>, Pending<()>), ControlError> {
        server.check()?;
        let now = clock::now();
        let lease = Arc::new(Self {
            number: events::number(),
            generation: generation(),
            server: Arc::clone(server),
            state: Mutex::new(State {
                phase: LeaseState::Waiting,
                table: terms.table.clone(),
                fence: 0,
                token: String::new(),
                term: Term::new(terms.ttl, now),
                touched: now,
                renewals: 0,
                is_leaving: false,
                is_surrendered: false,
                is_ending: false,
                last_error: None,
                trouble: Trouble::default(),
            }),
            terms,
            leave: Notify::new(),
        });
        let (acquired, promise) = pending();
        let (over, end) = pending();
        let (task, user) = (Arc::clone(&lease), server.join());
        let mut enrolled =
            active::enroll(lease.number, Arc::downgrade(&lease) as Weak<dyn GivenBack>);
        let work = async move {
            enrolled.listen();
            task.live(promise).await;
            drop(enrolled);
            drop(task);
            // The sessions may go before whoever waits for the end looks, and although somebody still has the object.
            drop(user);
            end.answer(());
        };
        let failing = Arc::downgrade(&lease);
        plane::spawn(work, move |why| {
            if let Some(lease) = failing.upgrade() {
                lease.fail(why);
            }
        })?;
        Ok((lease, acquired, over))
    }

    /// Its number in this process, by which [`events`] speak of it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// True in the process that asked for it: a child of a fork does not hold it.
    pub fn is_ours(&self) -> bool {
        self.generation == generation()
    }

    /// What became of it. A lease whose certain time has passed is lost from that instant on; one that is being given
    /// back is over, whether the server has heard of it or not.
    pub fn phase(&self) -> LeaseState {
        if !self.is_ours() {
            return LeaseState::Over;
        }
        let mut state = self.lock();
        self.lose_if_over(&mut state, clock::now());
        match &state.phase {
            LeaseState::Held if state.is_leaving => LeaseState::Over,
            phase => phase.clone(),
        }
    }

    /// Notes a sign of life of the holder.
    pub fn touch(&self) {
        if self.is_ours() {
            self.lock().touched = clock::now();
        }
    }

    /// Fence and token, as they stand in the table.
    pub fn right(&self) -> (i64, String) {
        if !self.is_ours() {
            return (0, String::new());
        }
        let state = self.lock();
        (state.fence, state.token.clone())
    }

    /// The table that keeps it, as it stands in a statement.
    pub fn table(&self) -> Table {
        if self.is_ours() {
            self.lock().table.clone()
        } else {
            self.terms.table.clone()
        }
    }

    /// Renewals that were granted, attempts that failed, and until when it is certain from now.
    pub fn counts(&self) -> (u64, u64, Duration) {
        if !self.is_ours() {
            return (0, 0, Duration::ZERO);
        }
        let state = self.lock();
        let left = state.term.certain_until().saturating_sub(clock::now());
        (state.renewals, state.trouble.blips, left)
    }

    /// Notices that its server has sent the control plane, whoever's statement they came with.
    pub fn notices(&self) -> u64 {
        self.server.notices()
    }

    /// What its renewals met with.
    pub fn trouble(&self) -> Trouble {
        if !self.is_ours() {
            return Trouble::default();
        }
        self.lock().trouble.clone()
    }

    /// Whether it was lost because this process was told to end: no reason for an alarm.
    pub fn is_ending(&self) -> bool {
        self.is_ours() && self.lock().is_ending
    }

    /// Loses it, for whoever holds it was refused under it. It is given back as well, in case the refusal was in error.
    pub fn disown(&self, reason: String) {
        if !self.is_ours() {
            return;
        }
        let mut state = self.lock();
        if state.phase != LeaseState::Held || state.is_leaving {
            return;
        }
        self.lose(&mut state, reason);
        state.is_surrendered = true;
        drop(state);
        self.leave();
    }

    /// Gives it back, or gives up waiting for it. Returns at once.
    pub fn leave(&self) {
        if !self.is_ours() {
            return;
        }
        self.lock().is_leaving = true;
        self.leave.notify_one();
        plane::wake();
    }

    pub(in crate::control) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- the task -----------------------------------------------------------------------------------

    async fn live(&self, promise: Promise<Result<i64, Refusal>>) {
        let mut tokens = Vec::new();
        let asked = self.acquire(&mut tokens).await;
        let Ok(fence) = asked else {
            self.lock().phase = LeaseState::Over;
            promise.answer(asked);
            if !tokens.is_empty() {
                // One of them may have been granted, unheard.
                self.give_back(&tokens).await;
            }
            return;
        };
        promise.answer(Ok(fence));
        self.keep().await;
        let (_, token) = self.right();
        tokens.push(token);
        let (phase, surrendered) = {
            let state = self.lock();
            (state.phase.clone(), state.is_surrendered)
        };
        if phase == LeaseState::Held || surrendered {
            self.give_back(&tokens).await;
        }
        let mut state = self.lock();
        if state.phase == LeaseState::Held {
            state.phase = LeaseState::Over;
        }
    }

    /// Loses it, or the hope of it, for nobody works for it any more.
    fn fail(&self, why: String) {
        let mut state = self.lock();
        if state.phase == LeaseState::Waiting {
            state.phase = LeaseState::Lost(why);
        } else {
            self.lose(&mut state, why);
        }
    }

    fn lose_if_over(&self, state: &mut State, now: Duration) {
        if state.phase == LeaseState::Held && !state.is_leaving && state.term.is_over(now) {
            let error = state.last_error.take();
            let is_silent = self
                .terms
                .max_silence
                .is_some_and(|most| now.saturating_sub(state.touched) > most);
            let why = match error {
                Some(error) => format!("the last attempt failed: {error}"),
                None if is_silent => "its holder gave no sign of life for max_silence".into(),
                None => "this process did not run, or the server did not answer".into(),
            };
            let certain = Term::certain(self.terms.ttl);
            let reason = format!(
                "it was not renewed for {:.2} s: {why}",
                certain.as_secs_f64()
            );
            self.lose(state, reason);
        }
    }

    fn lose(&self, state: &mut State, reason: String) {
        if state.phase == LeaseState::Held {
            state.phase = LeaseState::Lost(reason);
            events::tell(self.number);
        }
    }

    /// Gives it back, with every right that may have been granted unheard. Tries until it would expire anyway.
    async fn give_back(&self, tokens: &[String]) {
        let until = clock::now() + self.terms.ttl;
        let table = self.table();
        let mut failures = 0;
        while clock::now() < until {
            let within = self.terms.ttl.min(ATTEMPT);
            let parameters: [Parameter<'_>; 2] =
                [(&self.terms.name, Type::TEXT), (&tokens, Type::TEXT_ARRAY)];
            match table
                .query(&self.server, within, RELEASE, &parameters)
                .await
            {
                Ok(_) => return,
                Err(error) if error.is_final() => return,
                // It expires by itself; nobody is hurt but whoever waits.
                Err(_) => failures += 1,
            }
            sleep(Term::pause(self.terms.ttl, failures)).await;
        }
    }
}
