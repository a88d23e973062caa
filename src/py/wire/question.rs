//! What a request asks: one statement, or one for each of many rows.

use pyo3::prelude::*;
use pyo3::types::PyIterator;

use super::answer::Gathering;
use super::parameters::add_all;
use super::request::Request;
use crate::wire::outgoing::ParameterList;
use crate::wire::session::Standing;
use crate::wire::statement_text::StatementText;
use crate::wire::statements::Plan;
use crate::wire::verb::Tags;

/// One statement.
pub(super) struct Question<'a> {
    pub(super) text: &'a StatementText,
    /// Its parameters; none where it is to be asked as a text, which may hold several.
    pub(super) list: Option<&'a ParameterList>,
    /// What goes ahead of it, under the same end of a request.
    pub(super) begin: Option<&'a StatementText>,
    pub(super) tags: Tags,
    /// Whether it may have lasting effects by itself.
    pub(super) commits: bool,
}

impl Question<'_> {
    fn oids(&self) -> &[u32] {
        self.list.map_or(&[], ParameterList::oids)
    }
}

/// The rows of a statement that is asked many times.
pub(super) struct Rows<'py, 'a> {
    pub(super) rows: Bound<'py, PyIterator>,
    pub(super) adapt: Option<&'a Bound<'py, PyAny>>,
}

/// About as much as is sent at once.
pub(super) const CHUNK: usize = 64 << 10;
/// As many rows as have so much together without their lengths and their answers.
const MOST: usize = 1_000;

impl Rows<'_, '_> {
    /// The next ones; none at the end.
    pub(super) fn some(&mut self) -> PyResult<Vec<ParameterList>> {
        let mut lists = Vec::new();
        let mut size = 0;
        while size < CHUNK && lists.len() < MOST {
            let Some(row) = self.rows.next() else {
                break;
            };
            let mut list = ParameterList::default();
            add_all(&mut list, &row?, self.adapt)?;
            size += list.size();
            lists.push(list);
        }
        Ok(lists)
    }
}

/// Parameters of a statement that has none.
pub(super) static NONE: ParameterList = ParameterList::none();

impl Request<'_> {
    /// Finds out, where a statement is about to be prepared, whether this session is one and the same each time: behind
    /// a pooler it may be another, and is not the one whose number was told.
    pub(super) fn learn(&mut self, py: Python<'_>, question: &Question<'_>) -> PyResult<()> {
        let must_know = {
            let session = self.session(py)?;
            session.statements.must_know(question.text, question.oids())
        };
        if !must_know || self.standing() == Some(Standing::Failed) {
            return Ok(());
        }
        let told = self.told_pid();
        let session = self.session(py)?;
        let is_reported = session.parameter("pgbouncer.pool_mode").is_some();
        let is_old = session.parameter("integer_datetimes") == Some("off");
        let is_direct = if is_reported || is_old || told.is_none() {
            false
        } else {
            let found = self.asked(py, "select pg_catalog.pg_backend_pid()")?;
            found.and_then(|found| found.parse().ok()) == told
        };
        self.session(py)?.statements.set_direct(is_direct);
        Ok(())
    }

    /// Asks, and takes the answer.
    pub(super) fn ask(
        &mut self,
        py: Python<'_>,
        question: &Question<'_>,
        incoming: &mut Gathering<'_, '_>,
    ) -> PyResult<()> {
        let mut ahead = usize::from(question.begin.is_some());
        if ahead > 0 && !question.is_text_of_several() {
            // Where the ROLLBACK that is owed were not done, BEGIN would not be answered as one.
            self.begin_behind(py, question.commits)?;
        } else {
            self.begin(py, question.commits)?;
        }
        if let (Some(begin), true) = (question.begin, question.is_text_of_several()) {
            // Only a simple query takes several statements, and after a BEGIN that fails they must not be run.
            self.session(py)?.query(&begin.sql, begin.tags.clone());
            let mut ahead_of_it = Gathering::new(py, None, false);
            self.answered(py, &mut ahead_of_it, &mut 0)?;
            ahead_of_it.finish(None)?;
            ahead = 0;
        }
        let session = self.session(py)?;
        // What another request has found out is not this one's.
        let _of_before = session.statements.take_stale();
        let plan = session.statements.plan(question.text, question.oids());
        let is_simple = question.list.is_none() && ahead == 0 && matches!(plan, Plan::Once);
        let tags = question.tags.clone();
        if is_simple {
            session.query(&question.text.sql, tags);
        } else {
            if let Some(begin) = question.begin.filter(|_| ahead > 0) {
                let plan = session.statements.plan(begin, &[]);
                session.ask(begin, &NONE, begin.tags.clone(), &plan, &[]);
            }
            let mut formats = Vec::new();
            if let Plan::Ready(prepared) = &plan {
                if let Some(columns) = &prepared.columns {
                    formats = incoming.expect(columns, session.is_utc())?;
                }
            }
            let list = question.list.unwrap_or(&NONE);
            session.ask(question.text, list, tags, &plan, &formats);
            session.sync();
        }
        self.answered(py, incoming, &mut ahead).map(drop)
    }

    /// Rolls back what has failed.
    pub(super) fn roll_back(&mut self, py: Python<'_>) -> PyResult<()> {
        self.begin(py, false)?;
        self.session(py)?.query("ROLLBACK", Tags::begin("ROLLBACK"));
        let mut incoming = Gathering::new(py, None, false);
        self.answered(py, &mut incoming, &mut 0)?;
        incoming.finish(None).map(drop)
    }

    /// Asks for each row, in one pipeline: what is sent is not kept. Returns the rows that the tags name.
    pub(super) fn stream(
        &mut self,
        py: Python<'_>,
        text: &StatementText,
        begin: Option<&StatementText>,
        first: Vec<ParameterList>,
        rows: &mut Rows<'_, '_>,
        incoming: &mut Gathering<'_, '_>,
    ) -> PyResult<i64> {
        let mut ahead = usize::from(begin.is_some());
        if let Some(begin) = begin {
            let session = self.session(py)?;
            session.statement(&begin.sql, &NONE, begin.tags.clone());
        }
        let mut oids: Option<Vec<u32>> = None;
        let mut sum = 0;
        let mut lists = first;
        while !lists.is_empty() {
            let session = self.session(py)?;
            for list in &lists {
                if oids.as_deref() != Some(list.oids()) {
                    session.parse_for_many(&text.sql, list.oids());
                    oids = Some(list.oids().to_vec());
                }
                session.run(list, text.tags.clone());
            }
            if lists.len() < MOST && lists.iter().map(ParameterList::size).sum::<usize>() < CHUNK {
                break; // they were the last
            }
            drop(lists);
            sum += self.pushed(py, incoming, &mut ahead)?;
            if incoming.has_failed() {
                break; // the server reads on to the end of the request, and does no more of it
            }
            py.check_signals()?;
            match rows.some() {
                Ok(more) => lists = more,
                Err(error) => {
                    // What was sent must not be done without it.
                    self.session(py)?.spoil();
                    incoming.fail_for_certain(error);
                    break;
                }
            }
        }
        self.session(py)?.sync();
        Ok(sum + self.answered(py, incoming, &mut ahead)?)
    }
}

impl Question<'_> {
    fn is_text_of_several(&self) -> bool {
        self.list.is_none() && self.text.is_several
    }
}
