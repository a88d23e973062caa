//! Rows of a COPY, in the text format (that of no options) and the binary one, both ways.

use std::io::Write;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyMapping, PyString, PyTuple};

use super::copy_binary;
use super::copy_text::{small, text};
use super::error::unsent;
use super::oids;
use super::parameters::text_of;
use super::values::Decoder;
use crate::wire::failure::FailureKind;
use crate::wire::session::CopyShape;

/// How the binary format begins: its name, no flags, nothing more.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Its name alone.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// How it ends.
pub(super) const TRAILER: &[u8] = &[0xff, 0xff];

type Adapt<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

/// Appends a row in the text format; says how many values it has.
pub(super) fn write_text(
    out: &mut Vec<u8>,
    row: &Bound<'_, PyAny>,
    adapt: Adapt<'_, '_>,
) -> PyResult<usize> {
    let mut columns = 0;
    let mut scratch = Vec::new();
    for value in values(row)? {
        let value = value?;
        if columns > 0 {
            out.push(b'\t');
        }
        columns += 1;
        if value.is_none() {
            out.extend_from_slice(b"\\N");
        } else if let Ok(text) = value.cast_exact::<PyString>() {
            escape(text_of(text)?.as_bytes(), out);
        } else if let Some(number) = small(&value) {
            write!(out, "{number}").map_err(PyErr::from)?;
        } else {
            scratch.clear();
            if text(&value, adapt, true, &mut scratch)? {
                escape(&scratch, out);
            } else {
                out.extend_from_slice(b"\\N");
            }
        }
    }
    out.push(b'\n');
    Ok(columns)
}

/// Appends a row in the binary format; says how many values it has.
pub(super) fn write_binary(
    out: &mut Vec<u8>,
    row: &Bound<'_, PyAny>,
    types: Option<&[u32]>,
    adapt: Adapt<'_, '_>,
) -> PyResult<usize> {
    let py = row.py();
    let types = types.ok_or_else(|| {
        let what = "rows in the binary format need their types: call copy.set_types(['int4', 'text', ...]) first, or \
                    leave FORMAT BINARY out";
        unsent(py, FailureKind::Usage, what)
    })?;
    out.extend_from_slice(&u16::try_from(types.len()).unwrap_or(u16::MAX).to_be_bytes());
    let mut columns = 0;
    for value in values(row)? {
        let value = value?;
        let Some(oid) = types.get(columns).copied() else {
            // Its caller compares the numbers.
            return Ok(columns + 1);
        };
        columns += 1;
        if value.is_none() {
            out.extend_from_slice(&(-1i32).to_be_bytes());
            continue;
        }
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        copy_binary::write(out, &value, oid, adapt)?;
        let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
        if let Some(place) = out.get_mut(at..at + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }
    Ok(columns)
}

fn values<'py>(row: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyIterator>> {
    let py = row.py();
    let is_text = row.is_instance_of::<PyString>() || row.is_instance_of::<PyBytes>();
    let found = if is_text { None } else { row.try_iter().ok() };
    found.ok_or_else(|| {
        let kind = row.get_type();
        let name = kind
            .name()
            .map_or_else(|_| "?".into(), |name| name.to_string());
        let what = format!("a row must be a sequence of values, not {name}");
        unsent(py, FailureKind::Usage, what)
    })
}

/// Appends a text as a value of the text format.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\\' | 8..=13)) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else {
            return;
        };
        out.push(b'\\');
        out.push(match byte {
            8 => b'b',
            9 => b't',
            10 => b'n',
            11 => b'v',
            12 => b'f',
            13 => b'r',
            other => *other,
        });
        rest = after;
    }
    out.extend_from_slice(rest);
}

/// Appends what a value of the text format stands for; false where that cannot be.
fn unescape(field: &[u8], out: &mut Vec<u8>) -> bool {
    let mut rest = field;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.get(1..).and_then(<[u8]>::split_first) else {
            return false;
        };
        out.push(match byte {
            b'b' => 8,
            b't' => 9,
            b'n' => 10,
            b'v' => 11,
            b'f' => 12,
            b'r' => 13,
            other => *other,
        });
        rest = after;
    }
    out.extend_from_slice(rest);
    true
}

/// Reads the rows of a COPY.
pub(super) struct RowReader<'a, 'py> {
    shape: CopyShape,
    types: Option<&'a [u32]>,
    decoders: Vec<Decoder<'py>>,
    /// Of a column whose type is not known.
    plain: Decoder<'py>,
}

impl<'a, 'py> RowReader<'a, 'py> {
    pub(super) fn new(
        shape: CopyShape,
        types: Option<&'a [u32]>,
        loaders: Option<&Bound<'py, PyMapping>>,
    ) -> PyResult<Self> {
        let decoders = match types {
            Some(types) => types
                .iter()
                .map(|oid| Decoder::of(*oid, loaders))
                .collect::<PyResult<_>>()?,
            None => Vec::new(),
        };
        Ok(Self {
            shape,
            types,
            decoders,
            plain: Decoder::of(oids::TEXT, None)?,
        })
    }

    /// Reads a message. None: it holds no row.
    pub(super) fn row(
        &self,
        py: Python<'py>,
        message: &[u8],
        has_header: &mut bool,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let found = if self.shape.is_binary {
            self.binary(py, message, has_header)?
        } else {
            self.text(py, message)?.map(Some)
        };
        found.ok_or_else(|| {
            let what = "what comes is no row of the text format or the binary one: read the bytes of another format \
                        (CSV, another DELIMITER) by read() or by iteration";
            unsent(py, FailureKind::Data, what)
        })
    }

    fn text(&self, py: Python<'py>, message: &[u8]) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let line = message.strip_suffix(b"\n").unwrap_or(message);
        let mut values = Vec::with_capacity(self.shape.columns);
        let mut plain = Vec::new();
        if self.shape.columns > 0 || !line.is_empty() {
            for (number, field) in line.split(|byte| *byte == b'\t').enumerate() {
                if field == b"\\N" {
                    values.push(py.None().into_bound(py));
                    continue;
                }
                let value = if field.contains(&b'\\') {
                    plain.clear();
                    if !unescape(field, &mut plain) {
                        return Ok(None);
                    }
                    plain.as_slice()
                } else {
                    field
                };
                let decoder = self.decoders.get(number).unwrap_or(&self.plain);
                let read = decoder.read(py, value);
                values.push(read.map_err(|unreadable| unreadable.raised(py))?);
            }
        }
        if values.len() != self.shape.columns {
            return Ok(None);
        }
        PyTuple::new(py, values).map(Some)
    }

    /// None: it cannot be read; none in that: it holds no row.
    #[allow(clippy::option_option, reason = "each has its meaning, said above")]
    fn binary(
        &self,
        py: Python<'py>,
        message: &[u8],
        has_header: &mut bool,
    ) -> PyResult<Option<Option<Bound<'py, PyTuple>>>> {
        let mut rest = message;
        if !std::mem::replace(has_header, true) {
            let body = rest.strip_prefix(SIGNATURE).and_then(|rest| {
                let (_flags, rest) = rest.split_first_chunk::<4>()?;
                let (length, rest) = rest.split_first_chunk()?;
                rest.get(usize::try_from(u32::from_be_bytes(*length)).ok()?..)
            });
            let Some(body) = body else { return Ok(None) };
            if body.is_empty() {
                return Ok(Some(None));
            }
            rest = body;
        }
        if rest == TRAILER {
            return Ok(Some(None));
        }
        let Some((count, mut rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        if usize::from(u16::from_be_bytes(*count)) != self.shape.columns {
            return Ok(None);
        }
        let mut values = Vec::with_capacity(self.shape.columns);
        for number in 0..self.shape.columns {
            let Some((length, after)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            let length = i32::from_be_bytes(*length);
            if length == -1 {
                values.push(py.None().into_bound(py));
                rest = after;
                continue;
            }
            let field = usize::try_from(length)
                .ok()
                .and_then(|length| after.split_at_checked(length));
            let Some((field, after)) = field else {
                return Ok(None);
            };
            rest = after;
            let oid = self.types.and_then(|types| types.get(number));
            values.push(match oid.zip(self.decoders.get(number)) {
                Some((oid, decoder)) => copy_binary::read(py, field, *oid, decoder)?,
                None => PyBytes::new(py, field).into_any(),
            });
        }
        if !rest.is_empty() {
            return Ok(None);
        }
        Ok(Some(Some(PyTuple::new(py, values)?)))
    }
}
