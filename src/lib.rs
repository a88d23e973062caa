//! The core of poolproof: who may use which connection, in which process.
//!
//! The modules know nothing of Python; `py` alone, behind the feature `python`, binds them.

#[cfg(not(loom))]
pub mod conninfo;
#[cfg(not(loom))]
pub mod control;
pub mod fault;
pub mod metrics;
pub mod pool;
pub mod process;
#[cfg(feature = "python")]
mod py;
pub mod socket;
#[cfg(not(loom))]
mod tls;
#[cfg(not(loom))]
#[cfg_attr(
    not(feature = "python"),
    allow(dead_code, reason = "the bridge alone uses it, and the tests")
)]
mod wire;

// With the interpreter's lock: docs/decisions says what rested on it and what holds it now, and nobody has seen the
// pool work without.
#[cfg(feature = "python")]
#[pyo3::pymodule(gil_used = true)]
mod _native {
    #[pymodule_export]
    use crate::py::backend::{Backend, Backends};
    #[pymodule_export]
    use crate::py::conninfo::{Conninfo, keywords, parse_conninfo};
    #[pymodule_export]
    use crate::py::control::{LeaseRow, Operation, Question, Questions, Server};
    #[pymodule_export]
    use crate::py::counter::Counter;
    #[pymodule_export]
    use crate::py::errors::{Forked, Refused};
    #[pymodule_export]
    use crate::py::fault::{
        Finding, OwnRow, Price, classify, fault_price, fault_prices, fault_rows, fault_text,
    };
    #[pymodule_export]
    use crate::py::frames::awaiting;
    #[pymodule_export]
    use crate::py::gate::{Gate, Nested, QueueFull, Ticket, Waiter};
    #[pymodule_export]
    use crate::py::lease::{
        BeatCounts, Heartbeat, Lease, durable_commit, events, lease_renewals, leave_all,
        start_control, wait_all_over, wake_events,
    };
    #[pymodule_export]
    use crate::py::process::{forget, forked, generation, sever, severed};
    #[pymodule_export]
    use crate::py::shares::{Share, Shares, Turn};
    #[pymodule_export]
    use crate::py::snapshot::Snapshot;
    #[pymodule_export]
    use crate::py::socket::Socket;
    #[pymodule_export]
    use crate::py::timings::{Distribution, Timings, histogram_bytes, tell_scopes, use_scopes};
    #[pymodule_export]
    use crate::py::wire::{Answer, Column, Columns, Statement, Typed, Wire, WireCopy, WireError};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("EXPORTED_BOUNDS", crate::py::timings::exported_bounds())?;
        module.add("CALL", crate::py::socket::CALL)?;
        module.add("BLOCK", crate::py::socket::BLOCK)?;
        module.add("HOLD", crate::py::socket::HOLD)?;
        // PyO3 makes these at their first use, and lets go of the interpreter's lock in the middle of it: a child of a
        // fork by another thread would wait for ever for what nobody makes there.
        crate::py::gate::attribute(module.py());
        crate::py::frames::make_ready(module.py());
        crate::py::wire::make_ready(module.py())?;
        crate::control::server::make_ready();
        crate::process::hold::install()?;
        crate::process::install().map_err(crate::py::errors::from_register)
    }
}
