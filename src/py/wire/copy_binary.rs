//! Values of a COPY's binary format, both ways: the types whose form there is simple. Others travel in the text format.
//!
//! Long, because it is one table: how each type is written and read.

use std::fmt::Write;

use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDate, PyDateAccess, PyDateTime, PyDelta, PyDeltaAccess, PyFloat, PyInt,
    PyString, PyTime, PyTimeAccess, PyTzInfo,
};

use super::copy_text::text;
use super::error::unsent;
use super::oids;
use super::parameters::{bytes_of, decimal, uuid};
use super::values::Decoder;
use crate::wire::failure::FailureKind;

const JSONB: u32 = 3802;
/// Those whose binary form is their text: "char", name, text, json, xml, unknown, char, varchar.
const TEXTS: [u32; 8] = [18, 19, 25, 114, 142, 705, 1042, 1043];
const MICROSECONDS: i64 = 1_000_000;
const DAY: i64 = 86_400 * MICROSECONDS;
/// The days from 0000-03-01 to 2000-01-01.
const EPOCH: i64 = 730_425;

/// Appends a value as a type has it.
#[allow(clippy::too_many_lines, reason = "it is one table")]
pub(super) fn write(
    out: &mut Vec<u8>,
    value: &Bound<'_, PyAny>,
    oid: u32,
    adapt: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let py = value.py();
    let unfit = |what: &str| {
        let kind = value.get_type();
        let name = kind
            .name()
            .map_or_else(|_| "?".into(), |name| name.to_string());
        let what = format!("a value of type {name} cannot be written as {what}");
        unsent(py, FailureKind::Data, what)
    };
    let number = |what: &str| value.extract::<i64>().map_err(|_| unfit(what));
    match oid {
        oids::BOOL => {
            let truth = value.cast::<PyBool>().map_err(|_| unfit("a bool"))?;
            out.push(u8::from(truth.is_true()));
        }
        oids::INT2 => {
            let number =
                i16::try_from(number("an int2")?).map_err(|_| unfit("an int2: it is too great"))?;
            out.extend_from_slice(&number.to_be_bytes());
        }
        oids::INT4 => {
            let number =
                i32::try_from(number("an int4")?).map_err(|_| unfit("an int4: it is too great"))?;
            out.extend_from_slice(&number.to_be_bytes());
        }
        oids::INT8 => out.extend_from_slice(&number("an int8")?.to_be_bytes()),
        26 => {
            let number =
                u32::try_from(number("an oid")?).map_err(|_| unfit("an oid: it is too great"))?;
            out.extend_from_slice(&number.to_be_bytes());
        }
        700 => {
            #[allow(
                clippy::cast_possible_truncation,
                reason = "the type has no more digits"
            )]
            let number = value.extract::<f64>().map_err(|_| unfit("a float4"))? as f32;
            out.extend_from_slice(&number.to_be_bytes());
        }
        oids::FLOAT8 => {
            let number = value.extract::<f64>().map_err(|_| unfit("a float8"))?;
            out.extend_from_slice(&number.to_be_bytes());
        }
        oids::BYTEA => out.extend_from_slice(&bytes_of(value).map_err(|_| unfit("a bytea"))?),
        oids::UUID => {
            if !value.is_instance(uuid(py)?)? {
                return Err(unfit("a uuid"));
            }
            let bytes = value.getattr("bytes")?;
            out.extend_from_slice(bytes.cast::<PyBytes>().map_err(PyErr::from)?.as_bytes());
        }
        oids::DATE => {
            let day = value.cast::<PyDate>().map_err(|_| unfit("a date"))?;
            let days = i32::try_from(days(day)).map_err(|_| unfit("a date"))?;
            out.extend_from_slice(&days.to_be_bytes());
        }
        oids::TIME => {
            let time = value.cast::<PyTime>().map_err(|_| unfit("a time"))?;
            if !value.getattr("tzinfo")?.is_none() {
                return Err(unfit(
                    "a time, which has no time zone: take timetz in the text format",
                ));
            }
            out.extend_from_slice(&clock(time).to_be_bytes());
        }
        oids::TIMESTAMP | oids::TIMESTAMPTZ => {
            let moment = value
                .cast::<PyDateTime>()
                .map_err(|_| unfit("a timestamp"))?;
            let offset = value.call_method0("utcoffset")?;
            let mut microseconds = days(moment) * DAY + clock(moment);
            match (offset.cast::<PyDelta>(), oid) {
                (Ok(offset), oids::TIMESTAMPTZ) => microseconds -= delta(offset),
                (Err(_), oids::TIMESTAMP) => {}
                (Ok(_), _) => {
                    return Err(unfit(
                        "a timestamp: it has a time zone, so its type is timestamptz",
                    ));
                }
                (Err(_), _) => return Err(unfit("a timestamptz: it has no time zone")),
            }
            out.extend_from_slice(&microseconds.to_be_bytes());
        }
        oids::INTERVAL => {
            let length = value.cast::<PyDelta>().map_err(|_| unfit("an interval"))?;
            let seconds = i64::from(length.get_seconds()) * MICROSECONDS;
            let microseconds = seconds + i64::from(length.get_microseconds());
            out.extend_from_slice(&microseconds.to_be_bytes());
            out.extend_from_slice(&length.get_days().to_be_bytes());
            out.extend_from_slice(&0i32.to_be_bytes());
        }
        oids::NUMERIC => {
            if !value.is_instance(decimal(py)?)? && !value.is_exact_instance_of::<PyInt>() {
                return Err(unfit("a numeric: give a Decimal"));
            }
            let text = py.import("builtins")?.getattr("format")?;
            let text = if value.is_exact_instance_of::<PyInt>() {
                value.str()?
            } else {
                text.call1((value, "f"))?
                    .cast_into::<PyString>()
                    .map_err(PyErr::from)?
            };
            numeric(&text.to_cow()?, out).ok_or_else(|| unfit("a numeric: it is too great"))?;
        }
        JSONB => {
            out.push(1);
            text(value, adapt, true, out)?;
        }
        oid if TEXTS.contains(&oid) => {
            text(value, adapt, true, out)?;
        }
        _ => return Err(unknown(py, oid)),
    }
    Ok(())
}

fn unknown(py: Python<'_>, oid: u32) -> PyErr {
    let what = format!(
        "the driver does not know the binary form of the type {oid}: copy it in the text format, without FORMAT BINARY, or \
         leave its column as bytes"
    );
    unsent(py, FailureKind::Unsupported, what)
}

/// Reads a value of a type; `decoder` reads its text, where that is its binary form.
#[allow(clippy::too_many_lines, reason = "it is one table")]
pub(super) fn read<'py>(
    py: Python<'py>,
    value: &[u8],
    oid: u32,
    decoder: &Decoder<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let unfit = || {
        let what = format!(
            "a value of {} bytes is none of the type {oid}, which set_types() was given",
            value.len()
        );
        unsent(py, FailureKind::Data, what)
    };
    let outside = || {
        let what = "a date or timestamp has no value in Python: it is infinite, before the year 1, or after the year 9999";
        unsent(py, FailureKind::Data, what)
    };
    let int2 = || {
        value
            .try_into()
            .map(i16::from_be_bytes)
            .map_err(|_| unfit())
    };
    let int4 = || {
        value
            .try_into()
            .map(i32::from_be_bytes)
            .map_err(|_| unfit())
    };
    let int8 = || {
        value
            .try_into()
            .map(i64::from_be_bytes)
            .map_err(|_| unfit())
    };
    Ok(match oid {
        oids::BOOL => match value {
            [truth] => PyBool::new(py, *truth != 0).to_owned().into_any(),
            _ => return Err(unfit()),
        },
        oids::INT2 => PyInt::new(py, int2()?).into_any(),
        oids::INT4 => PyInt::new(py, int4()?).into_any(),
        oids::INT8 => PyInt::new(py, int8()?).into_any(),
        26 => PyInt::new(py, u32::from_be_bytes(int4()?.to_be_bytes())).into_any(),
        700 => {
            let number = f32::from_be_bytes(int4()?.to_be_bytes());
            // As its text has it: the shortest that stands for the number.
            let number: f64 = number.to_string().parse().map_err(|_| unfit())?;
            PyFloat::new(py, number).into_any()
        }
        oids::FLOAT8 => PyFloat::new(py, f64::from_be_bytes(int8()?.to_be_bytes())).into_any(),
        oids::BYTEA => PyBytes::new(py, value).into_any(),
        oids::UUID => {
            let keywords = pyo3::types::PyDict::new(py);
            keywords.set_item("bytes", PyBytes::new(py, value))?;
            uuid(py)?.call((), Some(&keywords)).map_err(|_| unfit())?
        }
        oids::DATE => {
            let (year, month, day) = civil(int4()?.into()).ok_or_else(outside)?;
            PyDate::new(py, year, month, day)?.into_any()
        }
        oids::TIME => {
            let (hour, minute, second, microsecond) = split(int8()?).ok_or_else(outside)?;
            PyTime::new(py, hour, minute, second, microsecond, None)?.into_any()
        }
        oids::TIMESTAMP | oids::TIMESTAMPTZ => {
            let moment = int8()?;
            let (year, month, day) = civil(moment.div_euclid(DAY)).ok_or_else(outside)?;
            let (hour, minute, second, microsecond) =
                split(moment.rem_euclid(DAY)).ok_or_else(outside)?;
            let utc = PyTzInfo::utc(py)?.to_owned();
            let zone = (oid == oids::TIMESTAMPTZ).then_some(&utc);
            PyDateTime::new(
                py,
                year,
                month,
                day,
                hour,
                minute,
                second,
                microsecond,
                zone,
            )?
            .into_any()
        }
        oids::INTERVAL => {
            let (microseconds, rest) = value.split_first_chunk().ok_or_else(unfit)?;
            let (days, months) = rest.split_first_chunk().ok_or_else(unfit)?;
            let months: [u8; 4] = months.try_into().map_err(|_| unfit())?;
            let microseconds = i64::from_be_bytes(*microseconds);
            let months = i64::from(i32::from_be_bytes(months));
            // A month has 30 days, a year 365: as the text format is read.
            let days = i64::from(i32::from_be_bytes(*days)) + months / 12 * 365 + months % 12 * 30;
            let days = days + microseconds.div_euclid(DAY);
            let rest = microseconds.rem_euclid(DAY);
            let part = |number: i64| i32::try_from(number).map_err(|_| unfit());
            PyDelta::new(
                py,
                part(days)?,
                part(rest / MICROSECONDS)?,
                part(rest % MICROSECONDS)?,
                true,
            )
            .map_err(|_| outside())?
            .into_any()
        }
        oids::NUMERIC => {
            let text = numeric_text(value).ok_or_else(unfit)?;
            decimal(py)?.call1((text,))?
        }
        JSONB => decoder
            .read(py, value.strip_prefix(&[1]).ok_or_else(unfit)?)
            .map_err(|unreadable| unreadable.raised(py))?,
        oid if TEXTS.contains(&oid) => decoder
            .read(py, value)
            .map_err(|unreadable| unreadable.raised(py))?,
        _ => return Err(unknown(py, oid)),
    })
}

/// The days from 2000-01-01 to a date.
fn days(date: &impl PyDateAccess) -> i64 {
    // Years that begin in March end with the leap day.
    let month = i64::from(date.get_month());
    let year = i64::from(date.get_year()) - i64::from(month <= 2);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(date.get_day()) - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - EPOCH
}

/// The date of so many days from 2000-01-01; none where Python has none.
fn civil(days: i64) -> Option<(i32, u8, u8)> {
    let days = days.checked_add(EPOCH)?;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let year = i32::try_from(year)
        .ok()
        .filter(|year| (1..=9999).contains(year))?;
    Some((year, u8::try_from(month).ok()?, u8::try_from(day).ok()?))
}

fn clock(time: &impl PyTimeAccess) -> i64 {
    let minutes = i64::from(time.get_hour()) * 60 + i64::from(time.get_minute());
    (minutes * 60 + i64::from(time.get_second())) * MICROSECONDS + i64::from(time.get_microsecond())
}

/// Hours, minutes, seconds, microseconds of a day.
fn split(microseconds: i64) -> Option<(u8, u8, u8, u32)> {
    let seconds = microseconds.div_euclid(MICROSECONDS);
    let hour = u8::try_from(seconds / 3600)
        .ok()
        .filter(|hour| *hour < 24)?;
    let minute = u8::try_from(seconds / 60 % 60).ok()?;
    let second = u8::try_from(seconds % 60).ok()?;
    Some((
        hour,
        minute,
        second,
        u32::try_from(microseconds.rem_euclid(MICROSECONDS)).ok()?,
    ))
}

fn delta(delta: &Bound<'_, PyDelta>) -> i64 {
    let seconds = i64::from(delta.get_days()) * 86_400 + i64::from(delta.get_seconds());
    seconds * MICROSECONDS + i64::from(delta.get_microseconds())
}

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const MINUS_INFINITY: u16 = 0xF000;

/// Appends a numeric of a text without an exponent: groups of four digits.
fn numeric(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let special = match text {
        "Infinity" if is_negative => Some(MINUS_INFINITY),
        "Infinity" => Some(INFINITY),
        _ if text.contains("NaN") => Some(NAN),
        _ => None,
    };
    if let Some(sign) = special {
        for part in [0, 0, sign, 0] {
            out.extend_from_slice(&part.to_be_bytes());
        }
        return Some(());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole = whole.trim_start_matches('0');
    let mut digits = "0".repeat((4 - whole.len() % 4) % 4);
    digits.push_str(whole);
    let mut weight = i64::try_from(digits.len() / 4).ok()? - 1;
    digits.push_str(fraction);
    digits.push_str(&"0".repeat((4 - fraction.len() % 4) % 4));
    let mut groups = Vec::with_capacity(digits.len() / 4);
    for group in digits.as_bytes().chunks(4) {
        groups.push(std::str::from_utf8(group).ok()?.parse::<u16>().ok()?);
    }
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    weight -= i64::try_from(leading).ok()?;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    let sign = if is_negative && !groups.is_empty() {
        NEGATIVE
    } else {
        0
    };
    out.extend_from_slice(&u16::try_from(groups.len()).ok()?.to_be_bytes());
    out.extend_from_slice(&i16::try_from(weight).ok()?.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(
        &u16::try_from(fraction.len())
            .ok()
            .filter(|scale| *scale < 0x4000)?
            .to_be_bytes(),
    );
    for group in groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
    Some(())
}

/// The text of a numeric; none where it is not one.
fn numeric_text(value: &[u8]) -> Option<String> {
    let mut parts = value.chunks_exact(2).map(|part| match part {
        [high, low] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    });
    let (count, weight) = (parts.next()?, parts.next()?);
    let (sign, scale) = (parts.next()?, parts.next()?);
    let groups: Vec<u16> = parts.collect();
    if groups.len() != usize::from(count) || value.len() % 2 != 0 {
        return None;
    }
    match sign {
        NAN => return Some("NaN".to_owned()),
        INFINITY => return Some("Infinity".to_owned()),
        MINUS_INFINITY => return Some("-Infinity".to_owned()),
        _ => {}
    }
    let weight = i64::from(i16::from_be_bytes(weight.to_be_bytes()));
    let group = |at: i64| {
        usize::try_from(weight - at)
            .ok()
            .and_then(|at| groups.get(at))
            .copied()
            .unwrap_or(0)
    };
    let mut text = String::new();
    for at in (0..=weight.max(0)).rev() {
        write!(text, "{:04}", group(at)).ok()?;
    }
    let mut text = text.trim_start_matches('0').to_owned();
    if text.is_empty() {
        text.push('0');
    }
    if scale > 0 {
        let mut fraction = String::new();
        for at in 1..=i64::from(scale.div_ceil(4)) {
            write!(fraction, "{:04}", group(-at)).ok()?;
        }
        text.push('.');
        text.push_str(fraction.get(..usize::from(scale))?);
    }
    Some(if sign == NEGATIVE {
        format!("-{text}")
    } else {
        text
    })
}
