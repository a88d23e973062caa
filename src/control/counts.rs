//! What the control plane has done in this process, counted for metrics.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::process::per_process::PerProcess;

static RENEWALS: PerProcess<AtomicU64> = PerProcess::new();

/// Renewals of leases that servers have granted to this process, those of leases that are over included.
pub fn renewals() -> u64 {
    RENEWALS
        .get()
        .map_or(0, |count| count.load(Ordering::Relaxed))
}

/// Counts one.
pub(super) fn renewed() {
    match RENEWALS.get_or_make(|| Ok::<_, Infallible>(AtomicU64::new(0))) {
        Ok(count) => count.fetch_add(1, Ordering::Relaxed),
        Err(never) => match never {},
    };
}
