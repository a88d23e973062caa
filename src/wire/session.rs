//! The protocol as a state machine: what was asked, what has come, where a session stands. Knows no socket, no clock.
//!
//! Each message that must come stands in a queue from the moment its question is written. A message that does not fit
//! the first of them, and is none that may come at any time, puts the session out of step, for good: nothing that comes
//! after it is told.
//!
//! Long, because it is one idea: the table of what may follow what.

mod copying;
#[cfg(test)]
mod copying_tests;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::column::{self, Columns};
use super::incoming::{Frame, Incoming};
use super::kept::Kept;
use super::marks::{MarkPlace, Marks};
use super::outgoing::{self, ParameterList, StatementName};
use super::server_message::{Notification, ServerMessage};
use super::settings::Settings;
use super::statement_text::StatementText;
use super::statements::{Plan, Prepared, Statements};
use super::verb::{self, Tags};
pub(crate) use copying::{CopyShape, CopyState};

/// Where a session stands between two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// No transaction.
    Idle,
    /// In a transaction.
    Inside,
    /// In one that has failed.
    Failed,
}

impl Standing {
    fn read(body: &[u8]) -> Option<Self> {
        match body {
            b"I" => Some(Self::Idle),
            b"T" => Some(Self::Inside),
            b"E" => Some(Self::Failed),
            _ => None,
        }
    }
}

/// What has come.
#[derive(Debug)]
pub(crate) enum Event {
    /// A result begins.
    Columns(Arc<Columns>),
    /// A row of it; [`WireSession::at`] has its bytes until more are received.
    Row(Range<usize>),
    /// A statement has come to its end.
    Complete {
        /// What the server says of it.
        tag: String,
        /// A transaction that was to be committed was rolled back.
        is_refused: bool,
    },
    /// There was no statement.
    Empty,
    /// The server refuses.
    Refused(Box<ServerMessage>),
    /// A request has come to its end.
    Ready,
    /// A statement copies although none is to, which was refused.
    Copies,
    /// The COPY that was asked for begins.
    Copying(CopyShape),
    /// Bytes of it, from the server; [`WireSession::at`] has them until more are received.
    CopyData(Range<usize>),
    /// The server has ended the session.
    Ended(Box<ServerMessage>),
}

/// What came belongs to no request. Its text is for people, and holds no values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misfit(pub(crate) String);

/// A message that must come next.
#[derive(Debug)]
enum Due {
    /// The answers to marks: how many, and where these stand.
    Marked(u8, MarkPlace),
    /// Of the statement that has this name, if it has one.
    Parsed(Option<u64>),
    ParametersDescribed,
    Bound(Shape),
    Described(Option<u64>),
    /// A statement's columns, of which there are no rows yet.
    Foretold,
    Closed,
    Executed(Tags),
    /// The beginning of a COPY, then its end.
    Copied,
    /// Of a simple query: a result, or several, then the end.
    Queried {
        tags: Tags,
        several: bool,
    },
    Synced,
}

/// How the columns of what is bound become known.
#[derive(Debug)]
enum Shape {
    /// They are described behind it.
    Described,
    /// They are those of what was prepared.
    Prepared(Arc<Prepared>),
    /// They were foretold.
    Foretold,
}

impl Due {
    fn is_end(&self) -> bool {
        matches!(self, Self::Queried { .. } | Self::Synced)
    }

    fn shown(&self) -> &'static str {
        match self {
            Self::Marked(..) => "the answer to a mark",
            Self::Parsed(_) => "that a statement was parsed",
            Self::ParametersDescribed => "the parameters of a statement",
            Self::Bound(_) => "that a statement was bound",
            Self::Described(_) | Self::Foretold => "the columns of a result",
            Self::Closed => "that a statement was closed",
            Self::Executed(_) => "a row, or the end of a statement",
            Self::Copied => "a COPY",
            Self::Queried { .. } => "the result of a query",
            Self::Synced => "the end of a request",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copying {
    /// To the server, which was told that nothing comes, or that no more does.
    Refused,
    /// From the server, to nowhere.
    Dropped,
    /// To the server.
    In,
    /// From the server.
    Out,
}

/// One session.
#[derive(Debug)]
pub(crate) struct WireSession {
    incoming: Incoming,
    outgoing: Vec<u8>,
    sent: usize,
    queue: VecDeque<Due>,
    marks: Marks,
    standing: Standing,
    /// An error has come: all but the end of the request is left out.
    is_skipping: bool,
    /// Whether a simple query has had an answer.
    is_answered: bool,
    /// The columns of the result that is under way.
    columns: Option<usize>,
    /// Those that were foretold for what is run many times.
    foretold: Option<usize>,
    /// The rows of it that have come.
    rows: i64,
    copying: Option<Copying>,
    /// The COPY that was asked for, from its beginning to the end of its request.
    copy: Option<CopyState>,
    /// How many there have been.
    copies: u64,
    settings: Settings,
    notices: Kept<ServerMessage>,
    notifications: Kept<Notification>,
    journal: VecDeque<String>,
    end: Option<Misfit>,
    /// What the server has ended it with.
    last_words: Option<Box<ServerMessage>>,
    pub(crate) statements: Statements,
    /// A ROLLBACK was sent whose answer nobody waits for: it is read ahead of the next one's.
    is_owed: bool,
}

// What nobody takes is dropped, the oldest first.
const MOST_NOTICES: usize = 100;
const MOST_NOTIFICATIONS: usize = 100_000;
const MOST_BYTES: usize = 32 << 20;
const REMEMBERED: usize = 8;
const KEPT: usize = 16 << 10;
/// The server has no statement of that name.
const GONE: &str = "26000";
/// The result of a statement would have other columns than it had when it was prepared.
const CHANGED: &str = "0A000";
/// No statement.
const SPOILT: &str = "poolproof gives up these statements: a parameter of one cannot be sent";
const NO_COPY: &str = "execute() does not copy, cursor.copy() does";

impl WireSession {
    /// One that the server has let in, with what has come behind that.
    pub(crate) fn new(incoming: Incoming, parameters: HashMap<String, String>) -> Self {
        Self {
            incoming,
            outgoing: Vec::new(),
            sent: 0,
            queue: VecDeque::new(),
            marks: Marks::default(),
            standing: Standing::Idle,
            is_skipping: false,
            is_answered: false,
            columns: None,
            foretold: None,
            rows: 0,
            copying: None,
            copy: None,
            copies: 0,
            settings: Settings::new(parameters),
            notices: Kept::new(MOST_NOTICES, MOST_BYTES),
            notifications: Kept::new(MOST_NOTIFICATIONS, MOST_BYTES),
            journal: VecDeque::new(),
            end: None,
            last_words: None,
            statements: Statements::new(),
            is_owed: false,
        }
    }

    // --- what is asked ------------------------------------------------------------------------------------------------

    /// Asks by a simple query. The text was checked.
    pub(crate) fn query(&mut self, sql: &str, tags: Tags) {
        self.remember(sql);
        self.begin(true);
        outgoing::query(&mut self.outgoing, sql);
        self.marks.end();
        let several = verb::may_be_several(sql);
        self.queue.push_back(Due::Queried { tags, several });
    }

    /// Asks by the unnamed statement, of which [`WireSession::sync`] is the end. All of it was checked.
    pub(crate) fn statement(&mut self, sql: &str, parameters: &ParameterList, tags: Tags) {
        self.parse(sql, parameters.oids());
        outgoing::bind(&mut self.outgoing, StatementName::Unnamed, parameters, &[]);
        outgoing::describe_portal(&mut self.outgoing);
        outgoing::execute(&mut self.outgoing);
        self.queue.extend([
            Due::Bound(Shape::Described),
            Due::Described(None),
            Due::Executed(tags),
        ]);
    }

    /// Asks as is planned. `formats` says of each column whether it is wanted as binary, where they are known.
    pub(crate) fn ask(
        &mut self,
        text: &StatementText,
        parameters: &ParameterList,
        tags: Tags,
        plan: &Plan,
        formats: &[bool],
    ) {
        self.begin(false);
        let out = &mut self.outgoing;
        for name in self.statements.take_retired() {
            outgoing::close_statement(out, StatementName::Named(name));
            self.queue.push_back(Due::Closed);
        }
        match plan {
            Plan::Once => self.statement(&text.sql, parameters, tags),
            Plan::Prepare(name) => {
                let named = StatementName::Named(*name);
                outgoing::parse(out, named, &text.sql, parameters.oids());
                outgoing::bind(out, named, parameters, &[]);
                outgoing::describe_portal(out);
                outgoing::execute(out);
                self.queue.extend([
                    Due::Parsed(Some(*name)),
                    Due::Bound(Shape::Described),
                    Due::Described(Some(*name)),
                    Due::Executed(tags),
                ]);
                self.note(&text.word);
            }
            Plan::Ready(prepared) => {
                outgoing::bind(
                    out,
                    StatementName::Named(prepared.name),
                    parameters,
                    formats,
                );
                outgoing::execute(out);
                self.queue.extend([
                    Due::Bound(Shape::Prepared(Arc::clone(prepared))),
                    Due::Executed(tags),
                ]);
                self.note(&text.word);
            }
        }
    }

    /// Has the unnamed statement parsed.
    fn parse(&mut self, sql: &str, oids: &[u32]) {
        self.remember(sql);
        self.begin(false);
        outgoing::parse(&mut self.outgoing, StatementName::Unnamed, sql, oids);
        self.queue.push_back(Due::Parsed(None));
    }

    /// Has the unnamed statement parsed, to be run many times, and its columns foretold.
    pub(crate) fn parse_for_many(&mut self, sql: &str, oids: &[u32]) {
        self.parse(sql, oids);
        outgoing::describe_statement(&mut self.outgoing, StatementName::Unnamed);
        self.queue.extend([Due::ParametersDescribed, Due::Foretold]);
    }

    /// Runs what was parsed last to be run many times.
    pub(crate) fn run(&mut self, parameters: &ParameterList, tags: Tags) {
        outgoing::bind(&mut self.outgoing, StatementName::Unnamed, parameters, &[]);
        outgoing::execute(&mut self.outgoing);
        self.queue
            .extend([Due::Bound(Shape::Foretold), Due::Executed(tags)]);
    }

    /// Has the request fail that is under way, so that nothing of it is done: the server refuses to parse this.
    pub(crate) fn spoil(&mut self) {
        self.parse(SPOILT, &[]);
    }

    /// Has another statement follow in the same request.
    pub(crate) fn part(&mut self) {
        self.marks.part();
        self.mark(MarkPlace::Between);
    }

    /// Ends a request.
    pub(crate) fn sync(&mut self) {
        self.begin(false);
        if !self.is_skipping {
            self.mark(MarkPlace::Behind);
        }
        outgoing::sync(&mut self.outgoing);
        self.queue.push_back(Due::Synced);
        self.marks.end();
    }

    /// Begins a request, unless one is begun.
    fn begin(&mut self, is_simple: bool) {
        if self.marks.begin(is_simple) {
            self.mark(MarkPlace::Ahead);
        }
    }

    fn mark(&mut self, place: MarkPlace) {
        let count = self.marks.take(place);
        for _ in 0..count {
            outgoing::mark(&mut self.outgoing);
        }
        if count > 0 {
            self.queue.push_back(Due::Marked(count, place));
        }
    }

    fn remember(&mut self, sql: &str) {
        // The word alone: a statement may hold values.
        let word: String = verb::first_word(sql).chars().take(20).collect();
        self.note(&word.to_ascii_uppercase());
    }

    fn note(&mut self, word: &str) {
        // The oldest one's room is used again.
        let mut oldest = if self.journal.len() == REMEMBERED {
            self.journal.pop_front().unwrap_or_default()
        } else {
            String::new()
        };
        oldest.clear();
        oldest.push_str(word);
        self.journal.push_back(oldest);
    }

    /// Bytes to send.
    pub(crate) fn pending(&self) -> &[u8] {
        self.outgoing.get(self.sent..).unwrap_or_default()
    }

    /// Says that so many of them were sent.
    pub(crate) fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.outgoing.len() {
            self.sent = 0;
            self.outgoing.clear();
            self.outgoing.shrink_to(KEPT);
        }
    }

    // --- what has come ------------------------------------------------------------------------------------------------

    /// Room for bytes that come.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.incoming.space()
    }

    /// Says how many have come.
    pub(crate) fn received(&mut self, count: usize) {
        self.incoming.received(count);
    }

    /// The bytes of a row that was just told.
    pub(crate) fn at(&self, row: Range<usize>) -> &[u8] {
        self.incoming.at(row)
    }

    /// Where it stands; where the answer to a ROLLBACK is owed, as that must say.
    pub(crate) fn standing(&self) -> Standing {
        if self.is_owed {
            Standing::Idle
        } else {
            self.standing
        }
    }

    /// Has the answer to the ROLLBACK that was asked last be read ahead of the next one's; false where not all of it
    /// was sent.
    pub(crate) fn owe(&mut self) -> bool {
        self.is_owed = self.pending().is_empty()
            && self.end.is_none()
            && matches!(
                self.queue.make_contiguous(),
                [Due::Queried { .. }] | [Due::Marked(..), Due::Queried { .. }]
            );
        self.is_owed
    }

    /// Whether the answer to a ROLLBACK is owed, and nothing else was asked.
    pub(crate) fn is_owed(&self) -> bool {
        let is_alone = self
            .queue
            .iter()
            .all(|due| matches!(due, Due::Marked(..) | Due::Queried { .. }));
        self.is_owed && is_alone && self.end.is_none() && self.pending().is_empty()
    }

    /// What the server has ended the session with, once that has come.
    pub(crate) fn last_words(&self) -> Option<&ServerMessage> {
        self.last_words.as_deref()
    }

    /// How many messages must come.
    pub(crate) fn due(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is under way: everything that was asked has been answered.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.queue.is_empty() && self.end.is_none() && self.pending().is_empty()
    }

    /// Whether nothing has come that was not read yet.
    pub(crate) fn is_read(&self) -> bool {
        self.incoming.is_empty()
    }

    /// A setting that the server has told.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.settings.get(name)
    }

    /// Whether its times are those of UTC.
    pub(crate) fn is_utc(&self) -> bool {
        self.settings.is_utc()
    }

    /// Takes the notices.
    pub(crate) fn take_notices(&mut self) -> VecDeque<ServerMessage> {
        self.notices.take()
    }

    /// Takes the notifications.
    pub(crate) fn take_notifications(&mut self) -> VecDeque<Notification> {
        self.notifications.take()
    }

    /// Whether there is one.
    pub(crate) fn is_notified(&self) -> bool {
        !self.notifications.is_empty()
    }

    /// The next event; none until more has come.
    ///
    /// # Errors
    ///
    /// [`Misfit`], and the same ever after.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Misfit> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let told = self.look();
        if let Err(misfit) = &told {
            self.end = Some(misfit.clone());
        }
        told
    }

    /// The next message, if it is a row of the result that is under way, which needs no more than that it is one. The
    /// other ones, and one that comes at another time, [`WireSession::next`] tells.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub(crate) fn next_row(&mut self) -> Result<Option<Range<usize>>, Misfit> {
        let is_open = self.columns.is_some() && self.copying.is_none() && self.end.is_none();
        if !is_open || self.is_skipping || self.is_owed {
            return Ok(None);
        }
        let Some(frame) = self.incoming.next_row() else {
            return Ok(None);
        };
        if let Err(misfit) = self.row(&frame) {
            self.end = Some(misfit.clone());
            return Err(misfit);
        }
        Ok(Some(frame.body))
    }

    fn look(&mut self) -> Result<Option<Event>, Misfit> {
        loop {
            let Some(frame) = self.incoming.next().map_err(|what| self.misfit(&what))? else {
                return Ok(None);
            };
            if let Some(event) = self.take(&frame)? {
                return Ok(Some(event));
            }
        }
    }

    fn take(&mut self, frame: &Frame) -> Result<Option<Event>, Misfit> {
        match frame.kind {
            b'S' | b'N' | b'A' => self.aside(frame),
            b'C' | b'E' | b'Z' if self.is_owed => self.owed(frame),
            // A ROLLBACK has no result.
            _ if self.is_owed && frame.kind != b'3' => Err(self.unasked(frame)),
            b'E' => self.error(frame).map(Some),
            b'Z' => self.ready(frame).map(Some),
            _ if self.is_skipping => Err(self.unasked(frame)),
            b'D' => {
                self.row(frame)?;
                Ok(Some(Event::Row(frame.body.clone())))
            }
            b'd' if self.copying == Some(Copying::Dropped) => Ok(None),
            b'd' if self.copying == Some(Copying::Out) => Ok(Some(self.copied(frame))),
            b'c' if matches!(self.copying, Some(Copying::Dropped | Copying::Out)) => {
                self.copying = None;
                Ok(None)
            }
            _ if self.copying.is_some() && frame.kind != b'C' => Err(self.unasked(frame)),
            b'1' => self.parsed(frame),
            b'2' => self.bound(frame),
            b'3' => self.closed(frame),
            b't' => self.parameters_described(frame),
            b'n' => self.no_columns(frame),
            b'T' => self.columns(frame),
            b'C' => self.complete(frame).map(Some),
            b'I' => self.empty(frame).map(Some),
            b'G' | b'H' => self.copies(frame).map(Some),
            _ => Err(self.unasked(frame)),
        }
    }

    /// The answer to a ROLLBACK that nobody waits for: it must be that, and must have ended the transaction.
    fn owed(&mut self, frame: &Frame) -> Result<Option<Event>, Misfit> {
        match frame.kind {
            b'C' => self.complete(frame).map(|_| None),
            b'E' => match self.error(frame)? {
                Event::Ended(said) => Ok(Some(Event::Ended(said))),
                _ => Err(self.misfit("that it does not roll back")),
            },
            _ => {
                self.ready(frame)?;
                self.is_owed = false;
                if self.standing == Standing::Idle {
                    Ok(None)
                } else {
                    Err(self.misfit("that a transaction is open, after it was rolled back"))
                }
            }
        }
    }

    /// What may come at any time.
    fn aside(&mut self, frame: &Frame) -> Result<Option<Event>, Misfit> {
        let body = self.incoming.at(frame.body.clone());
        let is_read = match frame.kind {
            b'S' => self.settings.take(body),
            b'N' => ServerMessage::read(body).is_some_and(|notice| {
                self.notices.push(notice, body.len());
                true
            }),
            _ => Notification::read(body).is_some_and(|one| {
                self.notifications.push(one, body.len());
                true
            }),
        };
        if is_read {
            Ok(None)
        } else {
            Err(self.garbled(frame))
        }
    }

    fn error(&mut self, frame: &Frame) -> Result<Event, Misfit> {
        let Some(said) = ServerMessage::read(self.incoming.at(frame.body.clone())) else {
            return Err(self.garbled(frame));
        };
        let said = Box::new(said);
        if said.is_end() {
            self.end = Some(Misfit("the server has ended the session".into()));
            self.last_words = Some(said.clone());
            return Ok(Event::Ended(said));
        }
        let is_early = matches!(
            self.queue.front(),
            None | Some(Due::Marked(_, MarkPlace::Ahead | MarkPlace::Between))
        );
        if is_early || self.is_skipping {
            return Err(self.unasked(frame));
        }
        let is_copy = self.queue.iter().any(|due| matches!(due, Due::Copied));
        self.skip(&said);
        self.is_skipping = true;
        self.columns = None;
        self.copying = None;
        if is_copy && self.queue.is_empty() {
            // A COPY, whose end was not asked for yet: the server passes over all that comes before this.
            self.sync();
        }
        Ok(Event::Refused(said))
    }

    /// Leaves out what a request that was refused will not be answered any more.
    fn skip(&mut self, said: &ServerMessage) {
        if let Some(Due::Bound(Shape::Prepared(prepared))) = self.queue.front() {
            // The statement is looked for, and planned anew, before anything of it is done.
            match said.sqlstate() {
                Some(GONE) => self.statements.stale(prepared.name, true),
                Some(CHANGED) => self.statements.stale(prepared.name, false),
                _ => {}
            }
        }
        while self.queue.front().is_some_and(|due| !due.is_end()) {
            let Some(due) = self.queue.pop_front() else {
                break;
            };
            match due {
                Due::Parsed(Some(name)) => self.statements.missing(name),
                // It was parsed, or the server would have been asked for that first.
                Due::Described(Some(name)) => self.statements.retire(name),
                _ => {}
            }
        }
    }

    fn ready(&mut self, frame: &Frame) -> Result<Event, Misfit> {
        let Some(standing) = Standing::read(self.incoming.at(frame.body.clone())) else {
            return Err(self.garbled(frame));
        };
        let is_due = match self.queue.front() {
            Some(Due::Synced) => true,
            Some(Due::Queried { .. }) => self.is_skipping || self.is_answered,
            _ => false,
        };
        let is_open = self.columns.is_some() || self.copying.is_some();
        if !is_due || is_open || (self.is_skipping && standing == Standing::Inside) {
            return Err(self.unasked(frame));
        }
        self.queue.pop_front();
        self.standing = standing;
        self.is_skipping = false;
        self.is_answered = false;
        self.copy = None;
        if self.queue.is_empty() {
            self.incoming.rest();
        }
        Ok(Event::Ready)
    }

    #[inline]
    fn row(&mut self, frame: &Frame) -> Result<(), Misfit> {
        let is_due = matches!(
            self.queue.front(),
            Some(Due::Executed(_) | Due::Queried { .. })
        );
        let Some(columns) = self.columns.filter(|_| is_due) else {
            return Err(self.unasked(frame));
        };
        let row = self.incoming.at(frame.body.clone());
        if !column::is_row(row, columns) {
            let found = column::fields_of(row).unwrap_or_default();
            return Err(self.misfit(&format!(
                "a row with {found} values where the result has {columns} columns, or with lengths that do not fit"
            )));
        }
        self.rows += 1;
        Ok(())
    }

    fn columns(&mut self, frame: &Frame) -> Result<Option<Event>, Misfit> {
        let is_due = match self.queue.front() {
            Some(Due::Described(_) | Due::Foretold) => true,
            Some(Due::Queried { .. }) => self.columns.is_none() && !self.is_over(),
            _ => false,
        };
        if !is_due {
            return Err(self.unasked(frame));
        }
        let Some(columns) = column::read(self.incoming.at(frame.body.clone())) else {
            return Err(self.garbled(frame));
        };
        let columns = Arc::new(Columns::new(columns));
        match self.queue.front() {
            Some(Due::Described(name)) => {
                if let Some(name) = *name {
                    self.statements.described(name, Some(Arc::clone(&columns)));
                }
                self.queue.pop_front();
            }
            Some(Due::Foretold) => {
                self.queue.pop_front();
                self.foretold = Some(columns.list.len());
                return Ok(None);
            }
            _ => {}
        }
        self.begin_result(&columns);
        Ok(Some(Event::Columns(columns)))
    }

    fn begin_result(&mut self, columns: &Columns) {
        self.columns = Some(columns.list.len());
        self.rows = 0;
    }

    fn complete(&mut self, frame: &Frame) -> Result<Event, Misfit> {
        let body = self.incoming.at(frame.body.clone());
        let tag = body
            .strip_suffix(&[0])
            .and_then(|tag| std::str::from_utf8(tag).ok());
        let Some(tag) = tag.map(str::to_owned) else {
            return Err(self.garbled(frame));
        };
        let tags = match self.queue.front() {
            Some(Due::Executed(tags)) => tags.clone(),
            Some(Due::Queried { tags, .. }) if !self.is_over() => tags.clone(),
            Some(Due::Copied) if self.copying.is_none() => Tags::begin("COPY"),
            _ => return Err(self.unasked(frame)),
        };
        if !tags.take(&tag) {
            return Err(self.misfit("the end of another statement than the one that was sent"));
        }
        if self.columns.is_some() && verb::has_no_result(&tag) {
            return Err(self
                .misfit("the columns of a result ahead of the end of a statement that has none"));
        }
        if self.columns.is_some() && verb::counted(&tag).is_some_and(|rows| rows != self.rows) {
            return Err(self.misfit(&format!(
                "{} rows, and then that it were another number of them",
                self.rows
            )));
        }
        match self.queue.front() {
            Some(Due::Executed(_)) => drop(self.queue.pop_front()),
            Some(Due::Copied) => {
                self.check_copied(&tag)?;
                self.queue.pop_front();
                if self.queue.is_empty() {
                    // It has copied without the client.
                    self.sync();
                }
            }
            _ => {}
        }
        self.statements.complete(&tag);
        self.is_answered = true;
        self.columns = None;
        self.copying = None;
        let is_refused = tags.is_refused(&tag);
        Ok(Event::Complete { tag, is_refused })
    }

    fn empty(&mut self, frame: &Frame) -> Result<Event, Misfit> {
        match self.queue.front() {
            Some(Due::Executed(_)) if self.columns.is_none() => {
                self.queue.pop_front();
            }
            Some(Due::Queried { .. }) if self.columns.is_none() && !self.is_over() => {}
            _ => return Err(self.unasked(frame)),
        }
        self.is_answered = true;
        Ok(Event::Empty)
    }

    /// A statement copies although none is to. To the server: it is told that nothing comes; from the server: what
    /// comes is left out.
    fn copies(&mut self, frame: &Frame) -> Result<Event, Misfit> {
        if matches!(self.queue.front(), Some(Due::Copied)) {
            return self.begin_copy(frame);
        }
        let is_extended = match self.queue.front() {
            Some(Due::Executed(_)) => true,
            Some(Due::Queried { .. }) if !self.is_over() => false,
            _ => return Err(self.unasked(frame)),
        };
        if self.copying.is_some() || self.columns.is_some() {
            return Err(self.unasked(frame));
        }
        if frame.kind == b'G' {
            self.copying = Some(Copying::Refused);
            // Behind an extended one lie marks, at which the server ends it by itself.
            if !is_extended {
                outgoing::copy_fail(&mut self.outgoing, NO_COPY);
            }
        } else {
            self.copying = Some(Copying::Dropped);
        }
        Ok(Event::Copies)
    }

    /// Whether a simple query of one statement has had its result.
    fn is_over(&self) -> bool {
        let is_one = matches!(
            self.queue.front(),
            Some(Due::Queried { several: false, .. })
        );
        is_one && self.is_answered
    }

    fn marked(&mut self, frame: &Frame) -> Result<Option<Event>, Misfit> {
        match self.queue.front_mut() {
            Some(Due::Marked(count, _)) if frame.body.is_empty() => {
                *count -= 1;
                if *count == 0 {
                    self.queue.pop_front();
                }
                Ok(None)
            }
            _ => Err(self.unasked(frame)),
        }
    }

    /// A mark, or what the server was told to forget.
    fn closed(&mut self, frame: &Frame) -> Result<Option<Event>, Misfit> {
        if matches!(self.queue.front(), Some(Due::Closed)) {
            self.expect(frame, |due| matches!(due, Due::Closed))
        } else {
            self.marked(frame)
        }
    }

    fn parsed(&mut self, frame: &Frame) -> Result<Option<Event>, Misfit> {
        let name = match self.queue.front() {
            Some(Due::Parsed(name)) => *name,
            _ => None,
        };
        self.expect(frame, |due| matches!(due, Due::Parsed(_)))?;
        if let Some(name) = name {
            self.statements.parsed(name);
        }
        Ok(None)
    }

    fn bound(&mut self, frame: &Frame) -> Result<Option<Event>, Misfit> {
        let columns = match self.queue.front() {
            Some(Due::Bound(Shape::Prepared(prepared))) => prepared.columns.clone(),
            _ => None,
        };
        let is_foretold = matches!(self.queue.front(), Some(Due::Bound(Shape::Foretold)));
        self.expect(frame, |due| matches!(due, Due::Bound(_)))?;
        if is_foretold {
            self.columns = self.foretold;
            self.rows = 0;
        }
        Ok(columns.map(|columns| {
            self.begin_result(&columns);
            Event::Columns(columns)
        }))
    }

    /// How many there are, and their types, is of no interest: the server has been told.
    fn parameters_described(&mut self, frame: &Frame) -> Result<Option<Event>, Misfit> {
        if !matches!(self.queue.front(), Some(Due::ParametersDescribed)) {
            return Err(self.unasked(frame));
        }
        let body = self.incoming.at(frame.body.clone());
        let count = column::fields_of(body);
        if count.is_none_or(|count| body.len() != 2 + 4 * count) {
            return Err(self.garbled(frame));
        }
        self.queue.pop_front();
        Ok(None)
    }

    fn no_columns(&mut self, frame: &Frame) -> Result<Option<Event>, Misfit> {
        match self.queue.front() {
            Some(Due::Described(Some(name))) => {
                let name = *name;
                self.expect(frame, |_| true)?;
                self.statements.described(name, None);
                Ok(None)
            }
            Some(Due::Foretold) => {
                self.foretold = None;
                self.expect(frame, |_| true)
            }
            _ => self.expect(frame, |due| matches!(due, Due::Described(_))),
        }
    }

    fn expect(
        &mut self,
        frame: &Frame,
        is_it: impl Fn(&Due) -> bool,
    ) -> Result<Option<Event>, Misfit> {
        if !frame.body.is_empty() || !self.queue.front().is_some_and(is_it) {
            return Err(self.unasked(frame));
        }
        self.queue.pop_front();
        Ok(None)
    }

    fn unasked(&self, frame: &Frame) -> Misfit {
        let kind = char::from(frame.kind).escape_default();
        let due = match self.queue.front() {
            _ if self.is_skipping => "the end of a request that has failed",
            Some(due) => due.shown(),
            None => "nothing",
        };
        self.misfit(&format!("a message of kind {kind} where {due} was due"))
    }

    fn garbled(&self, frame: &Frame) -> Misfit {
        let kind = char::from(frame.kind).escape_default();
        self.misfit(&format!("a message of kind {kind} that cannot be read"))
    }

    fn misfit(&self, what: &str) -> Misfit {
        let asked: Vec<_> = self.journal.iter().map(String::as_str).collect();
        Misfit(format!(
            "the server sent {what}. The connection is closed, for nothing on it can be believed any more. What was \
             asked last: {}",
            if asked.is_empty() {
                "nothing".to_owned()
            } else {
                asked.join(", ")
            }
        ))
    }
}
