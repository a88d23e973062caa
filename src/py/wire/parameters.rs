//! Values of Python's on their way to a server. As psycopg chooses: an int has the smallest type that holds it, a str
//! none, so that the server takes it for what the statement needs.
//!
//! Long, because it is one table: how each type is written.

use std::io::Write;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDate, PyDateAccess, PyDateTime, PyDelta, PyDeltaAccess, PyDict,
    PyFloat, PyInt, PyList, PyMemoryView, PyString, PyTime, PyTimeAccess, PyType,
};

use super::calendar;
use super::error::unsent;
use super::oids;
use crate::wire::failure::FailureKind;
use crate::wire::outgoing::ParameterList;

/// A parameter as it travels.
#[pyclass(frozen, module = "poolproof._native")]
#[derive(Debug)]
pub(crate) struct Typed {
    #[pyo3(get)]
    oid: u32,
    data: Option<Vec<u8>>,
    #[pyo3(get)]
    binary: bool,
}

#[pymethods]
impl Typed {
    #[new]
    #[pyo3(signature = (oid, data, *, binary=false))]
    fn new(oid: u32, data: Option<Vec<u8>>, binary: bool) -> Self {
        Self { oid, data, binary }
    }

    #[getter]
    fn data(&self) -> Option<&[u8]> {
        self.data.as_deref()
    }
}

impl Typed {
    /// Its text; or else, as an error, its binary form. None for NULL.
    pub(super) fn text(&self) -> Option<Result<&[u8], &[u8]>> {
        let data = self.data.as_deref()?;
        Some(if self.binary { Err(data) } else { Ok(data) })
    }

    /// Whether it is of a type.
    pub(super) fn is_of(&self, oid: u32) -> bool {
        self.oid == oid
    }
}

/// A type of Python's library.
pub(crate) fn decimal(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    TYPE.import(py, "decimal", "Decimal")
}

/// What makes a `Decimal` of a text, digit by digit. As the type itself does, which first looks for keywords.
pub(crate) fn exact_decimal(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let make = MAKE.get_or_try_init(py, || {
        let module = py.import("decimal")?;
        let keywords = PyDict::new(py);
        for (name, most) in [
            ("prec", "MAX_PREC"),
            ("Emax", "MAX_EMAX"),
            ("Emin", "MIN_EMIN"),
        ] {
            keywords.set_item(name, module.getattr(most)?)?;
        }
        // Nothing is rounded by it; what is no number is refused, whatever others do with their contexts.
        let refused = [module.getattr("InvalidOperation")?];
        keywords.set_item("traps", PyList::new(py, refused)?)?;
        let context = module.getattr("Context")?.call((), Some(&keywords))?;
        PyResult::Ok(context.getattr("create_decimal")?.unbind())
    })?;
    Ok(make.bind(py))
}

/// A type of Python's library.
pub(crate) fn uuid(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    TYPE.import(py, "uuid", "UUID")
}

/// Adds the values of a sequence. Nothing is sent yet: what `adapt` raises leaves the connection as it is.
pub(crate) fn add_all(
    list: &mut ParameterList,
    values: &Bound<'_, PyAny>,
    adapt: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let py = values.py();
    let values = values.try_iter().map_err(|_| {
        let kind = values
            .get_type()
            .name()
            .map_or_else(|_| "?".into(), |name| name.to_string());
        let what = format!("the parameters must be a sequence, not {kind}");
        unsent(py, FailureKind::Usage, what)
    })?;
    for value in values {
        add(list, &value?, adapt, true)?;
    }
    list.check()
        .map_err(|unfit| unsent(py, FailureKind::Data, unfit.0))
}

fn add(
    list: &mut ParameterList,
    value: &Bound<'_, PyAny>,
    adapt: Option<&Bound<'_, PyAny>>,
    may_adapt: bool,
) -> PyResult<()> {
    let py = value.py();
    if value.is_none() {
        list.null(0);
        return Ok(());
    }
    if in_binary(list, value)? {
        return Ok(());
    }
    if let Ok(typed) = value.cast::<Typed>() {
        let typed = typed.get();
        return match &typed.data {
            None => {
                list.null(typed.oid);
                Ok(())
            }
            Some(data) => list.add(typed.oid, typed.binary, |out| {
                out.extend_from_slice(data);
                Ok(())
            }),
        };
    }
    if may_adapt && !is_known(value)? {
        if let Some(adapt) = adapt {
            let adapted = adapt.call1((value,))?;
            if !adapted.is(value) {
                return add(list, &adapted, Some(adapt), false);
            }
        }
    }
    if let Ok(text) = value.cast::<PyString>() {
        let text = text_of(text)?;
        return list.add(0, false, |out| {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        });
    }
    if value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyByteArray>()
        || value.is_instance_of::<PyMemoryView>()
    {
        let bytes = bytes_of(value)?;
        return list.add(oids::BYTEA, true, |out| {
            out.extend_from_slice(&bytes);
            Ok(())
        });
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        let number = number.extract::<f64>()?;
        return list.add(oids::FLOAT8, true, |out| {
            out.extend_from_slice(&number.to_be_bytes());
            Ok(())
        });
    }
    if let Ok(elements) = value.cast::<PyList>() {
        let mut text = Vec::new();
        let mut oid = None;
        if !array(elements, &mut text, &mut oid, 1)? {
            // With an element that is not known here, the list as a whole is the caller's.
            let adapted = match adapt {
                Some(adapt) if may_adapt => adapt.call1((value,))?,
                _ => return Err(unknown(py, value)),
            };
            return if adapted.is(value) {
                Err(unknown(py, value))
            } else {
                add(list, &adapted, adapt, false)
            };
        }
        let oid = oids::array_of(oid.unwrap_or(0));
        return list.add(oid, false, |out| {
            out.extend_from_slice(&text);
            Ok(())
        });
    }
    let mut text = Vec::new();
    match scalar(value, &mut text)? {
        Some(oid) => list.add(oid, false, |out| {
            out.extend_from_slice(&text);
            Ok(())
        }),
        None => Err(unknown(py, value)),
    }
}

/// Adds a value of a type whose own form is cheaper for the server, and for us; false for one of another type.
fn in_binary(list: &mut ParameterList, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    if value.is_exact_instance_of::<PyInt>() {
        let Ok(number) = value.extract::<i64>() else {
            return Ok(false);
        };
        if let Ok(number) = i16::try_from(number) {
            list.binary(oids::INT2, &number.to_be_bytes());
        } else if let Ok(number) = i32::try_from(number) {
            list.binary(oids::INT4, &number.to_be_bytes());
        } else {
            list.binary(oids::INT8, &number.to_be_bytes());
        }
    } else if let Ok(truth) = value.cast_exact::<PyBool>() {
        list.binary(oids::BOOL, &[u8::from(truth.is_true())]);
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        list.binary(oids::FLOAT8, &number.extract::<f64>()?.to_be_bytes());
    } else if let Ok(moment) = value.cast_exact::<PyDateTime>() {
        let seconds = u32::from(moment.get_hour()) * 3600
            + u32::from(moment.get_minute()) * 60
            + u32::from(moment.get_second());
        let days = calendar::days(moment.get_year(), moment.get_month(), moment.get_day());
        let local = days * calendar::DAY
            + i64::from(seconds) * 1_000_000
            + i64::from(moment.get_microsecond());
        let (oid, microseconds) = match utc_offset(value)? {
            None => (oids::TIMESTAMP, local),
            Some(offset) => (oids::TIMESTAMPTZ, local - offset),
        };
        list.binary(oid, &microseconds.to_be_bytes());
    } else if let Ok(day) = value.cast_exact::<PyDate>() {
        let days = calendar::days(day.get_year(), day.get_month(), day.get_day());
        let Ok(days) = i32::try_from(days) else {
            return Ok(false);
        };
        list.binary(oids::DATE, &days.to_be_bytes());
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// The offset from UTC in microseconds; none where there is none.
fn utc_offset(value: &Bound<'_, PyAny>) -> PyResult<Option<i64>> {
    if value.getattr("tzinfo")?.is_none() {
        return Ok(None);
    }
    let offset = value.call_method0("utcoffset")?;
    Ok(offset.cast::<PyDelta>().ok().map(|offset| {
        i64::from(offset.get_days()) * calendar::DAY
            + i64::from(offset.get_seconds()) * 1_000_000
            + i64::from(offset.get_microseconds())
    }))
}

pub(super) fn unknown(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyErr {
    let kind = value.get_type();
    let name = kind.fully_qualified_name();
    let name = name.map_or_else(|_| "?".to_owned(), |name| name.to_string());
    unsent(
        py,
        FailureKind::Data,
        format!(
            "a value of type {name} cannot be sent: give a value of a type that the driver knows, or its text, or \
             register the type"
        ),
    )
}

/// Whether a value's type is exactly one that is known here.
pub(super) fn is_known(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = value.py();
    Ok(value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBytes>()
        || value.is_exact_instance_of::<PyDateTime>()
        || value.is_exact_instance_of::<PyDate>()
        || value.is_exact_instance_of::<PyList>()
        || value.is_exact_instance_of::<PyByteArray>()
        || value.is_exact_instance_of::<PyMemoryView>()
        || value.is_exact_instance_of::<PyTime>()
        || value.is_exact_instance_of::<PyDelta>()
        || value.get_type().is(decimal(py)?)
        || value.get_type().is(uuid(py)?))
}

pub(super) fn text_of<'a>(text: &'a Bound<'_, PyString>) -> PyResult<std::borrow::Cow<'a, str>> {
    let py = text.py();
    let text = text.to_cow().map_err(|_| {
        let what = "a str cannot be sent: it has half of a character in it (a surrogate)";
        unsent(py, FailureKind::Data, what)
    })?;
    if text.as_bytes().contains(&0) {
        let what = "a str cannot be sent: it has a NUL character in it, which PostgreSQL's text cannot hold";
        return Err(unsent(py, FailureKind::Data, what));
    }
    Ok(text)
}

pub(super) fn bytes_of(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(bytes.as_bytes().to_vec());
    }
    let bytes = value.py().get_type::<PyBytes>().call1((value,))?;
    Ok(bytes
        .cast::<PyBytes>()
        .map_err(PyErr::from)?
        .as_bytes()
        .to_vec())
}

/// Appends a value as text and says its type; none for one of another type.
pub(super) fn scalar(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<Option<u32>> {
    let py = value.py();
    let bad = |_| PyTypeError::new_err("cannot be written");
    if let Ok(text) = value.cast::<PyString>() {
        out.extend_from_slice(text_of(text)?.as_bytes());
        return Ok(Some(0));
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        out.push(if truth.is_true() { b't' } else { b'f' });
        return Ok(Some(oids::BOOL));
    }
    if value.is_instance_of::<PyInt>() {
        return integer(value, out).map(Some);
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        write!(out, "{:?}", number.extract::<f64>()?).map_err(bad)?;
        return Ok(Some(oids::FLOAT8));
    }
    if value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyByteArray>()
        || value.is_instance_of::<PyMemoryView>()
    {
        out.extend_from_slice(b"\\x");
        for byte in bytes_of(value)? {
            write!(out, "{byte:02x}").map_err(bad)?;
        }
        return Ok(Some(oids::BYTEA));
    }
    if let Ok(moment) = value.cast::<PyDateTime>() {
        date(moment.get_year(), moment.get_month(), moment.get_day(), out).map_err(bad)?;
        out.push(b' ');
        clock(
            (moment.get_hour(), moment.get_minute(), moment.get_second()),
            moment.get_microsecond(),
            out,
        )
        .map_err(bad)?;
        let is_aware = offset(value, out)?;
        return Ok(Some(if is_aware {
            oids::TIMESTAMPTZ
        } else {
            oids::TIMESTAMP
        }));
    }
    if let Ok(day) = value.cast::<PyDate>() {
        date(day.get_year(), day.get_month(), day.get_day(), out).map_err(bad)?;
        return Ok(Some(oids::DATE));
    }
    if let Ok(time) = value.cast::<PyTime>() {
        clock(
            (time.get_hour(), time.get_minute(), time.get_second()),
            time.get_microsecond(),
            out,
        )
        .map_err(bad)?;
        let is_aware = offset(value, out)?;
        if !is_aware && !value.getattr("tzinfo")?.is_none() {
            let what = "a time whose time zone has no fixed offset cannot be sent: give a datetime, or a time with a \
                        fixed offset";
            return Err(unsent(py, FailureKind::Data, what));
        }
        return Ok(Some(if is_aware { oids::TIMETZ } else { oids::TIME }));
    }
    if let Ok(delta) = value.cast::<PyDelta>() {
        // Each with its sign: in one style of intervals the first one's holds for all.
        write!(
            out,
            "{:+} days {:+}.{:06} seconds",
            delta.get_days(),
            delta.get_seconds(),
            delta.get_microseconds()
        )
        .map_err(bad)?;
        return Ok(Some(oids::INTERVAL));
    }
    if value.is_instance(decimal(py)?)? {
        let text = value.str()?;
        let text = text.to_cow()?;
        // A signalling one, one with a sign, one with a number: the server has one.
        let is_nan = text.contains("NaN");
        out.extend_from_slice(if is_nan { b"NaN" } else { text.as_bytes() });
        return Ok(Some(oids::NUMERIC));
    }
    if value.is_instance(uuid(py)?)? {
        let hex = value.getattr("hex")?;
        out.extend_from_slice(
            hex.cast::<PyString>()
                .map_err(PyErr::from)?
                .to_cow()?
                .as_bytes(),
        );
        return Ok(Some(oids::UUID));
    }
    Ok(None)
}

fn integer(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<u32> {
    let bad = |_| PyTypeError::new_err("cannot be written");
    let Ok(number) = value.extract::<i64>() else {
        let text = value
            .py()
            .get_type::<PyInt>()
            .call_method1("__repr__", (value,))?;
        out.extend_from_slice(
            text.cast::<PyString>()
                .map_err(PyErr::from)?
                .to_cow()?
                .as_bytes(),
        );
        return Ok(oids::NUMERIC);
    };
    write!(out, "{number}").map_err(bad)?;
    Ok(if i16::try_from(number).is_ok() {
        oids::INT2
    } else if i32::try_from(number).is_ok() {
        oids::INT4
    } else {
        oids::INT8
    })
}

fn date(year: i32, month: u8, day: u8, out: &mut Vec<u8>) -> std::io::Result<()> {
    write!(out, "{year:04}-{month:02}-{day:02}")
}

fn clock(time: (u8, u8, u8), microsecond: u32, out: &mut Vec<u8>) -> std::io::Result<()> {
    let (hour, minute, second) = time;
    write!(out, "{hour:02}:{minute:02}:{second:02}.{microsecond:06}")
}

/// Appends the offset from UTC; false where there is none.
fn offset(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    if value.getattr("tzinfo")?.is_none() {
        return Ok(false);
    }
    let offset = value.call_method0("utcoffset")?;
    let Ok(offset) = offset.cast::<PyDelta>() else {
        return Ok(false);
    };
    let seconds = offset.get_days() * 86_400 + offset.get_seconds();
    let (sign, seconds) = if seconds < 0 {
        ('-', -seconds)
    } else {
        ('+', seconds)
    };
    write!(
        out,
        "{sign}{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
    .map_err(|_| PyTypeError::new_err("cannot be written"))?;
    Ok(true)
}

const DEEPEST: usize = 6;

/// Appends a list as an array's text. The type of the elements: that of all, or none where they differ. False: there
/// is one among them that is not known.
pub(super) fn array(
    elements: &Bound<'_, PyList>,
    out: &mut Vec<u8>,
    oid: &mut Option<u32>,
    depth: usize,
) -> PyResult<bool> {
    if depth > DEEPEST {
        let what = "a list has more than 6 lists in each other, and an array of PostgreSQL's has no more dimensions";
        return Err(unsent(elements.py(), FailureKind::Data, what));
    }
    out.push(b'{');
    for (number, element) in elements.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        if element.is_none() {
            out.extend_from_slice(b"NULL");
            continue;
        }
        if let Ok(inner) = element.cast_exact::<PyList>() {
            if !array(inner, out, oid, depth + 1)? {
                return Ok(false);
            }
            continue;
        }
        let mut text = Vec::new();
        let found = if let Ok(typed) = element.cast::<Typed>() {
            let typed = typed.get();
            match &typed.data {
                None => {
                    out.extend_from_slice(b"NULL");
                    continue;
                }
                Some(_) if typed.binary => return Ok(false),
                Some(data) => text.extend_from_slice(data),
            }
            typed.oid
        } else if is_known(&element)? {
            match scalar(&element, &mut text)? {
                Some(found) => found,
                None => return Ok(false),
            }
        } else {
            return Ok(false);
        };
        *oid = Some(oid.map_or(found, |before| common(before, found)));
        quote(&text, out);
    }
    out.push(b'}');
    Ok(true)
}

/// The type for values of two: the wider of two kinds of numbers, else the server's choice.
fn common(one: u32, other: u32) -> u32 {
    const WIDTHS: [u32; 5] = [
        oids::INT2,
        oids::INT4,
        oids::INT8,
        oids::NUMERIC,
        oids::FLOAT8,
    ];
    let width = |oid| WIDTHS.iter().position(|width| *width == oid);
    if one == other {
        return one;
    }
    match (width(one), width(other)) {
        (Some(a), Some(b)) => WIDTHS.get(a.max(b)).copied().unwrap_or(0),
        _ => 0,
    }
}

fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
