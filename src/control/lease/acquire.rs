//! Acquiring: one attempt after the other, until it is granted or the caller has waited long enough.

use std::time::Duration;

use tokio::select;
use tokio_postgres::types::Type;

use super::{ATTEMPT, Lease, LeaseState, Refusal};
use crate::control::clock;
use crate::control::error::ControlError;
use crate::control::lease_row::LeaseRow;
use crate::control::server::Parameter;
use crate::control::table::{INSERT, TAKE_OVER};
use crate::control::term::Term;
use crate::control::timer::sleep;

/// How often somebody who waits looks, at least and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

impl Lease {
    /// Tries until it is granted, the timeout has passed, or the caller has gone.
    pub(super) async fn acquire(&self, tokens: &mut Vec<String>) -> Result<i64, Refusal> {
        let terms = &self.terms;
        let began = clock::now();
        let mut holder = None;
        let mut is_prepared = false;
        for attempt in 0_u64.. {
            let token = format!("{}-{attempt}", terms.token);
            let left = terms
                .timeout
                .map(|timeout| timeout.saturating_sub(clock::now().saturating_sub(began)));
            // A timeout of 0 is one look, not none.
            let within = left.map_or(ATTEMPT, |left| left.clamp(LOOK.1, ATTEMPT));
            let looked = select! {
                biased;
                () = self.leave.notified() => return Err(Refusal::Left),
                looked = self.look(tokens, within, &mut is_prepared) => looked,
            };
            let tried = match looked {
                Ok(None) => self.attempt(&token, tokens, within).await,
                Ok(Some(row)) => Ok(Err(Some(row))),
                Err(error) => Err(error),
            };
            let failure = match tried {
                Ok(Ok(fence)) => return Ok(fence),
                Ok(Err(row)) => {
                    holder = row;
                    None
                }
                Err(error) => {
                    if error.is_unknown() {
                        tokens.push(token);
                    }
                    // Another server may have answered, which has no such table yet.
                    let is_missing = is_prepared && error.sqlstate() == Some("42P01");
                    is_prepared = false;
                    if error.is_final() && !is_missing {
                        return Err(Refusal::Failed(error));
                    }
                    Some(error)
                }
            };
            let left = terms
                .timeout
                .map(|timeout| timeout.saturating_sub(clock::now().saturating_sub(began)));
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
    fn look_again(&self, attempt: u64, holder: Option<&LeaseRow>) -> Duration {
        let usual = (self.terms.ttl / 20).clamp(LOOK.0, LOOK.1);
        let expiry = holder.map(|row| row.left + self.terms.steal_grace.as_secs_f64());
        let until = expiry.and_then(|left| Duration::try_from_secs_f64(left.max(0.0)).ok());
        let pause = usual.min(until.unwrap_or(usual)).max(LOOK.0);
        pause / 2 + pause * chance(self.number, attempt) / 256
    }

    /// Whoever holds it; none when it may be free. A look costs the server less than an attempt, which locks the row.
    async fn look(
        &self,
        earlier: &[String],
        within: Duration,
        is_prepared: &mut bool,
    ) -> Result<Option<LeaseRow>, ControlError> {
        let terms = &self.terms;
        if !*is_prepared {
            let table = terms.table.prepare(&self.server, within).await?;
            self.lock().table = table;
            *is_prepared = true;
        } else if let [row] = self
            .table()
            .rows(&self.server, within, Some(&terms.name))
            .await?
            .as_slice()
        {
            let is_free = !row.is_held || row.left + terms.steal_grace.as_secs_f64() <= 0.0;
            if !is_free && earlier.is_empty() {
                return Ok(Some(row.clone()));
            }
        }
        Ok(None)
    }

    /// One attempt: its fence, or whoever holds it.
    ///
    /// It goes on although the caller leaves. The server works on a statement also when nobody waits for it, and might
    /// grant the lease after it was given back.
    async fn attempt(
        &self,
        token: &str,
        earlier: &[String],
        within: Duration,
    ) -> Result<Result<i64, Option<LeaseRow>>, ControlError> {
        let terms = &self.terms;
        let table = self.table();
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
            let granted = table
                .query(&self.server, within, statement, parameters)
                .await?;
            if let [row] = granted.as_slice() {
                let fence = row
                    .try_get(0)
                    .map_err(|error| ControlError::from_driver(&error))?;
                return Ok(Ok(self.granted(fence, token, sent)));
            }
        }
        let rows = table.rows(&self.server, within, Some(&terms.name)).await?;
        Ok(Err(rows.into_iter().next()))
    }

    fn granted(&self, fence: i64, token: &str, sent: Duration) -> i64 {
        let mut state = self.lock();
        state.phase = LeaseState::Held;
        state.fence = fence;
        token.clone_into(&mut state.token);
        state.term = Term::new(self.terms.ttl, sent);
        state.touched = clock::now();
        fence
    }
}

/// A number from 0 to 255 without a pattern that two processes would share.
fn chance(number: u64, attempt: u64) -> u32 {
    let seed = u64::from(clock::now().subsec_nanos()) ^ number.rotate_left(32) ^ attempt;
    u32::try_from(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56).unwrap_or_default()
}
