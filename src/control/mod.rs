//! The control plane: one thread in each process that talks to servers on connections of its own.
//!
//! It is apart from the application's pool and out of the interpreter's reach, so that a lease is renewed while
//! Python is busy, while every pooled connection is out, and while one of them hangs. Everything here works through a
//! pooler in transaction mode: each operation is one statement, nothing is prepared, no session state is kept, and
//! each has a deadline of its own.

pub mod active;
pub mod backend;
pub mod clock;
mod conveyed;
pub mod counts;
mod definition;
mod dial;
pub mod error;
pub mod events;
#[cfg(test)]
mod fork_tests;
pub mod heartbeat;
pub mod lease;
pub mod lease_row;
mod link;
mod names;
mod peer;
pub mod pending;
pub mod plane;
pub mod questions;
mod reactor;
mod reader;
pub mod server;
pub mod servers;
mod session;
mod stage;
mod stream;
pub mod table;
mod tally;
pub mod term;
mod timer;
mod told_pid;
mod wire;
