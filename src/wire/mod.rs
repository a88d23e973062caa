//! The native driver's wire: `PostgreSQL`'s protocol on a socket of our own. Knows no Python.
//!
//! `session` is the protocol without a socket or a clock: requests go into its queue, bytes go in, events come out, and
//! whatever comes that no request has asked for ends it; `marks` tell one answer from another, `settings` are what a
//! server tells of itself. `startup` is the same for logging in. `transport` has the socket, in clear or under TLS;
//! `opening` makes one, under one deadline; `connected` drives a session over it.

pub(crate) mod aside;
pub(crate) mod cancel;
pub(crate) mod cancels;
pub(crate) mod column;
pub(crate) mod connected;
pub(crate) mod failure;
#[cfg(test)]
mod fuzz;
pub(crate) mod incoming;
mod kept;
mod marks;
pub(crate) mod opening;
pub(crate) mod outgoing;
pub(crate) mod places;
pub(crate) mod server_message;
pub(crate) mod session;
pub(crate) mod settings;
pub(crate) mod startup;
pub(crate) mod statement_text;
pub(crate) mod statements;
#[cfg(test)]
mod tests;
pub(crate) mod transport;
pub(crate) mod verb;
pub(crate) mod waits;
mod way;
