//! A tally of what a server sends beside its answers: notices, which are dropped, and parameters, which the driver
//! keeps for as long as the session lives, one for each name.

use super::stream::Meter;

const HEADER: usize = 5;
const LENGTH: usize = 4;
const NOTICE: u8 = b'N';
const PARAMETER: u8 = b'S';

/// Counts messages of a session, whatever pieces they come in. Trusts no length: a wrong one is counted wrongly.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The beginning of a message.
    header: [u8; HEADER],
    seen: usize,
    /// Bytes of its body that have not come yet.
    left: usize,
}

impl Tally {
    /// Counts what has come.
    pub(crate) fn look(&mut self, mut new: &[u8], meter: &Meter) {
        while !new.is_empty() {
            let skipped = self.left.min(new.len());
            self.left -= skipped;
            new = new.get(skipped..).unwrap_or_default();
            while let (Some(place), Some((byte, rest))) =
                (self.header.get_mut(self.seen), new.split_first())
            {
                *place = *byte;
                self.seen += 1;
                new = rest;
            }
            if self.seen == HEADER {
                self.seen = 0;
                let [kind, length @ ..] = self.header;
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.left = length.saturating_sub(LENGTH);
                match kind {
                    NOTICE => meter.notice(),
                    PARAMETER => meter.keep(self.left),
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + LENGTH).unwrap();
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn messages_are_counted_in_whatever_pieces_they_come() {
        let all = [
            message(NOTICE, b"SNOTICE\0\0"),
            message(b'Z', b"N"),
            message(PARAMETER, b"a\0b\0"),
            message(NOTICE, b""),
            message(b'D', b"SSSSSNNNNN"),
            message(NOTICE, b"N"),
        ]
        .concat();
        for size in 1..all.len() {
            let (mut tally, meter) = (Tally::default(), Meter::default());
            for piece in all.chunks(size) {
                tally.look(piece, &meter);
            }
            assert_eq!(meter.take_notices(), 3, "in pieces of {size}");
            assert_eq!(meter.kept(), 4);
            assert_eq!(meter.take_notices(), 0);
        }
    }

    #[test]
    fn a_length_that_lies_does_no_harm() {
        let (mut tally, meter) = (Tally::default(), Meter::default());
        tally.look(b"N\xff\xff\xff\xffx", &meter);
        tally.look(b"S\0\0\0\0", &meter);
        assert_eq!((meter.take_notices(), meter.kept()), (1, 0));
        let mut tally = Tally::default();
        tally.look(b"N\0\0\0\0N\0\0\0\x04", &meter);
        assert_eq!(meter.take_notices(), 2);
    }
}
