//! What a pool counts of times: histograms that many threads write without a lock.
//!
//! Knows neither Python nor pools: lengths and the numbers of scopes are arguments.

pub mod bounds;
pub mod histogram;
pub mod timings;

pub use histogram::{Distribution, Histogram, bytes};
pub use timings::{ScopeId, Timings};
