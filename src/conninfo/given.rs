//! What somebody has given for the keywords: bytes, as libpq takes them.

use std::fmt;

/// Values by keyword. `Debug` shows the names alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Given(Vec<(String, Vec<u8>)>);

impl Given {
    /// The value of a keyword, if it was given; an empty one was.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice())
    }

    /// Gives a value; the last one counts. `requiressl` is an old word for a `sslmode`.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        let mut value = value.into();
        let mut name = name;
        if name == "requiressl" {
            name = "sslmode";
            value = if value.starts_with(b"1") {
                "require"
            } else {
                "prefer"
            }
            .into();
        }
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Gives a value where none was given.
    pub(super) fn fill(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        if self.get(name).is_none() {
            self.set(name, value);
        }
    }

    /// What was given, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}
