//! Where a task is, remembered without its frames.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyFrame, PyFrameMethods, PyList, PyString};

/// What a coroutine's code, or an asynchronous generator's, has of these (`inspect.CO_COROUTINE` and its sibling).
const AWAITS: u32 = 0x80 | 0x200;

/// The codes of a frame and of those that await it, each with the place in it, the innermost first.
///
/// No more than `most`, and none beyond the loop's own. Never a frame: that would keep the variables of the caller.
#[pyfunction]
pub(crate) fn awaiting<'py>(
    frame: &Bound<'py, PyFrame>,
    most: usize,
) -> PyResult<Bound<'py, PyList>> {
    let py = frame.py();
    let places = PyList::empty(py);
    let mut next = Some(frame.clone());
    for _ in 0..most {
        let Some(frame) = next else { break };
        let code = frame.code();
        let flags: u32 = code.getattr(flags(py))?.extract()?;
        if flags & AWAITS == 0 {
            break;
        }
        places.append(code)?;
        places.append(frame.getattr(place(py))?)?;
        next = frame.outer();
    }
    Ok(places)
}

/// Makes the names that are asked for, so that no fork comes between.
pub(crate) fn make_ready(py: Python<'_>) {
    flags(py);
    place(py);
}

fn flags(py: Python<'_>) -> &Bound<'_, PyString> {
    intern!(py, "co_flags")
}

fn place(py: Python<'_>) -> &Bound<'_, PyString> {
    intern!(py, "f_lasti")
}
