//! The native driver's wire for Python: one connection, what it is asked, what comes of it.

mod answer;
mod attended;
mod binary;
mod calendar;
mod copy_binary;
mod copy_rows;
mod copy_text;
mod copying;
mod error;
mod oids;
mod parameters;
mod pipeline;
mod question;
mod request;
mod requests;
mod seat;
mod statement;
mod unreadable;
mod values;

use pyo3::prelude::*;
use pyo3::types::{PyList, PyMapping};

pub(crate) use answer::{Answer, Column, Columns};
pub(crate) use copying::WireCopy;
pub(crate) use error::WireError;
pub(crate) use parameters::Typed;
pub(crate) use requests::Wire;
pub(crate) use seat::Seat;
pub(crate) use statement::Statement;

/// Makes what `PyO3` would make at the first use: Python's classes.
pub(crate) fn make_ready(py: Python<'_>) -> PyResult<()> {
    parameters::decimal(py)?;
    parameters::exact_decimal(py)?;
    parameters::uuid(py)?;
    // What is no dictionary is compared with the abstract class.
    let _is_none = PyList::empty(py).cast::<PyMapping>().is_ok();
    Ok(())
}
