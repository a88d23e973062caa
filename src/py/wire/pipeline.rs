//! Several statements as one request: sent together, answered one by one.

use std::mem;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyMapping;

use super::answer::{Answer, Gathering};
use super::question::NONE;
use super::request::{Request, copying};
use crate::wire::failure::WireFailure;
use crate::wire::outgoing::ParameterList;
use crate::wire::session::Event;
use crate::wire::statement_text::StatementText;

/// One of the statements.
pub(super) struct Piped {
    pub(super) text: Arc<StatementText>,
    pub(super) list: ParameterList,
}

impl Request<'_> {
    /// Sends statements, `begin` ahead of them, and takes their answers: one for each that was run, of which the last
    /// may be an error. The server passes over all that come behind that.
    pub(super) fn pipeline<'py>(
        &mut self,
        py: Python<'py>,
        statements: &[Piped],
        begin: Option<&StatementText>,
        loaders: Option<&Bound<'py, PyMapping>>,
    ) -> PyResult<Vec<PyResult<Answer>>> {
        let session = self.session(py)?;
        if let Some(begin) = begin {
            session.statement(&begin.sql, &NONE, begin.tags.clone());
            session.part();
        }
        for (number, one) in statements.iter().enumerate() {
            if number > 0 {
                session.part();
            }
            session.statement(&one.text.sql, &one.list, one.text.tags.clone());
        }
        session.sync();
        let mut is_begun = begin.is_none();
        let mut found = Vec::with_capacity(statements.len());
        let mut incoming = Gathering::new(py, loaders, true);
        let mut is_fresh = true;
        loop {
            let ends = match self.look(py)? {
                None => {
                    self.more(py, mem::take(&mut is_fresh))?;
                    false
                }
                Some(Event::Ready) => break,
                Some(Event::Columns(columns)) => {
                    incoming.begin(columns);
                    false
                }
                Some(Event::Row(row)) => {
                    incoming.row(self.session(py)?.at(row));
                    false
                }
                Some(Event::Complete { .. } | Event::Empty) if !is_begun => {
                    is_begun = true;
                    incoming.forget();
                    false
                }
                Some(Event::Complete { tag, is_refused }) => {
                    incoming.complete(tag, is_refused);
                    true
                }
                Some(Event::Empty) => {
                    incoming.complete(String::new(), false);
                    true
                }
                Some(Event::Refused(said)) => {
                    incoming.refuse(&WireFailure::server(said));
                    true
                }
                Some(Event::Copies) => {
                    incoming.fail_for_certain(copying(py));
                    false
                }
                Some(Event::Copying(_) | Event::CopyData(_)) => false,
                Some(Event::Ended(said)) => {
                    let failure = self.connected(py)?.ended(said);
                    return Err(self.lose(py, &failure));
                }
            };
            if ends {
                let answered = mem::replace(&mut incoming, Gathering::new(py, loaders, true));
                found.push(answered.finish(None));
            }
        }
        self.end(py)?;
        Ok(found)
    }
}
