//! What tells the answer to a request from each other answer of the same form.
//!
//! No message of an answer repeats a word of its question: a stray one that has the tag, the columns and the number of
//! rows that are due cannot be told from the true one. So each request has some messages among its own that change
//! nothing, and each of which is answered: `Close` of a portal that there is not. How many there are ahead of all and
//! behind all differs from each of the requests before it, as far as [`CODES`] go. They cost no round trip, and no server
//! logs them.

/// How many requests in a row differ from each other.
const CODES: u8 = MOST * MOST;
/// The same for simple queries, which have place for marks ahead of them alone.
const CODES_OF_SIMPLE: u8 = 8;
const MOST: u8 = 5;
/// After so many both begin anew.
const ROUND: u8 = CODES * CODES_OF_SIMPLE;

/// Where in a request marks stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkPlace {
    /// Before all else: with at least one, no refusal that has lain on the way is taken for one of this request.
    Ahead,
    /// Between two statements of one request: they tell whose answer is whose.
    Between,
    /// Before `Sync`: with at least one, an answer is believed when it is there as a whole.
    Behind,
}

/// How many marks the present request has still to send.
#[derive(Debug, Default)]
pub(super) struct Marks {
    requests: u8,
    is_begun: bool,
    /// How many marks there were between the last two statements of one request.
    parts: u8,
    ahead: u8,
    between: u8,
    behind: u8,
}

impl Marks {
    /// Begins a request, unless one is begun; says whether it did.
    pub(super) fn begin(&mut self, is_simple: bool) -> bool {
        if std::mem::replace(&mut self.is_begun, true) {
            return false;
        }
        self.requests = (self.requests + 1) % ROUND;
        let code = self.requests;
        // Each of both differs from that of the request before.
        (self.ahead, self.behind) = if is_simple {
            (1 + code % CODES_OF_SIMPLE, 0)
        } else {
            (1 + code % MOST, 1 + (code / MOST + code) % MOST)
        };
        true
    }

    /// Another statement of the same request follows, which has another number of marks ahead of it than the one before.
    pub(super) fn part(&mut self) {
        self.parts = self.parts % MOST + 1;
        self.between = self.parts;
    }

    /// The request is written to its end.
    pub(super) fn end(&mut self) {
        self.is_begun = false;
    }

    /// Takes those of a place. There are none a second time.
    pub(super) fn take(&mut self, place: MarkPlace) -> u8 {
        std::mem::take(match place {
            MarkPlace::Ahead => &mut self.ahead,
            MarkPlace::Between => &mut self.between,
            MarkPlace::Behind => &mut self.behind,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn of_so_many_requests_in_a_row_no_two_have_the_same_marks() {
        for (is_simple, codes) in [(false, CODES), (true, CODES_OF_SIMPLE)] {
            let mut marks = Marks::default();
            let mut all = Vec::new();
            for _ in 0..1000 {
                assert!(marks.begin(is_simple));
                assert!(!marks.begin(is_simple));
                all.push((marks.take(MarkPlace::Ahead), marks.take(MarkPlace::Behind)));
                assert_eq!(marks.take(MarkPlace::Ahead), 0);
                marks.end();
            }
            for some in all.windows(usize::from(codes)) {
                assert_eq!(some.iter().collect::<HashSet<_>>().len(), some.len());
            }
            for pair in all.windows(2) {
                assert!(pair[0].0 != pair[1].0 && (is_simple || pair[0].1 != pair[1].1));
            }
            assert!(
                all.iter()
                    .all(|(ahead, behind)| *ahead > 0 && (is_simple || *behind > 0))
            );
        }
    }
}
