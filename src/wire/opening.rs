//! Opening a connection: every address of every host, each way of a `sslmode`, and what ends the search; all of it
//! under one deadline.
//!
//! libpq's order. What is optional may fail: with `prefer` a server that refuses TLS, or whose TLS fails, is asked
//! again in clear; with `allow` the other way round. Whatever else a server that was reached says is the answer, and
//! the other places are not asked: they would be sent a password that the first has refused.

use std::sync::Arc;
use std::time::Duration;

use super::aside;
use super::connected::{About, Connected};
use super::failure::{FailureKind, WireFailure};
use super::places;
use super::waits::Waits;
use super::way::Opening;
use crate::conninfo::Conninfo;
use crate::conninfo::target::Sessions;
use crate::tls::files::TlsFiles;

const NOT_PASSED_ON: &str = "the server was asked to cancel, and has not said in time that it has passed this on: it \
                             may do so later, and end another statement. Close the connection";

/// Opens a connection, within `timeout`; without one, within the parameters' own.
///
/// # Errors
///
/// Why there is none.
pub(crate) fn open(
    conninfo: &Arc<Conninfo>,
    timeout: Option<Duration>,
    waits: &mut dyn Waits,
) -> Result<Connected, WireFailure> {
    let started = waits.now();
    let mut until = timeout.and_then(|timeout| started.checked_add(timeout));
    let read = {
        let conninfo = Arc::clone(conninfo);
        aside::done(
            waits,
            until,
            "reading the files of a connection",
            move || {
                let target = conninfo.resolve()?;
                let files = TlsFiles::read(&target.tls);
                Ok((target, files))
            },
        )?
    };
    let (target, files) = read.map_err(|error: crate::conninfo::error::ConninfoError| {
        WireFailure::unsent(FailureKind::Connect, error.to_string())
    })?;
    let target = Arc::new(target);
    let own = target.connect_timeout;
    let own = own.and_then(|timeout| started.checked_add(timeout));
    until = match (until, own) {
        (Some(until), Some(own)) => Some(until.min(own)),
        (until, own) => until.or(own),
    };
    let places = places::all(&target, waits, until)?;
    let passes: &[Sessions] = match target.sessions {
        Sessions::PreferStandby => &[Sessions::Standby, Sessions::Any],
        ref one => std::slice::from_ref(one),
    };
    let mut failures: Vec<WireFailure> = Vec::new();
    for sessions in passes {
        for (number, place) in places.iter().enumerate() {
            let left = u32::try_from(places.len() - number).unwrap_or(u32::MAX);
            let share = until.map(|until| {
                let now = waits.now();
                now + until.saturating_duration_since(now) / left.max(1)
            });
            let mut opening = Opening {
                target: &target,
                files: &files,
                place,
                until: share,
                waits,
            };
            match opening
                .any_way()
                .and_then(|one| opening.fit(one, *sessions))
            {
                Ok(connected) => return Ok(connected),
                Err(attempt) if !attempt.asks_on => return Err(attempt.failure),
                Err(attempt) => failures.push(attempt.failure),
            }
        }
    }
    Err(all_of(failures))
}

/// One failure of several: the last one's kind, and what each says.
fn all_of(failures: Vec<WireFailure>) -> WireFailure {
    const SHOWN: usize = 4;
    let mut said: Vec<String> = Vec::new();
    for failure in &failures {
        if !said.contains(&failure.what) {
            said.push(failure.what.clone());
        }
    }
    let more = said.len().saturating_sub(SHOWN);
    said.truncate(SHOWN);
    if more > 0 {
        said.push(format!("and {more} other places"));
    }
    match failures.into_iter().next_back() {
        Some(last) => WireFailure {
            what: said.join("; "),
            ..last
        },
        None => WireFailure::unsent(FailureKind::Connect, "there is no address to connect to"),
    }
}

/// Asks for the end of what the backend of a connection does, over a connection of its own.
///
/// # Errors
///
/// The server cannot be reached.
pub(crate) fn cancel(
    about: &About,
    request: &[u8],
    timeout: Duration,
    waits: &mut dyn Waits,
) -> Result<(), WireFailure> {
    let until = waits.now().checked_add(timeout);
    let files = {
        let tls = about.target.tls.clone();
        let is_needed = about.tls.is_some();
        aside::done(
            waits,
            until,
            "reading the files of a connection",
            move || is_needed.then(|| TlsFiles::read(&tls)),
        )?
    };
    let files = files.unwrap_or_else(TlsFiles::none);
    let mut opening = Opening {
        target: &about.target,
        files: &files,
        place: &about.place,
        until,
        waits,
    };
    let sent = opening
        .reach(about.tls.is_some())
        .and_then(|(mut transport, _)| {
            opening.send(&mut transport, request)?;
            // The server closes when it has passed it on.
            let mut nothing = [0; 1];
            match opening.receive(&mut transport, &mut nothing) {
                Err(attempt) if attempt.failure.kind == FailureKind::Interrupted => Err(attempt),
                Err(mut attempt) if attempt.failure.kind == FailureKind::Timeout => {
                    attempt.failure = WireFailure::unsent(FailureKind::Timeout, NOT_PASSED_ON);
                    Err(attempt)
                }
                _closed => Ok(()),
            }
        });
    sent.map_err(|attempt| attempt.failure)
}
