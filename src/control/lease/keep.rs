//! Holding: renewals at every tick, and again when one fails, until the lease is lost or its holder leaves.

use std::time::Duration;

use tokio::select;
use tokio_postgres::types::Type;

use super::{Lease, LeaseState};
use crate::control::clock;
use crate::control::counts;
use crate::control::error::ControlError;
use crate::control::events;
use crate::control::server::Parameter;
use crate::control::table::RENEW;
use crate::control::term::Term;
use crate::control::timer::sleep;

/// How often a silent holder is looked at.
const LOOK: Duration = Duration::from_millis(50);

impl Lease {
    /// Renews until it is lost, or the holder leaves.
    pub(super) async fn keep(&self) {
        let mut failures = 0;
        let mut next = self.lock().term.next();
        loop {
            let now = clock::now();
            let (certain_until, touched, is_leaving) = {
                let mut state = self.lock();
                self.lose_if_over(&mut state, now);
                if state.phase != LeaseState::Held {
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
                next = now + LOOK;
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
            let within = self.lock().term.attempt(now);
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
                    if state.phase != LeaseState::Held {
                        return;
                    }
                    state.term.renewed(sent);
                    state.renewals += 1;
                    counts::renewed();
                    state.last_error = None;
                    failures = 0;
                    if std::mem::take(&mut state.trouble.in_a_row) > 0 {
                        events::tell(self.number);
                    }
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
                    state.trouble.blips += 1;
                    state.trouble.in_a_row = failures;
                    state.trouble.last = error.to_string();
                    state.last_error = Some(error.to_string());
                    events::tell(self.number);
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
        let renewed = self
            .table()
            .query(&self.server, within, RENEW, &parameters)
            .await?;
        Ok((!renewed.is_empty()).then_some(sent))
    }

    async fn who_has_it(&self, within: Duration) -> String {
        let rows = self
            .table()
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
}
