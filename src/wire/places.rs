//! Where a connection may lead: hosts, each with its addresses, in the order in which they are tried.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Instant;

use super::aside;
use super::failure::{FailureKind, WireFailure};
use super::waits::Waits;
use crate::conninfo::target::{Endpoint, Target};
use crate::socket::words::in_words;

/// An endpoint, and one of its addresses; none for a unix socket.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) endpoint: Endpoint,
    pub(crate) address: Option<SocketAddr>,
}

/// All of them.
///
/// # Errors
///
/// There is none: what the last name that was looked up came to.
pub(crate) fn all(
    target: &Target,
    waits: &mut dyn Waits,
    until: Option<Instant>,
) -> Result<Vec<Place>, WireFailure> {
    let mut places = Vec::new();
    let mut failure = None;
    let mut left = u32::try_from(target.endpoints.len()).unwrap_or(u32::MAX);
    for endpoint in &target.endpoints {
        if endpoint.is_local() {
            places.push(Place {
                endpoint: endpoint.clone(),
                address: None,
            });
        } else {
            let until = until.map(|until| {
                let now = waits.now();
                now + until.saturating_duration_since(now) / left.max(1)
            });
            match addresses(endpoint, waits, until) {
                Ok(found) => places.extend(found.into_iter().map(|address| Place {
                    endpoint: endpoint.clone(),
                    address: Some(SocketAddr::new(address, endpoint.port)),
                })),
                Err(error) if error.kind == FailureKind::Interrupted => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        left = left.saturating_sub(1);
    }
    if target.is_shuffled {
        shuffle(&mut places);
    }
    match failure {
        Some(error) if places.is_empty() => Err(error),
        _ => Ok(places),
    }
}

fn addresses(
    endpoint: &Endpoint,
    waits: &mut dyn Waits,
    until: Option<Instant>,
) -> Result<Vec<IpAddr>, WireFailure> {
    let name = endpoint.hostaddr.as_ref().unwrap_or(&endpoint.host).clone();
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let shown = endpoint.shown();
    let asked = move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        let found = found.map(|found| found.map(|one| one.ip()).collect::<Vec<_>>());
        found.map_err(|error| in_words(&error.to_string()))
    };
    let what = format!("looking up {shown}");
    let found = aside::done(waits, until, &what, asked)?;
    let mut found = found.map_err(|why| {
        let what = format!("could not translate host name {shown} to address: {why}");
        WireFailure::unsent(FailureKind::Connect, what)
    })?;
    found.dedup();
    Ok(found)
}

/// Draws an order by lot.
fn shuffle<T>(places: &mut [T]) {
    // Each of these is made with keys of its own.
    for n in (1..places.len()).rev() {
        let drawn = RandomState::new().hash_one(n);
        let below = u64::try_from(n + 1).unwrap_or(1);
        places.swap(n, usize::try_from(drawn % below).unwrap_or(0));
    }
}
