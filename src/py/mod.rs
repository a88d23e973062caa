//! The Python face of the core: one class or function for each thing below, and no policy.
//!
//! Rules: no lock is held while a Python object is touched; what can block runs detached from the interpreter;
//! every error becomes a Python exception in [`errors`], nowhere else.

pub(crate) mod backend;
pub(crate) mod conninfo;
pub(crate) mod control;
pub(crate) mod counter;
pub(crate) mod errors;
pub(crate) mod fault;
pub(crate) mod frames;
pub(crate) mod gate;
pub(crate) mod lease;
pub(crate) mod process;
pub(crate) mod seconds;
pub(crate) mod shares;
pub(crate) mod snapshot;
pub(crate) mod socket;
pub(crate) mod timings;
pub(crate) mod wire;
