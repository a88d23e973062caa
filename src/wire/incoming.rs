//! Bytes that have arrived, and the messages in them. Grows with what comes, never with what a length announces.

use std::ops::Range;

/// One message: its kind, and where its body lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) body: Range<usize>,
}

/// The buffer.
#[derive(Debug)]
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Whether the last read filled all the room there was: more waits there.
    is_filled: bool,
}

/// As much as one read asks for at least.
const LEAST: usize = 8 << 10;
/// As much as one asks for where more and more comes. What is read at once holds up other tasks of a loop.
const GREAT: usize = 32 << 10;
/// What is kept by a connection that rests.
const KEPT: usize = 16 << 10;
const HEADER: usize = 5;
const LENGTH: usize = 4;
/// No server sends a longer row: it cannot hold one.
const LONGEST_ROW: usize = (1 << 30) + (1 << 20);
/// Nor anything else as long as this.
const LONGEST: usize = 64 << 20;

impl Incoming {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; LEAST],
            start: 0,
            end: 0,
            is_filled: false,
        }
    }

    /// Room for more. What [`Incoming::next`] has told is not there any more afterwards.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        if std::mem::take(&mut self.is_filled) && self.bytes.len() < GREAT {
            let doubled = self.bytes.len() * 2;
            self.bytes.resize(doubled, 0);
        }
        if self.bytes.len() - self.end < LEAST / 2 {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            if self.bytes.len() - self.end < LEAST / 2 {
                let doubled = self.bytes.len() * 2;
                self.bytes.resize(doubled, 0);
            }
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Says that so many bytes have come into the room.
    pub(crate) fn received(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
        self.is_filled = self.end == self.bytes.len();
    }

    /// Takes the next message, if it is a row that is there as a whole. What is wrong with it [`Incoming::next`] says.
    #[inline]
    pub(crate) fn next_row(&mut self) -> Option<Frame> {
        let is_row = self.start < self.end && self.bytes.get(self.start) == Some(&b'D');
        if is_row {
            self.next().ok().flatten()
        } else {
            None
        }
    }

    /// Takes the next message, if it is there as a whole.
    ///
    /// # Errors
    ///
    /// Its length cannot be one.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, String> {
        let there = self.bytes.get(self.start..self.end).unwrap_or_default();
        let Some((&kind, rest)) = there.split_first() else {
            return Ok(None);
        };
        let Some((said, rest)) = rest.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let most = if matches!(kind, b'D' | b'd') {
            LONGEST_ROW
        } else {
            LONGEST
        };
        let said = u32::from_be_bytes(*said);
        let length = usize::try_from(said).unwrap_or(usize::MAX);
        if !(LENGTH..=most).contains(&length) {
            return Err(format!(
                "a message of kind {} says that it is {said} bytes long",
                char::from(kind).escape_default()
            ));
        }
        if rest.len() < length - LENGTH {
            return Ok(None);
        }
        let begin = self.start + HEADER;
        let end = begin + length - LENGTH;
        self.start = end;
        Ok(Some(Frame {
            kind,
            body: begin..end,
        }))
    }

    /// The bytes of a message's body.
    #[inline]
    pub(crate) fn at(&self, body: Range<usize>) -> &[u8] {
        self.bytes.get(body).unwrap_or_default()
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Gives memory back that a great answer took.
    pub(crate) fn rest(&mut self) {
        if self.is_empty() && self.bytes.len() > KEPT {
            *self = Self::new();
        }
    }
}
