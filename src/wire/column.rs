//! The columns of a result, and the fields of its rows.

use std::any::Any;
use std::sync::OnceLock;

/// One column, as the server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnDescription {
    pub(crate) name: Vec<u8>,
    pub(crate) table: u32,
    pub(crate) number: i16,
    pub(crate) oid: u32,
    pub(crate) size: i16,
    pub(crate) modifier: i32,
}

/// The columns of a result, which a statement that is prepared has each time.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) list: Vec<ColumnDescription>,
    /// What whoever is told of them has made of them.
    pub(crate) beside: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Columns {
    pub(crate) fn new(list: Vec<ColumnDescription>) -> Self {
        Self {
            list,
            beside: OnceLock::new(),
        }
    }
}

/// Reads the body of a `RowDescription`; none when it is not one, or wants binary values that nobody asked for.
pub(crate) fn read(body: &[u8]) -> Option<Vec<ColumnDescription>> {
    let (count, mut rest) = body.split_first_chunk()?;
    let count = usize::from(u16::from_be_bytes(*count));
    let mut columns = Vec::with_capacity(count.min(rest.len() / 19));
    for _ in 0..count {
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (name, after) = rest.split_at(end);
        let (table, after) = after.get(1..)?.split_first_chunk()?;
        let (number, after) = after.split_first_chunk()?;
        let (oid, after) = after.split_first_chunk()?;
        let (size, after) = after.split_first_chunk()?;
        let (modifier, after) = after.split_first_chunk()?;
        let (format, after) = after.split_first_chunk()?;
        if u16::from_be_bytes(*format) != 0 {
            return None;
        }
        columns.push(ColumnDescription {
            name: name.to_vec(),
            table: u32::from_be_bytes(*table),
            number: i16::from_be_bytes(*number),
            oid: u32::from_be_bytes(*oid),
            size: i16::from_be_bytes(*size),
            modifier: i32::from_be_bytes(*modifier),
        });
        rest = after;
    }
    rest.is_empty().then_some(columns)
}

/// How many fields a row says it has.
pub(crate) fn fields_of(row: &[u8]) -> Option<usize> {
    let (count, _) = row.split_first_chunk()?;
    Some(usize::from(u16::from_be_bytes(*count)))
}

/// The fields of a row. Ends early where the row is not one: [`is_row`] tells.
#[inline]
pub(crate) fn fields(row: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = row.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk()?;
        let length = i32::from_be_bytes(*length);
        let Ok(length) = usize::try_from(length) else {
            rest = after;
            return Some(None);
        };
        let (value, after) = after.split_at_checked(length)?;
        rest = after;
        Some(Some(value))
    })
}

/// Whether a row holds exactly the fields that it announces.
#[inline]
pub(crate) fn is_row(row: &[u8], columns: usize) -> bool {
    let Some((count, mut rest)) = row.split_first_chunk() else {
        return false;
    };
    if usize::from(u16::from_be_bytes(*count)) != columns {
        return false;
    }
    for _ in 0..columns {
        let Some((length, after)) = rest.split_first_chunk() else {
            return false;
        };
        let length = i32::from_be_bytes(*length);
        rest = match usize::try_from(length) {
            Ok(length) => match after.get(length..) {
                Some(after) => after,
                None => return false,
            },
            Err(_) if length == -1 => after,
            Err(_) => return false,
        };
    }
    rest.is_empty()
}
