//! TLS and logging in, as libpq does both: which files count, what is checked, and what a server may ask before it has
//! let us in. Control plane and driver share it; it knows no socket.

pub(crate) mod files;
pub(crate) mod gatekeeper;
pub(crate) mod handshake;
pub(crate) mod peer;
