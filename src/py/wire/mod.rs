//! The native driver's wire for Python: one connection, what it is asked, what comes of it.

mod answer;
mod attended;
mod error;
mod oids;
mod parameters;
mod request;
mod requests;
mod seat;
mod values;

pub(crate) use answer::{Answer, Column};
pub(crate) use error::WireError;
pub(crate) use parameters::Typed;
pub(crate) use requests::Wire;
