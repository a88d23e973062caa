//! One lease, from asking for it until it is released or lost.
//!
//! A task of the control plane acquires it, renews it every sixth of its ttl, and releases it. A renewal that fails is
//! a blip: it is repeated on a new connection. The lease is *lost* only when the server says that it is not ours, or
//! when the time up to which it is certain has passed (see [`super::term`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::select;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_postgres::types::Type;

use super::error::ControlError;
use super::pending::{Pending, Promise, pending};
use super::server::{Parameter, Server, User};
use super::table::{INSERT, RELEASE, RENEW, Row, TAKE_OVER, Table};
use super::term::Term;
use super::{clock, news, plane, roll};
use crate::process::generation;

/// How long one look or one attempt of somebody who waits may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How often somebody who waits looks, at least and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

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
    Held(Option<Row>),
    /// It could not be asked for.
    Failed(ControlError),
    /// The caller has gone.
    Left,
}

/// What became of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is being asked for.
    Waiting,
    /// It is held.
    Held,
    /// It was lost, for the reason given.
    Lost(String),
    /// It was given back, or never had.
    Over,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    fence: i64,
    token: String,
    term: Term,
    touched: Duration,
    renewals: u64,
    blips: u64,
    is_leaving: bool,
    is_surrendered: bool,
    last_error: Option<String>,
}

/// A lease that is asked for, held, or over.
#[derive(Debug)]
pub struct Lease {
    number: u64,
    generation: u64,
    terms: Terms,
    server: User,
    state: Mutex<State>,
    leave: Notify,
}

static NUMBERS: AtomicU64 = AtomicU64::new(1);

impl Lease {
    /// Asks for a lease. The first answer is its fence, the second comes when it is over.
    ///
    /// # Errors
    ///
    /// [`ControlError::Start`] when there is no control plane to be had.
    #[allow(clippy::type_complexity, reason = "three things that are born together")]
    pub fn ask(
        server: &Arc<Server>,
        terms: Terms,
    ) -> Result<(Arc<Self>, Pending<Result<i64, Refusal>>, Pending<()>), ControlError> {
        let now = clock::now();
        let lease = Arc::new(Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            generation: generation(),
            server: server.join(),
            state: Mutex::new(State {
                phase: Phase::Waiting,
                fence: 0,
                token: String::new(),
                term: Term::new(terms.ttl, now),
                touched: now,
                renewals: 0,
                blips: 0,
                is_leaving: false,
                is_surrendered: false,
                last_error: None,
            }),
            terms,
            leave: Notify::new(),
        });
        let (acquired, promise) = pending();
        let (over, end) = pending();
        let task = Arc::clone(&lease);
        plane::spawn(async move {
            let enrolled = roll::enroll(&task);
            task.live(promise).await;
            drop(enrolled);
            // The sessions may go before whoever waits for the end looks.
            drop(task);
            end.answer(());
        })?;
        Ok((lease, acquired, over))
    }

    /// Its number in this process, by which [`news`] speak of it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// True in the process that asked for it: a child of a fork does not hold it.
    pub fn is_ours(&self) -> bool {
        self.generation == generation()
    }

    /// What became of it. A lease whose certain time has passed is lost from that instant on.
    pub fn phase(&self) -> Phase {
        let mut state = self.lock();
        self.lose_if_over(&mut state, clock::now());
        state.phase.clone()
    }

    /// Notes a sign of life of the holder.
    pub fn touch(&self) {
        self.lock().touched = clock::now();
    }

    /// Fence and token, as they stand in the table.
    pub fn right(&self) -> (i64, String) {
        let state = self.lock();
        (state.fence, state.token.clone())
    }

    /// Renewals that were granted, attempts that failed, and until when it is certain from now.
    pub fn counts(&self) -> (u64, u64, Duration) {
        let state = self.lock();
        let left = state.term.certain_until().saturating_sub(clock::now());
        (state.renewals, state.blips, left)
    }

    /// Gives it back, or gives up waiting for it. Returns at once.
    pub fn leave(&self) {
        self.lock().is_leaving = true;
        self.leave.notify_one();
    }

    /// Gives it back although its holder is at work: the process is told to end. The holder learns that it is lost.
    pub(crate) fn surrender(&self) {
        let mut state = self.lock();
        self.lose(&mut state, "this process was told to end (SIGTERM)".into());
        state.is_surrendered = true;
        drop(state);
        self.leave();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- the task -----------------------------------------------------------------------------------

    async fn live(&self, promise: Promise<Result<i64, Refusal>>) {
        let mut tokens = Vec::new();
        let asked = self.acquire(&mut tokens).await;
        let Ok(fence) = asked else {
            self.lock().phase = Phase::Over;
            if !tokens.is_empty() {
                // One of them may have been granted, unheard.
                self.give_back(&tokens).await;
            }
            promise.answer(asked);
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
        if phase == Phase::Held || surrendered {
            self.give_back(&tokens).await;
        }
        let mut state = self.lock();
        if state.phase == Phase::Held {
            state.phase = Phase::Over;
        }
    }

    /// Tries until it is granted, the timeout has passed, or the caller has gone.
    async fn acquire(&self, tokens: &mut Vec<String>) -> Result<i64, Refusal> {
        let terms = &self.terms;
        let began = clock::now();
        let mut holder = None;
        let mut is_prepared = false;
        for attempt in 0_u64.. {
            let token = format!("{}-{attempt}", terms.token);
            let left = terms
                .timeout
                .map(|timeout| timeout.saturating_sub(clock::now() - began));
            // A timeout of 0 is one look, not none.
            let within = left.map_or(ATTEMPT, |left| left.clamp(LOOK.1, ATTEMPT));
            let tried = select! {
                biased;
                () = self.leave.notified() => None,
                tried = self.attempt(&token, tokens, within, &mut is_prepared) => Some(tried),
            };
            let failure = match tried {
                None => {
                    tokens.push(token);
                    return Err(Refusal::Left);
                }
                Some(Ok(Ok(fence))) => return Ok(fence),
                Some(Ok(Err(row))) => {
                    holder = row;
                    None
                }
                Some(Err(error)) => {
                    if error.is_unknown() {
                        tokens.push(token);
                    }
                    if error.is_final() {
                        return Err(Refusal::Failed(error));
                    }
                    Some(error)
                }
            };
            let left = terms
                .timeout
                .map(|timeout| timeout.saturating_sub(clock::now() - began));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(failure.map_or(Refusal::Held(holder), Refusal::Failed));
            }
            let pause = self
                .look_again(attempt, holder.as_ref())
                .min(left.unwrap_or(Duration::MAX));
            select! {
                biased;
                () = self.leave.notified() => return Err(Refusal::Left),
                () = sleep(pause) => {}
            }
        }
        Err(Refusal::Left)
    }

    /// When somebody who waits looks again: soon after the expiry, and now and then before, at no fixed beat, so that
    /// of several who wait each has the same chance.
    fn look_again(&self, attempt: u64, holder: Option<&Row>) -> Duration {
        let usual = (self.terms.ttl / 20).clamp(LOOK.0, LOOK.1);
        let expiry = holder.map(|row| row.left + self.terms.steal_grace.as_secs_f64());
        let until = expiry.and_then(|left| Duration::try_from_secs_f64(left.max(0.0)).ok());
        let pause = usual.min(until.unwrap_or(usual)).max(LOOK.0);
        pause / 2 + pause * chance(self.number, attempt) / 256
    }

    /// One attempt: its fence, or whoever holds it.
    async fn attempt(
        &self,
        token: &str,
        earlier: &[String],
        within: Duration,
        is_prepared: &mut bool,
    ) -> Result<Result<i64, Option<Row>>, ControlError> {
        let terms = &self.terms;
        if !*is_prepared {
            terms.table.prepare(&self.server, within).await?;
            *is_prepared = true;
        } else if let [row] = terms.table.rows(&self.server, within, Some(&terms.name)).await?.as_slice() {
            // A look costs the server less than an attempt, which locks the row.
            let is_free = !row.is_held || row.left + terms.steal_grace.as_secs_f64() <= 0.0;
            if !is_free && earlier.is_empty() {
                return Ok(Err(Some(row.clone())));
            }
        }
        let sent = clock::now();
        let (ttl, grace) = (terms.ttl.as_secs_f64(), terms.steal_grace.as_secs_f64());
        let who: [Parameter<'_>; 7] = [
            (&terms.name, Type::TEXT),
            (&token, Type::TEXT),
            (&terms.host, Type::TEXT),
            (&terms.pid, Type::INT8),
            (&terms.thread, Type::TEXT),
            (&terms.application, Type::TEXT),
            (&ttl, Type::FLOAT8),
        ];
        let mut over: Vec<Parameter<'_>> = who.to_vec();
        over.push((&earlier, Type::TEXT_ARRAY));
        over.push((&grace, Type::FLOAT8));
        for (statement, parameters) in [(TAKE_OVER, over.as_slice()), (INSERT, who.as_slice())] {
            let sql = terms.table.sql(statement);
            let granted = self.server.query(within, &sql, parameters).await?;
            if let [row] = granted.as_slice() {
                return Ok(Ok(self.granted(row.get(0), token, sent)));
            }
        }
        let rows = terms
            .table
            .rows(&self.server, within, Some(&terms.name))
            .await?;
        Ok(Err(rows.into_iter().next()))
    }

    fn granted(&self, fence: i64, token: &str, sent: Duration) -> i64 {
        let mut state = self.lock();
        state.phase = Phase::Held;
        state.fence = fence;
        token.clone_into(&mut state.token);
        state.term = Term::new(self.terms.ttl, sent);
        state.touched = clock::now();
        fence
    }

    /// Renews until it is lost, or the holder leaves.
    async fn keep(&self) {
        let mut failures = 0;
        let mut next = self.lock().term.next();
        loop {
            let now = clock::now();
            let (certain_until, touched, is_leaving) = {
                let mut state = self.lock();
                self.lose_if_over(&mut state, now);
                if state.phase != Phase::Held {
                    return;
                }
                (state.term.certain_until(), state.touched, state.is_leaving)
            };
            if is_leaving {
                return;
            }
            let is_silent = self
                .terms
                .max_silence
                .is_some_and(|most| now.saturating_sub(touched) > most);
            if is_silent && next <= now {
                // Not renewed, and not taken away either: a sign of life in time is enough.
                next = now + LOOK.0;
            }
            let rest = next.min(certain_until).saturating_sub(now);
            select! {
                biased;
                () = self.leave.notified() => continue,
                () = sleep(rest) => {}
            }
            let now = clock::now();
            if is_silent || now < next {
                continue;
            }
            let within = Term::attempt(self.terms.ttl).min(certain_until.saturating_sub(now));
            let renewed = select! {
                biased;
                () = self.leave.notified() => continue,
                renewed = self.renew(within) => renewed,
            };
            match renewed {
                Ok(Some(sent)) => {
                    let mut state = self.lock();
                    // An answer that comes after the loss was declared changes nothing: the holder was told.
                    self.lose_if_over(&mut state, clock::now());
                    if state.phase != Phase::Held {
                        return;
                    }
                    state.term.renewed(sent);
                    state.renewals += 1;
                    state.last_error = None;
                    failures = 0;
                    next = state.term.next();
                }
                Ok(None) => {
                    let reason = self.who_has_it(within).await;
                    let mut state = self.lock();
                    return self.lose(&mut state, reason);
                }
                Err(error) => {
                    failures += 1;
                    let mut state = self.lock();
                    state.blips += 1;
                    state.last_error = Some(error.to_string());
                    next = clock::now() + Term::pause(self.terms.ttl, failures);
                }
            }
        }
    }

    /// One renewal: when it was sent, or none when the lease is not ours any more.
    async fn renew(&self, within: Duration) -> Result<Option<Duration>, ControlError> {
        let (fence, token) = self.right();
        let ttl = self.terms.ttl.as_secs_f64();
        let sent = clock::now();
        let parameters: [Parameter<'_>; 4] = [
            (&self.terms.name, Type::TEXT),
            (&fence, Type::INT8),
            (&token, Type::TEXT),
            (&ttl, Type::FLOAT8),
        ];
        let sql = self.terms.table.sql(RENEW);
        let renewed = self.server.query(within, &sql, &parameters).await?;
        Ok((!renewed.is_empty()).then_some(sent))
    }

    async fn who_has_it(&self, within: Duration) -> String {
        let rows = self
            .terms
            .table
            .rows(&self.server, within, Some(&self.terms.name))
            .await;
        match rows.as_deref() {
            Ok([row]) if row.is_held => format!(
                "process {} on {} has it, with fence {}",
                row.pid, row.host, row.fence
            ),
            Ok([_]) => "it was released by somebody else".into(),
            Ok(_) => "its row was deleted".into(),
            Err(_) => "another holder has it".into(),
        }
    }

    fn lose_if_over(&self, state: &mut State, now: Duration) {
        if state.phase == Phase::Held && !state.is_leaving && state.term.is_over(now) {
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
            let certain = self.terms.ttl - Term::margin(self.terms.ttl);
            let reason = format!("it was not renewed for {:.2} s: {why}", certain.as_secs_f64());
            self.lose(state, reason);
        }
    }

    fn lose(&self, state: &mut State, reason: String) {
        if state.phase == Phase::Held {
            state.phase = Phase::Lost(reason);
            news::tell(self.number);
        }
    }

    /// Gives it back, with every right that may have been granted unheard. Tries until it would expire anyway.
    async fn give_back(&self, tokens: &[String]) {
        let until = clock::now() + self.terms.ttl.min(ATTEMPT * 2);
        let sql = self.terms.table.sql(RELEASE);
        let mut failures = 0;
        while clock::now() < until {
            let within = Term::attempt(self.terms.ttl).min(ATTEMPT);
            let parameters: [Parameter<'_>; 2] = [
                (&self.terms.name, Type::TEXT),
                (&tokens, Type::TEXT_ARRAY),
            ];
            match self.server.query(within, &sql, &parameters).await {
                Ok(_) => return,
                Err(error) if error.is_final() => return,
                // It expires by itself; nobody is hurt but whoever waits.
                Err(_) => failures += 1,
            }
            sleep(Term::pause(self.terms.ttl, failures)).await;
        }
    }
}

/// A number from 0 to 255 without a pattern that two processes would share.
fn chance(number: u64, attempt: u64) -> u32 {
    let seed = u64::from(clock::now().subsec_nanos()) ^ number.rotate_left(32) ^ attempt;
    u32::try_from(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56).unwrap_or_default()
}
