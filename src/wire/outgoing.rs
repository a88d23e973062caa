//! Messages to a server, as bytes.

/// What does not fit into a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unfit(pub(crate) String);

/// Parameters of a statement, as they travel.
#[derive(Debug, Default)]
pub(crate) struct ParameterList {
    oids: Vec<u32>,
    binary: Vec<bool>,
    values: Vec<u8>,
}

/// `Bind` counts them with 16 bits.
const MOST_PARAMETERS: usize = 65_535;
/// A server takes messages of a gigabyte. What travels beside the values or the text, the types among it, is shorter
/// than the megabyte that is left out.
const LONGEST: usize = (1 << 30) - (1 << 20);

impl ParameterList {
    /// None at all.
    pub(crate) const fn none() -> Self {
        Self {
            oids: Vec::new(),
            binary: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Adds NULL.
    pub(crate) fn null(&mut self, oid: u32) {
        self.oids.push(oid);
        self.binary.push(false);
        self.values.extend_from_slice(&(-1i32).to_be_bytes());
    }

    /// Adds a value, whose bytes `write` appends.
    ///
    /// # Errors
    ///
    /// What `write` says; then nothing was added.
    pub(crate) fn add<E>(
        &mut self,
        oid: u32,
        binary: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let at = self.values.len();
        self.values.extend_from_slice(&[0; 4]);
        if let Err(error) = write(&mut self.values) {
            self.values.truncate(at);
            return Err(error);
        }
        let length = u32::try_from(self.values.len() - at - 4).unwrap_or(u32::MAX);
        if let Some(place) = self.values.get_mut(at..at + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        self.oids.push(oid);
        self.binary.push(binary);
        Ok(())
    }

    /// Adds a value in the server's own form.
    pub(crate) fn binary(&mut self, oid: u32, value: &[u8]) {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.values.extend_from_slice(&length.to_be_bytes());
        self.values.extend_from_slice(value);
        self.oids.push(oid);
        self.binary.push(true);
    }

    /// How many bytes they have.
    pub(crate) fn size(&self) -> usize {
        self.values.len()
    }

    /// The types.
    pub(crate) fn oids(&self) -> &[u32] {
        &self.oids
    }

    /// Whether a server can be sent them.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(crate) fn check(&self) -> Result<(), Unfit> {
        if self.oids.len() > MOST_PARAMETERS {
            return Err(Unfit(format!(
                "{} parameters were given, and a statement takes {MOST_PARAMETERS} at most",
                self.oids.len()
            )));
        }
        check_length("parameters have", self.values.len())
    }
}

/// Whether so many bytes fit into a message.
fn check_length(what: &str, length: usize) -> Result<(), Unfit> {
    if length > LONGEST {
        return Err(Unfit(format!(
            "the {what} {length} bytes, and a server takes {LONGEST} at most"
        )));
    }
    Ok(())
}

/// A statement that can be sent.
///
/// # Errors
///
/// Why it cannot.
pub(crate) fn check_statement(sql: &str) -> Result<(), Unfit> {
    if sql.as_bytes().contains(&0) {
        return Err(Unfit("the statement has a NUL character in it".into()));
    }
    check_length("statement has", sql.len())
}

/// Appends one message. What goes in was checked: it is shorter than a message can be.
pub(crate) fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a text with its end.
pub(crate) fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

fn count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
}

pub(crate) fn query(out: &mut Vec<u8>, sql: &str) {
    message(out, b'Q', |out| text(out, sql.as_bytes()));
}

/// Which statement of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatementName {
    /// The one without a name, which the next one takes the place of.
    Unnamed,
    Named(u64),
}

impl StatementName {
    fn write(self, out: &mut Vec<u8>) {
        if let Self::Named(number) = self {
            out.extend_from_slice(b"poolproof_");
            out.extend_from_slice(number.to_string().as_bytes());
        }
        out.push(0);
    }
}

pub(crate) fn parse(out: &mut Vec<u8>, name: StatementName, sql: &str, oids: &[u32]) {
    message(out, b'P', |out| {
        name.write(out);
        text(out, sql.as_bytes());
        count(out, oids.len());
        for oid in oids {
            out.extend_from_slice(&oid.to_be_bytes());
        }
    });
}

/// Binds a statement. `formats` says of each column of its result whether it is wanted as binary; without any, all are
/// wanted as text.
pub(crate) fn bind(
    out: &mut Vec<u8>,
    name: StatementName,
    parameters: &ParameterList,
    formats: &[bool],
) {
    message(out, b'B', |out| {
        out.push(0);
        name.write(out);
        self::formats(out, &parameters.binary);
        count(out, parameters.oids.len());
        out.extend_from_slice(&parameters.values);
        self::formats(out, formats);
    });
}

fn formats(out: &mut Vec<u8>, binary: &[bool]) {
    if binary.contains(&true) {
        count(out, binary.len());
        for binary in binary {
            out.extend_from_slice(&[0, u8::from(*binary)]);
        }
    } else {
        count(out, 0);
    }
}

pub(crate) fn describe_statement(out: &mut Vec<u8>, name: StatementName) {
    message(out, b'D', |out| {
        out.push(b'S');
        name.write(out);
    });
}

pub(crate) fn close_statement(out: &mut Vec<u8>, name: StatementName) {
    message(out, b'C', |out| {
        out.push(b'S');
        name.write(out);
    });
}

pub(crate) fn describe_portal(out: &mut Vec<u8>) {
    message(out, b'D', |out| out.extend_from_slice(b"P\0"));
}

pub(crate) fn execute(out: &mut Vec<u8>) {
    message(out, b'E', |out| out.extend_from_slice(&[0; 5]));
}

/// Closes a portal that there is not, which changes nothing, and is answered. Nobody names a cursor so.
pub(crate) fn mark(out: &mut Vec<u8>) {
    message(out, b'C', |out| out.extend_from_slice(b"P\x07\0"));
}

pub(crate) fn sync(out: &mut Vec<u8>) {
    message(out, b'S', |_| {});
}

pub(crate) fn flush(out: &mut Vec<u8>) {
    message(out, b'H', |_| {});
}

pub(crate) fn copy_data(out: &mut Vec<u8>, data: &[u8]) {
    message(out, b'd', |out| out.extend_from_slice(data));
}

pub(crate) fn copy_done(out: &mut Vec<u8>) {
    message(out, b'c', |_| {});
}

pub(crate) fn copy_fail(out: &mut Vec<u8>, why: &str) {
    message(out, b'f', |out| text(out, why.as_bytes()));
}

pub(crate) fn terminate(out: &mut Vec<u8>) {
    message(out, b'X', |_| {});
}

/// How a connection begins: protocol 3.0, and what is said of it by name.
pub(crate) fn startup(out: &mut Vec<u8>, said: &[(&str, &str)]) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[0, 3, 0, 0]);
    for (name, value) in said {
        text(out, name.as_bytes());
        text(out, value.as_bytes());
    }
    out.push(0);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// Asks for the end of what a backend does.
pub(crate) fn cancel_request(pid: u32, key: u32) -> [u8; 16] {
    const CODE: [u8; 8] = [0, 0, 0, 16, 4, 210, 22, 46];
    let mut request = [0; 16];
    let parts = [CODE.as_slice(), &pid.to_be_bytes(), &key.to_be_bytes()].concat();
    request.copy_from_slice(&parts);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_sent_as_a_server_takes() {
        assert_eq!(check_length("statement has", 1_000_000_000), Ok(()));
        let refused = check_length("statement has", 1 << 30);
        assert!(refused.is_err_and(|unfit| unfit.0.contains("1073741824 bytes")));
    }
}
