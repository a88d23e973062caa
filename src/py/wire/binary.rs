//! Values of a server's as Python's, from its own form: of those types whose text costs more to write and to read.
//!
//! Each gives what its text would: the same value, and the same error for what Python cannot hold.

use std::cell::Cell;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDate, PyDateTime, PyFloat, PyInt, PyTime, PyTzInfo};

use super::calendar::{self, DAY};
use super::oids::Reading;
use super::parameters::uuid;
use super::unreadable::{NO_DATE, NO_TIME, Read, Unreadable};

/// Whether values of a type are to come in this form. Not a numeric: a `Decimal` is made of a text, which the server
/// writes as soon as its own form. A moment has no time zone here, and its text has the session's:
/// so where that is another than UTC it is text.
pub(super) fn is_cheaper(reading: Reading, is_utc: bool) -> bool {
    match reading {
        Reading::Bool
        | Reading::Int2
        | Reading::Int4
        | Reading::Int8
        | Reading::Double
        | Reading::Bytes
        | Reading::Date
        | Reading::Time
        | Reading::Timestamp
        | Reading::Uuid => true,
        Reading::TimestampTz => is_utc,
        Reading::Text
        | Reading::Numeric
        | Reading::Int
        | Reading::Float
        | Reading::TimeTz
        | Reading::Interval => false,
    }
}

const BAD: Unreadable =
    Unreadable::Text("the server sent a value of another length than its type has");

fn exactly<const N: usize>(value: &[u8]) -> Result<[u8; N], Unreadable> {
    value.try_into().map_err(|_| BAD)
}

/// Reads a value.
pub(super) fn read<'py>(reading: Reading, py: Python<'py>, value: &[u8]) -> Read<'py> {
    Ok(match reading {
        Reading::Bool => PyBool::new(py, exactly(value)? != [0])
            .to_owned()
            .into_any(),
        Reading::Int2 => PyInt::new(py, i16::from_be_bytes(exactly(value)?)).into_any(),
        Reading::Int4 => PyInt::new(py, i32::from_be_bytes(exactly(value)?)).into_any(),
        Reading::Int8 => PyInt::new(py, i64::from_be_bytes(exactly(value)?)).into_any(),
        Reading::Double => PyFloat::new(py, f64::from_be_bytes(exactly(value)?)).into_any(),
        Reading::Bytes => PyBytes::new(py, value).into_any(),
        Reading::Date => {
            let days = i32::from_be_bytes(exactly(value)?);
            let (year, month, day) = calendar::date(i64::from(days)).ok_or(NO_DATE)?;
            PyDate::new(py, year, month, day)?.into_any()
        }
        Reading::Time => {
            let microseconds = i64::from_be_bytes(exactly(value)?);
            if microseconds == DAY {
                return Err(NO_TIME);
            }
            let (hour, minute, second, microsecond) = clock(microseconds)?;
            PyTime::new(py, hour, minute, second, microsecond, None)?.into_any()
        }
        Reading::Uuid => uuid(py)?.call1((py.None(), exactly::<16>(value)?.as_slice()))?,
        Reading::Timestamp
        | Reading::TimestampTz
        | Reading::Text
        | Reading::Numeric
        | Reading::Int
        | Reading::Float
        | Reading::TimeTz
        | Reading::Interval => {
            return Err(Unreadable::Text(
                "a value came as binary that was wanted as text",
            ));
        }
    })
}

/// How the moments of one column are read.
pub(crate) struct Moments<'py> {
    zone: Option<Bound<'py, PyTzInfo>>,
    /// A day, and its date: the moments of many rows are of one.
    last: Cell<(i64, Date)>,
}

type Date = (i32, u8, u8);

impl<'py> Moments<'py> {
    /// For moments; none for what is none.
    pub(super) fn of(py: Python<'py>, reading: Reading) -> PyResult<Option<Self>> {
        let zone = match reading {
            Reading::Timestamp => None,
            Reading::TimestampTz => Some(PyTzInfo::utc(py)?.to_owned()),
            _ => return Ok(None),
        };
        let last = Cell::new((0, (2000, 1, 1)));
        Ok(Some(Self { zone, last }))
    }

    /// Reads one.
    pub(super) fn read(&self, py: Python<'py>, value: &[u8]) -> Read<'py> {
        let microseconds = i64::from_be_bytes(exactly(value)?);
        let day = microseconds.div_euclid(DAY);
        let (last, mut date) = self.last.get();
        if day != last {
            date = calendar::date(day).ok_or(NO_DATE)?;
            self.last.set((day, date));
        }
        let (year, month, of_month) = date;
        let (hour, minute, second, microsecond) = clock(microseconds.rem_euclid(DAY))?;
        Ok(PyDateTime::new(
            py,
            year,
            month,
            of_month,
            hour,
            minute,
            second,
            microsecond,
            self.zone.as_ref(),
        )?
        .into_any())
    }
}

/// Hours, minutes, seconds, microseconds of so many of these.
fn clock(microseconds: i64) -> Result<(u8, u8, u8, u32), Unreadable> {
    let whole = u64::try_from(microseconds).map_err(|_| BAD)?;
    let seconds = whole / 1_000_000;
    let fits = |number: u64| u8::try_from(number).map_err(|_| BAD);
    Ok((
        fits(seconds / 3600)?,
        fits(seconds / 60 % 60)?,
        fits(seconds % 60)?,
        u32::try_from(whole % 1_000_000).map_err(|_| BAD)?,
    ))
}
