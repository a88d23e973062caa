//! A connection's parameters for Python: what is given comes as bytes, which may be any, and goes into no message.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;

use super::errors::from_control;
use crate::conninfo::error::ConninfoError;
use crate::conninfo::given::Given;
use crate::conninfo::keyword::KEYWORDS;
use crate::conninfo::{self, Surroundings};
use crate::control::error::ControlError;

pub(crate) fn refused(error: &ConninfoError) -> PyErr {
    from_control(&ControlError::Parameters {
        what: error.to_string(),
    })
}

/// How a connection is to be made.
#[pyclass(frozen, module = "poolproof._native")]
pub(crate) struct Conninfo(pub(crate) Arc<conninfo::Conninfo>);

#[pymethods]
impl Conninfo {
    /// From a connection string, from keywords, or both: the keywords count then.
    #[new]
    #[pyo3(signature = (*, text, keywords, environment, home, user, sockets, defaults, newer))]
    #[allow(clippy::too_many_arguments, reason = "each is a fact of its own")]
    fn new(
        py: Python<'_>,
        text: Option<Vec<u8>>,
        keywords: Vec<(String, Vec<u8>)>,
        environment: HashMap<Vec<u8>, Vec<u8>>,
        home: Option<Vec<u8>>,
        user: Option<String>,
        sockets: Vec<u8>,
        defaults: HashMap<String, Vec<u8>>,
        newer: Vec<(String, String)>,
    ) -> PyResult<Self> {
        let mut given = match text {
            Some(text) => conninfo::parse(&text).map_err(|error| refused(&error))?,
            None => Given::default(),
        };
        for (name, value) in keywords {
            given.set(&name, value);
        }
        let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
        let surroundings = Surroundings {
            environment,
            home: home.map(path),
            user,
            sockets: path(sockets),
            defaults,
            newer,
        };
        let conninfo = conninfo::Conninfo::new(given, surroundings);
        // It reads files, which may take long.
        let resolved = py.detach(|| conninfo.resolve().map(drop));
        resolved.map_err(|error| refused(&error))?;
        Ok(Self(Arc::new(conninfo)))
    }

    /// Where it leads now: host, address, port of each place. No passwords.
    fn places(&self, py: Python<'_>) -> PyResult<Vec<(String, Option<String>, u16)>> {
        let target = py.detach(|| self.0.resolve());
        let target = target.map_err(|error| refused(&error))?;
        let places = target.endpoints.into_iter();
        Ok(places
            .map(|place| (place.host, place.hostaddr, place.port))
            .collect())
    }

    /// Everything but passwords, for a person or a test.
    fn __repr__(&self, py: Python<'_>) -> String {
        match py.detach(|| self.0.resolve()) {
            Ok(target) => format!("{target:?}"),
            Err(error) => format!("<Conninfo: {error}>"),
        }
    }
}

/// What a connection string gives, by keyword, as libpq's `PQconninfoParse` says it.
#[pyfunction]
pub(crate) fn parse_conninfo(text: &[u8]) -> PyResult<Vec<(String, Vec<u8>)>> {
    let given = conninfo::parse(text).map_err(|error| refused(&error))?;
    Ok(given
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_vec()))
        .collect())
}

/// Every keyword of libpq: its name, its variable, what becomes of it.
#[pyfunction]
pub(crate) fn keywords() -> Vec<(&'static str, &'static str, String)> {
    KEYWORDS
        .iter()
        .map(|keyword| (keyword.name, keyword.variable, keyword.shown()))
        .collect()
}
