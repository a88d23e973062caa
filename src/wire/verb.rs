//! What a statement begins with, and which tags its answer may have.

use std::borrow::Cow;

/// What the tag of an answer must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tags {
    /// It begins with these words; none where any will do.
    words: Option<Cow<'static, str>>,
    /// ROLLBACK may be the answer, which is none: it is told.
    may_be_refused: bool,
}

impl Tags {
    /// Any.
    pub(crate) fn any() -> Self {
        Self::default()
    }

    /// One that begins with `words`. Of what ends a transaction, ROLLBACK is a refusal.
    pub(crate) fn begin(words: impl Into<Cow<'static, str>>) -> Self {
        let words = words.into();
        Self {
            may_be_refused: matches!(&*words, "COMMIT" | "PREPARE" | "PREPARE TRANSACTION"),
            words: Some(words),
        }
    }

    /// By the statement's first word. A rule of the server's may do something else in its place, and the tag is the
    /// statement's own nevertheless.
    pub(crate) fn of(sql: &str) -> Self {
        const SAME: [&str; 22] = [
            "COMMIT",
            "INSERT",
            "UPDATE",
            "DELETE",
            "MERGE",
            "BEGIN",
            "ROLLBACK",
            "SAVEPOINT",
            "RELEASE",
            "SET",
            "SHOW",
            "FETCH",
            "MOVE",
            "DECLARE",
            "COPY",
            "LISTEN",
            "NOTIFY",
            "UNLISTEN",
            "PREPARE",
            "EXPLAIN",
            "LOCK",
            "VACUUM",
        ];
        let verb = first_word(sql).to_ascii_uppercase();
        match verb.as_str() {
            "SELECT" | "VALUES" | "TABLE" => Self::begin("SELECT"),
            "END" => Self::begin("COMMIT"),
            "ABORT" => Self::begin("ROLLBACK"),
            "START" => Self::begin("START TRANSACTION"),
            verb => SAME
                .into_iter()
                .find(|word| *word == verb)
                .map_or_else(Self::any, Self::begin),
        }
    }

    /// Whether the statement ends a transaction for good.
    pub(crate) fn ends(&self) -> bool {
        self.may_be_refused
    }

    /// Whether a tag will do.
    pub(crate) fn take(&self, tag: &str) -> bool {
        self.words.as_deref().is_none_or(|words| begins(tag, words)) || self.is_refused(tag)
    }

    /// Whether a transaction that was to be committed was rolled back.
    pub(crate) fn is_refused(&self, tag: &str) -> bool {
        self.may_be_refused && tag == "ROLLBACK"
    }
}

fn begins(tag: &str, words: &str) -> bool {
    tag.strip_prefix(words)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// The first word, behind blanks, comments and parentheses.
pub(crate) fn first_word(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|letter: char| {
            letter.is_ascii_whitespace() || letter == '(' || letter == ';'
        });
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = after_comment(comment);
        } else {
            break;
        }
    }
    let end = rest.find(|letter: char| !letter.is_ascii_alphabetic());
    rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
}

/// What follows a comment, in which others may stand.
fn after_comment(mut rest: &str) -> &str {
    let mut depth = 1;
    while depth > 0 {
        let Some(at) = rest.find(['*', '/']) else {
            return "";
        };
        rest = rest.get(at..).unwrap_or_default();
        if let Some(after) = rest.strip_prefix("*/") {
            depth -= 1;
            rest = after;
        } else if let Some(after) = rest.strip_prefix("/*") {
            depth += 1;
            rest = after;
        } else {
            rest = rest.get(1..).unwrap_or_default();
        }
    }
    rest
}

/// Whether there may be several statements in a text: something follows a semicolon. One in a string counts too, which
/// costs a round trip and no more.
pub(crate) fn may_be_several(sql: &str) -> bool {
    sql.trim_end_matches(|letter: char| letter.is_ascii_whitespace() || letter == ';')
        .contains(';')
}

/// Whether a text copies from or to the client.
pub(crate) fn copies(sql: &str) -> bool {
    if !first_word(sql).eq_ignore_ascii_case("copy") {
        return false;
    }
    let upper = sql.to_ascii_uppercase();
    ["STDIN", "STDOUT"].iter().any(|word| upper.contains(word))
}

/// The number at the end of a tag: rows.
pub(crate) fn rows(tag: &str) -> Option<i64> {
    let (_, number) = tag.rsplit_once(' ')?;
    number.parse().ok()
}

/// Whether a tag is of a statement that never has a result.
pub(crate) fn has_no_result(tag: &str) -> bool {
    [
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT",
        "RELEASE",
        "SET",
        "DO",
    ]
    .iter()
    .any(|verb| begins(tag, verb))
}

/// The number of rows that were sent, where a tag names it; of what changes rows only if it returns them.
pub(crate) fn counted(tag: &str) -> Option<i64> {
    ["SELECT", "FETCH", "INSERT", "UPDATE", "DELETE", "MERGE"]
        .iter()
        .any(|verb| begins(tag, verb))
        .then(|| rows(tag))
        .flatten()
}
