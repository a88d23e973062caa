//! What a server says in words: an error, a notice; and a notification.

use std::fmt;

/// Its fields, by the protocol's letters.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerMessage(Vec<(u8, String)>);

/// Its `Debug` shows the class alone: a message may quote values.
impl fmt::Debug for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerMessage({:?})", self.sqlstate())
    }
}

/// No server sends more of them.
const MOST: usize = 64;

impl ServerMessage {
    /// Reads the body of a message; none when it is not one.
    pub(crate) fn read(mut body: &[u8]) -> Option<Self> {
        let mut fields = Vec::new();
        loop {
            let (&letter, rest) = body.split_first()?;
            if letter == 0 {
                return rest.is_empty().then_some(Self(fields));
            }
            let end = rest.iter().position(|byte| *byte == 0)?;
            let (value, rest) = rest.split_at(end);
            if fields.len() < MOST {
                // Before a session's encoding is agreed a server may write in its own.
                fields.push((letter, String::from_utf8_lossy(value).into_owned()));
            }
            body = rest.get(1..)?;
        }
    }

    /// One field.
    pub(crate) fn field(&self, letter: u8) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| *name == letter);
        found.map(|(_, value)| value.as_str())
    }

    /// All of them.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (u8, &str)> {
        self.0
            .iter()
            .map(|(letter, value)| (*letter, value.as_str()))
    }

    /// The code.
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        self.field(b'C')
    }

    /// What is wrong, in a sentence.
    pub(crate) fn message(&self) -> &str {
        self.field(b'M').unwrap_or("the server gives no reason")
    }

    /// Whether the session has ended with it.
    pub(crate) fn is_end(&self) -> bool {
        // `S` may be translated; `V` is there from PostgreSQL 9.6 on.
        let severity = self.field(b'V').or_else(|| self.field(b'S'));
        matches!(severity, Some("FATAL" | "PANIC"))
    }
}

/// What another session has announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notification {
    pub(crate) pid: u32,
    pub(crate) channel: String,
    pub(crate) payload: String,
}

impl Notification {
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let (pid, rest) = body.split_first_chunk()?;
        let mut texts = rest.strip_suffix(&[0])?.splitn(2, |byte| *byte == 0);
        let (channel, payload) = (texts.next()?, texts.next()?);
        Some(Self {
            pid: u32::from_be_bytes(*pid),
            channel: String::from_utf8_lossy(channel).into_owned(),
            payload: String::from_utf8_lossy(payload).into_owned(),
        })
    }
}
