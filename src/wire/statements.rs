//! The statements that a session's server keeps prepared: those that are asked often, and not too many of them.
//!
//! One is known by the number of its text and the types of its parameters. What is asked less often than the threshold
//! is counted and no more. Each has a name that no other has had in the session, so that nothing is ever taken for what
//! had its name before. A name counts as the server's own only from its answer on.

use std::sync::Arc;

use super::column::Columns;
use super::statement_text::StatementText;

/// A statement that the server keeps.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) name: u64,
    /// The columns of its result; none where it has none.
    pub(crate) columns: Option<Arc<Columns>>,
}

/// How a statement is to be asked.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// Without a name.
    Once,
    /// Under this name, which is to be the server's from then on.
    Prepare(u64),
    /// The server has it.
    Ready(Arc<Prepared>),
}

#[derive(Debug)]
enum State {
    Counted,
    /// It was sent; the server has not answered yet.
    Asked(u64),
    /// The server has it; its columns are not known yet.
    Parsed(u64),
    Ready(Arc<Prepared>),
}

impl State {
    fn name(&self) -> Option<u64> {
        match self {
            Self::Counted => None,
            Self::Asked(name) | Self::Parsed(name) => Some(*name),
            Self::Ready(prepared) => Some(prepared.name),
        }
    }
}

#[derive(Debug)]
struct Known {
    number: u64,
    oids: Box<[u32]>,
    uses: u32,
    /// When it was last asked, in requests.
    last: u64,
    state: State,
}

/// Those of one session.
#[derive(Debug)]
pub(crate) struct Statements {
    /// How often a statement is asked before it is prepared; none are where there is no number.
    threshold: Option<u32>,
    /// Whether what is behind this session stays the same between two requests; none where that is not known yet.
    is_direct: Option<bool>,
    known: Vec<Known>,
    now: u64,
    names: u64,
    /// What the server is to forget.
    retired: Vec<u64>,
    /// A statement was refused because the server has it no more, or not as it was; nothing of it was done.
    is_stale: bool,
    /// What there is was changed in this transaction: if that is rolled back, it is changed again.
    has_changed: bool,
}

/// As psycopg has it.
pub(crate) const THRESHOLD: u32 = 5;
/// How many are prepared at most, and how many are counted.
const MOST_PREPARED: usize = 100;
const MOST_KNOWN: usize = 256;
/// A type has a number of four bytes, and a statement may have thousands of parameters.
const MOST_OIDS: usize = 256;

impl Statements {
    pub(crate) fn new() -> Self {
        Self {
            threshold: Some(THRESHOLD),
            is_direct: None,
            known: Vec::new(),
            now: 0,
            names: 0,
            retired: Vec::new(),
            is_stale: false,
            has_changed: false,
        }
    }

    /// The threshold.
    pub(crate) fn threshold(&self) -> Option<u32> {
        self.threshold
    }

    /// Sets it. Without one, what was prepared is given up.
    pub(crate) fn set_threshold(&mut self, threshold: Option<u32>) {
        self.threshold = threshold;
        if threshold.is_none() {
            self.retire_all();
            self.known.clear();
        }
    }

    /// Says whether a session is always the same, of one server.
    pub(crate) fn set_direct(&mut self, is_direct: bool) {
        self.is_direct = Some(is_direct);
    }

    /// Whether it must be known now if the session is always the same: a statement has come to the threshold.
    pub(crate) fn must_know(&self, text: &StatementText, oids: &[u32]) -> bool {
        self.is_direct.is_none()
            && self.threshold.is_some_and(|threshold| {
                threshold == 0 && text.number.is_some() && text.is_preparable
                    || self
                        .find(text, oids)
                        .and_then(|at| self.known.get(at))
                        .is_some_and(|known| known.uses >= threshold)
            })
    }

    fn find(&self, text: &StatementText, oids: &[u32]) -> Option<usize> {
        let number = text.number?;
        self.known
            .iter()
            .position(|known| known.number == number && *known.oids == *oids)
    }

    /// Counts a statement that is about to be asked, and says how.
    pub(crate) fn plan(&mut self, text: &StatementText, oids: &[u32]) -> Plan {
        let Some(threshold) = self.threshold else {
            return Plan::Once;
        };
        let Some(number) = text.number.filter(|_| text.is_preparable) else {
            return Plan::Once;
        };
        if self.is_direct == Some(false) || oids.len() > MOST_OIDS {
            return Plan::Once;
        }
        self.now += 1;
        let at = self.find(text, oids).unwrap_or_else(|| {
            self.make_room();
            self.known.push(Known {
                number,
                oids: oids.into(),
                uses: 0,
                last: 0,
                state: State::Counted,
            });
            self.known.len() - 1
        });
        // What is asked over and over stands in front.
        let at = if at > 0 {
            self.known.swap(at, at / 2);
            at / 2
        } else {
            at
        };
        let may_prepare = self.is_direct == Some(true);
        let Some(known) = self.known.get_mut(at) else {
            return Plan::Once;
        };
        known.last = self.now;
        let is_often = known.uses >= threshold;
        known.uses = known.uses.saturating_add(1);
        match &known.state {
            State::Ready(prepared) => Plan::Ready(Arc::clone(prepared)),
            State::Counted if is_often && may_prepare => {
                self.names += 1;
                known.state = State::Asked(self.names);
                let name = self.names;
                self.keep_to_the_most();
                Plan::Prepare(name)
            }
            _ => Plan::Once,
        }
    }

    /// Leaves those out that were not asked for longest.
    fn make_room(&mut self) {
        if self.known.len() < MOST_KNOWN {
            return;
        }
        self.known
            .sort_unstable_by_key(|known| u64::MAX - known.last);
        let left_out = self.known.drain(MOST_KNOWN / 4 * 3..);
        let names = left_out.filter_map(|known| known.state.name());
        self.retired.extend(names);
    }

    fn keep_to_the_most(&mut self) {
        let prepared = |known: &&mut Known| known.state.name().is_some();
        if self.known.iter_mut().filter(|k| prepared(k)).count() <= MOST_PREPARED {
            return;
        }
        let oldest = self
            .known
            .iter_mut()
            .filter(prepared)
            .min_by_key(|known| known.last);
        if let Some(oldest) = oldest {
            self.retired.extend(oldest.state.name());
            oldest.state = State::Counted;
            oldest.uses = 0;
        }
    }

    fn named(&mut self, name: u64) -> Option<&mut Known> {
        self.known
            .iter_mut()
            .find(|known| known.state.name() == Some(name))
    }

    // --- what the server has answered ---------------------------------------------------------------------------------

    /// The server has it.
    pub(crate) fn parsed(&mut self, name: u64) {
        if let Some(known) = self.named(name) {
            known.state = State::Parsed(name);
        }
    }

    /// Its columns are known too.
    pub(crate) fn described(&mut self, name: u64, columns: Option<Arc<Columns>>) {
        if let Some(known) = self.named(name) {
            known.state = State::Ready(Arc::new(Prepared { name, columns }));
        }
    }

    /// The server does not have it.
    pub(crate) fn missing(&mut self, name: u64) {
        if let Some(known) = self.named(name) {
            known.state = State::Counted;
            known.uses = 0;
        }
    }

    /// It is of no use any more, and the server is to forget it.
    pub(crate) fn retire(&mut self, name: u64) {
        self.missing(name);
        self.retired.push(name);
    }

    /// The server has forgotten all of them.
    pub(crate) fn forget(&mut self) {
        self.retired.clear();
        for known in &mut self.known {
            known.state = State::Counted;
        }
    }

    fn retire_all(&mut self) {
        for known in &mut self.known {
            self.retired.extend(known.state.name());
            known.state = State::Counted;
        }
    }

    /// A statement has come to its end. Where the session has changed what there is, a result may have other columns
    /// than before, which in the middle of a transaction would be an error.
    pub(crate) fn complete(&mut self, tag: &str) {
        let begins = |words: &[&str]| words.iter().any(|words| tag.starts_with(words));
        match tag.as_bytes().first() {
            Some(b'D') if begins(&["DISCARD ALL", "DEALLOCATE"]) => self.forget(),
            Some(b'A' | b'C' | b'D') if begins(&["ALTER ", "CREATE ", "DROP "]) => {
                self.has_changed = true;
                self.retire_all();
            }
            Some(b'R') if self.has_changed && tag == "ROLLBACK" => self.retire_all(),
            Some(b'B') if tag == "BEGIN" => self.has_changed = false,
            _ => {}
        }
    }

    /// A statement was refused for want of what it was prepared to be; nothing of it was done.
    pub(crate) fn stale(&mut self, name: u64, is_gone: bool) {
        if is_gone {
            self.forget();
        } else {
            self.retire(name);
        }
        self.is_stale = true;
    }

    /// Whether that was so of the last request.
    pub(crate) fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.is_stale)
    }

    /// What the server is to be told to forget.
    pub(crate) fn take_retired(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.retired)
    }

    /// How many the server has.
    pub(crate) fn count(&self) -> usize {
        let has = |known: &&Known| matches!(known.state, State::Parsed(_) | State::Ready(_));
        self.known.iter().filter(has).count()
    }
}
