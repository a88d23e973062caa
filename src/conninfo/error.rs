//! What is wrong with a connection's parameters.

use thiserror::Error;

/// Parameters that cannot be used, in a sentence. No text holds a value that may be a secret, or a part of one.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConninfoError(pub(super) String);

impl ConninfoError {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// Says that a keyword has none of the values that it may have. They are no secrets, but what stands there may
    /// be one that went astray: it is quoted when it is a short plain word.
    pub(super) fn value(keyword: &str, value: &[u8], allowed: &[&str]) -> Self {
        let (last, others) = allowed.split_last().unwrap_or((&"", &[]));
        let allowed = match others {
            [] => (*last).to_owned(),
            others => format!("{} or {last}", others.join(", ")),
        };
        Self(match plain(value) {
            Some(word) => format!("{keyword} is {word:?}, but must be {allowed}"),
            None => format!("{keyword} must be {allowed}"),
        })
    }
}

/// The text of a value that is a short plain word.
fn plain(value: &[u8]) -> Option<&str> {
    const MOST: usize = 16;
    let is_plain = value.len() <= MOST
        && value
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || *byte == b'-');
    is_plain
        .then_some(value)
        .and_then(|word| std::str::from_utf8(word).ok())
}
