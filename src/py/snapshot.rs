//! The numbers of a gate, for Python.

use pyo3::prelude::*;

use crate::pool;

/// What a gate has at one instant.
#[pyclass(frozen, get_all, module = "poolproof._native")]
pub(crate) struct Snapshot {
    idle: usize,
    lent: usize,
    waiting: usize,
    lent_total: u64,
    waited_total: u64,
    maintenance: usize,
    newest_first: bool,
    oldest_wait_s: Option<f64>,
}

impl From<pool::Snapshot> for Snapshot {
    fn from(now: pool::Snapshot) -> Self {
        Self {
            idle: now.idle,
            lent: now.lent,
            waiting: now.waiting,
            lent_total: now.lent_total,
            waited_total: now.waited_total,
            maintenance: now.upkeep,
            newest_first: now.newest_first,
            oldest_wait_s: now.oldest_wait.map(|wait| wait.as_secs_f64()),
        }
    }
}
