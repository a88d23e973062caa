//! A connection as libpq's parameters describe it: URL, pairs, keywords, `PG*` variables, service and password files.
//!
//! Pure: it is given the environment and reads files, and knows neither Python nor a network. What is given is kept
//! as it came, and resolved anew for each connection, as libpq does: a password or a certificate that changed
//! meanwhile counts. A keyword is taken, has nothing to act on, or is refused by its name (`keyword`).
//!
//! Source: the chapter "libpq" of `PostgreSQL` 18's manual; the order of precedence and the treatment of absent files
//! are those of its `fe-connect.c` and `fe-secure-openssl.c`.

pub mod auth;
pub mod error;
pub mod given;
pub mod keyword;
mod pairs;
mod passfile;
mod resolve;
mod service;
pub mod target;
#[cfg(test)]
mod tests;
mod url;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use self::error::ConninfoError;
use self::given::Given;
use self::target::Target;

/// What a process has for its connections, beside what is given for one.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// Its environment.
    pub environment: HashMap<Vec<u8>, Vec<u8>>,
    /// The home in which files are looked for.
    pub home: Option<PathBuf>,
    /// The name of the system's user, which is the role where nobody names one.
    pub user: Option<String>,
    /// The directory of the server's socket, where nobody names a host.
    pub sockets: PathBuf,
    /// What the installed libpq has compiled in, by keyword, where that is known.
    pub defaults: HashMap<String, Vec<u8>>,
    /// Keywords that the installed libpq has and the table lacks, with their variables.
    pub newer: Vec<(String, String)>,
}

impl Surroundings {
    fn variable(&self, name: &str) -> Option<&[u8]> {
        self.environment.get(name.as_bytes()).map(Vec::as_slice)
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("home", &self.home)
            .finish_non_exhaustive()
    }
}

/// How a connection is to be made: what is given, and where it is given.
#[derive(Clone, Debug)]
pub struct Conninfo {
    given: Given,
    surroundings: Surroundings,
}

impl Conninfo {
    /// Keeps what is given.
    pub fn new(given: Given, surroundings: Surroundings) -> Self {
        Self {
            given,
            surroundings,
        }
    }

    /// Works out where a connection leads, by the environment it was given and by the files as they are now.
    ///
    /// # Errors
    ///
    /// [`ConninfoError`] when that cannot be known, or libpq would be stricter than what can be done here.
    pub fn resolve(&self) -> Result<Target, ConninfoError> {
        resolve::resolve(&self.given, &self.surroundings)
    }
}

/// Reads a connection string, by its beginning.
///
/// # Errors
///
/// [`ConninfoError`]; it quotes nothing that may be a secret.
pub fn parse(text: &[u8]) -> Result<Given, ConninfoError> {
    if text.contains(&0) {
        return Err(ConninfoError::new("a connection string holds no byte 0"));
    }
    match url::split(text) {
        Some((scheme, body)) => url::parse(scheme, body),
        None => pairs::parse(text),
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

fn unknown(name: &str) -> ConninfoError {
    ConninfoError::new(format!(
        "{name} is no keyword of libpq that the control plane knows: it is not left out, since it may be meant to \
         make connections safer"
    ))
}
