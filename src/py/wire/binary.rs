//! Values of a server's as Python's, from its own form: of those types whose text costs more to write and to read.
//!
//! Each gives what its text would: the same value, and the same error for what Python cannot hold.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDate, PyDateTime, PyFloat, PyInt, PyTime, PyTzInfo};

use super::calendar::{self, DAY};
use super::oids::Reading;
use super::parameters::{decimal, uuid};
use super::unreadable::{NO_DATE, NO_TIME, Read, Unreadable};

/// Whether values of a type are to come in this form. A moment has no time zone here, and its text has the session's:
/// so where that is another than UTC it is text.
pub(super) fn is_cheaper(reading: Reading, is_utc: bool) -> bool {
    match reading {
        Reading::Bool
        | Reading::Int2
        | Reading::Int4
        | Reading::Int8
        | Reading::Double
        | Reading::Numeric
        | Reading::Bytes
        | Reading::Date
        | Reading::Time
        | Reading::Timestamp
        | Reading::Uuid => true,
        Reading::TimestampTz => is_utc,
        Reading::Text | Reading::Int | Reading::Float | Reading::TimeTz | Reading::Interval => {
            false
        }
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
        Reading::Numeric => decimal(py)?.call1((numeric(value)?,))?,
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
        Reading::Timestamp | Reading::TimestampTz => {
            let microseconds = i64::from_be_bytes(exactly(value)?);
            let (year, month, day) = calendar::date(microseconds.div_euclid(DAY)).ok_or(NO_DATE)?;
            let (hour, minute, second, microsecond) = clock(microseconds.rem_euclid(DAY))?;
            let zone = match reading {
                Reading::TimestampTz => Some(PyTzInfo::utc(py)?.to_owned()),
                _ => None,
            };
            PyDateTime::new(
                py,
                year,
                month,
                day,
                hour,
                minute,
                second,
                microsecond,
                zone.as_ref(),
            )?
            .into_any()
        }
        Reading::Uuid => uuid(py)?.call1((py.None(), exactly::<16>(value)?.as_slice()))?,
        Reading::Text | Reading::Int | Reading::Float | Reading::TimeTz | Reading::Interval => {
            return Err(Unreadable::Text(
                "a value came as binary that was wanted as text",
            ));
        }
    })
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

const NO_NUMERIC: Unreadable = Unreadable::Text("the server sent a numeric that cannot be read");

/// The text of a numeric: groups of four digits, of which the first ones have a weight, and a scale.
fn numeric(value: &[u8]) -> Result<String, Unreadable> {
    let mut words = value.chunks_exact(2).map(|pair| {
        u16::from_be_bytes([
            pair.first().copied().unwrap_or(0),
            pair.get(1).copied().unwrap_or(0),
        ])
    });
    let mut word = || words.next().ok_or(NO_NUMERIC);
    let (count, weight, sign, scale) = (
        word()?,
        i16::from_ne_bytes(word()?.to_ne_bytes()),
        word()?,
        word()?,
    );
    let is_whole = value.len() == 8 + 2 * usize::from(count);
    match sign {
        0xC000 => return Ok("NaN".to_owned()),
        0xD000 => return Ok("Infinity".to_owned()),
        0xF000 => return Ok("-Infinity".to_owned()),
        0 | 0x4000 if is_whole => {}
        _ => return Err(NO_NUMERIC),
    }
    let digits = value.get(8..).unwrap_or_default();
    let group = |at: i32| -> u16 {
        usize::try_from(at)
            .ok()
            .and_then(|at| digits.get(2 * at..2 * at + 2))
            .and_then(|pair| pair.try_into().ok())
            .map_or(0, u16::from_be_bytes)
    };
    if (0..i32::from(count)).any(|at| group(at) > 9_999) {
        return Err(NO_NUMERIC);
    }
    let weight = i32::from(weight);
    let mut text = Vec::with_capacity(12 + 4 * usize::from(count) + usize::from(scale));
    if sign == 0x4000 {
        text.push(b'-');
    }
    let begin = text.len();
    for at in 0..=weight {
        four(group(at), &mut text);
    }
    let zeros = text.iter().skip(begin).take_while(|digit| **digit == b'0');
    let zeros = zeros.count();
    text.drain(begin..begin + zeros);
    if text.len() == begin {
        text.push(b'0');
    }
    if scale > 0 {
        text.push(b'.');
        let end = text.len() + usize::from(scale);
        let mut at = weight + 1;
        while text.len() < end {
            four(group(at), &mut text);
            at += 1;
        }
        text.truncate(end);
    }
    String::from_utf8(text).map_err(|_| NO_NUMERIC)
}

/// Appends four digits.
fn four(group: u16, text: &mut Vec<u8>) {
    let digit = |number: u16| b'0' + u8::try_from(number % 10).unwrap_or(0);
    text.extend_from_slice(&[
        digit(group / 1000),
        digit(group / 100),
        digit(group / 10),
        digit(group),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn a_numeric_has_the_digits_of_its_groups() {
        let shown = |words_of: &[u16]| numeric(&words(words_of)).ok();
        assert_eq!(shown(&[0, 0, 0, 0]).as_deref(), Some("0"));
        assert_eq!(shown(&[0, 0, 0, 2]).as_deref(), Some("0.00"));
        assert_eq!(shown(&[2, 0, 0, 3, 1, 5000]).as_deref(), Some("1.500"));
        assert_eq!(
            shown(&[1, 2, 0x4000, 0, 12]).as_deref(),
            Some("-1200000000")
        );
        assert_eq!(shown(&[1, 0xFFFE, 0, 8, 12]).as_deref(), Some("0.00000012"));
        assert_eq!(shown(&[0, 0, 0xC000, 0]).as_deref(), Some("NaN"));
        assert_eq!(shown(&[1, 0, 0, 0]), None);
        assert_eq!(shown(&[1, 0, 0, 0, 10_000]), None);
        assert_eq!(shown(&[0, 0, 1, 0]), None);
    }
}
