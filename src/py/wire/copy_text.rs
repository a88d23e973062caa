//! The text of one value of a COPY.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyList};

use super::error::unsent;
use super::oids;
use super::parameters::{self, Typed};
use crate::wire::failure::FailureKind;

/// What is plainly a number.
pub(super) fn small(value: &Bound<'_, PyAny>) -> Option<i64> {
    if value.is_exact_instance_of::<PyInt>() {
        value.extract().ok()
    } else {
        None
    }
}

/// Appends a value's text; false where it is NULL.
pub(super) fn text(
    value: &Bound<'_, PyAny>,
    adapt: Option<&Bound<'_, PyAny>>,
    may_adapt: bool,
    out: &mut Vec<u8>,
) -> PyResult<bool> {
    let py = value.py();
    if let Ok(typed) = value.cast::<Typed>() {
        let typed = typed.get();
        match typed.text() {
            None => return Ok(false),
            Some(Ok(data)) => out.extend_from_slice(data),
            Some(Err(data)) if typed.is_of(oids::BYTEA) => hex(data, out),
            Some(Err(_)) => {
                let what = "a value of a registered type has a binary form alone, which the text format cannot hold";
                return Err(unsent(py, FailureKind::Unsupported, what));
            }
        }
        return Ok(true);
    }
    let adapted = |out: &mut Vec<u8>| match adapt {
        Some(adapt) if may_adapt => {
            let adapted = adapt.call1((value,))?;
            if adapted.is(value) {
                Err(parameters::unknown(py, value))
            } else {
                text(&adapted, Some(adapt), false, out)
            }
        }
        _ => Err(parameters::unknown(py, value)),
    };
    if !parameters::is_known(value)? && adapt.is_some() && may_adapt {
        return adapted(out);
    }
    if let Ok(elements) = value.cast::<PyList>() {
        let at = out.len();
        if parameters::array(elements, out, &mut None, 1)? {
            return Ok(true);
        }
        out.truncate(at);
        return adapted(out);
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        out.push(if truth.is_true() { b't' } else { b'f' });
        return Ok(true);
    }
    match parameters::scalar(value, out)? {
        Some(_) => Ok(true),
        None => Err(parameters::unknown(py, value)),
    }
}

fn hex(data: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\x");
    for byte in data {
        for half in [byte >> 4, byte & 15] {
            out.push(DIGITS.get(usize::from(half)).copied().unwrap_or(b'0'));
        }
    }
}
