//! Backends of the application's connections, for Python.

use std::sync::Arc;

use pyo3::prelude::*;

use super::control::Server;
use super::errors::from_control;
use super::socket::Socket;
use crate::control::backend::{self, Fate};

/// The backends behind the connections of one pool.
#[pyclass(frozen, module = "poolproof._native")]
pub(crate) struct Backends(Arc<backend::Backends>);

#[pymethods]
impl Backends {
    #[new]
    fn new(server: &Server) -> Self {
        Self(backend::Backends::new(Arc::clone(&server.0)))
    }

    /// Notes the backend of a new connection; None for a socket that the server could not tell from others, and for
    /// a process id that no server has (a pooler makes them up).
    fn meet(&self, socket: &Socket, pid: i64) -> PyResult<Option<Backend>> {
        let (Some(place), Ok(pid)) = (socket.address(), i32::try_from(pid)) else {
            return Ok(None);
        };
        let met = self.0.meet(pid, place);
        Ok(Some(Backend(met.map_err(|error| from_control(&error))?)))
    }
}

/// The backend behind one connection.
#[pyclass(frozen, module = "poolproof._native")]
pub(crate) struct Backend(Arc<backend::Backend>);

#[pymethods]
impl Backend {
    /// True in the process that opened its connection.
    #[getter]
    fn is_ours(&self) -> bool {
        self.0.is_ours()
    }

    /// Its process id on the server.
    #[getter]
    fn pid(&self) -> i32 {
        self.0.pid()
    }

    /// Whether it is known beyond doubt; None while the server was not heard.
    #[getter]
    fn is_recognised(&self) -> Option<bool> {
        self.0.is_recognised()
    }

    /// Ends it, unless it is not known beyond doubt. Returns the number by which `events` tell that it is done.
    fn end(&self) -> PyResult<u64> {
        self.0.end().map_err(|error| from_control(&error))
    }

    /// What became of it, and why it failed; None while that is open.
    fn fate(&self) -> Option<(&'static str, String)> {
        self.0.fate().map(|fate| match fate {
            Fate::Gone => ("gone", String::new()),
            Fate::Cancelled => ("cancelled", String::new()),
            Fate::Terminated => ("terminated", String::new()),
            Fate::LivesOn => ("lives_on", String::new()),
            Fate::Failed(why) => ("failed", why),
            Fate::Unrecognised => ("unrecognised", String::new()),
        })
    }
}
