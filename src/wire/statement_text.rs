//! A statement's text, and what follows from it: found out once, however often it is asked.

use std::sync::atomic::{AtomicU64, Ordering};

use super::outgoing::{self, Unfit};
use super::verb::{self, Tags};

/// The text of a statement.
#[derive(Debug)]
pub(crate) struct StatementText {
    /// A number of its own; none for one that is asked once.
    pub(crate) number: Option<u64>,
    pub(crate) sql: String,
    /// What its answer's tag must be.
    pub(crate) tags: Tags,
    /// Whether there may be several statements in it.
    pub(crate) is_several: bool,
    /// Whether it copies from or to the client.
    pub(crate) copies: bool,
    /// Whether the server may keep it prepared: it is one whose result has the same columns each time.
    pub(crate) is_preparable: bool,
    /// Its first word, for the journal: a statement may hold values.
    pub(crate) word: String,
}

const LONGEST_WORD: usize = 20;
/// One that is longer was made by a program, for so many rows.
const LONGEST_PREPARED: usize = 64 << 10;
static NUMBERS: AtomicU64 = AtomicU64::new(1);

impl StatementText {
    /// One that is asked once.
    pub(crate) fn once(sql: impl Into<String>) -> Self {
        let sql = sql.into();
        let word: String = verb::first_word(&sql).chars().take(LONGEST_WORD).collect();
        let word = word.to_ascii_uppercase();
        let is_several = verb::may_be_several(&sql);
        Self {
            number: None,
            tags: if is_several {
                Tags::any()
            } else {
                Tags::of(&sql)
            },
            is_several,
            copies: verb::copies(&sql),
            is_preparable: !is_several
                && sql.len() <= LONGEST_PREPARED
                && matches!(
                    word.as_str(),
                    "SELECT"
                        | "VALUES"
                        | "TABLE"
                        | "WITH"
                        | "INSERT"
                        | "UPDATE"
                        | "DELETE"
                        | "MERGE"
                        | "BEGIN"
                ),
            word,
            sql,
        }
    }

    /// One that may be asked often, by this object.
    pub(crate) fn kept(sql: impl Into<String>) -> Self {
        Self {
            number: Some(NUMBERS.fetch_add(1, Ordering::Relaxed)),
            ..Self::once(sql)
        }
    }

    /// Whether it can be sent.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub(crate) fn check(&self) -> Result<(), Unfit> {
        outgoing::check_statement(&self.sql)
    }
}
