//! Values of a server's as Python's, from their text.
//!
//! Long, because it is one table: how each type is read.

use std::cell::RefCell;
use std::str;

use pyo3::exceptions::PyUnicodeDecodeError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDate, PyDateTime, PyDelta, PyDict, PyFloat, PyInt, PyList, PyMapping,
    PyString, PyTime, PyTzInfo,
};

use super::binary::{self, Moments};
use super::oids::{self, Reading};
use super::parameters::{exact_decimal, uuid};
use super::unreadable::{NO_DATE, NO_TIME, Read, Unreadable};

/// How the values of one column are read.
pub(crate) enum Decoder<'py> {
    Plain(Reading),
    /// In the server's own form.
    Binary(Reading),
    /// Moments in the server's own form.
    Moment(Moments<'py>),
    /// By what the caller has for the type.
    Loader(Bound<'py, PyAny>),
    /// An array, and how its elements are read.
    Array(Box<Decoder<'py>>),
}

impl<'py> Decoder<'py> {
    /// The one for a type.
    pub(crate) fn of(oid: u32, loaders: Option<&Bound<'py, PyMapping>>) -> PyResult<Self> {
        if let Some(loaders) = loaders {
            let found = match loaders.cast::<PyDict>() {
                Ok(loaders) => loaders.get_item(oid)?,
                Err(_) if loaders.contains(oid)? => Some(loaders.get_item(oid)?),
                Err(_) => None,
            };
            if let Some(loader) = found {
                return Ok(Self::Loader(loader));
            }
        }
        match oids::element(oid) {
            Some(element) => Ok(Self::Array(Box::new(Self::of(element, loaders)?))),
            None => Ok(Self::Plain(oids::reading(oid))),
        }
    }

    /// The same for values in the server's own form, where that is cheaper and gives the same value.
    pub(crate) fn in_binary(self, py: Python<'py>, is_utc: bool) -> PyResult<Self> {
        Ok(match self {
            Self::Plain(reading) if binary::is_cheaper(reading, is_utc) => {
                match Moments::of(py, reading)? {
                    Some(moments) => Self::Moment(moments),
                    None => Self::Binary(reading),
                }
            }
            other => other,
        })
    }

    /// Whether it reads the server's own form.
    pub(crate) fn is_binary(&self) -> bool {
        matches!(self, Self::Binary(_) | Self::Moment(_))
    }

    /// Reads a value.
    #[inline]
    pub(crate) fn read(&self, py: Python<'py>, value: &[u8]) -> Read<'py> {
        match self {
            Self::Plain(reading) => plain(*reading, py, value),
            Self::Binary(reading) => binary::read(*reading, py, value),
            Self::Moment(moments) => moments.read(py, value),
            Self::Loader(loader) => Ok(loader.call1((text(value)?,))?),
            Self::Array(element) => array(element, py, value),
        }
    }
}

const NOT_UTF8: &str = "the server sent text that is no UTF-8 (a database in SQL_ASCII holds any bytes): select the \
                        value as bytea, by convert_to(…) or a cast";

fn text(value: &[u8]) -> Result<&str, Unreadable> {
    str::from_utf8(value).map_err(|_| Unreadable::Text(NOT_UTF8))
}

/// The same for Python, which looks by itself whether it is UTF-8.
fn string<'py>(py: Python<'py>, value: &[u8]) -> Result<Bound<'py, PyString>, Unreadable> {
    PyString::from_bytes(py, value).map_err(|error| {
        if error.is_instance_of::<PyUnicodeDecodeError>(py) {
            Unreadable::Text(NOT_UTF8)
        } else {
            Unreadable::Raised(error)
        }
    })
}

fn number<T: str::FromStr>(value: &[u8]) -> Result<T, Unreadable> {
    let number = text(value)?.parse();
    number.map_err(|_| Unreadable::Text("the server sent a number that cannot be read"))
}

fn plain<'py>(reading: Reading, py: Python<'py>, value: &[u8]) -> Read<'py> {
    Ok(match reading {
        Reading::Text => string(py, value)?.into_any(),
        Reading::Bool => PyBool::new(py, value == b"t").to_owned().into_any(),
        Reading::Int2 | Reading::Int4 | Reading::Int8 | Reading::Int => integer(py, value)?,
        Reading::Double | Reading::Float => PyFloat::new(py, number(value)?).into_any(),
        Reading::Numeric => exact_decimal(py)?.call1((string(py, value)?,))?,
        Reading::Bytes => bytes(py, value)?,
        Reading::Date => {
            let (year, month, day) = Digits(value).date()?;
            PyDate::new(py, year, month, day)?.into_any()
        }
        Reading::Time | Reading::TimeTz => time(py, value)?,
        Reading::Timestamp | Reading::TimestampTz => timestamp(py, value)?,
        Reading::Interval => interval(py, value)?,
        Reading::Uuid => uuid(py)?.call1((text(value)?,))?,
    })
}

fn integer<'py>(py: Python<'py>, value: &[u8]) -> Read<'py> {
    match number::<i64>(value) {
        Ok(number) => Ok(PyInt::new(py, number).into_any()),
        // xid8 has 64 bits without a sign.
        Err(_) => Ok(PyInt::new(py, number::<u64>(value)?).into_any()),
    }
}

fn bytes<'py>(py: Python<'py>, value: &[u8]) -> Read<'py> {
    const BAD: Unreadable = Unreadable::Text("the server sent a bytea that cannot be read");
    let mut read = Vec::with_capacity(value.len() / 2);
    if let Some(hex) = value.strip_prefix(b"\\x") {
        let digit = |byte: u8| {
            char::from(byte)
                .to_digit(16)
                .and_then(|n| u8::try_from(n).ok())
        };
        for pair in hex.chunks(2) {
            match pair {
                [high, low] => match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => read.push(high << 4 | low),
                    _ => return Err(BAD),
                },
                _ => return Err(BAD),
            }
        }
        return Ok(PyBytes::new(py, &read).into_any());
    }
    let mut rest = value;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            read.push(*byte);
        } else if let Some(after) = rest.strip_prefix(b"\\") {
            read.push(b'\\');
            rest = after;
        } else {
            let digits = rest.get(..3).ok_or(BAD)?;
            let octal = str::from_utf8(digits)
                .ok()
                .and_then(|d| u8::from_str_radix(d, 8).ok());
            read.push(octal.ok_or(BAD)?);
            rest = rest.get(3..).unwrap_or_default();
        }
    }
    Ok(PyBytes::new(py, &read).into_any())
}

/// What is left of a date or a time.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    fn number<T: TryFrom<u32>>(&mut self) -> Result<T, Unreadable> {
        let end = self.0.iter().position(|byte| !byte.is_ascii_digit());
        let (digits, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        if digits.is_empty() || digits.len() > 9 {
            return Err(NO_DATE);
        }
        self.0 = rest;
        let number = digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
        T::try_from(number).map_err(|_| NO_DATE)
    }

    fn skip(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn must(&mut self, byte: u8) -> Result<(), Unreadable> {
        if self.skip(byte) {
            Ok(())
        } else {
            Err(NO_DATE)
        }
    }

    /// A date; nothing but blanks, digits and signs of a time may follow.
    fn date(&mut self) -> Result<(i32, u8, u8), Unreadable> {
        if self.0.ends_with(b" BC") {
            return Err(NO_DATE);
        }
        let year: u16 = self.number()?;
        self.must(b'-')?;
        let month = self.number()?;
        self.must(b'-')?;
        let day = self.number()?;
        if year == 0 || year > 9999 {
            return Err(NO_DATE);
        }
        Ok((i32::from(year), month, day))
    }

    /// Hours, minutes, seconds, microseconds.
    fn clock(&mut self) -> Result<(u8, u8, u8, u32), Unreadable> {
        let hour = self.number()?;
        self.must(b':')?;
        let minute = self.number()?;
        self.must(b':')?;
        let second = self.number()?;
        Ok((hour, minute, second, self.fraction()))
    }

    fn fraction(&mut self) -> u32 {
        if !self.skip(b'.') {
            return 0;
        }
        let mut microseconds = 0;
        let mut worth = 100_000;
        while let Some((digit, rest)) = self.0.split_first().filter(|(d, _)| d.is_ascii_digit()) {
            microseconds += worth * u32::from(digit - b'0');
            worth /= 10;
            self.0 = rest;
        }
        microseconds
    }

    /// The offset from UTC, in seconds, where there is one.
    fn offset(&mut self) -> Result<Option<i32>, Unreadable> {
        let sign = if self.skip(b'+') {
            1
        } else if self.skip(b'-') {
            -1
        } else {
            return Ok(None);
        };
        let mut seconds = i32::from(self.number::<u16>()?) * 3600;
        if self.skip(b':') {
            seconds += i32::from(self.number::<u8>()?) * 60;
        }
        if self.skip(b':') {
            seconds += i32::from(self.number::<u8>()?);
        }
        Ok(Some(sign * seconds))
    }

    fn end(&self) -> Result<(), Unreadable> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(NO_DATE)
        }
    }
}

fn zone(py: Python<'_>, offset: i32) -> Result<Bound<'_, PyTzInfo>, Unreadable> {
    // One object for many values: most of a column have the same.
    thread_local! {
        static LAST: RefCell<Option<(i32, Py<PyTzInfo>)>> = const { RefCell::new(None) };
    }
    let known = LAST.with_borrow(|last| match last {
        Some((known, zone)) if *known == offset => Some(zone.bind(py).clone()),
        _ => None,
    });
    if let Some(zone) = known {
        return Ok(zone);
    }
    let zone = if offset == 0 {
        PyTzInfo::utc(py)?.to_owned()
    } else {
        PyTzInfo::fixed_offset(py, PyDelta::new(py, 0, offset, 0, true)?)?
    };
    LAST.set(Some((offset, zone.clone().unbind())));
    Ok(zone)
}

fn time<'py>(py: Python<'py>, value: &[u8]) -> Read<'py> {
    let mut rest = Digits(value);
    let (hour, minute, second, microsecond) = rest.clock()?;
    let zone = rest.offset()?.map(|offset| zone(py, offset)).transpose()?;
    rest.end()?;
    if hour == 24 {
        return Err(NO_TIME);
    }
    Ok(PyTime::new(py, hour, minute, second, microsecond, zone.as_ref())?.into_any())
}

fn timestamp<'py>(py: Python<'py>, value: &[u8]) -> Read<'py> {
    let mut rest = Digits(value);
    let (year, month, day) = rest.date()?;
    rest.must(b' ')?;
    let (hour, minute, second, microsecond) = rest.clock()?;
    let zone = rest.offset()?.map(|offset| zone(py, offset)).transpose()?;
    rest.end()?;
    let read = PyDateTime::new(
        py,
        year,
        month,
        day,
        hour,
        minute,
        second,
        microsecond,
        zone.as_ref(),
    )?;
    Ok(read.into_any())
}

const NO_INTERVAL: Unreadable = Unreadable::Text(
    "an interval cannot be read: it is infinite, longer than Python's timedelta, or written in another IntervalStyle \
     than postgres. Select it as text, or register a loader for its type",
);

/// A month has 30 days, a year 365: as psycopg has it.
fn interval<'py>(py: Python<'py>, value: &[u8]) -> Read<'py> {
    let value = text(value)?;
    let (mut days, mut microseconds) = (0i64, 0i64);
    let mut words = value.split_ascii_whitespace();
    while let Some(word) = words.next() {
        if word.contains(':') {
            let (sign, clock) = match word.strip_prefix('-') {
                Some(clock) => (-1, clock),
                None => (1, word.strip_prefix('+').unwrap_or(word)),
            };
            let mut rest = Digits(clock.as_bytes());
            let hours: u32 = rest.number().map_err(|_| NO_INTERVAL)?;
            rest.must(b':').map_err(|_| NO_INTERVAL)?;
            let minutes: u32 = rest.number().map_err(|_| NO_INTERVAL)?;
            rest.must(b':').map_err(|_| NO_INTERVAL)?;
            let seconds: u32 = rest.number().map_err(|_| NO_INTERVAL)?;
            let fraction = rest.fraction();
            rest.end().map_err(|_| NO_INTERVAL)?;
            let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60 + i64::from(seconds);
            let whole = sign * (seconds * 1_000_000 + i64::from(fraction));
            microseconds = microseconds.checked_add(whole).ok_or(NO_INTERVAL)?;
            continue;
        }
        let number: i64 = word.parse().map_err(|_| NO_INTERVAL)?;
        let worth = match words.next() {
            Some("year" | "years") => 365,
            Some("mon" | "mons") => 30,
            Some("day" | "days") => 1,
            _ => return Err(NO_INTERVAL),
        };
        days = number
            .checked_mul(worth)
            .and_then(|more| days.checked_add(more))
            .ok_or(NO_INTERVAL)?;
    }
    let (seconds, fraction) = (
        microseconds.div_euclid(1_000_000),
        microseconds.rem_euclid(1_000_000),
    );
    let (more, seconds) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days = days
        .checked_add(more)
        .and_then(|days| i32::try_from(days).ok());
    let days = days.ok_or(NO_INTERVAL)?;
    let seconds = i32::try_from(seconds).map_err(|_| NO_INTERVAL)?;
    let fraction = i32::try_from(fraction).map_err(|_| NO_INTERVAL)?;
    let read = PyDelta::new(py, days, seconds, fraction, true);
    Ok(read.map_err(|_| NO_INTERVAL)?.into_any())
}

const NO_ARRAY: Unreadable = Unreadable::Text("the server sent an array that cannot be read");

/// Lists in lists, without the bounds that may stand before them.
fn array<'py>(element: &Decoder<'py>, py: Python<'py>, value: &[u8]) -> Read<'py> {
    let begin = value
        .iter()
        .position(|byte| *byte == b'{')
        .ok_or(NO_ARRAY)?;
    let mut rest = value.get(begin..).unwrap_or_default();
    let mut open: Vec<Bound<'py, PyList>> = Vec::new();
    loop {
        let (first, after) = rest.split_first().ok_or(NO_ARRAY)?;
        match first {
            b'{' => {
                open.push(PyList::empty(py));
                rest = after;
            }
            b'}' => {
                rest = after;
                let list = open.pop().ok_or(NO_ARRAY)?;
                match open.last() {
                    Some(outer) => outer.append(list)?,
                    None if rest.is_empty() => return Ok(list.into_any()),
                    None => return Err(NO_ARRAY),
                }
            }
            b',' => rest = after,
            _ => {
                let list = open.last().ok_or(NO_ARRAY)?;
                let (item, is_quoted, after) = item(rest)?;
                if !is_quoted && item.eq_ignore_ascii_case(b"NULL") {
                    list.append(py.None())?;
                } else {
                    list.append(element.read(py, &item)?)?;
                }
                rest = after;
            }
        }
    }
}

/// One element, whether it was quoted, and what follows.
fn item(rest: &[u8]) -> Result<(Vec<u8>, bool, &[u8]), Unreadable> {
    let mut item = Vec::new();
    let (mut rest, is_quoted) = match rest.strip_prefix(b"\"") {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    loop {
        let (byte, after) = rest.split_first().ok_or(NO_ARRAY)?;
        match byte {
            b'\\' => {
                let (escaped, after) = after.split_first().ok_or(NO_ARRAY)?;
                item.push(*escaped);
                rest = after;
            }
            b'"' if is_quoted => return Ok((item, true, after)),
            b',' | b'}' if !is_quoted => return Ok((item, false, rest)),
            _ => {
                item.push(*byte);
                rest = after;
            }
        }
    }
}
