//! COPY, in both directions, as the session sees it.
//!
//! What ends the request is asked for once the server has begun or refused the COPY: whatever is sent behind one from
//! the client is passed over, so each COPY has exactly one Sync.

use super::{Copying, Due, Event, Misfit, Shape, WireSession};
use crate::wire::incoming::Frame;
use crate::wire::outgoing::{self, ParameterList, StatementName};
use crate::wire::verb;

/// What a COPY is like, as the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CopyShape {
    /// To the server.
    pub(crate) is_in: bool,
    pub(crate) is_binary: bool,
    pub(crate) columns: usize,
}

/// A COPY that is under way.
#[derive(Debug)]
pub(crate) struct CopyState {
    pub(crate) shape: CopyShape,
    /// Which of the session's it is.
    pub(crate) number: u64,
    /// Bytes that are to become messages.
    pub(crate) unsent: Vec<u8>,
    /// Whether the beginning of the binary format has been written, or read.
    pub(crate) has_header: bool,
    /// Messages that have come.
    messages: i64,
}

impl WireSession {
    /// Asks for a COPY. The text was checked.
    pub(crate) fn copy(&mut self, sql: &str) {
        self.parse(sql, &[]);
        let none = ParameterList::none();
        outgoing::bind(&mut self.outgoing, StatementName::Unnamed, &none, &[]);
        outgoing::execute(&mut self.outgoing);
        outgoing::flush(&mut self.outgoing);
        self.queue
            .extend([Due::Bound(Shape::Described), Due::Copied]);
    }

    /// The COPY that is under way.
    pub(crate) fn copy_state(&mut self) -> Option<&mut CopyState> {
        self.copy.as_mut()
    }

    /// Which one is under way; none where none is.
    pub(crate) fn copy_number(&self) -> Option<u64> {
        self.copy.as_ref().map(|copy| copy.number)
    }

    /// Whether one is under way, on a session that is in step.
    pub(crate) fn is_copying(&self) -> bool {
        self.copy.is_some() && self.end.is_none()
    }

    /// Has what is unsent sent.
    pub(crate) fn copy_data(&mut self) {
        if let Some(copy) = self.copy.as_mut().filter(|copy| !copy.unsent.is_empty()) {
            outgoing::copy_data(&mut self.outgoing, &copy.unsent);
            copy.unsent.clear();
        }
    }

    /// Says that all has been sent.
    pub(crate) fn copy_done(&mut self) {
        self.copying = None;
        outgoing::copy_done(&mut self.outgoing);
        self.sync();
    }

    /// Says that what was sent is not to be kept.
    pub(crate) fn copy_fail(&mut self, why: &str) {
        self.copying = Some(Copying::Refused);
        outgoing::copy_fail(&mut self.outgoing, why);
        self.sync();
    }

    pub(super) fn begin_copy(&mut self, frame: &Frame) -> Result<Event, Misfit> {
        if self.copy.is_some() {
            return Err(self.unasked(frame));
        }
        let is_in = frame.kind == b'G';
        let Some(shape) = shape(self.incoming.at(frame.body.clone()), is_in) else {
            return Err(self.garbled(frame));
        };
        self.copies += 1;
        self.copy = Some(CopyState {
            shape,
            number: self.copies,
            unsent: Vec::new(),
            has_header: false,
            messages: 0,
        });
        if is_in {
            self.copying = Some(Copying::In);
        } else {
            self.copying = Some(Copying::Out);
            self.sync();
        }
        Ok(Event::Copying(shape))
    }

    pub(super) fn copied(&mut self, frame: &Frame) -> Event {
        if let Some(copy) = &mut self.copy {
            copy.messages += 1;
        }
        Event::CopyData(frame.body.clone())
    }

    /// Whether as many rows have come as the server says: each has a message of its own, and beside them there is a
    /// line of names or the end of the binary format.
    pub(super) fn check_copied(&self, tag: &str) -> Result<(), Misfit> {
        let Some(copy) = self.copy.as_ref().filter(|copy| !copy.shape.is_in) else {
            return Ok(());
        };
        let more = verb::rows(tag).map(|rows| copy.messages - rows);
        if more.is_none_or(|more| more == 0 || more == 1) {
            return Ok(());
        }
        Err(self.misfit(&format!(
            "{} messages of a COPY, and then that it were another number of rows",
            copy.messages
        )))
    }
}

/// Reads how a COPY begins: the format of all, and of each column, which is the same.
fn shape(body: &[u8], is_in: bool) -> Option<CopyShape> {
    let (format, rest) = body.split_first()?;
    let (count, rest) = rest.split_first_chunk()?;
    let columns = usize::from(u16::from_be_bytes(*count));
    (*format <= 1 && rest.len() == 2 * columns).then_some(CopyShape {
        is_in,
        is_binary: *format == 1,
        columns,
    })
}
